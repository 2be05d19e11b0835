"""
Remove jobs with everything that belongs to them; what is still to be announced is kept.

What has many megabytes goes in portions, each in a transaction of its own. With the first the job
is marked as deleted and has only events and inline sources left; its row goes with the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, delete, func, select, update

from encoder_core.states import FINAL_JOB
from encoder_db.blobs import CHUNK_BYTES
from encoder_db.dialect import db_now
from encoder_db.rows import lock_job
from encoder_db.store import Store
from encoder_db.tables import (
    dead_letters,
    job_attempts,
    job_blobs,
    job_events,
    job_logs,
    job_outputs,
    job_progress,
    job_secrets,
    jobs,
    queue_jobs,
    webhook_deliveries,
)

_LIGHT: Final = (
    queue_jobs,
    job_outputs,
    job_attempts,
    job_secrets,
    job_progress,
    job_logs,
    dead_letters,
)
CHILDREN: Final = (*_LIGHT, job_blobs, job_events)

PORTION_BYTES: Final = 16 * 1024 * 1024
"""A server writes as much in a second or two, also into its binary log; a statement has thirty."""


@dataclass(frozen=True, slots=True)
class Weight:
    """How much it is to delete a job."""

    job_id: int
    chunks: int
    """Of its inline sources."""
    events: int
    event_bytes: int
    """Of the latest: a job's document grows, so the earlier ones are hardly larger."""

    @property
    def total_bytes(self) -> int:
        return self.chunks * CHUNK_BYTES + self.events * self.event_bytes


def weigh_jobs(tx: Connection, job_ids: Sequence[int]) -> dict[int, Weight]:
    """The weight of each of these jobs, in one query."""
    chunks = select(func.count()).where(job_blobs.c.job_id == jobs.c.id)
    events = select(func.count()).where(job_events.c.job_id == jobs.c.id)
    latest = (
        select(func.length(job_events.c.payload))
        .where(job_events.c.job_id == jobs.c.id)
        .order_by(job_events.c.seq.desc())
        .limit(1)
    )
    query = select(
        jobs.c.id,
        chunks.scalar_subquery().label("chunks"),
        events.scalar_subquery().label("events"),
        latest.scalar_subquery().label("event_bytes"),
    ).where(jobs.c.id.in_(job_ids))
    return {
        row.id: Weight(row.id, row.chunks, row.events, row.event_bytes or 0)
        for row in tx.execute(query)
    }


def purge_jobs(tx: Connection, job_ids: Sequence[int]) -> None:
    """
    Delete the rows of these jobs, children first, however heavy they are.

    Pending deliveries take their event's body along, since its row goes. The log of what was sent
    stays until it is old.
    """
    _keep_bodies(tx, webhook_deliveries.c.job_id.in_(job_ids))
    for table in CHILDREN:
        tx.execute(delete(table).where(table.c.job_id.in_(job_ids)))
    tx.execute(delete(jobs).where(jobs.c.id.in_(job_ids)))


def _keep_bodies(tx: Connection, of: ColumnElement[bool]) -> None:
    body = (
        select(job_events.c.payload)
        .where(job_events.c.id == webhook_deliveries.c.event_id)
        .scalar_subquery()
    )
    tx.execute(
        update(webhook_deliveries).where(of, webhook_deliveries.c.body.is_(None)).values(body=body)
    )


def purge_deleted(tx: Connection, job_id: int) -> bool:
    """
    Remove a job that is over, or a portion of it when it is heavy. The caller holds its lock.

    False when there is more: nobody sees the job any more, and whoever comes next goes on, with
    `purge_rest`.
    """
    weight = weigh_jobs(tx, [job_id])[job_id]
    if weight.total_bytes <= PORTION_BYTES:
        purge_jobs(tx, [job_id])
        return True
    for table in _LIGHT:
        tx.execute(delete(table).where(table.c.job_id == job_id))
    gone = {"deleted_at": func.coalesce(jobs.c.deleted_at, db_now()), "external_id": None}
    tx.execute(update(jobs).where(jobs.c.id == job_id).values(gone))
    if weight.chunks:
        _delete_chunks(tx, job_id, PORTION_BYTES // CHUNK_BYTES)
    else:
        _delete_latest_events(tx, job_id, max(1, PORTION_BYTES // weight.event_bytes))
    return False


def _delete_chunks(tx: Connection, job_id: int, count: int) -> None:
    columns = job_blobs.c
    some = select(columns.number, columns.chunk).where(columns.job_id == job_id).limit(count)
    for number, chunk in tx.execute(some).all():
        one = (columns.job_id == job_id) & (columns.number == number) & (columns.chunk == chunk)
        tx.execute(delete(job_blobs).where(one))


def _delete_latest_events(tx: Connection, job_id: int, count: int) -> None:
    """The first one goes last: a job has it for as long as it exists."""
    of_job = select(job_events.c.seq).where(job_events.c.job_id == job_id)
    latest = tx.execute(of_job.order_by(job_events.c.seq.desc()).limit(count)).scalars()
    since = min(latest)
    deliveries, events = webhook_deliveries.c, job_events.c
    _keep_bodies(tx, (deliveries.job_id == job_id) & (deliveries.seq >= since))
    tx.execute(delete(job_events).where(events.job_id == job_id, events.seq >= since))


def purge_rest(store: Store, job_id: int) -> None:
    """Remove what is left of a deleted job that is over, portion by portion."""

    def work(tx: Connection) -> bool:
        return lock_job(tx, job_id) is None or purge_deleted(tx, job_id)

    while not store.run(work):
        pass


def deleted_and_over() -> Select[Any]:
    return select(jobs.c.id).where(
        jobs.c.deleted_at.is_not(None), jobs.c.status.in_(sorted(FINAL_JOB))
    )
