"""The operator as a whole: the cache, the loop, and the tasks that run beside the watches."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar

from sqlalchemy.exc import DBAPIError

from encoder_core.errors import EncoderError
from encoder_core.names import JOB_LABEL
from encoder_core.reports import AmbientCredentials
from encoder_core.retries import RetryLimits
from encoder_db import cluster
from encoder_db.pools import list_pools
from encoder_db.settings import AttemptSettings, QueueSettings, TransferSettings
from encoder_db.store import Store
from encoder_db.sweep import sweep
from encoder_db.takeover import end_abandoned
from encoder_operator.act import Actor, in_thread
from encoder_operator.cache import Cache
from encoder_operator.decide import is_done
from encoder_operator.dispatch import Dispatcher
from encoder_operator.kube import JOBS, PODS, POOLS, Kube
from encoder_operator.loop import Loop
from encoder_operator.pods import PodSettings
from encoder_operator.policy import PoolPolicy
from encoder_operator.poolkeeper import PoolKeeper
from encoder_operator.reconcile import Reconciler
from encoder_operator.seen import JobSeen, PodSeen, PoolSeen, parse_job, parse_pod, parse_pool
from encoder_operator.settings import OperatorSettings
from encoder_operator.sizing import Wanted

log = logging.getLogger("encoder.operator")
S = TypeVar("S", JobSeen, PodSeen, PoolSeen)

ERROR_PAUSE_S: Final = 5.0
SWEEP_S: Final = 60.0


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
    ) -> None:
        self._store = store
        self._kube = kube
        self._settings = settings
        self._poll_s = queue.poll_interval_ms / 1000
        self._cache = Cache()
        self._limits = limits = RetryLimits(app=queue.max_attempts)
        actor = Actor(
            store=store,
            kube=kube,
            cache=self._cache,
            pods=PodSettings(
                image=settings.worker_image,
                image_pull_policy=settings.image_pull_policy,
                service_account=settings.worker_service_account,
            ),
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
            ambient=ambient,
            worker_limits=AttemptSettings().limits(deadline_s=settings.deadline_s),
        )
        reconciler = Reconciler(
            store=store,
            kube=kube,
            cache=self._cache,
            actor=actor,
        )
        self._loop = Loop(reconciler, workers=settings.reconcilers)
        self._pools = PoolKeeper(store, kube, self._cache)
        self._dispatcher = Dispatcher(
            store=store,
            kube=kube,
            cache=self._cache,
            worker=f"operator-{socket.gethostname()}-{os.getpid()}",
            limits=limits,
            poll_s=self._poll_s,
            max_running=settings.max_running,
            wake=self._loop.wake,
        )

    # --- What the watches say ------------------------------------------------------------------

    def job_changed(self, event: str | None, body: Mapping[str, Any]) -> None:
        job = parse_job(body)
        if event == "DELETED":
            self._cache.drop_job(job.name, job.uid)
        else:
            self._cache.jobs[job.name] = job
        self._loop.wake(job.name)

    def pod_changed(self, event: str | None, body: Mapping[str, Any]) -> None:
        pod = parse_pod(body)
        if pod is None:
            return
        if event == "DELETED":
            self._cache.drop_pod(pod.name, pod.uid)
        else:
            self._cache.put_pod(pod)
        self._loop.wake(pod.resource)

    def pool_changed(self, event: str | None, body: Mapping[str, Any]) -> None:
        pool = parse_pool(body)
        before = self._cache.pools.get(pool.name)
        if event == "DELETED":
            self._cache.pools.pop(pool.name, None)
        else:
            self._cache.pools[pool.name] = pool
        self._pools.wake(pool.name)
        if before is None or before.generation != pool.generation:
            self._wake_pool(pool.name)

    def _wake_pool(self, name: str) -> None:
        """What its jobs are shown, and whether they start, follows from their pool."""
        for job in self._cache.jobs.values():
            if job.pool == name and not is_done(job):
                self._loop.wake(job.name)

    # --- What runs beside them -----------------------------------------------------------------

    async def run(self) -> None:
        """List first: nothing is decided before it is known what exists."""
        await self._until_it_works(self._resync)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._loop.run())
            group.create_task(self._pools.run())
            group.create_task(self._dispatcher.run())
            group.create_task(self._every(self._settings.resync_s, self._resync))
            group.create_task(self._every(SWEEP_S, self._sweep))
            group.create_task(self._every(self._poll_s, self._wake_canceling))
            group.create_task(self._every(self._settings.progress_s, self._wake_active))

    async def _resync(self) -> None:
        cache = self._cache
        known_jobs, known_pods, known_pools = dict(cache.jobs), dict(cache.pods), dict(cache.pools)
        jobs = [parse_job(body) for body in await self._kube.list_all(JOBS)]
        pods = [parse_pod(body) for body in await self._kube.list_all(PODS, label=JOB_LABEL)]
        pools = [parse_pool(body) for body in await self._kube.list_all(POOLS)]
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

    def _recorded_pools(self) -> list[str]:
        """Also those whose TranscodePool was deleted while nobody watched: they are to be held."""
        with self._store.read() as tx:
            return [pool.name for pool in list_pools(tx) if pool.engine == "kubernetes"]

    async def _sweep(self) -> None:
        def work() -> None:
            sweep(self._store)
            end_abandoned(self._store, worker=self._dispatcher.worker, limits=self._limits)

        await in_thread(work)

    async def _active(self) -> list[str]:
        def read() -> list[str]:
            with self._store.read() as tx:
                return cluster.resources_to_watch(tx)

        return await in_thread(read)

    async def _wake_active(self) -> None:
        """Progress is in the record, not in the cluster: nobody else would write it there."""
        for name in await self._active():
            self._loop.wake(name)

    async def _wake_canceling(self) -> None:
        def read() -> list[str]:
            with self._store.read() as tx:
                return cluster.canceling_resources(tx)

        for name in await in_thread(read):
            self._loop.wake(name)

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
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
