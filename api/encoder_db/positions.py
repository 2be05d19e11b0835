"""Estimate where a waiting job stands and when it will start. Bounded, however much waits."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, func, select, union_all

from encoder_core.documents import Position
from encoder_core.states import OPEN_ATTEMPT
from encoder_db.dialect import db_now, in_seconds
from encoder_db.tables import job_attempts, jobs, pools, queue_jobs, queue_owners, workers
from encoder_db.workers import ALIVE_S

COUNTED: Final = 1000  # entries of the claim's index read per queue; counting costs as it goes on
QUEUES: Final = 32  # other queues of the pool that are looked into
SAMPLE: Final = 20  # the latest attempts of the pool, whose length is taken for everybody's


def read_position(tx: Connection, job_id: int) -> Position | None:
    """
    The position of a job that waits; None when it is being handed out this moment.

    Five queries, each of which reads an index up to a limit. The order of the claim is followed:
    higher priorities first, owners of one priority in turn.
    """
    held = select(func.count()).where(
        job_attempts.c.pool == jobs.c.pool, job_attempts.c.status.in_(sorted(OPEN_ATTEMPT))
    )
    alive = select(func.coalesce(func.sum(workers.c.capacity), 0)).where(
        workers.c.heartbeat_at > in_seconds(-ALIVE_S)
    )
    query = (
        select(
            *(queue_jobs.c.id, queue_jobs.c.queue, queue_jobs.c.visible_at, jobs.c.pool),
            *(pools.c.engine, pools.c.max_concurrency, pools.c.stop_policy),
            queue_owners.c.priority,
            db_now().label("moment"),
            held.scalar_subquery().label("held"),
            alive.scalar_subquery().label("capacity"),
        )
        .join(jobs, jobs.c.id == queue_jobs.c.job_id)
        .join(queue_owners, queue_owners.c.queue == queue_jobs.c.queue)
        .outerjoin(pools, pools.c.name == jobs.c.pool)
        .where(queue_jobs.c.job_id == job_id, queue_jobs.c.leased_by.is_(None))
    )
    row = tx.execute(query).one_or_none()
    if row is None:
        return None
    own = _count_own(tx, row)
    others, all_queues = _count_others(tx, row, own)
    ahead = own + others
    or_more = own == COUNTED or not all_queues
    places = row.max_concurrency or 0
    if row.engine == "local":
        places = min(places, int(row.capacity))
    expected = None
    if row.stop_policy == "None" and places and not or_more:
        wait_s = estimate_wait_s(
            ahead, places=places, held=row.held, attempt_s=_attempt_s(tx, row.pool)
        )
        if wait_s is not None:
            expected = max(row.visible_at, row.moment + timedelta(seconds=wait_s))
    return Position(ahead=ahead, or_more=or_more, expected_start_at=expected)


def estimate_wait_s(ahead: int, *, places: int, held: int, attempt_s: float | None) -> float | None:
    """
    How long until a place is free for who has so many before them. Pure.

    With `places` taken, one becomes free every `attempt_s / places` seconds. None: no attempt has
    ended yet that could tell how long one takes.
    """
    needed = ahead + 1 - max(places - held, 0)
    if needed <= 0:
        return 0.0
    return None if attempt_s is None else needed * attempt_s / places


def _count_own(tx: Connection, row: Any) -> int:
    """Jobs of the same queue that are due before it."""
    due = queue_jobs.c.visible_at
    before = (due < row.visible_at) | (queue_jobs.c.id < row.id)
    return _count(
        tx,
        queue_jobs.c.queue == row.queue,
        due <= row.visible_at,
        before,
        queue_jobs.c.leased_by.is_(None),
    )


def _count(tx: Connection, *where: Any) -> int:
    some = select(queue_jobs.c.id).where(*where).limit(COUNTED).subquery()
    return tx.execute(select(func.count()).select_from(some)).scalar_one()


def _count_others(tx: Connection, row: Any, own: int) -> tuple[int, bool]:
    """What comes first from the pool's other queues, and whether that is all."""
    found = tx.execute(
        select(queue_owners.c.queue, queue_owners.c.priority)
        .where(
            queue_owners.c.pool == row.pool,
            queue_owners.c.priority <= row.priority,
            queue_owners.c.queue != row.queue,
        )
        .order_by(queue_owners.c.priority)
        .limit(QUEUES + 1)
    ).all()
    if not found:
        return 0, True
    parts = []
    for queue, priority in found[:QUEUES]:
        # Owners of one priority take turns: of each, as many as of its own owner come before it.
        most = COUNTED if priority < row.priority else min(own + 1, COUNTED)
        some = (
            select(queue_jobs.c.id)
            .where(queue_jobs.c.queue == queue, queue_jobs.c.visible_at <= row.moment)
            .limit(most)
            .subquery()
        )
        parts.append(select(func.count().label("ahead")).select_from(some))
    counts = union_all(*parts).subquery()
    total = int(tx.execute(select(func.sum(counts.c.ahead))).scalar_one())
    return total, len(found) <= QUEUES and total < COUNTED


def _attempt_s(tx: Connection, pool: str) -> float | None:
    """How long the pool's latest attempts held their places, on average."""
    query = (
        select(job_attempts.c.created_at, job_attempts.c.finished_at)
        .where(
            job_attempts.c.pool == pool,
            job_attempts.c.finished_at.is_not(None),
        )
        .order_by(job_attempts.c.finished_at.desc())
        .limit(SAMPLE)
    )
    ended: list[tuple[datetime, datetime]] = [(row[0], row[1]) for row in tx.execute(query)]
    if not ended:
        return None
    return sum((end - begin).total_seconds() for begin, end in ended) / len(ended)
