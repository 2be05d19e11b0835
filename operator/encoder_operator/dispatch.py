"""From the queue into the cluster: claim what there is room for, and make its TranscodeJob."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from encoder_core.names import resource_name
from encoder_core.retries import RetryLimits
from encoder_db import attempts, cluster, messages, pools, queue
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
                taken = await self._round()
            except Exception as error:  # the database is away: what runs goes on without us
                log.warning("dispatch_failed", extra={"error": str(error)[:500]})
                taken = 0
            await asyncio.sleep(BUSY_S if taken else self.poll_s)

    async def _round(self) -> int:
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
        resource = await self._resource_of(claimed)
        if resource is None:
            await in_thread(lambda: messages.release(self.store, message, delay_s=OLD_RESOURCE_S))
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
            if existing.conditions.get("ResultRecorded", {}).get("status") == "True":
                self.wake(existing.name)  # of the run before; it is deleted there
                return None
        resource = parse_job(body)
        self.cache.jobs.setdefault(resource.name, resource)
        return resource

    def _output_specs(self, job_id: int) -> list[dict[str, object]]:
        with self.store.read() as tx:
            return cluster.output_specs(tx, job_id)
