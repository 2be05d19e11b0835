"""From the queue into the cluster: claim what there is room for, and make its TranscodeJob."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from encoder_core.failures import failure
from encoder_core.names import resource_name
from encoder_core.retries import RetryLimits
from encoder_db import attempts, cluster, jobs, pools, queue
from encoder_db.rows import Claimed, QueueMessage
from encoder_db.store import Store
from encoder_operator.act import in_thread
from encoder_operator.cache import Cache
from encoder_operator.kube import JOBS, Kube, KubeError
from encoder_operator.resources import build_resource
from encoder_operator.seen import JobSeen, parse_job

log = logging.getLogger("encoder.operator.dispatch")

LEASE_S: Final = 60.0  # from claim to acknowledgement it takes milliseconds; a crash costs this
BATCH: Final = 50
BUSY_S: Final = 0.1
OLD_RESOURCE_S: Final = 1.0
REFUSED_S: Final = 30.0  # an API server that is overloaded, a right that is missing: not for long


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatcher:
    """Only one operator's name is in the leases, but any number may dispatch at once."""

    store: Store
    kube: Kube
    cache: Cache
    worker: str
    limits: RetryLimits
    poll_s: float
    wake: Callable[[str], None]
    """Look at this TranscodeJob."""

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                taken = await self.round()
            except Exception as error:  # the database is away: what runs goes on without us
                log.warning("dispatch_failed", extra={"error": str(error)[:500]})
                taken = 0
            await asyncio.sleep(BUSY_S if taken else self.poll_s)

    async def round(self) -> int:
        room = await in_thread(self._room)
        if room <= 0:
            return 0
        taken = await in_thread(
            lambda: queue.claim(
                self.store,
                engine="kubernetes",
                worker=self.worker,
                limit=min(room, BATCH),
                lease_s=LEASE_S,
            )
        )
        results = await asyncio.gather(
            *(self._admit(message) for message in taken), return_exceptions=True
        )
        for message, result in zip(taken, results, strict=True):
            if isinstance(result, BaseException):
                # Its lease lapses, and the attempt that may be open by then is taken up again.
                log.warning(
                    "not_admitted", extra={"job": message.job_id, "error": str(result)[:500]}
                )
        return len(taken)

    def _room(self) -> int:
        """Free places of all pools of ours. How many of them a pool grants is decided later."""
        with self.store.read() as tx:
            ours = [pool for pool in pools.list_pools(tx) if pool.engine == "kubernetes"]
        return sum(
            max(0, pool.max_concurrency - pool.active)
            for pool in ours
            if pool.stop_policy == "None" and pool.queued
        )

    async def _admit(self, message: QueueMessage) -> None:
        claimed = await in_thread(
            lambda: attempts.open_attempt(
                self.store, message, executor="kubernetes", worker=self.worker, limits=self.limits
            )
        )
        if not isinstance(claimed, Claimed):
            log.info("job_not_admitted", extra={"job": message.job_id, "why": claimed.reason})
            return
        try:
            resource = await self._resource_of(claimed)
        except KubeError as error:
            await self._put_off(claimed, error)
            return
        if resource is None:
            await in_thread(lambda: attempts.withdraw(self.store, claimed, delay_s=OLD_RESOURCE_S))
            return
        bound = await in_thread(
            lambda: self.store.run(
                lambda tx: cluster.bind_resource(
                    tx, claimed.job.id, name=resource.name, uid=resource.uid
                )
            )
        )
        if bound:
            await in_thread(lambda: attempts.mark_starting(self.store, claimed))
        self.wake(resource.name)

    async def _put_off(self, claimed: Claimed, error: KubeError) -> None:
        """There is no resource, so nothing may go on holding a place."""
        job = claimed.job.id
        log.warning("not_admitted", extra={"job": job, "error": str(error)[:500]})
        if not error.invalid:
            await in_thread(lambda: attempts.withdraw(self.store, claimed, delay_s=REFUSED_S))
            return
        because = failure("request_impossible", f"The API server refused it: {error.message}")
        await in_thread(lambda: self.store.run(lambda tx: jobs.fail_queued(tx, job, because)))

    async def _resource_of(self, claimed: Claimed) -> JobSeen | None:
        """The job's TranscodeJob, made if it is missing. None: an old one is still in the way."""
        job = claimed.job
        if job.resource_name is not None and job.resource_uid is not None:
            return JobSeen.known(job.resource_name, job.resource_uid)
        specs = await in_thread(lambda: self._output_specs(job.id))
        try:
            body = await self.kube.create(JOBS, build_resource(job, specs))
        except KubeError as error:
            if not error.exists_already:
                raise
            body = await self.kube.get(JOBS, resource_name(job.uuid))
            existing = parse_job(body)
            recorded = existing.conditions.get("ResultRecorded", {}).get("status") == "True"
            if recorded or existing.deleting:
                self.wake(existing.name)  # of the run before; it is deleted there
                return None
        resource = parse_job(body)
        known = self.cache.jobs.get(resource.name)
        if known is None or known.uid != resource.uid:  # the watch may be behind, or ahead
            self.cache.jobs[resource.name] = resource
        return resource

    def _output_specs(self, job_id: int) -> list[dict[str, object]]:
        with self.store.read() as tx:
            return cluster.output_specs(tx, job_id)
