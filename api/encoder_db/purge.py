"""Remove jobs with everything that belongs to them; what is still to be announced is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, delete, select, update

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

CHILDREN: Final = (
    queue_jobs,
    job_outputs,
    job_attempts,
    job_secrets,
    job_blobs,
    job_progress,
    job_logs,
    job_events,
    dead_letters,
)


def purge_jobs(tx: Connection, job_ids: Sequence[int]) -> None:
    """
    Delete the rows of these jobs, children first.

    Pending deliveries take their event's body along, since its row goes. The log of what was sent
    stays until it is old.
    """
    body = (
        select(job_events.c.payload)
        .where(job_events.c.id == webhook_deliveries.c.event_id)
        .scalar_subquery()
    )
    tx.execute(
        update(webhook_deliveries)
        .where(webhook_deliveries.c.job_id.in_(job_ids), webhook_deliveries.c.body.is_(None))
        .values(body=body)
    )
    for table in CHILDREN:
        tx.execute(delete(table).where(table.c.job_id.in_(job_ids)))
    tx.execute(delete(jobs).where(jobs.c.id.in_(job_ids)))


def purge_deleted(tx: Connection, job_id: int) -> None:
    """Remove a job that was deleted while it ran, now that nothing of it runs."""
    purge_jobs(tx, [job_id])
