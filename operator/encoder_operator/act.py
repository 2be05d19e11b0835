"""Carry out a decision's steps. Each may run twice, and each may be the last before a crash."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

from pydantic import ValidationError

from encoder_core.errors import InvalidRequest, JobError
from encoder_core.errors import Refused as RequestRefused
from encoder_core.failures import failure, kind_of
from encoder_core.media.explain import assume_source, explain_plan
from encoder_core.model import REVEAL
from encoder_core.names import pod_name, secret_name
from encoder_core.reports import AmbientCredentials, FinalReport, SourceInfo, WorkerLimits
from encoder_core.specs import JobSpec, Priority
from encoder_core.states import FINAL_JOB, JobStatus
from encoder_db import attempts, cluster, jobs
from encoder_db.bump import bump_job
from encoder_db.outcomes import AttemptEnd, finish_attempt
from encoder_db.store import Store
from encoder_operator.cache import Cache
from encoder_operator.decide import (
    Adopt,
    Bump,
    CancelJob,
    DeletePod,
    DeleteResource,
    DeleteSecret,
    Disown,
    FinishAttempt,
    Observed,
    RecordPod,
    Refuse,
    StartPod,
    Step,
)
from encoder_operator.exits import DISRUPTED, Ended
from encoder_operator.identity import lend
from encoder_operator.kube import JOBS, PODS, SECRETS, Kube, KubeError
from encoder_operator.metrics import Metrics
from encoder_operator.order import build_order
from encoder_operator.pods import PodSettings, build_pod, build_secret, deadline_s
from encoder_operator.policy import PoolPolicy
from encoder_operator.resources import read_spec
from encoder_operator.seen import JobSeen, PodSeen, parse_pod
from encoder_operator.sizing import Estimate, Sizes, Tried, Wanted, has_room_to_grow, size_pod

log = logging.getLogger("encoder.operator")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a resource is no job. Not `final`: it may become one."""

    reason: str
    message: str
    final: bool


class NameTaken(Exception):
    """Somebody else's Pod has the name of the one to make. The next attempt's has another."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is a Pod {name} that is not Encoder's.")


async def in_thread(work: Callable[[], T], threads: Executor | None = None) -> T:
    """
    Blocking database calls never run on the event loop.

    `threads`: of somebody who must not wait behind all that is looked at; None is everybody's.
    """
    run = contextvars.copy_context().run
    return await asyncio.get_running_loop().run_in_executor(threads, run, work)


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Everything that steps may touch."""

    store: Store
    kube: Kube
    cache: Cache
    worker: str
    """Which operator this is, among those that run at once."""
    pods: PodSettings
    wanted: Wanted
    defaults: PoolPolicy
    metrics: Metrics
    report_url: str
    allowed_cidrs: tuple[str, ...]
    denied_cidrs: tuple[str, ...]
    ambient: AmbientCredentials
    """What pools lend of ours, for requests that bring no credentials."""
    worker_limits: WorkerLimits = field(default_factory=WorkerLimits)
    """For every attempt; the deadline is its pool's."""

    async def act(self, step: Step, seen: Observed) -> Refused | None:
        """What is to be told of a resource that is no job, if it is none."""
        match step:
            case Adopt():
                assert seen.job is not None
                return await self._adopt(seen.job)
            case Disown(message):
                log.warning("not_ours", extra={"resource": seen.name, "why": message})
                return Refused("NotOurs", message, final=True)
            case Refuse(reason, message, final):
                return Refused(reason, message, final=final)
            case CancelJob():
                assert seen.row is not None
                await self._cancel(seen.row.uuid)
            case Bump(priority):
                assert seen.row is not None
                await self._bump(seen.row.uuid, priority)
            case StartPod(attempt):
                await self._start_pod(seen, attempt)
            case RecordPod(attempt):
                assert seen.row is not None
                await self._record_pod(seen.row.id, attempt, seen.name)
            case DeletePod(name, uid):
                await self.kube.delete(PODS, name, uid=uid)
            case DeleteSecret(attempt):
                await self.kube.delete(SECRETS, secret_name(seen.name, attempt))
            case FinishAttempt():
                await self._finish(seen, step)
            case DeleteResource(uid):
                await self.kube.delete(JOBS, seen.name, uid=uid)
        return None

    async def _cancel(self, uuid: UUID) -> None:
        job = await in_thread(lambda: jobs.cancel_job(self.store, uuid, owner=None))
        if job is not None and job.status is JobStatus.CANCELED:  # it waited: no attempt ends it
            self.metrics.finished.labels(job.pool, job.status.value, "none").inc()

    async def _bump(self, uuid: UUID, priority: Priority) -> None:
        try:
            await in_thread(lambda: bump_job(self.store, uuid, owner=None, priority=priority))
        except RequestRefused as error:  # it was given a place meanwhile, or is gone
            log.info("not_bumped", extra={"job": str(uuid), "why": str(error)})

    async def _adopt(self, job: JobSeen) -> Refused | None:
        try:
            spec = read_spec(job.spec, pool=job.pool)
        except ValidationError as error:
            # The schema lets nothing through that the models refuse; a newer schema may.
            log.warning(
                "not_adopted", extra={"resource": job.name, "problems": error.error_count()}
            )
            return Refused("SpecInvalid", told(error), final=True)
        keys = self.store.keys

        def record() -> object:
            return self.store.run(
                lambda tx: cluster.adopt_job(tx, spec=spec, name=job.name, uid=job.uid, keys=keys)
            )

        try:
            await in_thread(record)
        except InvalidRequest as error:
            log.warning("not_adopted", extra={"resource": job.name, "why": str(error)})
            if any(problem.code == "pool_unknown" for problem in error.problems):
                return Refused(
                    "PoolNotFound", f"There is no TranscodePool {job.pool}.", final=False
                )
            said = "; ".join(f"spec{p.pointer}: {p.detail}" for p in error.problems)
            return Refused("SpecInvalid", said, final=True)
        except RequestRefused as error:
            log.warning("not_adopted", extra={"resource": job.name, "why": str(error)})
            if error.code == "pool_draining":
                said = f"Pool {job.pool} is drained: it takes no new jobs until it is open again."
                return Refused("PoolHeld", said, final=False)
            return Refused("SpecInvalid", str(error), final=True)
        return None

    async def _start_pod(self, seen: Observed, attempt: int) -> None:
        assert seen.job is not None
        assert seen.row is not None
        job, row, policy = seen.job, seen.row, seen.policy
        try:
            work, earlier, estimate = await in_thread(lambda: self._read(row.id, attempt))
            if work is None:
                return
            sizes = size_pod(
                job.spec.get("resources"),
                policy,
                self.wanted,
                estimate=estimate,
                tried=[
                    Tried(sizes=Sizes.of_json(each.resources), failure=each.failure_code)
                    for each in earlier
                    if each.resources
                ],
            )
            avoid = [each.node for each in earlier if each.node and each.failure_code in DISRUPTED]
            pod = build_pod(
                job, attempt, self.pods, policy, sizes, owner=work.owner, avoid_nodes=avoid
            )
        except JobError as error:
            await self._end(seen, attempt, Ended(error.code, str(error)))
            return

        def begin(tx: Any) -> str | None:
            return cluster.begin_pod(tx, row.id, attempt, resources=sizes.to_json(), by=self.worker)

        token = await in_thread(lambda: self.store.run(begin))
        if token is None:
            return  # not current any more: whoever made it so also woke us
        order = build_order(
            work,
            token=token,
            report_url=self.report_url,
            allowed_cidrs=self.allowed_cidrs,
            denied_cidrs=self.denied_cidrs,
            ambient=lend(policy.lending, work.owner, self.ambient),
            limits=self.worker_limits.model_copy(
                update={"deadline_s": float(deadline_s(job, policy))}
            ),
        )
        text = order.model_dump_json(by_alias=True, exclude_none=True, context=REVEAL)
        try:
            secret = build_secret(job, attempt, text)
            if not await self._create_secret(row.id, job, attempt, secret):
                return  # another operator took over
            await self._create_pod(job, attempt, pod)
        except KubeError as error:
            code = _code_of(error)
            if code is None:
                raise
            if code == "quota_exceeded":
                # By our own clock, which those look at who ask; what was seen has the database's.
                until = datetime.now(UTC) + timedelta(seconds=QUOTA_S)
                self.cache.note_quota(policy.name, error.message, until)
            await self._end_unmade(seen, attempt, Ended(code, error.message))
            return
        except NameTaken as error:
            await self._end_unmade(seen, attempt, Ended("pod_invalid", str(error)))
            return
        await self._record_pod(row.id, attempt, job.name)
        log.info("pod_created", extra={"job": row.id, "attempt": attempt, "resource": job.name})

    async def _end_unmade(self, seen: Observed, attempt: int, ended: Ended) -> None:
        """Its Secret first: after a crash between the two it is made anew, and none is left."""
        await self.kube.delete(SECRETS, secret_name(seen.name, attempt))
        await self._end(seen, attempt, ended)

    async def _create_secret(
        self, job_id: int, job: JobSeen, attempt: int, body: dict[str, Any]
    ) -> bool:
        """False when it has become another operator's to make."""
        try:
            await self.kube.create(SECRETS, body)
        except KubeError as error:
            if not error.exists_already:
                raise

            def still(tx: Any) -> bool:
                return cluster.still_begun(tx, job_id, attempt, by=self.worker)

            if not await in_thread(lambda: self.store.run(still)):
                return False
            # Ours, from before a crash: its token is void, and no Pod can have used it yet.
            await self.kube.delete(SECRETS, secret_name(job.name, attempt))
            await self.kube.create(SECRETS, body)
        return True

    async def _create_pod(self, job: JobSeen, attempt: int, pod: dict[str, Any]) -> None:
        try:
            body = await self.kube.create(PODS, pod)
        except KubeError as error:
            if not error.exists_already:
                raise
            body = await self.kube.get(PODS, pod_name(job.name, attempt))
            found = parse_pod(body)
            if found is None and body["metadata"].get("deletionTimestamp") is None:
                raise NameTaken(body["metadata"]["name"]) from None
            if found is None or found.owner != job.uid:
                raise  # on its way out, or of an earlier job of this name: tried again until then
        self._remember(body)

    def _remember(self, body: dict[str, Any]) -> None:
        """The watch will tell later; until then the Pod must not look as if it were gone."""
        pod = parse_pod(body)
        if pod is not None:
            self.cache.put_pod(pod)

    async def _record_pod(self, job_id: int, attempt: int, resource: str) -> None:
        await in_thread(
            lambda: self.store.run(
                lambda tx: cluster.record_pod(tx, job_id, attempt, resource=resource)
            )
        )

    def _read(
        self, job_id: int, attempt: int
    ) -> tuple[attempts.Work | None, list[cluster.EarlierAttempt], Estimate | None]:
        """What a Pod is made by. Blocking, and planning takes milliseconds: for a thread."""
        work = attempts.read_work(self.store, job_id, attempt)
        if work is None:
            return None, [], None
        estimate = estimate_of(work.spec, work.source_info)
        if attempt == 1:
            return work, [], estimate
        with self.store.read() as tx:
            return work, cluster.earlier_attempts(tx, job_id, attempt), estimate

    async def _finish(self, seen: Observed, step: FinishAttempt) -> None:
        if step.gone and await self._still_exists(seen, step.attempt):
            return
        pod = seen.pods.get(step.attempt)
        await self._end(
            seen,
            step.attempt,
            step.ended,
            lost=step.lost,
            last_word=_last_word(pod) if pod is not None else None,
            pod=pod,
        )

    async def _still_exists(self, seen: Observed, attempt: int) -> bool:
        """Ask the API server: that a watch does not show a Pod proves nothing."""
        assert seen.row is not None
        try:
            body = await self.kube.get(PODS, pod_name(seen.name, attempt))
        except KubeError as error:
            if error.not_found:
                return False
            raise
        self._remember(body)
        found = parse_pod(body)
        return found is not None and found.owner == seen.row.resource_uid

    async def _end(
        self,
        seen: Observed,
        attempt: int,
        ended: Ended,
        *,
        lost: bool = False,
        last_word: FinalReport | None = None,
        pod: PodSeen | None = None,
    ) -> None:
        assert seen.row is not None
        job_id, policy = seen.row.id, seen.policy

        def work() -> AttemptEnd | None:
            grows = True
            if pod is not None:
                note_place(self.store, job_id, pod)
            if ended.code in GROWING:
                with self.store.read() as tx:
                    latest = cluster.earlier_attempts(tx, job_id, attempt + 1)
                had = latest[0].resources if latest else None
                grows = not had or has_room_to_grow(Sizes.of_json(had), policy, ended.code)
            return finish_attempt(
                self.store,
                job_id,
                attempt,
                exit_code=ended.exit_code,
                lost=lost,
                failure=failure(ended.code, ended.message) if ended.code else None,
                last_word=last_word,
                may_retry=grows,
                limits=policy.retries,
                jitter=random.random(),
            )

        end = await in_thread(work)
        if end is not None:
            self._measure(seen, attempt, end)
        log.info(
            "attempt_finished",
            extra={
                "job": job_id,
                "attempt": attempt,
                "failure": end.code if end else ended.code,
                "status": end.job.value if end else "not current",
            },
        )

    def _measure(self, seen: Observed, attempt: int, end: AttemptEnd) -> None:
        pool = seen.policy.name
        category = "succeeded" if end.code is None else kind_of(end.code).budget.value
        self.metrics.count_attempt(pool, category, end.code)
        if end.job in FINAL_JOB:
            self.metrics.finished.labels(pool, end.job.value, category).inc()
        pod = seen.pods.get(attempt)
        if pod is None or pod.finished_at is None:
            return
        lag_s = (datetime.now(UTC) - pod.finished_at).total_seconds()
        self.metrics.record_lag_s.labels(pool).observe(max(0.0, lag_s))
        if pod.started_at is not None:
            ran_s = (pod.finished_at - pod.started_at).total_seconds()
            self.metrics.run_s.labels(pool).observe(max(0.0, ran_s))


QUOTA_S: Final = 30.0
"""The shortest back-off of the capacity budget: until then nothing else of the pool is tried."""
GROWING: Final = frozenset({"capacity_memory", "capacity_disk"})


def told(error: ValidationError) -> str:
    """What is wrong with a spec, by its fields; no value is repeated."""
    return "; ".join(
        f"spec.{'.'.join(str(part) for part in each['loc'])}: {each['msg']}"
        for each in error.errors(include_input=False, include_url=False)
    )[:1024]


def estimate_of(spec: JobSpec, known: SourceInfo | None) -> Estimate | None:
    """What the planner expects, by what an earlier attempt learned of the source. Pure."""
    if not spec.outputs:
        return None
    probe = None
    if known is not None and known.duration_s is not None:
        assumed = assume_source(spec)
        probe = replace(assumed, duration_s=known.duration_s, size_bytes=known.size_bytes)
    try:
        resources = explain_plan(spec, probe).resources
    except InvalidRequest:
        return None  # the worker will say what is wrong with it
    return Estimate.of_plan(
        cpu_s_per_second=resources.cpu_seconds_per_second,
        memory_bytes=resources.memory_bytes,
        scratch_bytes=resources.scratch_bytes,
    )


@dataclass(frozen=True, slots=True)
class RefusalRule:
    """One row: what the API server answers to a creation, and what that means for the attempt."""

    looks: str
    """For the documentation."""
    applies: Callable[[KubeError], bool]
    code: str | None
    """None: tried again as it is."""


REFUSAL_RULES: Final = (
    RefusalRule(
        "a right is missing, the namespace is being deleted, or admission has not read yet what it "
        "goes by, or counted a quota",
        lambda e: e.blameless,
        None,
    ),
    RefusalRule("413, or etcd finds it too large", lambda e: e.too_large, "request_impossible"),
    RefusalRule("403 “exceeded quota”", lambda e: e.over_quota, "quota_exceeded"),
    RefusalRule(
        "a policy, a webhook or Pod Security says no, whatever the status",
        lambda e: e.denied,
        "admission_denied",
    ),
    RefusalRule("another 400, 403 or 422", lambda e: e.invalid or e.forbidden, "pod_invalid"),
    RefusalRule("anything else: no answer, 401, 429, 500, …", lambda _: True, None),
)


def _code_of(error: KubeError) -> str | None:
    """What a refused creation means for the attempt. None: tried again as it is."""
    return next(rule.code for rule in REFUSAL_RULES if rule.applies(error))


def note_place(store: Store, job_id: int, pod: PodSeen) -> None:
    """Where a Pod runs and since when, if it was given a node. Blocking: for a thread."""
    node = pod.node
    if node is None:
        return
    store.run(
        lambda tx: cluster.record_place(
            tx,
            job_id,
            pod.attempt,
            node=node,
            scheduled_at=pod.scheduled_at,
            # What an init container's start says is that others' image is there.
            pulled_at=None if pod.init_failed else pod.started_at,
        )
    )


def _last_word(pod: PodSeen) -> FinalReport | None:
    """What the worker left with the kubelet, in case its final report never arrived."""
    if not pod.termination_message:
        return None
    try:
        return FinalReport.model_validate_json(pod.termination_message)
    except ValidationError:
        return None  # the end of its log: it did not get to say anything
