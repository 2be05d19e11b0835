"""Keep pools in step: the TranscodePool rules, its row follows, its status tells what goes on."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

from encoder_core.names import GROUP, POOL_LABEL, VERSION
from encoder_db import cluster, pools
from encoder_db.store import Store
from encoder_operator.act import in_thread
from encoder_operator.cache import Cache
from encoder_operator.kube import POOLS, Kube, KubeError
from encoder_operator.loop import Loop
from encoder_operator.seen import PoolSeen, parse_pool

STATUS_S: Final = 10.0  # how often numbers of a pool are written, and only when they changed


class PoolKeeper:
    def __init__(self, store: Store, kube: Kube, cache: Cache) -> None:
        self._store = store
        self._kube = kube
        self._cache = cache
        self._loop = Loop(self.reconcile, workers=2)

    def wake(self, name: str) -> None:
        self._loop.wake(name)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._loop.run())

    async def reconcile(self, name: str) -> float | None:
        pool = self._cache.pools.get(name)
        if pool is None:
            await in_thread(lambda: self._store.run(lambda tx: cluster.hold_pool(tx, name)))
            return None
        row = await in_thread(lambda: self._mirror(pool))
        status = build_pool_status(pool, row, now=datetime.now(UTC))
        if any(pool.status.get(key) != value for key, value in status.items()):
            await self._publish(pool, status)
        return STATUS_S

    def _mirror(self, pool: PoolSeen) -> pools.PoolRow:
        def work(tx: Any) -> pools.PoolRow:
            row = pools.read_pool(tx, pool.name)
            per_owner = pool.spec.get("maxPerOwner")
            wanted = ("kubernetes", pool.max_concurrency, pool.stop_policy, per_owner)
            if (
                row is None
                or (row.engine, row.max_concurrency, row.stop_policy, row.max_per_owner) != wanted
            ):
                cluster.mirror_pool(
                    tx,
                    pool.name,
                    max_concurrency=pool.max_concurrency,
                    stop_policy=pool.stop_policy,
                    max_per_owner=per_owner,
                )
                row = pools.read_pool(tx, pool.name)
            assert row is not None
            return row

        return self._store.run(work)

    async def _publish(self, pool: PoolSeen, status: dict[str, Any]) -> None:
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "TranscodePool",
            "metadata": {"name": pool.name},
            "status": status,
        }
        try:
            self._cache.pools[pool.name] = parse_pool(
                await self._kube.apply_status(POOLS, pool.name, body)
            )
        except KubeError as error:
            if not error.not_found:
                raise


def build_pool_status(pool: PoolSeen, row: pools.PoolRow, *, now: datetime) -> dict[str, Any]:
    """What `kubectl get tp` shows. Pure."""
    before = {c["type"]: c for c in pool.status.get("conditions") or []}
    held = pool.stop_policy != "None" or pool.max_concurrency == 0
    why = "Stopped" if pool.stop_policy != "None" else "NoPlaces" if held else "Open"
    wanted = [("Ready", "True", "Mirrored", ""), ("Held", "True" if held else "False", why, "")]
    conditions = []
    for type_, status, reason, message in wanted:
        known = before.get(type_, {})
        same = known.get("status") == status
        conditions.append(
            {
                "type": type_,
                "status": status,
                "reason": reason,
                "message": message,
                "observedGeneration": pool.generation,
                "lastTransitionTime": known["lastTransitionTime"]
                if same
                else now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        )
    return {
        "observedGeneration": pool.generation,
        "active": row.active,
        "queued": row.queued,
        "selector": f"{POOL_LABEL}={pool.name}",
        "conditions": conditions,
    }
