"""Take in jobs from many callers: those that arrive while some are written share a transaction."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from encoder_db.intake import Submission, create_jobs
from encoder_db.rows import JobRow
from encoder_db.store import Store

MOST: Final = 64  # statements of this many rows stay far below max_allowed_packet
LARGE_AT_ONCE: Final = 4  # each holds megabytes, and a connection for as long as they take

Waiting = tuple[Submission, "Future[JobRow]"]


class Intake:
    """
    The door for new jobs of one process. One thread writes, for all that wait.

    A job costs a dozen round trips, and a batch costs the same dozen. So the busier the service,
    the cheaper a job; one that comes alone waits for nobody. Whoever asks is answered after the
    commit that has its job, and what is wrong with one job never fails another.

    Callers get a future and need no thread to wait in: in Python, a thread that wakes up takes the
    interpreter from one that works.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._queue: list[Waiting] = []
        self._writing = False
        # Their threads are started with the first job, and end with this object.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="intake")
        self._large = ThreadPoolExecutor(LARGE_AT_ONCE, thread_name_prefix="intake-large")

    @property
    def waiting(self) -> int:
        """How many jobs wait for the transaction that is under way."""
        with self._lock:
            return len(self._queue)

    def submit(self, submission: Submission) -> Future[JobRow]:
        """Accept one job. The future raises what `create_jobs` raises of it."""
        waiting: Waiting = (submission, Future())
        if submission.inline:  # megabytes must not hold up the others
            self._large.submit(lambda: self._write(_not_given_up([waiting])))
            return waiting[1]
        with self._lock:
            self._queue.append(waiting)
            begin, self._writing = not self._writing, True
        if begin:
            self._writer.submit(self._write_all)
        return waiting[1]

    def _write_all(self) -> None:
        """Until nobody waits."""
        while True:
            with self._lock:
                batch, self._queue = self._queue[:MOST], self._queue[MOST:]
                self._writing = bool(batch)
            if not batch:
                return
            self._write(_not_given_up(batch))

    def _write(self, batch: Sequence[Waiting]) -> None:
        if not batch:
            return
        try:
            jobs = self._create([submission for submission, _ in batch])
        except BaseException as error:
            if len(batch) == 1 or not _is_of_one(error):
                for _, answer in batch:
                    answer.set_exception(error)
                return
            for one in batch:  # alone, each gets its own answer
                self._write([one])
        else:
            for (_, answer), job in zip(batch, jobs, strict=True):
                answer.set_result(job)

    def _create(self, submissions: Sequence[Submission]) -> list[JobRow]:
        keys = self._store.keys
        return self._store.run(lambda tx: create_jobs(tx, submissions, keys=keys))


def _is_of_one(error: BaseException) -> bool:
    """
    Whether one of several jobs is at fault, or two collide; a mistake of ours counts as that.

    Otherwise the database is away, and so it is for all of them. Perhaps it has them nevertheless,
    when it went with the commit: whoever tried them one by one could make them twice.
    """
    if isinstance(error, DBAPIError):
        return isinstance(error, (IntegrityError, DataError))
    return isinstance(error, Exception) and not isinstance(error, PoolTimeout)


def _not_given_up(batch: Sequence[Waiting]) -> list[Waiting]:
    """Those for which somebody waits; from now on they cannot be given up."""
    return [one for one in batch if one[1].set_running_or_notify_cancel()]
