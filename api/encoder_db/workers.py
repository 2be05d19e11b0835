"""Which processes run jobs: they say so every few seconds, and who falls silent is not listed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, delete, select

from encoder_db.dialect import db_now, in_seconds, upsert
from encoder_db.store import Store
from encoder_db.tables import workers

ALIVE_S: Final = 30.0  # three heartbeats of ten seconds
FORGET_S: Final = 24 * 3600.0


def beat(
    store: Store,
    worker: str,
    *,
    kind: str,
    host: str,
    pid: int,
    capacity: int,
    running: Sequence[int],
) -> None:
    """Say that this process is alive, and which jobs it runs."""
    values = {
        "kind": kind,
        "host": host,
        "pid": pid,
        "capacity": capacity,
        "running": list(running),
        "heartbeat_at": db_now(),
    }
    store.run(lambda tx: _upsert(tx, worker, values))


def _upsert(tx: Connection, worker: str, values: dict[str, Any]) -> None:
    upsert(tx, workers, {"name": worker}, values, on_insert={"started_at": db_now()})


def retire(store: Store, worker: str) -> None:
    """It ends in good order: not listed from now on."""
    store.run(lambda tx: tx.execute(delete(workers).where(workers.c.name == worker)))


def list_workers(tx: Connection) -> list[dict[str, Any]]:
    """Those that were heard of lately, as columns by name."""
    query = (
        select(workers)
        .where(workers.c.heartbeat_at > in_seconds(-ALIVE_S))
        .order_by(workers.c.name)
    )
    return [dict(row) for row in tx.execute(query).mappings()]


def forget_silent(tx: Connection) -> int:
    """Delete the rows of processes that died long ago."""
    silent = workers.c.heartbeat_at < in_seconds(-FORGET_S)
    return tx.execute(delete(workers).where(silent)).rowcount
