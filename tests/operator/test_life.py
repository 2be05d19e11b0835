"""
A job's whole life, counted: what is written to the API server, and that nothing is written twice.

Written as the API server sees it, because that is what a cluster has too little of.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from encoder_core.documents import JobPage, Step
from encoder_core.exits import Exit
from encoder_core.names import pod_name, resource_name
from encoder_core.reports import Started
from encoder_core.retries import RetryLimits
from encoder_core.states import JobStatus
from encoder_db.jobs import cancel_job, read_page
from encoder_db.store import Store
from encoder_operator.decide import WAITING_S
from encoder_operator.kube import EVENTS, JOBS, PODS, POOLS, SECRETS, KubeError
from encoder_operator.policy import PoolPolicy
from encoder_operator.poolkeeper import PoolKeeper
from tests.db import builders as make
from tests.operator.builders import NOW
from tests.operator.desk import BY_HAND, RUNNING, SUCCEEDED, Desk
from tests.operator.fake_api import refusal

J = JobStatus
STATUS = "PATCH transcodejobs/status"
EVENT = "POST events"
INTERRUPTED: dict[str, Any] = {
    "phase": "Failed",
    "containerStatuses": [
        {"name": "worker", "state": {"terminated": {"exitCode": int(Exit.INTERRUPTED)}}}
    ],
}
NO_ROOM = "0/3 nodes are available: 3 Insufficient cpu."
TOO_LARGE = (
    f"{NO_ROOM} preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
)
UNSCHEDULED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
HOMELESS: dict[str, Any] = {
    "phase": "Pending",
    "conditions": [{**UNSCHEDULED, "message": NO_ROOM}],
}
WRITES = [
    *("POST transcodejobs", "POST secrets", "POST pods", EVENT, STATUS),  # admitted, its Pod made
    *(EVENT, STATUS),  # runs
    *(EVENT, STATUS),  # completed
    "DELETE transcodejobs",
]


@pytest.fixture
def desk(store: Store) -> Desk:
    return Desk(store)


def test_the_writes_of_a_job_that_goes_well(desk: Desk) -> None:
    job, name = desk.admitted()
    desk.move_pod(name, RUNNING)
    assert desk.say(job, Started())
    desk.settle(name)
    desk.say(job, make.uploaded())
    desk.say(job, make.succeeded())
    desk.move_pod(name, SUCCEEDED)
    desk.settle(name)
    assert make.status(desk.store, job) is J.COMPLETED
    make.let_pass(desk.store, 3601)
    desk.settle(name)
    assert desk.api.all(JOBS) == desk.api.all(PODS) == []
    assert desk.api.writes == WRITES
    assert desk.kube.budget.writes == len(WRITES) <= 12


def test_a_job_whose_pod_somebody_deletes_again_and_again_ends_and_says_what_to_do(
    desk: Desk,
) -> None:
    job, name = desk.admitted()
    attempts = RetryLimits().infra
    for attempt in range(1, attempts + 1):
        assert make.status(desk.store, job) is not J.FAILED
        desk.move_pod(name, RUNNING, attempt=attempt)
        assert desk.say(job, Started(), attempt=attempt)
        desk.settle(name)
        desk.pod(name, attempt)["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        desk.move_pod(name, INTERRUPTED, attempt=attempt)
        desk.settle(name)
        desk.api.objects.pop(PODS.path("work", pod_name(name, attempt)), None)
        make.let_pass(desk.store, 600)
        desk.dispatch()
        desk.settle(name)
    assert make.status(desk.store, job) is J.FAILED
    status, reason, said = desk.condition(name, "Succeeded")
    assert (status, reason) == ("False", "PodDeleted")
    assert said.endswith("Cancel the job instead of deleting its Pod.")
    assert desk.api.writes.count("POST pods") == attempts
    assert desk.events().count("DisruptionObserved") == attempts
    labels = {"pool": desk.pool, "category": "infra", "reason": "pod_deleted"}
    assert desk.metrics.registry.get_sample_value("transcode_attempts_total", labels) == attempts


def over_quota(desk: Desk, name: str, _attempt: int) -> None:
    desk.api.refuse["POST", PODS.plural] = refusal(403, "Forbidden", "exceeded quota: small")
    desk.settle(name)


def without_a_node(desk: Desk, name: str, attempt: int) -> None:
    desk.settle(name)
    desk.pod(name, attempt)["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
    desk.move_pod(name, HOMELESS, attempt=attempt)
    desk.settle(name)


@pytest.mark.parametrize("wait", [over_quota, without_a_node])
def test_a_job_that_waits_for_room_leaves_no_secret_per_attempt(
    desk: Desk, wait: Callable[[Desk, str, int], None]
) -> None:
    job = desk.submit()
    for attempt in (1, 2, 3):
        make.let_pass(desk.store, 3600)
        another = desk.another()  # it knows nothing of the quota
        another.dispatch()
        wait(another, resource_name(job.uuid), attempt)
    document = make.read(desk.store, job)
    assert (document.status, document.attempt) == (J.QUEUED, 3)
    assert desk.api.all(SECRETS) == desk.api.all(PODS) == []


def test_nothing_is_written_when_nothing_has_changed(desk: Desk) -> None:
    job, name = desk.admitted()
    for stage in ("made", "started", "at work"):
        if stage == "started":
            desk.move_pod(name, RUNNING)
        if stage == "at work":
            desk.say(job, Started())
        desk.settle(name)
        before = list(desk.api.writes)
        desk.settle(name)
        desk.settle(name)
        assert desk.api.writes == before
    desk.keep_pool()
    before = list(desk.api.writes)
    desk.keep_pool()
    assert desk.api.writes == before


def test_what_somebody_else_says_of_a_pool_costs_no_writes(desk: Desk) -> None:
    desk.keeper = PoolKeeper(desk.store, desk.kube, desk.cache, desk.metrics, now=lambda: NOW)
    desk.keep_pool()
    status = desk.api.objects[POOLS.path("work", desk.pool)]["status"]
    status["conditions"].insert(0, {"type": "Audited", "status": "True"})
    before = list(desk.api.writes)
    desk.keep_pool()
    desk.submit()
    desk.keep_pool()  # its number of jobs: what moves so often is written every ten seconds
    assert desk.api.writes == before


def test_where_and_since_when_its_pod_runs_is_noted_once_and_while_it_runs(desk: Desk) -> None:
    job, name = desk.admitted()

    def page() -> JobPage:
        with desk.store.read() as tx:
            found = read_page(tx, job.uuid, owner=None)
        assert found is not None
        return found

    admitted_at = page().attempts[0].created_at.replace(microsecond=0)  # clusters tell no fractions
    scheduled_at, pulled_at = admitted_at + timedelta(hours=1), admitted_at + timedelta(hours=2)
    since = {"type": "PodScheduled", "status": "True", "lastTransitionTime": said(scheduled_at)}
    running = {"name": "worker", "state": {"running": {"startedAt": said(pulled_at)}}}
    desk.pod(name)["spec"]["nodeName"] = "node-1"
    desk.move_pod(name, {**RUNNING, "conditions": [since], "containerStatuses": [running]})
    desk.settle(name)
    with make.statements(desk.store) as asked:
        desk.settle(name)
    assert not any(text.startswith("UPDATE job_attempts") for text in asked)
    assert page().attempts[0].node == "node-1"
    steps = [(entry.step, entry.at) for entry in page().timeline[-2:]]
    assert steps == [(Step.SCHEDULED, scheduled_at), (Step.PULLED, pulled_at)]

    desk.say(job, Started())  # before the cluster's clock says that it was scheduled
    desk.say(job, make.succeeded(make.uploaded()))
    desk.move_pod(name, SUCCEEDED)
    desk.settle(name)
    steps = [(entry.step, entry.at) for entry in page().timeline]
    assert [step for step, _ in steps] == [
        *(Step.ACCEPTED, Step.QUEUED, Step.ADMITTED),
        *(Step.SCHEDULED, Step.PULLED, Step.STARTED, Step.ENDED),
    ]
    times = dict(steps)
    assert times[Step.SCHEDULED] == times[Step.PULLED] == times[Step.STARTED]


def said(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def test_a_look_asks_the_record_once_and_again_only_for_what_it_shows(desk: Desk) -> None:
    name = resource_name(desk.submit().uuid)
    desk.dispatch()
    with make.statements(desk.store) as asked:
        assert desk.look_once(name) == 0  # its Pod is made, which the next look shows
    assert not any("progress_phase" in text for text in asked)
    desk.settle(name)
    with make.statements(desk.store) as asked:
        assert desk.look_once(name) != 0
    assert len(asked) == 1 + 3  # the row; the document with its outputs and attempts


def test_what_was_changed_while_a_status_was_written_is_seen_though_no_watch_tells(
    desk: Desk,
) -> None:
    job, name = desk.admitted()
    desk.move_pod(name, RUNNING)
    desk.watch()

    def cancel(moment: str) -> None:
        resource = desk.api.objects[JOBS.path("work", name)]
        if moment.startswith("before PATCH") and resource["metadata"].get("generation") != 2:
            resource["spec"]["desiredState"] = "Cancel"
            resource["metadata"]["generation"] = 2

    desk.api.around_write = cancel
    desk.look(name)
    assert make.status(desk.store, job) is J.CANCELING


def test_what_is_over_is_kept_for_its_time_also_when_the_watch_loses_our_own_words(
    desk: Desk,
) -> None:
    job, name = desk.admitted()
    desk.move_pod(name, RUNNING)
    desk.say(job, make.uploaded())
    desk.say(job, make.succeeded())
    desk.move_pod(name, SUCCEEDED)
    desk.watch()
    after_s: float | None = 0
    while after_s == 0:
        after_s = desk.look_once(name)
    assert make.status(desk.store, job) is J.COMPLETED
    assert after_s == pytest.approx(3600, abs=60)


def test_events_are_told_once_each(desk: Desk) -> None:
    job, name = desk.admitted()
    desk.move_pod(name, RUNNING)
    desk.say(job, Started())
    desk.settle(name)
    desk.settle(name)
    desk.say(job, make.uploaded())
    desk.say(job, make.succeeded())
    desk.move_pod(name, SUCCEEDED)
    desk.settle(name)
    assert desk.events() == ["PodCreated", "Started", "Succeeded"]


def test_an_event_that_was_told_before_a_crash_is_not_told_again(desk: Desk) -> None:
    _, name = desk.admitted()
    del desk.api.objects[JOBS.path("work", name)]["status"]  # the crash: it was not written
    desk.settle(name)
    assert desk.events() == ["PodCreated"]


def test_each_attempt_that_failed_is_told_also_when_none_of_them_had_a_pod(desk: Desk) -> None:
    desk.api.refuse["POST", PODS.plural] = refusal(422, "Invalid", "a toleration")
    name = resource_name(desk.submit().uuid)
    for _ in range(RetryLimits().config):
        desk.dispatch()
        desk.settle(name)
        make.let_pass(desk.store, 600)
    assert desk.events() == [*["RetryScheduled"] * (RetryLimits().config - 1), "Failed"]


def test_a_job_is_not_held_up_by_events_that_are_refused(desk: Desk) -> None:
    desk.api.refuse["POST", EVENTS.plural] = refusal(403, "Forbidden")
    job, name = desk.admitted()
    assert desk.condition(name, "Admitted")[0] == "True"
    assert make.status(desk.store, job) is J.STARTING


# --- Why it does not run -----------------------------------------------------------------------


def said_by_both(desk: Desk, name: str, ref: Any) -> str:
    """The condition's message, which is what the API says too."""
    document = make.read(desk.store, ref)
    assert document.waiting is not None
    _, reason, message = desk.condition(name, "Admitted")
    if document.status is J.STARTING:
        _, reason, message = desk.condition(name, "PodReady")
    assert (document.waiting.reason, document.waiting.message) == (reason, message)
    return message


def adopted(desk: Desk, name: str = "by-hand") -> int:
    desk.apply(name, BY_HAND)
    desk.settle(name)
    number: int = desk.api.objects[JOBS.path("work", name)]["status"]["jobID"]
    return number


def test_a_full_pool_is_the_reason_in_the_condition_and_in_the_api(desk: Desk) -> None:
    desk.admitted()
    job = adopted(desk)
    assert said_by_both(desk, "by-hand", job) == "Pool k8s is full: 1 of 1 places taken."


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        pytest.param({"maxConcurrency": 0}, "Pool k8s is scaled to 0: nothing starts.", id="at 0"),
        pytest.param(
            {"maxConcurrency": 1, "stopPolicy": "Hold"},
            "Pool k8s is held: nothing starts in it.",
            id="held",
        ),
    ],
)
def test_a_pool_that_is(desk: Desk, spec: dict[str, Any], words: str) -> None:
    job = adopted(desk)
    desk.api.put_spec(desk.pool, spec)
    desk.keep_pool()
    desk.settle("by-hand")
    assert said_by_both(desk, "by-hand", job) == words
    assert desk.dispatch() == 0


def test_jobs_are_looked_at_once_their_pools_row_says_what_the_pool_says(desk: Desk) -> None:
    """Sooner they would be told what was, and what waits is told of nothing else for a minute."""
    for spec in ({"maxConcurrency": 2}, {"maxConcurrency": 2, "stopPolicy": "Hold"}):
        desk.api.put_spec(desk.pool, spec)
        desk.changed.clear()
        for _ in range(2):
            desk.keep_pool()
        assert desk.changed == [desk.pool]
    del desk.api.objects[POOLS.path("work", desk.pool)]
    desk.keep_pool()
    assert desk.changed == [desk.pool] * 2


def test_a_job_that_waits_is_looked_at_once_a_minute(desk: Desk) -> None:
    """How many places are taken changes without anybody telling it."""
    desk.admitted()
    adopted(desk)
    assert desk.look_once("by-hand") == WAITING_S == 60.0


def test_a_node_without_room_is_the_reason_in_both(desk: Desk) -> None:
    job, name = desk.admitted()
    desk.move_pod(name, HOMELESS)
    desk.settle(name)
    assert said_by_both(desk, name, job) == NO_ROOM
    desk.move_pod(name, RUNNING)
    desk.settle(name)
    assert make.read(desk.store, job).waiting is None


def test_a_reason_is_noted_once_however_long_it_is(desk: Desk) -> None:
    job, name = desk.admitted()
    said = f"0/900 nodes are available: {'1 node(s) had untolerated taint, ' * 40}"
    desk.move_pod(name, {"phase": "Pending", "conditions": [{**UNSCHEDULED, "message": said}]})
    desk.settle(name)
    assert said_by_both(desk, name, job) == said[:1024]
    with make.statements(desk.store) as asked:
        desk.settle(name)
    assert [text for text in asked if not text.startswith("SELECT")] == []


@pytest.mark.parametrize(
    ("waits", "reason"),
    [("ImagePullBackOff", "ImageUnavailable"), ("CreateContainerConfigError", "PodInvalid")],
)
def test_a_container_that_is_not_made_is_the_reason_in_both(
    desk: Desk, waits: str, reason: str
) -> None:
    job, name = desk.admitted()
    state = {"waiting": {"reason": waits, "message": "the kubelet's words"}}
    desk.move_pod(
        name,
        {
            "phase": "Pending",
            "conditions": [{"type": "PodScheduled", "status": "True"}],
            "containerStatuses": [{"name": "worker", "state": state}],
        },
    )
    desk.settle(name)
    assert said_by_both(desk, name, job) == "the kubelet's words"
    assert desk.condition(name, "PodReady")[1] == reason


def test_an_owner_that_has_its_share_is_the_reason_in_both(store: Store) -> None:
    desk = Desk(store, places=5)
    desk.api.put_spec(desk.pool, {"maxConcurrency": 5, "maxPerOwner": 1})
    desk.keep_pool()
    adopted(desk, "first")
    assert desk.dispatch() == 1
    second = adopted(desk, "second")
    said = said_by_both(desk, "second", second)
    assert said == ("kubernetes holds 1 of the 1 places that one owner may have in pool k8s.")


def test_a_start_that_is_not_yet_is_the_reason_in_both(desk: Desk) -> None:
    due = f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    desk.apply("later", {**BY_HAND, "startAt": due})
    desk.settle("later")
    job = desk.api.objects[JOBS.path("work", "later")]["status"]["jobID"]
    assert said_by_both(desk, "later", job).startswith("Due at ")
    assert desk.dispatch() == 0


def test_an_attempt_that_failed_is_the_reason_in_both_until_the_next(desk: Desk) -> None:
    job, name = desk.admitted()
    desk.move_pod(name, {**SUCCEEDED, "phase": "Failed", **killed()})
    desk.settle(name)
    said = said_by_both(desk, name, job)
    assert said.startswith("Attempt 2 follows at ")
    assert " after worker_failed: " in said
    assert desk.condition(name, "Admitted")[1] == "Retrying"


def killed() -> dict[str, Any]:
    ended = {"terminated": {"exitCode": 139, "reason": "Error"}}
    return {"containerStatuses": [{"name": "worker", "state": ended}]}


def test_what_follows_a_pod_that_no_node_takes_stays_in_the_queue(store: Store) -> None:
    desk = Desk(store, places=5)
    _, name = desk.admitted()
    desk.move_pod(name, HOMELESS)
    another = desk.submit()
    desk.keep_pool()
    assert desk.dispatch() == 0
    document = make.read(store, another)
    assert document.waiting is not None
    assert document.waiting.reason == "PoolBlocked"
    assert NO_ROOM in document.waiting.message


def test_a_pod_that_is_too_large_for_any_node_holds_up_nobody(store: Store) -> None:
    desk = Desk(store, places=5)
    _, name = desk.admitted()
    desk.move_pod(name, {"phase": "Pending", "conditions": [{**UNSCHEDULED, "message": TOO_LARGE}]})
    another = make.create(store, make.spec(pool=desk.pool), owner="film")
    desk.keep_pool()
    assert desk.dispatch() == 1
    assert make.status(store, another) is J.STARTING
    assert desk.pool_condition("Ready") == "True"


def test_a_pod_that_no_node_takes_in_time_gives_its_place_back_and_its_pool_is_open_again(
    desk: Desk,
) -> None:
    job, name = desk.admitted()
    desk.move_pod(name, HOMELESS)
    another = desk.submit()
    desk.keep_pool()
    assert desk.pool_condition("CapacityBlocked") == "True"

    long_ago = datetime.now(UTC) - timedelta(seconds=PoolPolicy().start_deadline_s + 60)
    desk.pod(name)["metadata"]["creationTimestamp"] = said(long_ago)
    desk.settle(name)
    assert desk.api.all(PODS) == []
    document = make.read(desk.store, job)
    assert document.status is J.QUEUED
    assert [attempt.budget for attempt in document.attempts] == ["capacity"]
    assert f" after pod_unschedulable: {NO_ROOM}" in said_by_both(desk, name, job)
    desk.keep_pool()
    assert desk.pool_condition("CapacityBlocked") == "False"
    assert desk.dispatch() == 1
    assert make.status(desk.store, another) is J.STARTING


def test_a_quota_that_is_used_up_costs_nothing_and_holds_the_pool(store: Store) -> None:
    desk = Desk(store, places=5)
    said = "exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"
    desk.api.refuse["POST", PODS.plural] = refusal(403, "Forbidden", said)
    job = desk.submit()
    desk.dispatch()
    desk.settle(resource_name(job.uuid))
    document = make.read(store, job)
    assert document.status is J.QUEUED
    assert [attempt.budget for attempt in document.attempts] == ["capacity"]
    desk.submit()
    assert desk.dispatch() == 0


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(
            'pods is forbidden: User "system:serviceaccount:work:encoder-operator" cannot create'
            ' resource "pods" in API group "" in the namespace "work"',
            id="right is missing, or the API server has not read the roles yet",
        ),
        pytest.param(
            'pods "x" is forbidden: unable to create new content in namespace work because it is'
            " being terminated",
            id="namespace is being deleted",
        ),
    ],
)
def test_a_refusal_that_is_not_about_the_pod_ends_no_attempt(desk: Desk, said: str) -> None:
    desk.api.refuse["POST", PODS.plural] = refusal(403, "Forbidden", said)
    job = desk.submit()
    desk.dispatch()
    name = resource_name(job.uuid)
    with pytest.raises(KubeError, match="Forbidden"):
        desk.settle(name)
    assert make.read(desk.store, job).status is J.STARTING
    del desk.api.refuse["POST", PODS.plural]
    desk.settle(name)
    assert [pod["metadata"]["name"] for pod in desk.api.all(PODS)] == [f"{name}-a1"]


def test_a_patch_of_the_priority_lets_a_job_that_waits_go_first(desk: Desk) -> None:
    _, holds = desk.admitted()
    first, second = adopted(desk, "first"), adopted(desk, "second")
    body = desk.api.objects[JOBS.path("work", "second")]
    body["spec"]["priority"], body["metadata"]["generation"] = "high", 2
    desk.settle("second")
    assert make.read(desk.store, second).priority == "high"
    assert body["status"]["observedGeneration"] == 2
    desk.settle("second")
    assert [kind for _, kind in make.events(desk.store, second)] == ["job.queued", "job.bumped"]
    del desk.api.objects[JOBS.path("work", holds)]
    desk.settle(holds)
    desk.settle(holds)
    desk.dispatch()
    assert [make.status(desk.store, job) for job in (first, second)] == [J.QUEUED, J.STARTING]


# --- Cancel, lower, drain ------------------------------------------------------------------------


def test_a_patch_of_the_desired_state_cancels_and_keeps_the_resource(desk: Desk) -> None:
    job, name = desk.admitted()
    desk.move_pod(name, RUNNING)
    desk.say(job, Started())
    desk.api.objects[JOBS.path("work", name)]["spec"]["desiredState"] = "Cancel"
    desk.settle(name)
    desk.settle(name)
    assert desk.api.all(PODS) == []
    assert make.status(desk.store, job) is J.CANCELED
    assert desk.condition(name, "Succeeded")[:2] == ("False", "Canceled")
    assert desk.events()[-1] == "Canceled"


def test_a_cancel_by_the_api_stops_the_pod(desk: Desk) -> None:
    job, name = desk.admitted()
    cancel_job(desk.store, job.id, owner=None)
    desk.settle(name)
    desk.settle(name)
    assert desk.api.all(PODS) == []
    assert make.status(desk.store, job) is J.CANCELED


def test_lowering_a_pool_ends_nothing_and_is_told(store: Store) -> None:
    desk = Desk(store, places=2)
    (first, _), (second, _) = desk.admitted(), desk.admitted()
    desk.keep_pool()
    desk.api.put_spec(desk.pool, {"maxConcurrency": 1})
    desk.keep_pool()
    assert len(desk.api.all(PODS)) == 2
    assert {make.status(store, job) for job in (first, second)} == {J.STARTING}
    assert sorted(desk.events())[:3] == ["OverLimit", "PodCreated", "PodCreated"]
    assert "Scaled" in desk.events()
    desk.submit()
    assert desk.dispatch() == 0


def test_who_scales_a_pool_is_told_from_what_to_what_and_by_which_program(desk: Desk) -> None:
    desk.keep_pool()
    desk.api.put_spec(desk.pool, {"maxConcurrency": 8})
    then = {"time": "2026-01-01T00:00:00Z"}
    scaled: dict[str, Any] = {"f:spec": {"f:maxConcurrency": {}}}
    desk.api.objects[POOLS.path("work", desk.pool)]["metadata"]["managedFields"] = [
        # All in one second; whoever changed a field owns it alone.
        {**then, "manager": "kubectl-create", "fieldsV1": {"f:spec": {"f:stopPolicy": {}}}},
        {**then, "manager": "kubectl", "subresource": "scale", "fieldsV1": scaled},
        {**then, "manager": "encoder", "subresource": "status", "fieldsV1": {"f:status": {}}},
    ]
    for _ in range(2):
        desk.keep_pool()
    told = [event["message"] for event in desk.api.all(EVENTS) if event["reason"] == "Scaled"]
    assert told == ["maxConcurrency 1 -> 8 by kubectl"]


def test_a_pool_that_is_new_to_the_cluster_was_not_scaled(desk: Desk) -> None:
    desk.api.put_spec(desk.pool, {"maxConcurrency": 8})  # the record had another number
    desk.keep_pool()
    assert desk.events() == []


def test_drain_sends_back_what_does_not_run_and_leaves_what_does(store: Store) -> None:
    desk = Desk(store, places=2)
    (runs, at), (waits, name) = desk.admitted(), desk.admitted()
    desk.move_pod(at, RUNNING)
    desk.say(runs, Started())
    desk.api.put_spec(desk.pool, {"maxConcurrency": 2, "stopPolicy": "Drain"})
    desk.keep_pool()
    for each in (at, name):
        desk.settle(each)
    assert make.status(store, runs) is J.RUNNING
    assert make.status(store, waits) is J.QUEUED
    assert len(desk.api.all(PODS)) == 1


# --- What is left behind -------------------------------------------------------------------------


def test_a_place_that_nobody_holds_is_given_back_and_counted(desk: Desk) -> None:
    """Nothing leaves one: the record is spoiled by hand."""
    job, name = desk.admitted()
    desk.sweep()
    assert leaks(desk) == 0
    with desk.store.begin() as tx:
        tx.exec_driver_sql("UPDATE jobs SET status = 'failed', finished_at = updated_at")
    desk.settle(name)
    desk.submit()
    assert desk.dispatch() == 0  # its only place is taken
    desk.sweep()
    assert leaks(desk) == 1
    assert make.attempt_statuses(desk.store, job) == ["lost"]
    assert desk.dispatch() == 1
    desk.sweep()
    assert leaks(desk) == 1


def leaks(desk: Desk) -> float:
    value = desk.metrics.registry.get_sample_value("transcode_slot_leaks_total")
    assert value is not None
    return value


# --- Two at once ---------------------------------------------------------------------------------


def test_two_operators_at_once_make_one_pod_and_end_the_job_once(desk: Desk) -> None:
    other = desk.another()
    job = desk.submit()
    name = resource_name(job.uuid)
    assert [desk.dispatch(), other.dispatch()] == [1, 0]
    for _ in range(2):
        other.settle(name)
        desk.settle(name)
    assert len(desk.api.all(PODS)) == 1
    desk.move_pod(name, RUNNING)
    desk.say(job, Started())
    desk.say(job, make.uploaded())
    desk.say(job, make.succeeded())
    desk.move_pod(name, SUCCEEDED)
    for _ in range(2):
        desk.settle(name)
        other.settle(name)
    assert make.status(desk.store, job) is J.COMPLETED
    assert make.attempt_statuses(desk.store, job) == ["succeeded"]
    assert [type_ for _, type_ in make.events(desk.store, job)].count("job.completed") == 1
    assert desk.events() == ["PodCreated", "Succeeded"]
