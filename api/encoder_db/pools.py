"""Pools: how many jobs of a kind run at once, on which engine, and whether new ones start."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import add
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Connection, func, insert, literal, null, select, update
from sqlalchemy.exc import IntegrityError

from encoder_core.errors import Refused
from encoder_core.states import OPEN_ATTEMPT, AttemptStatus, JobStatus
from encoder_db.dialect import db_now
from encoder_db.messages import first_due_at
from encoder_db.queue import Engine
from encoder_db.tables import job_attempts, jobs, pools, queue_owners

StopPolicy = Literal["None", "Hold", "Drain"]
"""`Hold`: a pause; jobs are accepted and wait, what runs goes on. `Drain`: taken out of service;
besides, new jobs and retries are refused. What waits in it waits until it is open again."""

DELETED: Final = "its TranscodePool was deleted"
"""Why nothing starts in a pool of the cluster that the cluster has no more."""
_MAX_RUNNING: Final = "(ENCODER_OPERATOR_MAX_RUNNING)."


def operator_full(*, running: int, most: int) -> str:
    """Why nothing starts in any pool of the cluster: its operator runs as many as it may."""
    if most == 0:
        return f"The operator starts nothing: it may run 0 jobs {_MAX_RUNNING}"
    return f"The operator runs {running} of at most {most} jobs {_MAX_RUNNING}"


def is_operator_full(blocked: str | None) -> bool:
    return blocked is not None and blocked.endswith(_MAX_RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRow:
    name: str
    engine: Engine
    max_concurrency: int
    stop_policy: StopPolicy
    max_per_owner: int | None
    """Places that one owner may hold; None is no such limit."""
    blocked: str | None
    """Why the cluster starts nothing in it at the moment, in words."""
    active: int
    """Places taken now."""
    pending: int
    """Of these, whose worker has not reported yet."""
    queued: int
    """Jobs that wait, also those whose back-off is not over."""
    oldest_queued_at: datetime | None
    """Since when the one that has been due for longest waits."""
    created_at: datetime
    updated_at: datetime


def places_taken(
    pool: ColumnElement[str], statuses: Collection[AttemptStatus] = OPEN_ATTEMPT
) -> ColumnElement[int]:
    """
    How many open attempts the pool of a row has.

    One count for each status: for an IN, the pool being that of a row, MySQL and MariaDB would read
    all attempts of the pool, also those that are over.
    """
    counts: list[ColumnElement[int]] = [
        select(func.count())
        .where(job_attempts.c.pool == pool, job_attempts.c.status == status)
        .scalar_subquery()
        for status in sorted(statuses)
    ]
    return reduce(add, counts)


def _query(*, counts_queued: bool) -> Any:
    # An index entry for each that waits: with 100,000 of them that is no question for every second.
    queued = select(func.count()).where(
        jobs.c.pool == pools.c.name, jobs.c.status == JobStatus.QUEUED
    )
    oldest = select(func.min(first_due_at())).where(queue_owners.c.pool == pools.c.name)
    return select(
        pools,
        places_taken(pools.c.name).label("active"),
        places_taken(pools.c.name, [AttemptStatus.CREATED]).label("pending"),
        queued.scalar_subquery().label("queued") if counts_queued else literal(0).label("queued"),
        oldest.scalar_subquery().label("oldest_queued_at")
        if counts_queued
        else null().label("oldest_queued_at"),
    ).order_by(pools.c.name)


def _row(row: Any) -> PoolRow:
    names = PoolRow.__dataclass_fields__
    return PoolRow(**{name: row[name] for name in names})


def has_pool(tx: Connection, name: str) -> bool:
    return tx.execute(select(pools.c.name).where(pools.c.name == name)).first() is not None


def list_pools(tx: Connection) -> list[PoolRow]:
    return [_row(row) for row in tx.execute(_query(counts_queued=True)).mappings()]


def read_pool(tx: Connection, name: str) -> PoolRow | None:
    row = tx.execute(_query(counts_queued=True).where(pools.c.name == name)).mappings().first()
    return None if row is None else _row(row)


def read_places(tx: Connection, name: str) -> tuple[PoolRow, datetime] | None:
    """A pool without `queued` and `oldest_queued_at`, and the time: one cheap query."""
    query = _query(counts_queued=False).add_columns(db_now().label("now"))
    row = tx.execute(query.where(pools.c.name == name)).mappings().first()
    return None if row is None else (_row(row), row["now"])


def create_pool(
    tx: Connection,
    name: str,
    *,
    engine: Engine,
    max_concurrency: int,
    max_per_owner: int = 0,
) -> PoolRow:
    """`max_per_owner` 0 is no such limit. Raises Refused (409) when the pool exists."""
    row = {
        "name": name,
        "engine": engine,
        "max_concurrency": max_concurrency,
        "stop_policy": "None",
        "max_per_owner": max_per_owner or None,
        "created_at": db_now(),
        "updated_at": db_now(),
    }
    try:
        tx.execute(insert(pools).values(row))
    except IntegrityError:
        raise Refused("pool_exists", f"the pool {name!r} exists", status=409) from None
    made = read_pool(tx, name)
    assert made is not None
    return made


def set_pool(
    tx: Connection,
    name: str,
    *,
    max_concurrency: int | None = None,
    stop_policy: StopPolicy | None = None,
    max_per_owner: int | None = None,
) -> PoolRow | None:
    """
    Change what is given. It holds from the next claim on; nothing that runs is stopped.

    `max_per_owner` 0 takes that limit away.
    None when there is no such pool. Raises Refused (409) for a pool that the cluster rules.
    """
    locked = select(pools.c.engine).where(pools.c.name == name).with_for_update()
    engine = tx.execute(locked).scalar_one_or_none()
    if engine is None:
        return None
    if engine != "local":
        raise Refused(
            "pool_ruled_by_cluster",
            f"the cluster rules this pool; use `kubectl edit transcodepool {name}`, or "
            f"`kubectl scale transcodepool {name} --replicas=N`",
            status=409,
        )
    values: dict[str, Any] = {"updated_at": db_now()}
    if max_concurrency is not None:
        values["max_concurrency"] = max_concurrency
    if stop_policy is not None:
        values["stop_policy"] = stop_policy
    if max_per_owner is not None:
        values["max_per_owner"] = max_per_owner or None
    tx.execute(update(pools).where(pools.c.name == name).values(values))
    return read_pool(tx, name)
