"""The operator as a whole: the cache, the loop, and the tasks that run beside the watches."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from encoder_core.errors import EncoderError
from encoder_core.names import JOB_LABEL
from encoder_core.reports import AmbientCredentials
from encoder_core.retries import RetryLimits
from encoder_db import cluster
from encoder_db.pools import list_pools
from encoder_db.queue import release_leases_of
from encoder_db.settings import AttemptSettings, QueueSettings, TransferSettings
from encoder_db.store import Store
from encoder_db.sweep import sweep
from encoder_db.takeover import end_abandoned
from encoder_operator.act import Actor, in_thread
from encoder_operator.cache import Cache
from encoder_operator.dispatch import Dispatcher
from encoder_operator.health import Deaf, Echoes
from encoder_operator.kube import JOBS, PODS, POOLS, Kind, Kube, KubeError
from encoder_operator.limit import Limit
from encoder_operator.loop import Loop
from encoder_operator.metrics import Metrics
from encoder_operator.pods import PodSettings
from encoder_operator.policy import PoolPolicy
from encoder_operator.poolkeeper import PoolKeeper
from encoder_operator.reconcile import Reconciler
from encoder_operator.seen import JobSeen, PodSeen, PoolSeen, parse_job, parse_pod, parse_pool
from encoder_operator.settings import OperatorSettings
from encoder_operator.sizing import Wanted

log = logging.getLogger("encoder.operator")
S = TypeVar("S", JobSeen, PodSeen, PoolSeen)
T = TypeVar("T")

ERROR_PAUSE_S: Final = 5.0
RECORD_AWAY_S: Final = 15.0
"""Since the record last answered. It is asked each second, or five seconds after it failed."""
SWEEP_S: Final = 60.0
LATELY_S: Final = 10.0  # what was stopped since then is told to its resource, if it was not


class Operator:
    """Handlers call `…_changed`; `run` keeps everything else going until it is cancelled."""

    def __init__(
        self,
        store: Store,
        kube: Kube,
        settings: OperatorSettings,
        queue: QueueSettings,
        transfer: TransferSettings,
        ambient: AmbientCredentials,
        *,
        echoes: Echoes,
        metrics: Metrics,
        now: Callable[[], float],
    ) -> None:
        """`now` is a clock that only ever grows."""
        self._store = store
        self._echoes = echoes
        self._metrics = metrics
        store.tell_of_retries(metrics.count_retry)
        self.listed = asyncio.Event()
        """Set once it is known what exists."""
        self._now = now
        self._answered_at = now()
        """When the record last did."""
        self._kube = kube
        self._settings = settings
        self._poll_s = queue.poll_interval_ms / 1000
        self._cache = Cache()
        self._limits = limits = RetryLimits(app=queue.max_attempts)
        # In a container that is started anew, the same: its Pod's name, and process 1.
        self.worker = worker = f"operator-{socket.gethostname()}-{os.getpid()}"
        actor = Actor(
            worker=worker,
            store=store,
            kube=kube,
            cache=self._cache,
            pods=PodSettings(
                image=settings.worker_image,
                image_pull_policy=settings.image_pull_policy,
                service_account=settings.worker_service_account,
            ),
            metrics=metrics,
            wanted=Wanted(
                cpu=settings.cpu,
                cpu_limit=settings.cpu_limit,
                memory=settings.memory,
                scratch=settings.scratch,
            ),
            defaults=PoolPolicy(
                active_deadline_s=settings.deadline_s,
                retries=limits,
                keep_completed=timedelta(seconds=settings.retention_s),
                keep_failed=timedelta(seconds=settings.retention_s),
            ),
            report_url=settings.report_url,
            allowed_cidrs=transfer.allowed_cidrs,
            denied_cidrs=transfer.denied_cidrs,
            ambient=ambient,
            worker_limits=AttemptSettings().limits(deadline_s=settings.deadline_s),
        )
        reconciler = Reconciler(
            store=store,
            kube=kube,
            cache=self._cache,
            actor=actor,
        )
        self._loop = Loop(reconciler, workers=settings.reconcilers, measure=self._measure)
        limit = Limit(settings.max_running)
        self._pools = PoolKeeper(
            store,
            kube,
            self._cache,
            metrics,
            heartbeat_s=settings.canary_s,
            changed=self._wake_pool,
            full=limit.reached,
        )
        self._dispatcher = Dispatcher(
            store=store,
            kube=kube,
            cache=self._cache,
            worker=worker,
            limits=limits,
            poll_s=self._poll_s,
            limit=limit,
            wake=lambda name: self._loop.wake(name, first=True),
            blocked=self._blocked,
            metrics=metrics,
        )

    def unready(self) -> str | None:
        """Why nothing new would start now; None when it would."""
        if not self.listed.is_set():
            return "not everything is listed yet"
        if self._now() - self._answered_at > RECORD_AWAY_S:
            return "the database does not answer"
        return None

    def _blocked(self) -> set[str]:
        return {name for name in self._cache.pools if self._pools.blocked(name)}

    def _measure(self, waited_s: float, took_s: float, well: bool) -> None:
        self._metrics.queue_latency_s.observe(waited_s)
        self._metrics.reconcile_s.labels("done" if well else "failed").observe(took_s)
        self._metrics.queue_depth.set(self._loop.depth)

    # --- What the watches say ------------------------------------------------------------------

    def job_changed(self, event: str | None, body: Mapping[str, Any]) -> None:
        job = parse_job(body)
        self._echoes.hear(JOBS.plural, job.resource_version, listed=event is None)
        if event == "DELETED":
            self._cache.drop_job(job.name, job.uid)
        elif is_news(job, known=self._cache.jobs.get(job.name)):
            self._cache.jobs[job.name] = job
        else:
            return
        self._loop.wake(job.name)

    def pod_changed(self, event: str | None, body: Mapping[str, Any]) -> None:
        version = body["metadata"].get("resourceVersion", "")
        self._echoes.hear(PODS.plural, version, listed=event is None)
        pod = parse_pod(body)
        if pod is None:
            return
        known = self._cache.pods.get(pod.name)
        self._measure_start(known, pod)
        if event == "DELETED":
            self._cache.bury_pod(pod)
        elif is_news(pod, known=known):
            self._cache.put_pod(pod)
        else:
            return
        self._loop.wake(pod.resource)

    def pool_changed(self, event: str | None, body: Mapping[str, Any]) -> None:
        version = body["metadata"].get("resourceVersion", "")
        self._echoes.hear(POOLS.plural, version, listed=event is None)
        pool = parse_pool(body)
        before = self._cache.pools.get(pool.name)
        if event == "DELETED":
            self._cache.drop_pool(pool.name, pool.uid)
        else:
            self._cache.pools[pool.name] = pool
        self._pools.wake(pool.name)
        if before is None or before.generation != pool.generation:
            self._wake_pool(pool.name)

    def _measure_start(self, before: PodSeen | None, pod: PodSeen) -> None:
        """Once for each Pod that was seen before it ran."""
        if before is None or before.uid != pod.uid or before.started_at or not pod.started_at:
            return
        if pod.created_at is None or pod.scheduled_at is None:
            return
        ready_at = pod.sandbox_at or pod.scheduled_at
        for stage, begin, end in (
            ("schedule", pod.created_at, pod.scheduled_at),
            ("start", pod.scheduled_at, ready_at),
            ("pull", ready_at, pod.started_at),
        ):
            took_s = (end - begin).total_seconds()
            self._metrics.pod_start_s.labels(pod.pool, stage).observe(max(0.0, took_s))

    def _wake_pool(self, name: str) -> None:
        """What its jobs are shown, and whether they start, follows from their pool."""
        self._dispatcher.look()
        for job in self._cache.jobs.values():
            if job.pool == name and not job.done:
                self._loop.wake(job.name)

    # --- What runs beside them -----------------------------------------------------------------

    async def run(self) -> None:
        """List first: nothing is decided before it is known what exists."""
        await self._until_it_works(self._check_served)
        await self._until_it_works(self._resync)
        await self._until_it_works(self._take_back)
        self.listed.set()
        try:
            await self._run_all()
        except BaseExceptionGroup as group:
            deaf = group.subgroup(Deaf)
            if deaf is None:
                raise
            raise Deaf(str(deaf.exceptions[0])) from None

    async def _run_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._loop.run())
            group.create_task(self._pools.run())
            group.create_task(self._dispatcher.run())
            group.create_task(self._every(self._settings.resync_s, self._resync))
            group.create_task(self._every(SWEEP_S, self._sweep))
            group.create_task(self._listen())
            group.create_task(self._every(self._poll_s, self._wake_stopped))
            group.create_task(self._every(self._settings.progress_s, self._wake_active))

    async def _listen(self) -> None:
        """Raises Deaf: a process that exits is started anew, one that limps is not."""
        while True:
            await asyncio.sleep(self._settings.canary_s / 4)
            self._echoes.check()

    async def _check_served(self) -> None:
        try:
            await self._kube.check_served(JOBS, POOLS)
        except KubeError as error:
            if not error.not_found:
                raise
            said = "The cluster does not know TranscodeJobs and TranscodePools: apply crds/"
            raise EncoderError(said) from error

    async def _resync(self) -> None:
        cache = self._cache
        known_jobs, known_pools = dict(cache.jobs), dict(cache.pools)
        known_pods = {name: pod for name, pod in cache.pods.items() if not pod.gone}
        jobs = await self._kube.list_all(JOBS, parse_job)
        pods = await self._kube.list_all(PODS, parse_pod, label=JOB_LABEL)
        pools = await self._kube.list_all(POOLS, parse_pool)
        self._expect_to_hear(JOBS, jobs)
        self._expect_to_hear(PODS, [pod for pod in pods if pod])
        self._expect_to_hear(POOLS, pools)
        self._count_ghosts(JOBS, known_jobs, cache.jobs, {job.name for job in jobs})
        self._count_ghosts(PODS, known_pods, cache.pods, {pod.name for pod in pods if pod})
        self._count_ghosts(POOLS, known_pools, cache.pools, {pool.name for pool in pools})
        changed = cache.replace(
            jobs=renewed(jobs, before=known_jobs, now=cache.jobs),
            pods=renewed(
                [pod for pod in pods if pod is not None], before=known_pods, now=cache.pods
            ),
            pools=renewed(pools, before=known_pools, now=cache.pools),
        )
        for pool in {*known_pools, *cache.pools, *await in_thread(self._recorded_pools)}:
            self._pools.wake(pool)
        for name in changed.union(await self._active()):
            self._loop.wake(name)

    def _expect_to_hear(self, kind: Kind, listed: Sequence[S]) -> None:
        """What others write is echoed too: the watch has told of the latest listed, or will."""
        versions = [int(v) for v in (seen.resource_version for seen in listed) if v.isdigit()]
        if versions and self.listed.is_set():  # before that, watches have not begun
            self._echoes.expect(kind.plural, str(max(versions)))

    def _count_ghosts(
        self, kind: Kind, before: Mapping[str, S], now: Mapping[str, S], listed: set[str]
    ) -> None:
        gone = [n for n in before if n not in listed and now.get(n) is before[n]]
        if gone:
            log.warning("ghosts", extra={"kind": kind.plural, "count": len(gone)})
            self._metrics.ghosts.labels(kind.plural).inc(len(gone))

    def _recorded_pools(self) -> list[str]:
        """Also those whose TranscodePool was deleted while nobody watched: they are to be held."""
        with self._store.read() as tx:
            return [pool.name for pool in list_pools(tx) if pool.engine == "kubernetes"]

    async def _sweep(self) -> None:
        def work() -> None:
            keep_house(self._store, self._metrics, worker=self.worker, limits=self._limits)

        await in_thread(work)

    async def _take_back(self) -> None:
        """What was being admitted when our container was ended, and started anew under its name."""
        released = await in_thread(lambda: release_leases_of(self._store, self.worker))
        if released:
            log.info("leases_released", extra={"messages": released})

    async def _active(self) -> list[str]:
        return await self._ask(cluster.resources_to_watch)

    async def _ask(self, question: Callable[[Connection], T]) -> T:
        def read() -> T:
            with self._store.read() as tx:
                return question(tx)

        found = await in_thread(read)
        self._answered_at = self._now()
        return found

    async def _wake_active(self) -> None:
        """Progress is in the record, not in the cluster: nobody else would write it there."""
        try:
            names = await self._active()
        except DBAPIError:
            # Each then says itself that the record is away.
            names = [job.name for job in self._cache.jobs.values() if not job.done]
        for name in names:
            self._loop.wake(name)

    async def _wake_stopped(self) -> None:
        def read(tx: Connection) -> tuple[list[str], list[str]]:
            lately = cluster.lately_stopped_resources(tx, lately_s=LATELY_S + 2 * self._poll_s)
            return cluster.canceling_resources(tx), lately

        stopping, stopped = await self._ask(read)
        untold = [n for n in stopped if (job := self._cache.jobs.get(n)) and not job.done]
        for name in [*stopping, *untold]:
            self._loop.wake(name, first=True)

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            # Not all at once after a restart, and not in step with other operators.
            await asyncio.sleep(seconds * random.uniform(0.9, 1.1))
            await self._until_it_works(work)

    async def _until_it_works(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except (EncoderError, OSError, DBAPIError) as error:
                log.warning("not_now", extra={"task": work.__name__, "error": str(error)[:500]})
                await asyncio.sleep(ERROR_PAUSE_S)
            else:
                return


def keep_house(store: Store, metrics: Metrics, *, worker: str, limits: RetryLimits) -> None:
    """Mend what crashes left behind. Blocking: for a thread."""
    metrics.slot_leaks.inc(sweep(store).places)
    end_abandoned(store, worker=worker, limits=limits)


def is_news(seen: JobSeen | PodSeen, *, known: JobSeen | PodSeen | None) -> bool:
    """
    Whether a watch tells of a later state than is known.

    What the server answered to a write of ours is known before its watch tells of it, and of what
    was before it. Versions of a server only grow; should they not, a resync sees it.
    """
    if known is None or known.uid != seen.uid:
        return True
    now, before = seen.resource_version, known.resource_version
    return int(now) > int(before) if now.isdigit() and before.isdigit() else now != before


def renewed(listed: Sequence[S], *, before: Mapping[str, S], now: Mapping[str, S]) -> list[S]:
    """
    A list that took a while, with what became known meanwhile: that is newer than the list.

    `before` and `now` are what was known when the list was begun and when it was complete.
    """
    fresh = {seen.name: seen for seen in listed}
    for name in before.keys() | now.keys():
        if name not in now:
            fresh.pop(name, None)
        elif now[name] is not before.get(name):
            fresh[name] = now[name]
    return list(fresh.values())
