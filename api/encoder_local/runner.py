"""Drain the queue into child processes: claim, start, follow, finish; one thread a running job."""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from encoder_core.clock import Clock, SystemClock
from encoder_core.errors import JobError
from encoder_core.failures import Failure, failure
from encoder_core.redaction import Redactor, split_secrets
from encoder_core.reports import Answer, Envelope, LogReport, ProgressReport, WorkOrder
from encoder_core.retries import RetryLimits
from encoder_core.states import FINAL_JOB, JobStatus
from encoder_db import attempts, blobs, jobs, messages, queue, workers
from encoder_db.outcomes import finish_attempt
from encoder_db.reports import apply_report
from encoder_db.rows import Claimed, QueueMessage
from encoder_db.settings import QueueSettings
from encoder_db.store import Store
from encoder_db.takeover import end_abandoned
from encoder_local.child import Child
from encoder_local.order import OrderContext, build_order
from encoder_local.scratch import Scratch

log = logging.getLogger("encoder.local")
T = TypeVar("T")

BEAT_S: Final = 10.0  # GET /workers takes a worker for gone after three of these
KEEP_FAILED_S: Final = 24 * 3600.0  # as long as a failed job's credentials: what a retry needs
CLEAN_S: Final = 3600.0
BUSY_POLL_S: Final = 0.1
TICK_S: Final = 2.0  # how soon a cancel is seen, and leases are looked at, between two polls
STORE_PAUSE_S: Final = 1.0
NO_LEASE: Final = Answer(accepted=True)
"""The record cannot be reached: the worker goes on, but must not publish for longer than it may."""


@dataclass(slots=True)
class Running:
    """A job that this process runs."""

    message: QueueMessage
    claimed: Claimed
    child: Child
    lost: bool = False
    """Its lease went to another worker: whatever it still says counts for nothing."""
    thread: threading.Thread = field(init=False)


def _fields_of(claimed: Claimed) -> dict[str, Any]:
    """What each log line of an attempt says: also which request it came from."""
    fields: dict[str, Any] = {"job": claimed.job.id, "attempt": claimed.attempt}
    if claimed.job.request_id is not None:
        fields["request"] = claimed.job.request_id
    return fields


class LocalRunner:
    """
    Runs jobs of the pools with the local engine, `capacity` at a time.

    `worker` names this installation on this machine: at its start it takes back whatever a
    predecessor of the same name held when it was killed.
    """

    def __init__(
        self,
        store: Store,
        *,
        worker: str,
        capacity: int,
        settings: QueueSettings,
        scratch: Scratch,
        context: OrderContext,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
        spawn: Callable[[WorkOrder], Child] = Child,
    ) -> None:
        self._store = store
        self._worker = worker
        self._capacity = capacity
        self._lease_s = settings.visibility_timeout_ms / 1000
        self._idle_poll_s = settings.poll_interval_ms / 1000
        self._limits = RetryLimits(app=settings.max_attempts)
        self._scratch = scratch
        self._context = context
        self._clock = clock or SystemClock()
        self._jitter = jitter
        self._spawn_child = spawn
        self._taken: list[QueueMessage] = []
        """Claimed, and not yet dealt with: the database went away in between."""
        self._running: dict[int, Running] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop: threading.Event = threading.Event()
        self._due: dict[str, float] = {}

    def wake(self) -> None:
        """Look at the queue now: somebody knows that there is something in it."""
        self._due.pop("claim", None)
        self._wake.set()

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set; then the running workers are asked to end, and waited for."""
        self._stop = stop
        self._persist(lambda: queue.release_leases_of(self._store, self._worker))
        self._persist(self._end_abandoned)
        while not stop.is_set():
            try:
                took = self._tick()
            except DBAPIError as error:
                log.warning("store_unavailable", extra={"error": type(error.orig).__name__})
                self._due.clear()  # leases first of all, as soon as it is back
                self._pause(STORE_PAUSE_S)
                continue
            self._pause(BUSY_POLL_S if took else min(self._idle_poll_s, TICK_S))
        self._shut_down()

    def _tick(self) -> int:
        """One round; the number of jobs taken."""
        if self._is_due("beat", BEAT_S):
            self._beat()
        if self._is_due("extend", self._lease_s / 3):
            self._extend_leases()
        if self._is_due("abandoned", BEAT_S):
            self._end_abandoned()
        if self._is_due("clean", CLEAN_S):
            self._clean_scratch()
        self._stop_canceled()
        free = self._capacity - len(self._running)
        if not self._taken and free > 0 and self._is_due("claim", self._idle_poll_s):
            self._taken = queue.claim(
                self._store, engine="local", worker=self._worker, limit=free, lease_s=self._lease_s
            )
        took = len(self._taken)
        while self._taken:
            # Kept until it is dealt with: to open an attempt twice for a lease is to open it once.
            self._start(self._taken[0])
            del self._taken[0]
        if took:
            self._due.pop("claim", None)
        return took

    # --- One job -----------------------------------------------------------------------------

    def _start(self, message: QueueMessage) -> None:
        if message.job_id in self._running:
            # We lost its lease and got it back: our old worker has to end first.
            messages.release(self._store, message, delay_s=STORE_PAUSE_S)
            return
        claimed = attempts.open_attempt(
            self._store,
            message,
            executor="local",
            worker=self._worker,
            limit=self._capacity,
            limits=self._limits,
        )
        if not isinstance(claimed, Claimed):
            log.info("job_not_admitted", extra={"job": message.job_id, "why": claimed.reason})
            return
        try:
            child, redact = self._spawn(claimed)
        except (JobError, OSError, ValidationError) as error:
            because = error.failure if isinstance(error, JobError) else failure("worker_failed")
            log.error("worker_not_started", extra={"job": claimed.job.id, "why": because.message})
            self._finish(claimed, exit_code=None, because=because)
            return
        running = Running(message, claimed, child)
        running.thread = threading.Thread(
            target=self._follow, args=(running, redact), name=f"job-{claimed.job.id}", daemon=True
        )
        with self._lock:
            self._running[claimed.job.id] = running
        running.thread.start()
        log.info(
            "attempt_started",
            extra={**_fields_of(claimed), "pid": child.pid},
        )
        try:
            attempts.mark_starting(self._store, claimed)
        except DBAPIError as error:
            # The worker's first report makes good for it.
            log.warning("store_unavailable", extra={"error": type(error.orig).__name__})

    def _spawn(self, claimed: Claimed) -> tuple[Child, Redactor]:
        job = claimed.job
        work = attempts.read_work(self._store, job.id, claimed.attempt)
        if work is None:
            raise JobError("worker_lost", "The attempt was not current any more.")
        scratch = self._scratch.make(job.uuid, claimed.attempt)
        order = build_order(
            self._context,
            work,
            token=claimed.token,
            scratch=scratch,
            inline={number: self._write_inline(job.id, number, scratch) for number in work.inline},
            encoded=self._scratch.encoded_earlier(job.uuid, claimed.attempt),
        )
        _, secrets = split_secrets(work.spec)
        return self._spawn_child(order), Redactor([*secrets.values(), claimed.token])

    def _write_inline(self, job_id: int, number: int, scratch: Path) -> Path:
        path = scratch / f"inline-{number}"
        with path.open("wb") as file, self._store.read() as tx:
            for chunk in blobs.read_blob(tx, job_id, number):
                file.write(chunk)
        return path

    def _follow(self, running: Running, redact: Redactor) -> None:
        """Pass on the worker's reports until it ends, then record how it ended."""
        claimed = running.claimed
        extra = _fields_of(claimed)
        because = None
        try:
            code = self._pass_on(running, redact)
        except Exception:  # a mistake of ours ends this attempt, and keeps no place for ever
            log.exception("worker_not_followed", extra=extra)
            running.child.kill()
            running.child.wait()
            code, because = None, failure("worker_failed")
        try:
            if not running.lost:
                self._finish(claimed, exit_code=code, because=because)
        except Exception:  # as above: its lease lapses, and the attempt ends as abandoned
            log.exception("attempt_not_finished", extra=extra)
        finally:
            with self._lock:
                del self._running[claimed.job.id]
            self.wake()

    def _pass_on(self, running: Running, redact: Redactor) -> int:
        """Its reports to the record, its log to ours; its exit code."""
        child = running.child
        extra = _fields_of(running.claimed)

        def forward_log() -> None:
            for line in child.log_lines():
                log.info("worker_says", extra={**extra, "line": redact(line)})

        forwarder = threading.Thread(target=forward_log, daemon=True)
        forwarder.start()
        for envelope in child.reports():
            child.answer(self._apply(envelope))
        code = child.wait()
        forwarder.join()
        log.info("worker_ended", extra={**extra, "exit_code": code})
        return code

    def _apply(self, envelope: Envelope) -> Answer:
        if isinstance(envelope.report, (ProgressReport, LogReport)):
            try:
                return apply_report(self._store, envelope)
            except DBAPIError:
                return NO_LEASE  # the next one is two seconds away
        return self._persist(lambda: apply_report(self._store, envelope)) or NO_LEASE

    def _finish(
        self, claimed: Claimed, *, exit_code: int | None, because: Failure | None = None
    ) -> None:
        end = self._persist(
            lambda: finish_attempt(
                self._store,
                claimed.job.id,
                claimed.attempt,
                exit_code=exit_code,
                failure=because,
                limits=self._limits,
                jitter=self._jitter(),
            )
        )
        log.info(
            "attempt_finished",
            extra={
                **_fields_of(claimed),
                "status": end.job.value if end else "not current",
            },
        )
        if end is not None and end.job in (JobStatus.COMPLETED, JobStatus.CANCELED):
            self._scratch.remove(claimed.job.uuid)
        else:
            self._scratch.keep_encoded(claimed.job.uuid, claimed.attempt)

    # --- All jobs ----------------------------------------------------------------------------

    def _beat(self) -> None:
        with self._lock:
            running = sorted(self._running)
        workers.beat(
            self._store,
            self._worker,
            kind="local",
            host=socket.gethostname(),
            pid=os.getpid(),
            capacity=self._capacity,
            running=running,
        )

    def _extend_leases(self) -> None:
        for running in self._snapshot():
            if not messages.extend(self._store, running.message, self._lease_s):
                log.warning("lease_lost", extra={"job": running.claimed.job.id})
                running.lost = True
                running.child.kill()

    def _end_abandoned(self) -> None:
        with self._lock:
            ours = set(self._running)
        ours.update(message.job_id for message in self._taken)
        end_abandoned(self._store, worker=self._worker, limits=self._limits, besides=ours)

    def _stop_canceled(self) -> None:
        by_id = {running.claimed.job.id: running for running in self._snapshot()}
        if not by_id:
            return
        with self._store.read() as tx:
            opened = attempts.open_attempts(tx, executor="local", worker=self._worker)
        for attempt in opened:
            if attempt.job_status is JobStatus.CANCELING and attempt.job_id in by_id:
                by_id[attempt.job_id].child.stop()

    def _clean_scratch(self) -> None:
        """Drop what no attempt will deliver any more."""
        for uuid in self._scratch.jobs():
            with self._store.read() as tx:
                job = jobs.read_job(tx, uuid, owner=None)
            kept = job is not None and (
                job.status not in FINAL_JOB or self._scratch.age_s(uuid) < KEEP_FAILED_S
            )
            if not kept:
                self._scratch.remove(uuid)

    def _shut_down(self) -> None:
        for running in self._snapshot():
            running.child.stop()
        for running in self._snapshot():
            running.thread.join()
        self._persist(lambda: workers.retire(self._store, self._worker), tries=1)

    def _snapshot(self) -> list[Running]:
        with self._lock:
            return list(self._running.values())

    def _is_due(self, what: str, every_s: float) -> bool:
        now = self._clock.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + every_s
        return True

    def _pause(self, seconds: float) -> None:
        self._wake.wait(seconds)
        self._wake.clear()

    def _persist(self, work: Callable[[], T], *, tries: int | None = None) -> T | None:
        """
        Do it until the database has it. None after `tries`. What it refuses is raised.

        While we are stopping, a database that does not answer is waited for a little only: what
        could not be recorded is found by whoever takes the lease over.
        """
        left = tries
        while True:
            try:
                return work()
            except (OperationalError, InterfaceError) as error:
                log.warning("store_unavailable", extra={"error": type(error.orig).__name__})
                if left is None and self._stop.is_set():
                    left = 5
                if left is not None:
                    left -= 1
                    if left <= 0:
                        return None
                self._clock.sleep(STORE_PAUSE_S)
