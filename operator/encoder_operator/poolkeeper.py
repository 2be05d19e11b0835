"""Keep pools in step: the TranscodePool rules, its row follows, its status tells what goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy.exc import DBAPIError

from encoder_core.names import GROUP, VERSION
from encoder_db import cluster, pools
from encoder_db.store import Store
from encoder_operator.act import in_thread
from encoder_operator.cache import Cache
from encoder_operator.events import Note, build_event, notes_of_pool
from encoder_operator.kube import EVENTS, POOLS, Kube, KubeError
from encoder_operator.loop import Loop
from encoder_operator.metrics import Metrics
from encoder_operator.poolstatus import (
    Blocked,
    build_pool_status,
    find_blocked,
    is_due,
    is_told,
    without_store,
)
from encoder_operator.seen import PoolSeen, parse_pool

log = logging.getLogger("encoder.operator.pools")

STATUS_S: Final = 10.0  # how often numbers of a pool are written, and only when they changed


class PoolKeeper:
    def __init__(
        self,
        store: Store,
        kube: Kube,
        cache: Cache,
        metrics: Metrics,
        *,
        heartbeat_s: float = 60.0,
        changed: Callable[[str], None] = lambda _: None,
        full: Callable[[], Blocked | None] = lambda: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """
        `changed` hears of a pool whose jobs may now start, or wait for another reason; `full` tells
        why the operator itself starts nothing in any.
        """
        self._store = store
        self._kube = kube
        self._cache = cache
        self._metrics = metrics
        self._heartbeat = timedelta(seconds=heartbeat_s)
        self._again_s = min(STATUS_S, heartbeat_s)
        self._changed = changed
        self._full = full
        self._now = now
        self._written: dict[str, datetime] = {}
        self._throttled: dict[str, tuple[str, datetime]] = {}
        self._loop = Loop(self.reconcile, workers=2)

    def wake(self, name: str) -> None:
        self._loop.wake(name)

    async def run(self) -> None:
        await self._loop.run()

    async def reconcile(self, name: str) -> float | None:
        pool = self._cache.pools.get(name)
        if pool is None:
            self._metrics.forget_pool(name)
            await in_thread(lambda: self._store.run(lambda tx: cluster.hold_pool(tx, name)))
            self._written.pop(name, None)
            self._throttled.pop(name, None)
            self._changed(name)
            return None
        blocked = self.blocked(name) or self._full()
        try:
            row, before = await in_thread(lambda: self._mirror(pool, blocked))
        except DBAPIError as error:
            log.warning("store_unavailable", extra={"pool": name, "error": str(error)[:500]})
            self._throttle(name, "db")
            await self._publish(pool, without_store(pool, now=self._now()), notes=[])
            return self._again_s
        if before is None or _rules(before) != _rules(row):
            self._changed(name)  # only now does the record say what its jobs are to be told
        self._measure(pool, row, blocked)
        status = build_pool_status(
            pool,
            row,
            blocked=blocked,
            throttled=self._kube.budget.is_throttled,
            now=self._now(),
        )
        # One that is new to the cluster was not scaled, whatever the record has under its name.
        was = before.max_concurrency if before is not None and pool.status else pool.max_concurrency
        await self._publish(pool, status, notes_of_pool(pool, status, limit_before=was))
        return self._again_s

    def blocked(self, name: str) -> Blocked | None:
        """Why the cluster starts nothing in this pool at the moment."""
        over_quota = self._cache.over_quota(name, self._now())
        return find_blocked(self._cache.pods_in(name), over_quota=over_quota)

    def _mirror(
        self, pool: PoolSeen, blocked: Blocked | None
    ) -> tuple[pools.PoolRow, pools.PoolRow | None]:
        """The row as it is to be, and as it was."""

        def work(tx: Any) -> tuple[pools.PoolRow, pools.PoolRow | None]:
            row = before = pools.read_pool(tx, pool.name)
            per_owner = pool.spec.get("maxPerOwner")
            wanted = ("kubernetes", pool.max_concurrency, pool.stop_policy, per_owner)
            why = None if blocked is None else blocked.message[:512]
            if row is not None and row.blocked != why:
                cluster.note_blocked(tx, pool.name, why)
                row = replace(row, blocked=why)
            if row is None or _rules(row)[:-1] != wanted:
                cluster.mirror_pool(
                    tx,
                    pool.name,
                    max_concurrency=pool.max_concurrency,
                    stop_policy=pool.stop_policy,
                    max_per_owner=per_owner,
                )
                row = pools.read_pool(tx, pool.name)
            assert row is not None
            return row, before

        return self._store.run(work)

    def _measure(self, pool: PoolSeen, row: pools.PoolRow, blocked: Blocked | None) -> None:
        metrics, name = self._metrics, pool.name
        metrics.limit.labels(name).set(pool.max_concurrency)
        metrics.active.labels(name).set(row.active)
        metrics.pending.labels(name).set(row.pending)
        metrics.queued.labels(name).set(row.queued)
        oldest = row.oldest_queued_at
        waited = max(timedelta(0), self._now() - oldest) if oldest else timedelta(0)
        metrics.oldest_queued_s.labels(name).set(waited.total_seconds())
        self._throttle(name, None if blocked is None else blocked.cause)

    def _throttle(self, name: str, cause: str | None) -> None:
        """The time since the last look counts, if it found the same cause."""
        now, last = self._now(), self._throttled.pop(name, None)
        if cause is None:
            return
        since = last[1] if last is not None and last[0] == cause else now
        self._metrics.throttled_s.labels(cause).inc(max(0.0, (now - since).total_seconds()))
        self._throttled[name] = (cause, now)

    async def _publish(self, pool: PoolSeen, status: dict[str, Any], notes: list[Note]) -> None:
        now = self._now()
        for note in notes:
            event = build_event(
                note,
                kind="TranscodePool",
                name=pool.name,
                uid=pool.uid,
                namespace=self._kube.namespace,
                now=now,
            )
            await self._kube.create_once(EVENTS, event)
        if not is_due(pool, status, heartbeat=self._heartbeat, now=now):
            return
        last = self._written.get(pool.name)
        recent = last is not None and (now - last).total_seconds() < STATUS_S
        if recent and is_told(pool, status):
            return  # numbers that move with every job: the next look writes them
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "TranscodePool",
            "metadata": {"name": pool.name, "uid": pool.uid},
            "status": status,
        }
        try:
            updated = await self._kube.apply_status(POOLS, pool.name, body)
        except KubeError as error:
            if error.not_found or error.status == 409:
                return  # gone, or another under its name: its own events come
            raise
        self._written[pool.name] = now
        self._cache.renew_pool(parse_pool(updated))


def _rules(row: pools.PoolRow) -> tuple[str, int, str, int | None, str | None]:
    """What decides whether its jobs start, besides how many of them there are, in all pools too."""
    blocked = None if pools.is_operator_full(row.blocked) else row.blocked
    return row.engine, row.max_concurrency, row.stop_policy, row.max_per_owner, blocked
