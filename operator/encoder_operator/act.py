"""Carry out a decision's steps. Each may run twice, and each may be the last before a crash."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from encoder_core.errors import InvalidRequest, JobError
from encoder_core.failures import failure
from encoder_core.model import REVEAL
from encoder_core.names import pod_name, secret_name
from encoder_core.reports import AmbientCredentials, FinalReport, WorkerLimits
from encoder_core.retries import RetryLimits
from encoder_db import attempts, cluster, jobs
from encoder_db.outcomes import finish_attempt
from encoder_db.store import Store
from encoder_operator.cache import Cache
from encoder_operator.decide import (
    Adopt,
    CancelJob,
    DeletePod,
    DeleteResource,
    Disown,
    FinishAttempt,
    Observed,
    RecordPod,
    StartPod,
    Step,
)
from encoder_operator.kube import JOBS, PODS, SECRETS, Kube, KubeError
from encoder_operator.order import build_order
from encoder_operator.pods import PodSettings, build_pod, build_secret
from encoder_operator.resources import read_spec
from encoder_operator.seen import JobSeen, PodSeen, parse_pod

log = logging.getLogger("encoder.operator")
T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Blocking database calls never run on the event loop."""
    return await asyncio.to_thread(work)


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Everything that steps may touch."""

    store: Store
    kube: Kube
    cache: Cache
    pods: PodSettings
    report_url: str
    allowed_cidrs: tuple[str, ...]
    ambient: AmbientCredentials
    """Copied into the Secret of an attempt, for requests that bring no credentials."""
    worker_limits: WorkerLimits = field(default_factory=WorkerLimits)
    limits: RetryLimits

    async def act(self, step: Step, seen: Observed) -> None:
        match step:
            case Adopt():
                assert seen.job is not None
                await self._adopt(seen.job)
            case Disown(message):
                log.warning("not_ours", extra={"resource": seen.name, "why": message})
            case CancelJob():
                assert seen.row is not None
                uuid = seen.row.uuid
                await in_thread(lambda: jobs.cancel_job(self.store, uuid, owner=None))
            case StartPod(attempt):
                await self._start_pod(seen, attempt)
            case RecordPod(attempt):
                assert seen.row is not None
                await self._record_pod(seen.row.id, attempt, seen.name)
            case DeletePod(name, uid):
                await self.kube.delete(PODS, name, uid=uid)
            case FinishAttempt():
                await self._finish(seen, step)
            case DeleteResource(uid):
                await self.kube.delete(JOBS, seen.name, uid=uid)

    async def _adopt(self, job: JobSeen) -> None:
        try:
            spec = read_spec(job.spec, pool=job.pool)
        except ValidationError as error:
            # The schema lets nothing through that the models refuse; a newer schema may.
            log.warning(
                "not_adopted", extra={"resource": job.name, "problems": error.error_count()}
            )
            return
        keys = self.store.keys

        def record() -> object:
            return self.store.run(
                lambda tx: cluster.adopt_job(tx, spec=spec, name=job.name, uid=job.uid, keys=keys)
            )

        try:
            await in_thread(record)
        except InvalidRequest as error:
            log.warning("not_adopted", extra={"resource": job.name, "why": str(error)})

    async def _start_pod(self, seen: Observed, attempt: int) -> None:
        assert seen.job is not None
        assert seen.row is not None
        job, row = seen.job, seen.row
        token = await in_thread(
            lambda: self.store.run(
                lambda tx: cluster.begin_pod(tx, row.id, attempt, resource=job.name)
            )
        )
        if token is None:
            return  # not current any more: whoever made it so also woke us
        try:
            pod = build_pod(job, attempt, self.pods)
            work = await in_thread(lambda: attempts.read_work(self.store, row.id, attempt))
        except JobError as error:
            await self._end(row.id, attempt, because=error.code, message=str(error))
            return
        if work is None:
            return
        order = build_order(
            work,
            token=token,
            report_url=self.report_url,
            allowed_cidrs=self.allowed_cidrs,
            ambient=self.ambient,
            limits=self.worker_limits,
        )
        text = order.model_dump_json(by_alias=True, exclude_none=True, context=REVEAL)
        try:
            await self._create_secret(job, attempt, build_secret(job, attempt, text))
            await self._create_pod(job, attempt, pod)
        except KubeError as error:
            code = _code_of(error)
            if code is None:
                raise
            await self._end(row.id, attempt, because=code, message=error.message)
            return
        await self._record_pod(row.id, attempt, job.name)
        log.info("pod_created", extra={"job": row.id, "attempt": attempt, "resource": job.name})

    async def _create_secret(self, job: JobSeen, attempt: int, body: dict[str, Any]) -> None:
        try:
            await self.kube.create(SECRETS, body)
        except KubeError as error:
            if not error.exists_already:
                raise
            # Ours, from before a crash: its token is void, and no Pod can have used it yet.
            await self.kube.delete(SECRETS, secret_name(job.name, attempt))
            await self.kube.create(SECRETS, body)

    async def _create_pod(self, job: JobSeen, attempt: int, pod: dict[str, Any]) -> None:
        try:
            body = await self.kube.create(PODS, pod)
        except KubeError as error:
            if not error.exists_already:
                raise
            body = await self.kube.get(PODS, pod_name(job.name, attempt))
            owners = body["metadata"].get("ownerReferences") or []
            if not any(owner["uid"] == job.uid for owner in owners):
                raise  # another's: tried again until it is gone
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

    async def _finish(self, seen: Observed, step: FinishAttempt) -> None:
        assert seen.row is not None
        row, ended = seen.row, step.ended
        if step.lost and await self._still_exists(pod_name(seen.name, step.attempt)):
            return
        pod = seen.pods.get(step.attempt)
        last_word = _last_word(pod) if pod is not None else None
        await self._end(
            row.id,
            step.attempt,
            because=ended.code,
            message=ended.message,
            exit_code=ended.exit_code,
            lost=step.lost,
            last_word=last_word,
        )

    async def _still_exists(self, name: str) -> bool:
        """Ask the API server: that a watch does not show a Pod proves nothing."""
        try:
            self._remember(await self.kube.get(PODS, name))
        except KubeError as error:
            if error.not_found:
                return False
            raise
        return True

    async def _end(
        self,
        job_id: int,
        attempt: int,
        *,
        because: str | None,
        message: str | None = None,
        exit_code: int | None = None,
        lost: bool = False,
        last_word: FinalReport | None = None,
    ) -> None:
        status = await in_thread(
            lambda: finish_attempt(
                self.store,
                job_id,
                attempt,
                exit_code=exit_code,
                lost=lost,
                failure=failure(because, message) if because else None,
                last_word=last_word,
                limits=self.limits,
                jitter=random.random(),
            )
        )
        log.info(
            "attempt_finished",
            extra={
                "job": job_id,
                "attempt": attempt,
                "failure": because,
                "status": status.value if status else "not current",
            },
        )


def _code_of(error: KubeError) -> str | None:
    """What a refused creation means for the attempt. None: tried again as it is."""
    if error.over_quota:
        return "quota_exceeded"
    if error.status == 403:
        return "admission_denied"
    if error.status in (400, 422):
        return "pod_invalid"
    return None


def _last_word(pod: PodSeen) -> FinalReport | None:
    """What the worker left with the kubelet, in case its final report never arrived."""
    if not pod.termination_message:
        return None
    try:
        return FinalReport.model_validate_json(pod.termination_message)
    except ValidationError:
        return None  # the end of its log: it did not get to say anything
