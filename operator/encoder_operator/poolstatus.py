"""The status of a TranscodePool: numbers, and conditions that say why nothing starts. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from encoder_core.names import POOL_LABEL
from encoder_db.pools import PoolRow
from encoder_operator.exits import fits_nowhere
from encoder_operator.seen import PodSeen, PoolSeen
from encoder_operator.status import Condition, differs, stamp

BAD_IMAGES: Final = 3
"""So many Pods at once that cannot pull: then it is the image, not a node."""
_OURS: Final = (
    *("observedGeneration", "active", "pending", "queued", "oldestQueuedTime", "selector"),
)
"""What `build_pool_status` fills, besides the conditions and the heartbeat."""
PULLING: Final = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"}


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why the cluster starts nothing in a pool: what follows would only wait with the others."""

    condition: str
    """CapacityBlocked or ImageUnavailable; Ready, where the operator is the one that does not."""
    reason: str
    message: str
    cause: str
    """node, quota, image or limit."""


def find_blocked(pods: Iterable[PodSeen], *, over_quota: str | None) -> Blocked | None:
    """
    `pods` are those of one pool; `over_quota` is what the API server said of late.

    What waits for a node has the next room, so others would only wait behind it. One that no node
    could take even if it were empty waits for something else, and holds up nobody.
    """
    waiting = [pod for pod in pods if not pod.ended and not pod.running and not pod.deleting]
    if over_quota is not None:
        return Blocked("CapacityBlocked", "QuotaExceeded", over_quota, "quota")
    for pod in waiting:
        if pod.unschedulable and not fits_nowhere(pod.unschedulable):
            said = f"{pod.name} waits for a node: {pod.unschedulable}"
            return Blocked("CapacityBlocked", "PodUnschedulable", said, "node")
    pulling = [pod for pod in waiting if pod.waiting in PULLING]
    if len(pulling) >= BAD_IMAGES:
        said = f"{len(pulling)} Pods cannot pull the worker image: {pulling[0].waiting_message}"
        return Blocked("ImageUnavailable", pulling[0].waiting or "ErrImagePull", said, "image")
    return None


def conditions_of(
    pool: PoolSeen, row: PoolRow, blocked: Blocked | None, *, throttled: bool
) -> list[Condition]:
    held = _held(pool)
    over = row.active > pool.max_concurrency
    return [
        _ready(pool, held, blocked),
        held,
        Condition(
            "OverLimit",
            "True" if over else "False",
            "Lowered" if over else "WithinLimit",
            f"{row.active} of {pool.max_concurrency} run; they may run to their end"
            if over
            else "No more run than maxConcurrency allows",
        ),
        _blocked("CapacityBlocked", "RoomLeft", "No Pod waits for room or for quota", blocked),
        _blocked("ImageUnavailable", "ImagePulled", "Pods get the worker image", blocked),
        Condition("StoreReachable", "True", "Answers", "The database answers"),
        Condition(
            "Throttled",
            "True" if throttled else "False",
            "TooManyRequests" if throttled else "NotThrottled",
            "The API server asked for fewer writes"
            if throttled
            else "The API server takes what is written",
        ),
    ]


def _held(pool: PoolSeen) -> Condition:
    if pool.stop_policy != "None":
        said = f"stopPolicy is {pool.stop_policy}: nothing starts"
        return Condition("Held", "True", pool.stop_policy, said)
    if pool.max_concurrency == 0:
        return Condition("Held", "True", "ScaledToZero", "maxConcurrency is 0: nothing starts")
    return Condition("Held", "False", "Open", f"Up to {pool.max_concurrency} jobs run at once")


def _ready(pool: PoolSeen, held: Condition, blocked: Blocked | None) -> Condition:
    if held.status == "True":
        return Condition("Ready", "False", held.reason, held.message)
    if blocked is not None:
        return Condition("Ready", "False", blocked.reason, blocked.message)
    return Condition("Ready", "True", "Open", f"Pool {pool.name} takes jobs")


def _blocked(type_: str, otherwise: str, said: str, blocked: Blocked | None) -> Condition:
    if blocked is None or blocked.condition != type_:
        return Condition(type_, "False", otherwise, said)
    return Condition(type_, "True", blocked.reason, blocked.message)


def build_pool_status(
    pool: PoolSeen,
    row: PoolRow,
    *,
    blocked: Blocked | None = None,
    throttled: bool = False,
    now: datetime,
) -> dict[str, Any]:
    """What `kubectl get tp` shows; the whole of it, for server-side apply."""
    status = {
        "observedGeneration": pool.generation,
        "active": row.active,
        "pending": row.pending,
        "queued": row.queued,
        "oldestQueuedTime": stamp(row.oldest_queued_at),
        "heartbeatTime": stamp(now),
        "selector": f"{POOL_LABEL}={pool.name}",
        "conditions": _dated(pool, conditions_of(pool, row, blocked, throttled=throttled), now),
    }
    return {key: value for key, value in status.items() if value is not None}


def without_store(pool: PoolSeen, *, now: datetime) -> dict[str, Any]:
    """What was last known, and that the database does not answer."""
    told = [
        Condition(
            "Ready", "False", "StoreUnavailable", "The database does not answer: nothing starts"
        ),
        Condition(
            "StoreReachable",
            "False",
            "StoreUnavailable",
            "What runs goes on, and is recorded later",
        ),
    ]
    known = {c["type"]: c for c in pool.status.get("conditions") or []}
    known |= {c["type"]: c for c in _dated(pool, told, now)}
    return {**pool.status, "heartbeatTime": stamp(now), "conditions": list(known.values())}


def is_due(pool: PoolSeen, status: dict[str, Any], *, heartbeat: timedelta, now: datetime) -> bool:
    """
    Whether to write: when something changed, else now and then for the heartbeat's sake.

    A time that is written with every look would fill etcd's history, and say nothing.
    """
    if differs(pool.status, status, fields=_OURS):
        return True
    last = pool.status.get("heartbeatTime")
    return last is None or now - datetime.fromisoformat(last) >= heartbeat


def is_told(pool: PoolSeen, status: dict[str, Any]) -> bool:
    """Whether the pool shows what became of its spec, if perhaps with other numbers."""
    shown = {c["type"]: c["status"] for c in pool.status.get("conditions") or []}
    return status.get("observedGeneration") == pool.status.get("observedGeneration") and all(
        shown.get(c["type"]) == c["status"] for c in status["conditions"]
    )


def _dated(pool: PoolSeen, conditions: list[Condition], now: datetime) -> list[dict[str, Any]]:
    before = {c["type"]: c for c in pool.status.get("conditions") or []}
    return [
        {
            "type": c.type,
            "status": c.status,
            "reason": c.reason,
            "message": c.message[:1024],
            "observedGeneration": pool.generation,
            "lastTransitionTime": before[c.type]["lastTransitionTime"]
            if before.get(c.type, {}).get("status") == c.status
            else stamp(now),
        }
        for c in conditions
    ]
