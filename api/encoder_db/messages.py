"""One message of the queue: written, extended, given back, acknowledged. queue.py claims."""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    ScalarSelect,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    select,
    tuple_,
    update,
)

from encoder_core.specs import Priority
from encoder_db.dialect import by_number, db_now, in_seconds, insert_missing
from encoder_db.rows import JobRow, QueueMessage
from encoder_db.store import Store
from encoder_db.tables import queue_jobs, queue_owners

CLASSES: Final = (Priority.HIGH, Priority.NORMAL, Priority.LOW)
"""In the order in which they are served; the index is the number in a queue's name."""

DEFAULT_WEIGHT: Final = 1

IDLE_S: Final = 24 * 3600.0
"""A queue with nothing in it that was last served longer ago may be forgotten."""

_FRESH: Final = {"deliveries": 0, "failures": 0, "lease_seq": 0}


def queue_key(pool: str, priority: Priority, owner: str) -> str:
    """The queue a job waits in: one per pool, priority and owner, so that claims are equality."""
    return f"{pool}/p{CLASSES.index(priority)}/{owner}"


def has_owner(
    queue: str | ColumnElement[str], *conditions: ColumnElement[bool]
) -> ColumnElement[bool]:
    return exists().where(queue_owners.c.queue == queue, *conditions)


def stays_for_now() -> ColumnElement[bool]:
    """Of a row of `queue_owners`: it cannot be forgotten before hours have passed."""
    return queue_owners.c.last_served_at > in_seconds(-IDLE_S / 2)


def first_due_at() -> ScalarSelect[Any]:
    """
    When the first message of each row of `queue_owners` is due; null where none waits.

    One entry of the claim's index. Only because it is sorted by the queue as well, which changes
    nothing, does MySQL see that the index has this order: it would read all entries of the queue,
    as it does for a MIN.
    """
    columns = queue_jobs.c
    return (
        select(columns.visible_at)
        .where(columns.queue == queue_owners.c.queue)
        .order_by(columns.queue, columns.visible_at)
        .limit(1)
        .with_hint(queue_jobs, "FORCE INDEX (ix_queue_jobs_claim)", "mysql")
        .scalar_subquery()
    )


def register_owner(tx: Connection, *, pool: str, priority: Priority, owner: str) -> None:
    """
    Make a queue known to claimers, with the weight of its owner's others.

    Looked up first: inserting would lock an existing row.
    """
    others = select(func.max(queue_owners.c.weight)).where(queue_owners.c.owner == owner)
    row = {
        "queue": queue_key(pool, priority, owner),
        "pool": pool,
        "priority": CLASSES.index(priority),
        "owner": owner,
        "weight": tx.execute(others).scalar_one() or DEFAULT_WEIGHT,
        "last_served_at": db_now(),
    }
    insert_missing(tx, queue_owners, row)


def keep_queue(tx: Connection, *, pool: str, priority: Priority, owner: str) -> None:
    """
    See to it that claimers know a queue when this transaction is over.

    For one that `stays_for_now` nothing need be done. Here its row is locked, with others who put
    something in, so that it is not forgotten before what comes into the queue can be seen.
    """
    queue = queue_key(pool, priority, owner)
    row = select(queue_owners.c.queue).where(queue_owners.c.queue == queue)
    if tx.execute(row.with_for_update(read=True)).first() is None:
        register_owner(tx, pool=pool, priority=priority, owner=owner)


def forget_idle_queues(tx: Connection, queues: Sequence[str]) -> int:
    """
    Forget those of these queues that have long been empty, unless an owner was given a weight.

    Whoever comes back begins as a new owner does: behind those who wait already.
    """
    row = queue_owners.c
    idle = select(row.queue).where(row.queue.in_(queues), *is_idle())
    locked = by_number(idle, queue_owners).with_for_update(skip_locked=True)
    found = tx.execute(locked).scalars().all()
    # Looked up only now: what was put in before the lock is committed, what comes waits for it.
    filled = select(queue_jobs.c.queue).where(queue_jobs.c.queue.in_(found)).distinct()
    empty = set(found) - set(tx.execute(filled).scalars())
    for queue in sorted(empty):  # by primary key: any other condition might lock more
        tx.execute(_FORGET, {"of": queue})
    return len(empty)


_FORGET: Final = delete(queue_owners).where(queue_owners.c.queue == bindparam("of"))


def is_idle() -> tuple[ColumnElement[bool], ...]:
    """Of a row of `queue_owners`: nobody needs it, if nothing is in the queue."""
    return (
        queue_owners.c.last_served_at < in_seconds(-IDLE_S),
        queue_owners.c.weight == DEFAULT_WEIGHT,
    )


def enqueue(tx: Connection, job: JobRow, *, delay_s: float = 0.0) -> None:
    """Put a queued job into its queue, due after the delay. It must not be in one already."""
    queue = queue_key(job.pool, job.priority, job.owner)
    if not tx.execute(select(has_owner(queue, stays_for_now()))).scalar_one():
        keep_queue(tx, pool=job.pool, priority=job.priority, owner=job.owner)
    tx.execute(
        insert(queue_jobs).values(visible_at=in_seconds(delay_s), enqueued_at=db_now()),
        {"queue": queue, "job_id": job.id, **_FRESH},
    )


def enqueue_new(
    tx: Connection,
    new: Sequence[JobRow],
    *,
    due_at: Sequence[datetime],
    moment: datetime,
    kept_queues: Set[str],
) -> None:
    """
    The same for jobs that were just written, at a moment of the database's clock.

    `kept_queues` are those whose row `stays_for_now`.
    """
    rows = []
    for job, due in zip(new, due_at, strict=True):
        queue = queue_key(job.pool, job.priority, job.owner)
        if queue not in kept_queues:
            keep_queue(tx, pool=job.pool, priority=job.priority, owner=job.owner)
        rows.append(
            {
                "queue": queue,
                "job_id": job.id,
                "visible_at": due,
                "enqueued_at": moment,
                **_FRESH,
            }
        )
    tx.execute(insert(queue_jobs), rows)


def requeue(tx: Connection, job: JobRow, *, delay_s: float = 0.0) -> None:
    """
    The same for a job whose message may still be leased: whoever holds that lease loses it.

    It counts as a new hand-off: what went wrong before is charged to attempts, not to this.
    """
    renewed = tx.execute(
        update(queue_jobs)
        .where(queue_jobs.c.job_id == job.id)
        .values(
            visible_at=in_seconds(delay_s),
            deliveries=0,
            failures=0,
            lease_seq=queue_jobs.c.lease_seq + 1,
            leased_by=None,
            last_error=None,
        )
    )
    if renewed.rowcount == 0:
        enqueue(tx, job, delay_s=delay_s)


def remove(tx: Connection, job_id: int) -> None:
    """Take a job out of its queue, whoever holds its lease."""
    tx.execute(delete(queue_jobs).where(queue_jobs.c.job_id == job_id))


def _leased(message: QueueMessage) -> ColumnElement[bool]:
    return (queue_jobs.c.id == message.id) & (queue_jobs.c.lease_seq == message.lease_seq)


def extend(store: Store, message: QueueMessage, lease_s: float) -> bool:
    """Keep the message for longer. False: the lease was lost, and with it the right to go on."""
    change = update(queue_jobs).where(_leased(message)).values(visible_at=in_seconds(lease_s))
    return store.run(lambda tx: tx.execute(change).rowcount == 1)


def begin_handling(tx: Connection, messages: Collection[QueueMessage]) -> set[int]:
    """
    Attempts begin: the hand-off did its work, so earlier abandoned ones are forgiven.

    This delivery stays counted. Should its worker disappear, the message is a suspect. Returns the
    numbers of the messages whose lease still holds.
    """
    if not messages:
        return set()
    leases = [(message.id, message.lease_seq) for message in messages]
    given = {"message_ids": [message.id for message in messages], "leases": leases}
    if tx.execute(_BEGIN, given).rowcount == len(leases):
        return {message.id for message in messages}
    return set(tx.execute(_HELD, given).scalars())


_ARE_LEASED: Final = queue_jobs.c.id.in_(bindparam("message_ids", expanding=True)) & tuple_(
    queue_jobs.c.id, queue_jobs.c.lease_seq
).in_(bindparam("leases", expanding=True))
_BEGIN: Final = update(queue_jobs).where(_ARE_LEASED).values(deliveries=1, failures=0)
_HELD: Final = select(queue_jobs.c.id).where(_ARE_LEASED)


def give_back(tx: Connection, message: QueueMessage, *, delay_s: float = 0.0) -> bool:
    """Return a message as if it had not been delivered: nobody is to blame."""
    fewer = case((queue_jobs.c.deliveries > 0, queue_jobs.c.deliveries - 1), else_=0)
    change = update(queue_jobs).where(_leased(message))
    returned = change.values(
        visible_at=in_seconds(delay_s),
        deliveries=fewer,
        lease_seq=queue_jobs.c.lease_seq + 1,
        leased_by=None,
    )
    return tx.execute(returned).rowcount == 1


def release(store: Store, message: QueueMessage, delay_s: float = 0.0) -> bool:
    return store.run(lambda tx: give_back(tx, message, delay_s=delay_s))


def nack(tx: Connection, message: QueueMessage, backoff_s: float, error: str) -> bool:
    """Return a message that could not be handed off, with the reason."""
    change = update(queue_jobs).where(_leased(message))
    returned = change.values(
        visible_at=in_seconds(backoff_s),
        failures=queue_jobs.c.failures + 1,
        lease_seq=queue_jobs.c.lease_seq + 1,
        leased_by=None,
        last_error=error[:512],
    )
    return tx.execute(returned).rowcount == 1


def ack(tx: Connection, message: QueueMessage) -> bool:
    """Handed off for good. False: the lease was lost meanwhile."""
    lease = {"message_id": message.id, "lease": message.lease_seq}
    return tx.execute(_ACK, lease).rowcount == 1


_ACK: Final = delete(queue_jobs).where(
    queue_jobs.c.id == bindparam("message_id"), queue_jobs.c.lease_seq == bindparam("lease")
)
