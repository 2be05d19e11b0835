"""Places in pools, counted and given in one transaction that has the pools' rows locked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, func, or_, select

from encoder_core.states import OPEN_ATTEMPT
from encoder_db.dialect import db_now
from encoder_db.queue import Engine
from encoder_db.rows import JobRow
from encoder_db.tables import job_attempts, pools

FULL_DELAY_S: Final = 1.0  # a place may become free at any moment
HELD_DELAY_S: Final = 30.0  # somebody has to act first


@dataclass(frozen=True, slots=True)
class NoPlace:
    reason: str
    """As in `rows.Refusal`."""
    delay_s: float


class Places:
    """
    Gives places to jobs within the limits of pool, owner, engine and worker.

    An open attempt is a place. Whoever gives any away holds the row of its pool to the end of
    the transaction, so that nobody counts meanwhile. Each number is read once; what is given
    here is added to it.
    """

    def __init__(
        self,
        tx: Connection,
        executor: Engine,
        worker: str,
        *,
        limit: int | None = None,
        total: int | None = None,
    ) -> None:
        """`limit` is for this worker, `total` for all workers of the engine."""
        self.executor: Engine = executor
        self.worker = worker
        self._tx = tx
        self._limit = limit
        self._total = total
        self.moment: datetime | None = None
        """By the database's clock, when the pools were locked; None when there are none of them."""
        self._pools: dict[str, RowMapping] = {}
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._read: set[tuple[str, ...]] = set()

    def lock(self, names: Sequence[str]) -> None:
        """In the order of their names, as everybody does who locks several."""
        wanted: list[Any] = [pools.c.name.in_(names)]
        if self._total is not None:
            wanted.append(pools.c.engine == self.executor)
        query = select(pools, db_now().label("now")).where(or_(*wanted)).order_by(pools.c.name)
        for row in self._tx.execute(query.with_for_update()).mappings():
            self._pools[row["name"]], self.moment = row, row["now"]

    def take(self, job: JobRow) -> NoPlace | None:
        """Count a place for the job, which its attempt is to hold from now on; or say why not."""
        pool = self._pools.get(job.pool)
        if pool is None:
            return NoPlace("pool_unknown", HELD_DELAY_S)
        if pool["engine"] != self.executor:
            return NoPlace("engine_mismatch", HELD_DELAY_S)
        if pool["stop_policy"] != "None":
            return NoPlace("pool_stopped", HELD_DELAY_S)
        attempt, used = job_attempts.c, list[tuple[str, ...]]()
        of_engine = attempt.executor == self.executor
        limits: list[tuple[str, int | None, tuple[str, ...], Any]] = [
            ("pool_full", pool["max_concurrency"], ("pool", job.pool), attempt.pool == job.pool),
            (
                "owner_full",
                pool["max_per_owner"],
                ("owner", job.pool, job.owner),
                (attempt.pool == job.pool) & (attempt.owner == job.owner),
            ),
            ("pool_full", self._total, ("engine",), of_engine),
            ("pool_full", self._limit, ("worker",), of_engine & (attempt.worker == self.worker)),
        ]
        for reason, most, key, where in limits:
            if most is None:
                continue
            if self._count(key, where) >= most:
                return NoPlace(reason, FULL_DELAY_S)
            used.append(key)
        self._counts.update(used)
        return None

    def _count(self, key: tuple[str, ...], where: Any) -> int:
        if key not in self._read:
            opened = select(func.count()).where(job_attempts.c.status.in_(sorted(OPEN_ATTEMPT)))
            self._counts[key] = self._tx.execute(opened.where(where)).scalar_one()
            self._read.add(key)
        return self._counts[key]
