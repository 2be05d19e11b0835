"""What was given up, and putting it back: dead letters, and failed jobs by their failure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, select

from encoder_core.errors import Refused
from encoder_core.states import JobStatus
from encoder_db.jobs import retry_job
from encoder_db.store import Store
from encoder_db.tables import dead_letters, jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that was given up, with where it came from."""

    id: int
    job_id: int
    job_uuid: UUID
    owner: str
    queue: str
    deliveries: int
    failures: int
    reason: str
    last_error: str | None
    enqueued_at: datetime
    dead_at: datetime
    redriven_at: datetime | None


def list_dead_letters(
    tx: Connection, *, owner: str | None, limit: int = 200, before_id: int | None = None
) -> list[DeadLetter]:
    """The latest first. The next page begins before the last id of this one."""
    query = (
        select(
            dead_letters,
            jobs.c.uuid.label("job_uuid"),
            jobs.c.owner,
        )
        .join(jobs, jobs.c.id == dead_letters.c.job_id)
        .where(jobs.c.deleted_at.is_(None))
        .order_by(dead_letters.c.id.desc())
        .limit(limit)
    )
    if owner is not None:
        query = query.where(jobs.c.owner == owner)
    if before_id is not None:
        query = query.where(dead_letters.c.id < before_id)
    names = DeadLetter.__dataclass_fields__
    return [
        DeadLetter(**{name: row[name] for name in names}) for row in tx.execute(query).mappings()
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Redriven:
    """What became of one page of failed jobs."""

    queued: Sequence[int]
    """The jobs that wait again."""
    refused: Sequence[tuple[int, Refused]]
    """The jobs that cannot be tried again as they are, each with the reason."""
    next_after_id: int | None
    """For `after_id`, to go on; None when these were all."""


def redrive_jobs(
    store: Store,
    *,
    owner: str | None,
    failure_code: str,
    pool: str | None = None,
    limit: int = 200,
    after_id: int = 0,
    max_queued: int | None = None,
) -> Redriven:
    """
    Try all failed jobs again that failed for one reason, the oldest first, up to `limit`.

    Each in its own transaction, as with `retry_job`: what is done stays done when one cannot be.
    `abandoned` is the code of dead letters.
    """
    where: list[ColumnElement[bool]] = [
        jobs.c.failure_code == failure_code,
        jobs.c.status == JobStatus.FAILED,
        jobs.c.deleted_at.is_(None),
        jobs.c.id > after_id,
    ]
    if owner is not None:
        where.append(jobs.c.owner == owner)
    if pool is not None:
        where.append(jobs.c.pool == pool)
    with store.read() as tx:
        query = select(jobs.c.id).where(*where).order_by(jobs.c.id).limit(limit + 1)
        found = list(tx.execute(query).scalars())
    queued: list[int] = []
    refused: list[tuple[int, Refused]] = []
    for job_id in found[:limit]:
        try:
            retry_job(store, job_id, owner=owner, max_queued=max_queued)
            queued.append(job_id)
        except Refused as reason:
            refused.append((job_id, reason))
    more = len(found) > limit
    return Redriven(
        queued=queued, refused=refused, next_after_id=found[limit - 1] if more else None
    )
