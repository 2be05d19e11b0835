"""What `kubectl get tp` shows, and when it is written."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from encoder_db.pools import PoolRow
from encoder_operator.poolstatus import (
    Blocked,
    build_pool_status,
    find_blocked,
    is_due,
    is_told,
    without_store,
)
from encoder_operator.seen import PodPhase, PodSeen, PoolSeen
from tests.operator.builders import NOW, a_pod

MINUTE = timedelta(seconds=60)
NO_ROOM = Blocked("CapacityBlocked", "PodUnschedulable", "0/3 nodes", "node")


def a_pool(**changes: Any) -> PoolSeen:
    values: dict[str, Any] = {
        "name": "hd", "generation": 3, "max_concurrency": 4, "stop_policy": "None",
        "spec": {}, "status": {},
    }  # fmt: skip
    return PoolSeen(**{**values, **changes})


def a_row(**changes: Any) -> PoolRow:
    values: dict[str, Any] = {
        "name": "hd", "engine": "kubernetes", "max_concurrency": 4, "max_per_owner": None,
        "stop_policy": "None", "blocked": None, "active": 2, "pending": 1, "queued": 7,
        "oldest_queued_at": NOW, "created_at": NOW, "updated_at": NOW,
    }  # fmt: skip
    return PoolRow(**{**values, **changes})


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}


OPEN = {
    "Ready": ("True", "Open"),
    "Held": ("False", "Open"),
    "OverLimit": ("False", "WithinLimit"),
    "CapacityBlocked": ("False", "RoomLeft"),
    "ImageUnavailable": ("False", "ImagePulled"),
    "StoreReachable": ("True", "Answers"),
    "Throttled": ("False", "NotThrottled"),
}


def test_the_numbers_and_conditions_of_a_pool_that_is_open() -> None:
    status = build_pool_status(a_pool(), a_row(), now=NOW)
    assert conditions(status) == OPEN
    assert {c["type"]: c["message"] for c in status["conditions"]} == {
        "Ready": "Pool hd takes jobs",
        "Held": "Up to 4 jobs run at once",
        "OverLimit": "No more run than maxConcurrency allows",
        "CapacityBlocked": "No Pod waits for room or for quota",
        "ImageUnavailable": "Pods get the worker image",
        "StoreReachable": "The database answers",
        "Throttled": "The API server takes what is written",
    }
    del status["conditions"]
    assert status == {
        "observedGeneration": 3,
        "active": 2,
        "pending": 1,
        "queued": 7,
        "oldestQueuedTime": "2026-01-02T03:04:05Z",
        "heartbeatTime": "2026-01-02T03:04:05Z",
        "selector": "encoder.dev/pool=hd",
    }


@pytest.mark.parametrize(
    ("pool", "row", "blocked", "throttled", "want"),
    [
        pytest.param({"stop_policy": "Hold"}, {}, None, False,
                     {"Held": ("True", "Hold"), "Ready": ("False", "Hold")}, id="held"),
        pytest.param({"stop_policy": "Drain"}, {}, None, False,
                     {"Held": ("True", "Drain"), "Ready": ("False", "Drain")}, id="drained"),
        pytest.param({"max_concurrency": 0}, {"active": 0}, None, False,
                     {"Held": ("True", "ScaledToZero"), "Ready": ("False", "ScaledToZero")},
                     id="scaled to 0"),
        pytest.param({"max_concurrency": 1}, {}, None, False,
                     {"OverLimit": ("True", "Lowered")}, id="lowered below what runs"),
        pytest.param({}, {}, NO_ROOM, False,
                     {"CapacityBlocked": ("True", "PodUnschedulable"),
                      "Ready": ("False", "PodUnschedulable")}, id="without room on any node"),
        pytest.param({}, {}, Blocked("ImageUnavailable", "ErrImagePull", "no", "image"), False,
                     {"ImageUnavailable": ("True", "ErrImagePull"),
                      "Ready": ("False", "ErrImagePull")}, id="whose image cannot be pulled"),
        pytest.param({}, {}, None, True, {"Throttled": ("True", "TooManyRequests")},
                     id="under an API server that asks for patience"),
    ],
)  # fmt: skip
def test_a_pool_that_is(
    pool: dict[str, Any],
    row: dict[str, Any],
    blocked: Blocked | None,
    throttled: bool,
    want: dict[str, tuple[str, str]],
) -> None:
    status = build_pool_status(
        a_pool(**pool), a_row(**row), blocked=blocked, throttled=throttled, now=NOW
    )
    assert conditions(status) == {**OPEN, **want}


def stuck(number: int, **changes: Any) -> PodSeen:
    return a_pod(name=f"p{number}", running=False, phase=PodPhase.PENDING, **changes)


TOO_LARGE = stuck(
    1,
    unschedulable="0/3 nodes are available: 3 Insufficient cpu. preemption: 0/3 nodes are "
    "available: 3 Preemption is not helpful for scheduling.",
)
PULLING = [stuck(n, waiting="ErrImagePull", waiting_message="not found") for n in range(3)]


@pytest.mark.parametrize(
    ("pods", "over_quota", "want"),
    [
        pytest.param([a_pod()], None, None, id="one runs"),
        pytest.param([stuck(1)], None, None, id="one is on its way"),
        pytest.param([stuck(1, unschedulable="0/3")], None, ("CapacityBlocked", "node"),
                     id="one has no node"),
        pytest.param([TOO_LARGE], None, None, id="one is too large for any node"),
        pytest.param([TOO_LARGE, stuck(2, unschedulable="0/3")], None, ("CapacityBlocked", "node"),
                     id="one has no node beside one that is too large for any"),
        pytest.param([], "exceeded quota", ("CapacityBlocked", "quota"), id="the quota is used up"),
        pytest.param(PULLING[:2], None, None, id="two cannot pull: it may be their node"),
        pytest.param(PULLING, None, ("ImageUnavailable", "image"), id="three cannot pull"),
    ],
)  # fmt: skip
def test_what_blocks_a_pool_when(
    pods: list[PodSeen], over_quota: str | None, want: tuple[str, str] | None
) -> None:
    blocked = find_blocked(pods, over_quota=over_quota)
    assert (None if blocked is None else (blocked.condition, blocked.cause)) == want


def test_a_heartbeat_alone_is_written_once_a_minute() -> None:
    status = build_pool_status(a_pool(), a_row(), now=NOW)
    shown = a_pool(status=status)
    for seconds, due in ((10, False), (59, False), (60, True)):
        now = NOW + timedelta(seconds=seconds)
        again = build_pool_status(shown, a_row(), now=now)
        assert is_due(shown, again, heartbeat=MINUTE, now=now) is due
    more = build_pool_status(shown, a_row(active=3), now=NOW)
    assert is_due(shown, more, heartbeat=MINUTE, now=NOW)


def test_what_changes_is_urgent_or_a_number() -> None:
    """Others' conditions are neither, wherever the API server puts them."""
    status = build_pool_status(a_pool(), a_row(), now=NOW)
    theirs = [{"type": "Theirs", "status": "True"}, *reversed(status["conditions"])]
    shown = a_pool(status={**status, "conditions": theirs})
    assert not is_due(shown, status, heartbeat=MINUTE, now=NOW)
    number = build_pool_status(shown, a_row(active=3), now=NOW)
    assert is_due(shown, number, heartbeat=MINUTE, now=NOW)
    assert is_told(shown, number)
    held = a_pool(status=shown.status, stop_policy="Hold")
    assert not is_told(shown, build_pool_status(held, a_row(), now=NOW))
    changed = a_pool(status=shown.status, generation=4)
    assert not is_told(shown, build_pool_status(changed, a_row(), now=NOW))


def test_an_unreachable_database_is_told_and_the_numbers_stay() -> None:
    status = without_store(a_pool(status=build_pool_status(a_pool(), a_row(), now=NOW)), now=NOW)
    told = conditions(status)
    assert told["StoreReachable"] == told["Ready"] == ("False", "StoreUnavailable")
    assert (status["active"], told["Held"]) == (2, ("False", "Open"))
