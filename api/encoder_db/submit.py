"""Take in jobs from many threads: those that arrive while one is written share a transaction."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from sqlalchemy.exc import IntegrityError

from encoder_core.errors import EncoderError
from encoder_db.intake import Submission, create_jobs
from encoder_db.rows import JobRow
from encoder_db.store import Store

MOST: Final = 64  # statements of this many rows stay far below max_allowed_packet


class _Waiting:
    """One submission and how it went. Its thread sleeps until it is done, or has to write."""

    def __init__(self, submission: Submission) -> None:
        self.submission = submission
        self.job: JobRow | None = None
        self.error: BaseException | None = None
        self._told = threading.Event()

    @property
    def is_done(self) -> bool:
        return self.job is not None or self.error is not None

    def sleep(self) -> None:
        self._told.wait()

    def wake(self) -> None:
        self._told.set()


class Intake:
    """
    The door for new jobs of one process. One thread writes at a time, for all that wait.

    A job costs a dozen round trips, and a batch costs the same dozen. So the busier the service,
    the cheaper a job; one that comes alone waits for nobody. Whoever asks is answered after the
    commit that has its job, and what is wrong with one job never fails another.

    Who has written hands over to the first that waits, and wakes nobody else for nothing: in
    Python, a thread that wakes up takes the interpreter from one that works.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._queue: list[_Waiting] = []
        self._writing = False

    @property
    def waiting(self) -> int:
        """How many jobs wait for the transaction that is under way."""
        with self._lock:
            return len(self._queue)

    def submit(self, submission: Submission) -> JobRow:
        """Accept one job. Raises what `create_jobs` raises of it."""
        waiting = _Waiting(submission)
        if submission.inline is not None:  # megabytes must not hold up the others
            self._write([waiting])
            return _outcome(waiting)
        with self._lock:
            self._queue.append(waiting)
            must_wait, self._writing = self._writing, True
        if must_wait:
            waiting.sleep()
        if not waiting.is_done:
            self._write_and_hand_over()
        return _outcome(waiting)

    def _write_and_hand_over(self) -> None:
        with self._lock:
            batch, self._queue = self._queue[:MOST], self._queue[MOST:]
        self._write(batch)
        with self._lock:
            self._writing = bool(self._queue)
            successors = self._queue[:1]
        for one in (*successors, *batch):
            one.wake()

    def _write(self, batch: Sequence[_Waiting]) -> None:
        try:
            jobs = self._create([one.submission for one in batch])
        except (EncoderError, IntegrityError) as error:
            if len(batch) == 1:
                batch[0].error = error
                return
            # One of them is at fault, or two collide: alone, each gets its own answer.
            for one in batch:
                self._write([one])
        except BaseException as error:  # the database is away: so it is for all of them
            for one in batch:
                one.error = error
        else:
            for one, job in zip(batch, jobs, strict=True):
                one.job = job

    def _create(self, submissions: Sequence[Submission]) -> list[JobRow]:
        keys = self._store.keys
        return self._store.run(lambda tx: create_jobs(tx, submissions, keys=keys))


def _outcome(waiting: _Waiting) -> JobRow:
    if waiting.error is not None:
        raise waiting.error
    assert waiting.job is not None
    return waiting.job
