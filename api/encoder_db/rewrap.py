"""Rotate `ENCODER_SECRET_KEY`: everything sealed goes under the current key, while all runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Table, delete, select, update

from encoder_core.sealing import KeyRing
from encoder_db.instance import SEALED
from encoder_db.secrets import sealing_purpose
from encoder_db.store import Store
from encoder_db.tables import instance_secrets, job_secrets, jobs, webhook_deliveries

BATCH: Final = 200  # rows a transaction: locks are held for milliseconds


@dataclass(slots=True)
class Rewrapped:
    """What a run did. `lost` are values whose key is not loaded."""

    rewrapped: int = 0
    current: int = 0
    lost: int = 0
    forgotten: int = 0


@dataclass(frozen=True, slots=True)
class _Kind:
    """A table with sealed values: how to read on from a place, what a row is sealed for."""

    table: Table
    key: tuple[str, ...]
    sealed: str
    purpose: Callable[[Any], str]
    extra: Any = None

    def rows(self, tx: Connection, after: tuple[Any, ...] | None) -> list[Any]:
        columns = [self.table.c[name] for name in self.key]
        query = select(self.table)
        if self.extra is not None:
            query = query.join(jobs, jobs.c.id == self.table.c.job_id).add_columns(self.extra)
        if after is not None:
            query = query.where(_beyond(columns, after))
        return list(tx.execute(query.order_by(*columns).limit(BATCH)).mappings())


def _beyond(columns: list[Any], after: tuple[Any, ...]) -> Any:
    """`(a, b) > (x, y)`, spelled so that MySQL reads on in the primary key."""
    first, *rest = columns
    beyond = first > after[0]
    return beyond | ((first == after[0]) & _beyond(rest, after[1:])) if rest else beyond


def rewrap(store: Store, *, forget_lost: bool = False) -> Rewrapped:
    """
    Put every sealed value under the current key. May be run again at any time.

    `forget_lost` deletes what no loaded key opens: its jobs then ask for their credentials, and
    its webhooks end. Nothing else can be done with it.
    """
    done = Rewrapped()
    for kind in _kinds():
        after: tuple[Any, ...] | None = None
        while True:
            last, batch = store.run(
                lambda tx, kind=kind, after=after: _rewrap_batch(  # type: ignore[misc]  # bound now
                    tx, kind, after, store.keys, forget_lost=forget_lost
                )
            )
            done.rewrapped += batch.rewrapped
            done.current += batch.current
            done.lost += batch.lost
            done.forgotten += batch.forgotten
            if last is None:
                break
            after = last
    return done


def _kinds() -> Iterator[_Kind]:
    yield _Kind(instance_secrets, ("name",), "value", lambda row: SEALED.get(row["name"], ""))
    yield _Kind(
        job_secrets,
        ("job_id", "purpose"),
        "sealed",
        lambda row: sealing_purpose(row["purpose"], row["job_uuid"]),
        jobs.c.uuid.label("job_uuid"),
    )
    yield _Kind(
        webhook_deliveries,
        ("id",),
        "target",
        lambda row: sealing_purpose("webhook", row["job_uuid"]),
    )


def _rewrap_batch(
    tx: Connection,
    kind: _Kind,
    after: tuple[Any, ...] | None,
    keys: KeyRing,
    *,
    forget_lost: bool,
) -> tuple[tuple[Any, ...] | None, Rewrapped]:
    """Where to go on, or None at the end; and what was done."""
    done = Rewrapped()
    rows = kind.rows(tx, after)
    if kind.table is job_secrets:
        # Who copies a webhook's address to a delivery holds the job's lock: when these are free,
        # every copy of the earlier value is there for the deliveries, which come next, to find.
        earlier = {row["job_id"] for row in rows if not keys.is_current(bytes(row["sealed"]))}
        locked = select(jobs.c.id).where(jobs.c.id.in_(sorted(earlier))).order_by(jobs.c.id)
        tx.execute(locked.with_for_update())
    for row in rows:
        purpose = kind.purpose(row)
        if not purpose:  # of the installation: not everything there is sealed
            continue
        sealed = bytes(row[kind.sealed])
        # Only while it is what was read: new credentials that come meanwhile stay.
        this = [kind.table.c[name] == row[name] for name in (*kind.key, kind.sealed)]
        if keys.is_current(sealed):
            done.current += 1
        elif keys.opens(sealed):
            values = {kind.sealed: keys.rewrap(sealed, purpose=purpose)}
            if "kek_id" in kind.table.c:
                values["kek_id"] = keys.current_key_id
            tx.execute(update(kind.table).where(*this).values(values))
            done.rewrapped += 1
        elif forget_lost:
            tx.execute(delete(kind.table).where(*this))
            done.forgotten += 1
        else:
            done.lost += 1
    place = tuple(rows[-1][name] for name in kind.key) if len(rows) == BATCH else None
    return place, done
