"""Move a waiting job to the front: before everything else of its owner and priority."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, func, select, update

from encoder_core.documents import JobDocument
from encoder_core.errors import Refused
from encoder_core.specs import Priority
from encoder_core.states import JobStatus
from encoder_db.dialect import db_now
from encoder_db.documents import load_document
from encoder_db.messages import queue_key, register_owner
from encoder_db.rows import JobRef, JobRow, by_ref, lock_job
from encoder_db.store import Store
from encoder_db.tables import jobs, queue_jobs
from encoder_db.transitions import announce_bump

STEP: Final = timedelta(milliseconds=1)  # the precision of SQLite's clock


def bump_job(
    store: Store, ref: JobRef, *, owner: str | None, priority: Priority | None = None
) -> JobDocument:
    """
    Make a waiting job the next of its owner's, in its own priority or in another.

    A back-off or a `startAt` that is not over is over then. Owners go on taking turns, so that
    nobody gets ahead of others by this. Raises Refused: 404 `job_not_found`, 409
    `job_not_queued`.
    """

    def work(tx: Connection) -> JobDocument:
        job = lock_job(tx, by_ref(ref, owner))
        if job is None:
            raise Refused("job_not_found", "there is no such job", status=404)
        if job.status is not JobStatus.QUEUED:
            raise Refused(
                "job_not_queued",
                f"the job is {job.status.value}; only a job that waits can be moved to the front",
                status=409,
            )
        _move(tx, job, priority or job.priority)
        document = load_document(tx, jobs.c.id == job.id)
        assert document is not None
        return document

    return store.run(work)


def _move(tx: Connection, job: JobRow, priority: Priority) -> None:
    queue = queue_key(job.pool, priority, job.owner)
    if priority is not job.priority:
        register_owner(tx, pool=job.pool, priority=priority, owner=job.owner)
    earliest = (
        select(func.min(queue_jobs.c.visible_at))
        .where(queue_jobs.c.queue == queue, queue_jobs.c.visible_at <= db_now())
        .scalar_subquery()
    )
    first, moment = tx.execute(select(earliest, db_now())).one()
    front = (first or moment) - STEP
    # Somebody who holds its lease is about to start it: that stays as it is.
    waits = queue_jobs.c.leased_by.is_(None) | (queue_jobs.c.visible_at <= db_now())
    of_job = queue_jobs.c.job_id == job.id
    tx.execute(update(queue_jobs).where(of_job).values(queue=queue))
    tx.execute(update(queue_jobs).where(of_job, waits).values(visible_at=front))
    announce_bump(tx, job, priority)
