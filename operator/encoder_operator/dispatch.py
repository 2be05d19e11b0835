"""From the queue into the cluster: claim what there is room for, and make its TranscodeJob."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeVar

from sqlalchemy.exc import OperationalError

from encoder_core.failures import failure, kind_of
from encoder_core.names import resource_name
from encoder_core.retries import RetryLimits
from encoder_core.states import JobStatus
from encoder_db import attempts, cluster, jobs, queue
from encoder_db.rows import Claimed, QueueMessage, Refusal
from encoder_db.store import Store
from encoder_operator.act import in_thread
from encoder_operator.cache import Cache
from encoder_operator.kube import JOBS, Kube, KubeError
from encoder_operator.limit import Limit
from encoder_operator.metrics import Metrics
from encoder_operator.resources import build_resource, is_copy
from encoder_operator.seen import JobSeen, parse_job

log = logging.getLogger("encoder.operator.dispatch")
T = TypeVar("T")

LEASE_S: Final = 60.0  # from claim to acknowledgement it takes milliseconds; a crash costs this
BATCH: Final = 8  # whoever comes meanwhile waits for as many to be made
LANES: Final = 2  # one claims while the other's resources are made
THREADS: Final = 4
BUSY_S: Final = 0.1
FAILED_S: Final = 2.0
# The first delay each; it grows as long as nothing changes.
OLD_RESOURCE_S: Final = 1.0
REFUSED_S: Final = 30.0  # an API server that is overloaded, a right that is missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatcher:
    """Only one operator's name is in the leases, but any number may dispatch at once."""

    store: Store
    kube: Kube
    cache: Cache
    worker: str
    limits: RetryLimits
    poll_s: float
    limit: Limit
    wake: Callable[[str], None]
    """Look at this TranscodeJob."""
    blocked: Callable[[], set[str]]
    """Pools in which nothing would get to run: what follows would only wait with the others."""
    metrics: Metrics
    threads: Executor = field(
        default_factory=lambda: ThreadPoolExecutor(THREADS, thread_name_prefix="dispatch")
    )
    """Its own: where hundreds of jobs are looked at, each step would wait for all of them."""
    _claiming: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Two that ask at once what there is room for would both take it."""
    _opened: asyncio.Event = field(default_factory=asyncio.Event)

    def look(self) -> None:
        """Somebody opened a pool, and watches whether anything comes of it."""
        self._opened.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(LANES):
                group.create_task(self._run_lane())

    async def _run_lane(self) -> None:
        while True:
            try:
                taken = await self.round()
            except Exception as error:  # the database is away: what runs goes on without us
                log.warning("dispatch_failed", extra={"error": str(error)[:500]})
                await asyncio.sleep(FAILED_S)
                continue
            with suppress(TimeoutError):
                # Not wait_for: until Python 3.12 it can swallow the end of the process.
                async with asyncio.timeout(BUSY_S if taken else self.poll_s):
                    await self._opened.wait()
            self._opened.clear()

    async def round(self) -> int:
        """How many messages were claimed."""
        async with self._claiming:
            room = await self._in_thread(self._room)
            asked = max(0, min(room.in_pools, room.left, BATCH))
            taken = await self._claim(asked) if asked else []
            granted = await self._in_thread(lambda: self._grant(taken)) if taken else []
            self.limit.note(
                in_pools=room.in_pools,
                left=room.left,
                asked=asked,
                taken=len(taken),
                granted=len(granted),
            )
        results = await asyncio.gather(
            *(self._admit(claimed) for claimed in granted), return_exceptions=True
        )
        for claimed, result in zip(granted, results, strict=True):
            if isinstance(result, BaseException):
                # Its lease lapses, and the attempt that is open by then is taken up again.
                log.warning(
                    "not_admitted", extra={"job": claimed.job.id, "error": str(result)[:500]}
                )
        if any(isinstance(result, KubeError) and result.unreachable for result in results):
            async with self._claiming:
                await self._until_it_is_back()
        return len(taken)

    async def _claim(self, most: int) -> list[QueueMessage]:
        return await self._in_thread(
            lambda: queue.claim(
                self.store,
                engine="kubernetes",
                worker=self.worker,
                limit=most,
                lease_s=LEASE_S,
                besides=self.blocked(),
            )
        )

    async def _until_it_is_back(self) -> None:
        """Each claim meanwhile would use up the number of an attempt."""
        while True:
            await asyncio.sleep(self.poll_s)
            try:
                await self.kube.check_served(JOBS)
            except KubeError as error:
                log.info("api_server_away", extra={"error": str(error)[:500]})
            else:
                return

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await in_thread(work, self.threads)

    def _room(self) -> cluster.FreePlaces:
        """Of all pools of ours together. How many of them a pool grants is decided later."""
        with self.store.read() as tx:
            return cluster.free_places(tx, total=self.limit.most)

    def _grant(self, messages: list[QueueMessage]) -> list[Claimed]:
        """One transaction for all. When one of them cannot be read, it must not stop the others."""
        try:
            results = self._open(messages)
        except OperationalError:
            raise  # the database, not one of the jobs
        except Exception:
            log.exception("batch_refused", extra={"messages": len(messages)})
            results = [result for message in messages for result in self._open_alone(message)]
        for message, result in zip(messages, results, strict=True):
            if isinstance(result, Refusal):
                log.info("job_not_admitted", extra={"job": message.job_id, "why": result.reason})
        return [result for result in results if isinstance(result, Claimed)]

    def _open_alone(self, message: QueueMessage) -> list[Claimed | Refusal]:
        try:
            return self._open([message])
        except Exception as error:  # its lease lapses; again and again, and it is a dead letter
            log.warning("not_admitted", extra={"job": message.job_id, "error": str(error)[:500]})
            return [Refusal("unreadable")]

    def _open(self, messages: list[QueueMessage]) -> list[Claimed | Refusal]:
        return attempts.open_attempts_of(
            self.store,
            messages,
            executor="kubernetes",
            worker=self.worker,
            total=self.limit.most,
            limits=self.limits,
        )

    async def _admit(self, claimed: Claimed) -> None:
        try:
            resource = await self._resource_of(claimed)
        except KubeError as error:
            await self._put_off(claimed, error)
            return
        if resource is None:
            await self._in_thread(
                lambda: attempts.withdraw(self.store, claimed, delay_s=OLD_RESOURCE_S)
            )
            return
        made = attempts.Resource(resource.name, resource.uid)
        try:
            if await self._in_thread(
                lambda: attempts.mark_starting(self.store, claimed, resource=made)
            ):
                self._measure(claimed)
        finally:
            # Also when the record is away: what the watch tells of it is nothing new, and its job
            # may be gone before anybody claims it again.
            self.wake(resource.name)

    def _measure(self, claimed: Claimed) -> None:
        job = claimed.job
        self.metrics.admitted.labels(job.pool).inc()
        if claimed.attempt == 1:
            waited_s = (datetime.now(UTC) - job.created_at).total_seconds()
            self.metrics.admission_wait_s.labels(job.pool).observe(max(0.0, waited_s))

    async def _put_off(self, claimed: Claimed, error: KubeError) -> None:
        """
        There is no resource, so nothing may go on holding a place. Raises the error when nothing
        at all can be made at the moment.
        """
        job = claimed.job.id
        if error.unreachable:
            await self._in_thread(lambda: attempts.withdraw(self.store, claimed, delay_s=0.0))
            raise error
        log.warning("not_admitted", extra={"job": job, "error": str(error)[:500]})
        if error.too_large:
            said = f"source and outputs are too large for a TranscodeJob: {error.message}"
        elif error.invalid:
            said = f"The API server refused it: {error.message}"
        else:
            await self._in_thread(lambda: attempts.withdraw(self.store, claimed, delay_s=REFUSED_S))
            return
        because = failure("request_impossible", said)
        failed = await self._in_thread(
            lambda: self.store.run(lambda tx: jobs.fail_queued(tx, job, because))
        )
        if failed:  # it was not canceled meanwhile
            pool, category = claimed.job.pool, kind_of(because.code).budget.value
            self.metrics.count_attempt(pool, category, because.code)
            self.metrics.finished.labels(pool, JobStatus.FAILED.value, category).inc()

    async def _resource_of(self, claimed: Claimed) -> JobSeen | None:
        """The job's TranscodeJob, made if it is missing. None: an old one is still in the way."""
        job = claimed.job
        if job.resource_name is not None and job.resource_uid is not None:
            return JobSeen.known(job.resource_name, job.resource_uid)
        specs = await self._in_thread(lambda: self._output_specs(job.id))
        wanted = build_resource(job, specs)
        try:
            body = await self.kube.create(JOBS, wanted)
        except KubeError as error:
            if not error.exists_already:
                raise
            body = await self.kube.get(JOBS, resource_name(job.uuid))
            existing = parse_job(body)
            if existing.done or existing.deleting:
                self.wake(existing.name)  # of the run before; it is deleted there
                return None
            if not is_copy(existing.spec, wanted["spec"]):
                # Somebody took the name, to watch, to cancel or to confuse. The name is ours.
                log.warning("forged_resource", extra={"job": job.id, "uid": existing.uid})
                await self.kube.delete(JOBS, existing.name, uid=existing.uid)
                return None
        resource = parse_job(body)
        known = self.cache.jobs.get(resource.name)
        if known is None or known.uid != resource.uid:  # the watch may be behind, or ahead
            self.cache.jobs[resource.name] = resource
        return resource

    def _output_specs(self, job_id: int) -> list[dict[str, object]]:
        with self.store.read() as tx:
            return cluster.output_specs(tx, job_id)
