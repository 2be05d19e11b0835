"""Mend what a crash between two steps left behind. Harmless to run at any time, by anybody."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Select, delete, exists, func, or_, select

from encoder_core.states import ACTIVE_JOB, FINAL_JOB, OPEN_ATTEMPT, AttemptStatus, JobStatus
from encoder_db.dialect import in_seconds
from encoder_db.endings import end_canceled, requeue_job
from encoder_db.events import PARKED_UNTIL, release_next
from encoder_db.messages import enqueue
from encoder_db.outcomes import close_attempt
from encoder_db.purge import deleted_and_over, purge_rest
from encoder_db.rows import JobRow, lock_job, read_attempt, read_open_attempt
from encoder_db.store import Store
from encoder_db.tables import job_attempts, jobs, queue_jobs, webhook_deliveries

log = logging.getLogger(__name__)

PAGE: Final = 500
SETTLE_S: Final = 60.0
"""Younger rows are left alone: whoever writes them may be between two steps right now."""


@dataclass(frozen=True, slots=True)
class Mended:
    """How many of each were found and put right."""

    requeued: int = 0
    restarted: int = 0
    places: int = 0
    purged: int = 0
    messages: int = 0
    deliveries: int = 0


def sweep(store: Store, *, settle_s: float = SETTLE_S) -> Mended:
    """Find rows that no step will touch again, and give each its next step."""
    quiet = jobs.c.updated_at < in_seconds(-settle_s)
    mended = Mended(
        requeued=_each_job(store, _queued_without_message().where(quiet), _enqueue),
        restarted=_each_job(store, _active_without_attempt().where(quiet), _restart)
        + _each_job(store, _local_without_message().where(quiet), _enqueue),
        places=_give_back_places(store),
        purged=_purge(store),
        messages=_drop_messages(store),
        deliveries=_unpark(store),
    )
    if mended != Mended():
        log.warning("sweep_mended", extra={name: getattr(mended, name) for name in _COUNTS})
    return mended


_COUNTS: Final = tuple(Mended.__dataclass_fields__)

_MESSAGE = exists().where(queue_jobs.c.job_id == jobs.c.id)
_ATTEMPT = exists().where(
    job_attempts.c.job_id == jobs.c.id,
    job_attempts.c.number == jobs.c.attempt,
    job_attempts.c.status.in_(sorted(OPEN_ATTEMPT)),
)
_LOCAL_ATTEMPT = exists().where(
    job_attempts.c.job_id == jobs.c.id,
    job_attempts.c.number == jobs.c.attempt,
    job_attempts.c.status.in_(sorted(OPEN_ATTEMPT)),
    job_attempts.c.executor == "local",
)


def _queued_without_message() -> Select[Any]:
    return select(jobs.c.id).where(jobs.c.status == JobStatus.QUEUED, ~_MESSAGE)


def _active_without_attempt() -> Select[Any]:
    return select(jobs.c.id).where(jobs.c.status.in_(sorted(ACTIVE_JOB)), ~_ATTEMPT)


def _local_without_message() -> Select[Any]:
    """The local engine holds the message while it works: without one nobody notices its death."""
    return select(jobs.c.id).where(jobs.c.status.in_(sorted(ACTIVE_JOB)), _LOCAL_ATTEMPT, ~_MESSAGE)


def _each_job(store: Store, query: Select[Any], mend: Callable[[Connection, JobRow], bool]) -> int:
    """Mend the jobs that the query finds, each in its own transaction after a second look."""
    count = 0
    for page in _pages(store, query):
        for job_id in page:

            def work(tx: Connection, job_id: int = job_id) -> bool:
                job = lock_job(tx, job_id)
                still = tx.execute(query.where(jobs.c.id == job_id)).first()
                return job is not None and still is not None and mend(tx, job)

            count += store.run(work)
    return count


def _pages(store: Store, query: Select[Any]) -> Iterator[list[int]]:
    last = 0
    while True:
        with store.read() as tx:
            page = query.where(jobs.c.id > last).order_by(jobs.c.id).limit(PAGE)
            ids = list(tx.execute(page).scalars())
        if not ids:
            return
        yield ids
        last = ids[-1]


def _enqueue(tx: Connection, job: JobRow) -> bool:
    enqueue(tx, job)
    return True


def _restart(tx: Connection, job: JobRow) -> bool:
    if read_open_attempt(tx, job) is not None:
        return False
    if job.status is JobStatus.CANCELING:
        end_canceled(tx, job)
    else:
        requeue_job(tx, job, delay_s=0.0)
    return True


def _purge(store: Store) -> int:
    count = 0
    for page in _pages(store, deleted_and_over()):
        for job_id in page:
            purge_rest(store, job_id)
        count += len(page)
    return count


def _give_back_places(store: Store) -> int:
    """
    End open attempts that are not their job's latest, or whose job is over or gone.

    Whatever ends a job ends its attempt in the same transaction, so there are none; one would make
    its pool smaller for ever, and nobody would see why.
    """
    stale = (
        select(job_attempts.c.job_id, job_attempts.c.number)
        .outerjoin(jobs, jobs.c.id == job_attempts.c.job_id)
        .where(
            job_attempts.c.status.in_(sorted(OPEN_ATTEMPT)),
            or_(
                jobs.c.id.is_(None),
                jobs.c.attempt != job_attempts.c.number,
                jobs.c.status.in_(sorted(FINAL_JOB)),
            ),
        )
    )
    with store.read() as tx:
        found = [(row.job_id, row.number) for row in tx.execute(stale.limit(PAGE))]

    def work(tx: Connection, job_id: int, number: int) -> bool:
        lock_job(tx, job_id)  # whoever is opening or ending an attempt has committed by then
        one = (job_attempts.c.job_id == job_id) & (job_attempts.c.number == number)
        if tx.execute(stale.where(one)).first() is None:
            return False
        attempt = read_attempt(tx, job_id, number)
        if attempt is not None:
            close_attempt(tx, attempt, AttemptStatus.LOST)
        return attempt is not None

    return sum(store.run(lambda tx, at=at: work(tx, *at)) for at in found)  # type: ignore[misc]  # mypy infers no type for a lambda's default


def _drop_messages(store: Store) -> int:
    """Messages of jobs that are over or gone."""
    pointless = (
        select(queue_jobs.c.id)
        .outerjoin(jobs, jobs.c.id == queue_jobs.c.job_id)
        .where(or_(jobs.c.id.is_(None), jobs.c.status.in_(sorted(FINAL_JOB))))
    )
    with store.read() as tx:
        ids = list(tx.execute(pointless.limit(PAGE)).scalars())

    def work(tx: Connection, message_id: int) -> int:
        job_id = tx.execute(
            select(queue_jobs.c.job_id).where(queue_jobs.c.id == message_id)
        ).scalar_one_or_none()
        job = None if job_id is None else lock_job(tx, job_id)
        if job_id is None or (job is not None and not job.is_final):
            return 0
        return tx.execute(delete(queue_jobs).where(queue_jobs.c.id == message_id)).rowcount

    return sum(store.run(lambda tx, mid=mid: work(tx, mid)) for mid in ids)  # type: ignore[misc]  # mypy infers no type for a lambda's default


def parked_jobs(tx: Connection) -> list[int]:
    """Jobs whose deliveries all wait for one that is not there any more."""
    stuck = (
        select(webhook_deliveries.c.job_id)
        .where(webhook_deliveries.c.trigger_kind == "auto")
        .group_by(webhook_deliveries.c.job_id)
        .having(func.min(webhook_deliveries.c.next_attempt_at) >= PARKED_UNTIL)
        .limit(PAGE)
    )
    return list(tx.execute(stuck).scalars())


def unpark(tx: Connection, job_id: int) -> None:
    lock_job(tx, job_id)
    release_next(tx, job_id)


def _unpark(store: Store) -> int:
    with store.read() as tx:
        ids = parked_jobs(tx)
    for job_id in ids:
        store.run(lambda tx, job_id=job_id: unpark(tx, job_id))  # type: ignore[misc]  # as above
    return len(ids)
