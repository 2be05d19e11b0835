"""
Count what the record holds, for those who watch it. Bounded, however much it holds.

Every count reads an index up to a limit and no row; which index is in `tables.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    case,
    func,
    literal,
    select,
    union_all,
)

from encoder_core.states import JobStatus
from encoder_db.dialect import db_now
from encoder_db.events import PARKED_UNTIL
from encoder_db.messages import first_due_at
from encoder_db.pools import places_taken
from encoder_db.tables import (
    dead_letters,
    jobs,
    pools,
    queue_owners,
    webhook_attempts,
    webhook_deliveries,
)

COUNTED: Final = 100_000  # index entries of one count: some 30 ms of the database's time
POOLS: Final = 100  # each is a line for every metric that has the pool in it
SENT: Final = 10_000  # attempts to deliver that are read in one go
OVERLAP: Final = 500  # numbers of attempts that are looked at again: they commit out of order

Waiting = Literal["due", "later", "behind"]
"""A delivery that may be sent now, one that failed or is being sent, and one whose turn comes after
an earlier event of its job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCount:
    """What is in one pool."""

    places: int
    """How many jobs may run at once; 0 while it is stopped."""
    taken: int
    queued: int
    """Jobs that wait, also for a back-off or their `startAt`; counted up to COUNTED."""
    oldest_due_s: float
    """For how long the job has been due that has been due for longest; 0 when none is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """What the record holds at one moment."""

    jobs: Mapping[JobStatus, int]
    pools: Mapping[str, PoolCount]
    """By name; the first POOLS of them."""
    deliveries: Mapping[Waiting, int]
    oldest_delivery_s: float
    """For how long the delivery has been due that has been due for longest."""
    dead_letters: int
    """Those that nobody has put back."""


def take_census(tx: Connection) -> Census:
    """Three queries."""
    found = tx.execute(pool_counts()).all()
    counts: dict[tuple[str, str], int] = {
        (row.what, row.which): row.found for row in tx.execute(count_all([r.name for r in found]))
    }
    now, due_at = tx.execute(_oldest_delivery()).one()
    waiting: tuple[Waiting, ...] = ("due", "later", "behind")
    return Census(
        jobs={status: counts["jobs", status.value] for status in JobStatus},
        pools={
            row.name: PoolCount(
                places=row.places,
                taken=row.taken,
                queued=counts["queued", row.name],
                oldest_due_s=_seconds(row.due_at, row.now),
            )
            for row in found
        },
        deliveries={state: counts["deliveries", state] for state in waiting},
        oldest_delivery_s=_seconds(due_at, now),
        dead_letters=counts["dead letters", ""],
    )


def _seconds(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())


def pool_counts() -> Select[Any]:
    """Places and the oldest job of each pool."""
    due_at = select(func.min(first_due_at())).where(queue_owners.c.pool == pools.c.name)
    return (
        select(
            pools.c.name,
            case((pools.c.stop_policy == "None", pools.c.max_concurrency), else_=0).label("places"),
            places_taken(pools.c.name).label("taken"),
            due_at.scalar_subquery().label("due_at"),
            db_now().label("now"),
        )
        .order_by(pools.c.name)
        .limit(POOLS)
    )


def _oldest_delivery() -> Select[Any]:
    first = select(func.min(webhook_deliveries.c.next_attempt_at)).scalar_subquery()
    return select(db_now().label("now"), first.label("due_at"))


def count_all(pool_names: list[str]) -> Any:
    """Everything that is counted, in one statement of rows (`what`, `which`, `found`)."""
    return union_all(*_counts(pool_names))


def _counts(pool_names: list[str]) -> Iterator[Select[str, str, int]]:
    for status in JobStatus:
        yield _count("jobs", status.value, jobs, jobs.c.status == status, index="ix_jobs_by_status")
    for name in pool_names:
        waits = (jobs.c.pool == name) & (jobs.c.status == JobStatus.QUEUED)
        yield _count("queued", name, jobs, waits, index="ix_jobs_by_pool")
    at = webhook_deliveries.c.next_attempt_at
    for state, when in {
        "due": at <= db_now(),
        "later": (at > db_now()) & (at < PARKED_UNTIL),
        "behind": at >= PARKED_UNTIL,
    }.items():
        yield _count(
            "deliveries", state, webhook_deliveries, when, index="ix_webhook_deliveries_claim"
        )
    open_ = dead_letters.c.redriven_at.is_(None)
    yield _count("dead letters", "", dead_letters, open_, index="ix_dead_letters_open")


def _count(
    what: str, which: str, table: Table, where: ColumnElement[bool], *, index: str
) -> Select[str, str, int]:
    """The index is forced: another one would be as good for a small table and not for a large."""
    some = (
        select(table.c.id)
        .where(where)
        .limit(COUNTED)
        .with_hint(table, f"FORCE INDEX ({index})", "mysql")
        .subquery()
    )
    return select(
        literal(what).label("what"), literal(which).label("which"), func.count().label("found")
    ).select_from(some)


class SentTally:
    """
    Counts attempts to deliver by what came of them, from when it is first asked.

    Attempts are numbered when they are written and seen when they are committed, which may be in
    another order: the last numbers are looked at again, and nothing is counted twice.
    """

    def __init__(self, *, page: int = SENT, overlap: int = OVERLAP) -> None:
        self.outcomes: Counter[str] = Counter()
        self._page = page
        self._overlap = overlap
        self._settled: int | None = None
        self._seen: set[int] = set()

    def catch_up(self, tx: Connection) -> None:
        """Count what was sent since. One query."""
        sent = webhook_attempts
        if self._settled is None:
            self._settled = tx.execute(select(func.max(sent.c.id))).scalar_one() or 0
            return
        query = select(sent.c.id, sent.c.outcome).where(sent.c.id > self._settled)
        for row in tx.execute(query.order_by(sent.c.id).limit(self._page)):
            if row.id not in self._seen:
                self._seen.add(row.id)
                self.outcomes[row.outcome] += 1
        if self._seen:
            self._settled = max(self._settled, max(self._seen) - self._overlap)
            self._seen = {number for number in self._seen if number > self._settled}
