"""
Why a job does not run: every reason of the guide, and each from both sides.

`kubectl` reads a condition, `GET /jobs/{id}` says `waiting`; where there is no job yet, the
condition alone can say it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from encoder_db.store import Store
from encoder_operator.kube import JOBS, PODS, POOLS
from tests.db import builders as make
from tests.docs.render import DOCS
from tests.operator.desk import BY_HAND, SUCCEEDED, Desk
from tests.operator.fake_api import refusal

NAME = "by-hand"
SCHEDULED = {"type": "PodScheduled", "status": "True"}
NO_ROOM = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
           "message": "0/3 nodes are available: 3 Insufficient cpu."}  # fmt: skip
OVER_QUOTA = (
    'pods "tj-x-a1" is forbidden: exceeded quota: team, requested: pods=1, used: pods=2, limited: '
    "pods=2"
)


def waits(store: Store, *, places: int = 1, **spec: Any) -> Desk:
    """A job that was applied, and is looked at."""
    desk = Desk(store, places=places)
    desk.apply(NAME, {**BY_HAND, **spec})
    desk.settle(NAME)
    return desk


def starts(store: Store, *conditions: dict[str, Any], **spec: Any) -> Desk:
    """One that has a place and a Pod, made half a minute ago."""
    desk = waits(store, **spec)
    desk.dispatch()
    desk.settle(NAME)
    desk.pod(NAME)["metadata"]["creationTimestamp"] = time_s(-30)
    desk.move_pod(NAME, {"phase": "Pending", "conditions": list(conditions)})
    return desk


def time_s(later: float) -> str:
    return f"{datetime.now(UTC) + timedelta(seconds=later):%Y-%m-%dT%H:%M:%SZ}"


def container_waits(store: Store, why: str) -> Desk:
    desk = starts(store)
    state = {"waiting": {"reason": why, "message": "the kubelet's words"}}
    worker = {"name": "worker", "state": state}
    status = {"phase": "Pending", "conditions": [SCHEDULED], "containerStatuses": [worker]}
    desk.move_pod(NAME, status)
    return desk


def full(store: Store) -> Desk:
    desk = Desk(store)
    desk.admitted()
    desk.apply(NAME, BY_HAND)
    return desk


def changed_pool(store: Store, **spec: Any) -> Desk:
    desk = waits(store)
    desk.api.put_spec(desk.pool, {"maxConcurrency": 1, **spec})
    desk.keep_pool()
    return desk


def deleted_pool(store: Store) -> Desk:
    desk = waits(store)
    del desk.api.objects[POOLS.path("work", desk.pool)]
    desk.keep_pool()
    return desk


def blocked(store: Store) -> Desk:
    desk = Desk(store, places=5)
    _, first = desk.admitted()
    desk.move_pod(first, {"phase": "Pending", "conditions": [NO_ROOM]})
    desk.keep_pool()
    desk.apply(NAME, BY_HAND)
    return desk


def over_quota(store: Store, name: str = NAME) -> Desk:
    desk = Desk(store, places=5)
    desk.api.refuse["POST", PODS.plural] = refusal(403, "Forbidden", OVER_QUOTA)
    desk.apply(name, BY_HAND)
    desk.settle(name)
    desk.dispatch()
    desk.settle(name)
    return desk


def behind_one_over_quota(store: Store) -> Desk:
    desk = over_quota(store, "first")
    desk.keep_pool()
    desk.apply(NAME, BY_HAND)
    return desk


def owner_full(store: Store) -> Desk:
    desk = Desk(store, places=5)
    desk.api.put_spec(desk.pool, {"maxConcurrency": 5, "maxPerOwner": 1})
    desk.keep_pool()
    desk.apply("first", BY_HAND)
    desk.settle("first")
    desk.dispatch()
    desk.apply(NAME, BY_HAND)
    return desk


def operator_full(store: Store) -> Desk:
    desk = Desk(store, places=5, max_running=1)
    desk.admitted()
    desk.apply(NAME, BY_HAND)
    desk.keep_pool()
    return desk


def operator_starts_nothing(store: Store) -> Desk:
    desk = Desk(store, places=5, max_running=0)
    desk.apply(NAME, BY_HAND)
    desk.keep_pool()
    return desk


def failed(store: Store) -> Desk:
    desk = starts(store)
    ended = {"terminated": {"exitCode": 139, "reason": "Error"}}
    worker = {"name": "worker", "state": ended}
    desk.move_pod(NAME, {**SUCCEEDED, "phase": "Failed", "containerStatuses": [worker]})
    return desk


def replaced(store: Store) -> Desk:
    desk = starts(store)
    del desk.api.objects[JOBS.path("work", NAME)]
    desk.apply(NAME, BY_HAND)
    return desk


def another_pool(store: Store) -> Desk:
    desk = Desk(store)
    desk.apply(NAME, {**BY_HAND, "poolRef": {"name": "film"}})
    return desk


def drained_before(store: Store) -> Desk:
    desk = Desk(store)
    desk.api.put_spec(desk.pool, {"maxConcurrency": 1, "stopPolicy": "Drain"})
    desk.keep_pool()
    desk.apply(NAME, BY_HAND)
    return desk


def applied(store: Store, **spec: Any) -> Desk:
    desk = Desk(store)
    desk.apply(NAME, {**BY_HAND, **spec})
    return desk


def away(store: Store) -> Desk:
    desk = waits(store)
    turn_database(store, away=True)
    return desk


def turn_database(store: Store, *, away: bool) -> None:
    before, after = ("jobs", "jobs_elsewhere") if away else ("jobs_elsewhere", "jobs")
    with store.begin() as tx:
        tx.exec_driver_sql(f"ALTER TABLE {before} RENAME TO {after}")


Case = tuple[str, Callable[[Store], Desk], str]
WAITS: list[Case] = [
    ("PoolFull", full, "Pool k8s is full: 1 of 1 places taken."),
    ("PoolHeld", lambda s: changed_pool(s, stopPolicy="Hold"), "Pool k8s is held"),
    ("PoolHeld", lambda s: changed_pool(s, stopPolicy="Drain"), "Pool k8s is drained"),
    ("PoolHeld", lambda s: changed_pool(s, maxConcurrency=0), "Pool k8s is scaled to 0"),
    ("PoolHeld", deleted_pool, "Pool k8s is held: its TranscodePool was deleted"),
    ("PoolBlocked", blocked, "waits for a node: 0/3 nodes are available"),
    ("PoolBlocked", behind_one_over_quota, f"Pool k8s: {OVER_QUOTA}"),
    ("OwnerFull", owner_full, "kubernetes holds 1 of the 1 places"),
    (
        "OperatorFull",
        operator_full,
        "The operator runs 1 of at most 1 jobs (ENCODER_OPERATOR_MAX_RUNNING).",
    ),
    (
        "OperatorFull",
        operator_starts_nothing,
        "The operator starts nothing: it may run 0 jobs (ENCODER_OPERATOR_MAX_RUNNING).",
    ),
    ("NotDue", lambda s: waits(s, startAt=time_s(3600)), "Due at "),
    ("Retrying", failed, " after worker_failed: "),
    ("Retrying", over_quota, f" after quota_exceeded: {OVER_QUOTA}"),
    ("Queued", waits, "Its turn comes next or soon in pool k8s."),
]
STARTS: list[Case] = [
    ("PodUnschedulable", lambda s: starts(s, NO_ROOM), "3 Insufficient cpu."),
    ("ImageUnavailable", lambda s: container_waits(s, "ErrImagePull"), "the kubelet's words"),
    ("PodInvalid", lambda s: container_waits(s, "CreateContainerError"), "the kubelet's words"),
    (
        "CredentialsMissing",
        lambda s: starts(s, SCHEDULED, credentialsSecretRef={"name": "encoder-creds-x"}),
        "Is there a Secret encoder-creds-x in this namespace?",
    ),
    ("PodNotStarted", lambda s: starts(s, SCHEDULED), "The container is not made yet."),
    ("PodNotStarted", starts, "No node was chosen yet."),
]
NO_JOB: list[Case] = [
    ("PoolHeld", drained_before, "it takes no new jobs until it is open again."),
    ("PreviousEnding", replaced, "An earlier job of this name still ends."),
    ("PoolNotFound", another_pool, "There is no TranscodePool film."),
    ("StoreUnavailable", away, "The database does not answer: nothing starts"),
    (
        "NotOurs",
        lambda s: applied(s, jobUID="01890a5d-ac96-774b-bcce-b302099a8057"),
        "No job has the UUID in spec.jobUID.",
    ),
    ("SpecInvalid", lambda s: applied(s, source={"kind": "nowhere"}), "spec.source"),
]


def ids(cases: list[Case]) -> list[str]:
    return [f"{reason}, {words[:24]}" for reason, _, words in cases]


def job_of(desk: Desk) -> int:
    number: int = desk.api.objects[JOBS.path("work", NAME)]["status"]["jobID"]
    return number


@pytest.mark.parametrize(("reason", "come_to", "words"), WAITS, ids=ids(WAITS))
def test_a_job_without_a_place_says_on_both_sides(
    store: Store, reason: str, come_to: Callable[[Store], Desk], words: str
) -> None:
    desk = come_to(store)
    desk.settle(NAME)
    waiting = make.read(store, job_of(desk)).waiting
    assert waiting is not None
    assert desk.condition(NAME, "Admitted") == ("False", reason, waiting.message)
    assert waiting.reason == reason
    assert words in waiting.message
    assert desk.condition(NAME, "Succeeded")[2] == waiting.message


@pytest.mark.parametrize(("reason", "come_to", "words"), STARTS, ids=ids(STARTS))
def test_a_job_whose_pod_does_not_run_says_on_both_sides(
    store: Store, reason: str, come_to: Callable[[Store], Desk], words: str
) -> None:
    desk = come_to(store)
    desk.settle(NAME)
    waiting = make.read(store, job_of(desk)).waiting
    assert waiting is not None
    assert desk.condition(NAME, "PodReady") == ("False", reason, waiting.message)
    assert desk.condition(NAME, "Succeeded") == ("Unknown", reason, waiting.message)
    assert waiting.reason == reason
    assert words in waiting.message


@pytest.mark.parametrize(("reason", "come_to", "words"), NO_JOB, ids=ids(NO_JOB))
def test_a_resource_that_is_no_job_yet_says_why(
    store: Store, reason: str, come_to: Callable[[Store], Desk], words: str
) -> None:
    desk = come_to(store)
    if reason == "StoreUnavailable":
        with pytest.raises(DBAPIError):
            desk.settle(NAME)
    else:
        desk.settle(NAME)
    status, told, message = desk.condition(NAME, "Admitted")
    assert (status, told) == ("False", reason)
    assert words in message
    assert desk.condition(NAME, "Succeeded")[1:] == (told, message)


def test_a_job_that_was_applied_to_a_drained_pool_starts_once_that_is_open(store: Store) -> None:
    desk = drained_before(store)
    desk.settle(NAME)
    assert desk.condition(NAME, "Succeeded")[0] == "Unknown"
    desk.api.put_spec(desk.pool, {"maxConcurrency": 1})
    desk.keep_pool()
    desk.settle(NAME)
    assert desk.dispatch() == 1


def test_a_resource_that_was_refused_for_good_stays_so_through_an_outage(store: Store) -> None:
    desk = applied(store, source={"kind": "nowhere"})
    desk.settle(NAME)
    refused = desk.condition(NAME, "Succeeded")
    spec = desk.api.objects[JOBS.path("work", NAME)]["spec"]
    spec.update(BY_HAND)  # what it was refused for is over: it must not run for that
    turn_database(store, away=True)
    with pytest.raises(DBAPIError):
        desk.settle(NAME)
    assert desk.condition(NAME, "Succeeded") == refused
    turn_database(store, away=False)
    desk.settle(NAME)
    assert desk.condition(NAME, "Succeeded") == refused
    assert desk.events() == ["Refused"]
    assert desk.dispatch() == 0


def test_the_guide_has_these_reasons_and_no_others() -> None:
    guide = (DOCS / "kubernetes.md").read_text().partition("## Why does my job not run?")[2]
    without_place, _, rest = guide.partition("It has a place, and its Pod does not run")
    without_pod = rest.partition("And what looks like waiting")[0]

    def listed(text: str) -> set[str]:
        return set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))

    assert listed(without_place) == {reason for reason, *_ in WAITS + NO_JOB}
    assert listed(without_pod) == {reason for reason, *_ in STARTS}
