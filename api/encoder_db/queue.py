"""Claim from the queue: lease what is due, in an order that an index gives, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    delete,
    func,
    insert,
    literal,
    select,
    true,
    union_all,
    update,
)

from encoder_core.failures import failure
from encoder_core.states import OPEN_ATTEMPT, AttemptStatus, JobStatus
from encoder_db.dialect import claimable, db_now, in_seconds
from encoder_db.endings import end_canceled, fail_job
from encoder_db.fairness import STARVATION_TURN, Holder, Waiting, share_out
from encoder_db.messages import ack, enqueue, extend, first_due_at, nack, release, requeue
from encoder_db.rows import QueueMessage, lock_job, read_open_attempt
from encoder_db.store import Store
from encoder_db.tables import (
    dead_letters,
    job_attempts,
    pools,
    queue_jobs,
    queue_owners,
)

__all__ = [
    "Engine",
    "QueueMessage",
    "ack",
    "claim",
    "dead_letter",
    "enqueue",
    "extend",
    "nack",
    "release",
    "release_leases_of",
    "requeue",
]

Engine = Literal["local", "kubernetes"]

MAX_ABANDONED: Final = 5
"""Hand-offs in a row that ended without a word and without an attempt: then it is a dead letter."""
MAX_FAILURES: Final = 20
"""Hand-offs in a row that were given back with an error."""


def claim(
    store: Store,
    *,
    engine: Engine,
    worker: str,
    limit: int,
    lease_s: float,
    besides: Collection[str] = (),
) -> list[QueueMessage]:
    """
    Lease up to `limit` messages that are due. Ask for what there is room for, never for more.

    A message that was abandoned before is a suspect and comes alone, so that a crash over it
    charges no other. `besides` are pools to leave alone.
    """
    taken: list[QueueMessage] = []
    held: Counter[Holder] = Counter()
    exhausted: set[str] = set()
    lowest_first = next(store.turns) % STARVATION_TURN == 0
    while len(taken) < limit:
        with store.read() as tx:
            waiting = [
                item
                for item in _waiting(tx, engine)
                if item.queue not in exhausted and item.pool not in besides
            ]
        shares = share_out(waiting, limit - len(taken), taken=held, lowest_first=lowest_first)
        holders = {item.queue: item.holder for item in waiting}
        if not shares:
            break
        for share in shares:
            batch = _lease(
                store, share.queue, share.count, worker=worker, lease_s=lease_s, alone=not taken
            )
            if batch.suspect is not None:
                return [batch.suspect]
            taken += batch.messages
            held[holders[share.queue]] += len(batch.messages)
            if len(batch.messages) < share.count:
                exhausted.add(share.queue)
    return taken


def _waiting(tx: Connection, engine: Engine) -> list[Waiting]:
    """The queues with something due, in pools of this engine that are not stopped."""
    return [
        Waiting(
            queue=row.queue,
            pool=row.pool,
            owner=row.owner,
            priority=row.priority,
            weight=row.weight,
            in_flight=row.in_flight,
            last_served_at=row.last_served_at,
            pool_free=row.max_concurrency - int(row.in_pool),  # a sum is a Decimal to MySQL
            owner_free=None if row.max_per_owner is None else row.max_per_owner - row.in_flight,
        )
        for row in tx.execute(waiting_queues(engine))
    ]


@cache
def waiting_queues(engine: Engine) -> Select[Any]:
    """
    The statement that says who waits and who holds what.

    It reads an entry for each queue and one for each open attempt, however many jobs are queued
    and however many attempts are over.
    """
    held = _held_places(engine).cte("held")
    taken = (
        select(held.c.pool, func.sum(held.c.places).label("places"))
        .group_by(held.c.pool)
        .cte("taken")
    )
    return (
        select(
            *(queue_owners.c.queue, queue_owners.c.pool, queue_owners.c.owner),
            *(queue_owners.c.priority, queue_owners.c.weight, queue_owners.c.last_served_at),
            func.coalesce(held.c.places, 0).label("in_flight"),
            func.coalesce(taken.c.places, 0).label("in_pool"),
            *(pools.c.max_concurrency, pools.c.max_per_owner),
        )
        .join(pools, pools.c.name == queue_owners.c.pool)
        .outerjoin(
            held, (held.c.pool == queue_owners.c.pool) & (held.c.owner == queue_owners.c.owner)
        )
        .outerjoin(taken, taken.c.pool == queue_owners.c.pool)
        .where(*_is_served(engine), first_due_at() <= db_now())
    )


def _is_served(engine: Engine) -> tuple[ColumnElement[bool], ...]:
    return pools.c.engine == engine, pools.c.stop_policy == "None"


def _held_places(engine: Engine) -> Select[Any]:
    """
    How many places each owner holds in each pool.

    The statuses are rows to join: with an IN the servers would read all the attempts of a pool,
    also those that are over, because they follow a join by equality alone. MySQL is told the order,
    or it would begin with the attempts for as long as it takes them to be few.
    """
    holding = union_all(
        *(select(literal(status.value).label("status")) for status in sorted(OPEN_ATTEMPT))
    ).subquery("holding")
    attempt = job_attempts.c
    of_pool = (attempt.pool == pools.c.name) & (attempt.status == holding.c.status)
    return (
        select(attempt.pool, attempt.owner, func.count().label("places"))
        .select_from(pools.join(holding, true()).join(job_attempts, of_pool))
        .where(*_is_served(engine))
        .group_by(attempt.pool, attempt.owner)
        .prefix_with("STRAIGHT_JOIN", dialect="mysql")
        .with_hint(job_attempts, "FORCE INDEX (ix_job_attempts_slots)", "mysql")
    )


@dataclass(frozen=True, slots=True)
class _Batch:
    messages: list[QueueMessage]
    suspect: QueueMessage | None = None


def _lease(
    store: Store, queue: str, count: int, *, worker: str, lease_s: float, alone: bool
) -> _Batch:
    """Take from one queue. A suspect is taken only when nothing else was: `alone`."""

    def work(tx: Connection) -> tuple[_Batch, list[RowMapping]]:
        found = tx.execute(due_messages(queue, count)).mappings().all()
        spent = [row for row in found if _is_spent(row)]
        rows = [row for row in found if not _is_spent(row)]
        suspects = [row["deliveries"] > row["failures"] for row in rows]
        if suspects and suspects[0]:
            rows = rows[:1] if alone else []
        elif True in suspects:
            rows = rows[: suspects.index(True)]
        if rows:
            tx.execute(
                update(queue_jobs)
                .where(queue_jobs.c.id.in_([row["id"] for row in rows]))
                .values(
                    visible_at=in_seconds(lease_s),
                    deliveries=queue_jobs.c.deliveries + 1,
                    lease_seq=queue_jobs.c.lease_seq + 1,
                    leased_by=worker,
                )
            )
        messages = [_leased(row) for row in rows]
        if suspects and suspects[0] and messages:
            return _Batch([], messages[0]), spent
        return _Batch(messages), spent

    batch, spent = store.run(work)
    for row in spent:
        dead_letter(store, _message(row), "abandoned")
    if batch.messages or batch.suspect:
        served = update(queue_owners).where(queue_owners.c.queue == queue)
        store.run(lambda tx: tx.execute(served.values(last_served_at=db_now())))
    return batch


def due_messages(queue: str, count: int) -> Any:
    """
    The statement that claims. All its columns are in the select list on purpose.

    With `id` alone the optimiser scans the whole index on small tables.
    """
    columns = queue_jobs.c
    query = (
        select(
            *(columns.id, columns.queue, columns.job_id),
            *(columns.deliveries, columns.failures, columns.lease_seq),
        )
        .where(columns.queue == queue, columns.visible_at <= db_now())
        .order_by(columns.visible_at, columns.id)
        .limit(count)
    )
    return claimable(query, queue_jobs, "ix_queue_jobs_claim")


def _is_spent(row: RowMapping) -> bool:
    abandoned: int = row["deliveries"] - row["failures"]
    return abandoned >= MAX_ABANDONED or row["failures"] >= MAX_FAILURES


def _message(row: RowMapping) -> QueueMessage:
    return QueueMessage(**row)


def _leased(row: RowMapping) -> QueueMessage:
    counted = {"deliveries": row["deliveries"] + 1, "lease_seq": row["lease_seq"] + 1}
    return QueueMessage(**{**row, **counted})


def dead_letter(store: Store, message: QueueMessage, reason: str) -> bool:
    """
    Give a message up: it is kept aside, and its job fails with `abandoned`.

    False, with nothing written, when somebody leased it since.
    """

    def work(tx: Connection) -> bool:
        job = lock_job(tx, message.job_id)
        held = select(queue_jobs).where(
            queue_jobs.c.id == message.id, queue_jobs.c.lease_seq == message.lease_seq
        )
        row = tx.execute(held.with_for_update()).mappings().one_or_none()
        if row is None:
            return False
        tx.execute(delete(queue_jobs).where(queue_jobs.c.id == message.id))
        if job is None or job.is_final:
            return True
        kept = ("job_id", "queue", "deliveries", "failures", "last_error", "enqueued_at")
        letter = {name: row[name] for name in kept}
        tx.execute(insert(dead_letters).values(**letter, reason=reason, dead_at=db_now()))
        attempt = read_open_attempt(tx, job)
        if attempt is not None:
            tx.execute(
                update(job_attempts)
                .where(job_attempts.c.job_id == job.id, job_attempts.c.number == attempt.number)
                .values(status=AttemptStatus.LOST, finished_at=db_now())
            )
        if job.status is JobStatus.CANCELING:
            end_canceled(tx, job)
        else:
            fail_job(tx, job, failure("abandoned"))
        return True

    return store.run(work)


def release_leases_of(store: Store, worker: str) -> int:
    """
    Give back what this worker had leased before it died. For a worker that starts.

    The messages take their old places, before everything that came later. The attempts that were
    under way end with `end_abandoned`, or when their messages are claimed again.
    """

    def work(tx: Connection) -> int:
        # By primary key: an update over this condition would lock every row that it looks at.
        leased = select(queue_jobs.c.id).where(queue_jobs.c.leased_by == worker)
        released = 0
        for message_id in tx.execute(leased).scalars().all():
            change = update(queue_jobs).where(
                queue_jobs.c.id == message_id, queue_jobs.c.leased_by == worker
            )
            released += tx.execute(
                change.values(
                    visible_at=queue_jobs.c.enqueued_at,
                    lease_seq=queue_jobs.c.lease_seq + 1,
                    leased_by=None,
                )
            ).rowcount
        return released

    return store.run(work)
