"""
What somebody with kubectl tries: to speak for jobs that are not theirs, or to borrow what is not.

The API server is one in memory, without the schema and the policies that refuse most of it before:
the operator must not need them. tests/cluster/test_policies.py has those.
"""

from __future__ import annotations

import pytest

from encoder_core.names import pod_name, resource_name
from encoder_core.reports import Started
from encoder_core.states import JobStatus
from encoder_db.store import Store
from encoder_operator.kube import JOBS, PODS, SECRETS, KubeError
from tests.db import builders as make
from tests.operator.desk import BY_HAND, RUNNING, SUCCEEDED, Desk
from tests.operator.fake_api import refusal

J = JobStatus


@pytest.fixture
def desk(store: Store) -> Desk:
    return Desk(store, places=2)


# --- To speak for a job --------------------------------------------------------------------------


def test_a_forged_job_uid_runs_nothing_and_cancels_nothing(desk: Desk) -> None:
    job = desk.submit()
    desk.api.put(JOBS, "mine", spec={"jobUID": str(job.uuid), **BY_HAND}, metadata={
        "creationTimestamp": "2020-01-01T00:00:00Z"})  # fmt: skip
    desk.settle("mine")
    assert desk.condition("mine", "Succeeded")[:2] == ("False", "NotOurs")
    assert desk.api.all(PODS) == []
    del desk.api.objects[JOBS.path("work", "mine")]
    desk.settle("mine")
    assert make.status(desk.store, job) is J.QUEUED


def test_a_second_resource_for_a_job_that_runs_is_not_its_job(desk: Desk) -> None:
    job, name = desk.admitted()
    spec = {"jobUID": str(job.uuid), "desiredState": "Cancel", **BY_HAND}
    desk.api.put(JOBS, "mine", spec=spec)
    desk.settle("mine")
    desk.settle(name)
    assert desk.condition("mine", "Succeeded")[:2] == ("False", "NotOurs")
    assert make.status(desk.store, job) is J.STARTING


def test_what_a_resource_says_is_not_what_a_job_of_the_api_runs(desk: Desk) -> None:
    job = desk.submit()
    desk.dispatch()
    name = resource_name(job.uuid)
    spec = desk.api.objects[JOBS.path("work", name)]["spec"]
    spec["source"] = {"kind": "https", "url": "https://evil.example/x"}
    spec["credentialsSecretRef"] = {"name": "encoder-creds-of-another"}
    desk.settle(name)
    pod = desk.pod(name)
    assert "encoder-creds-of-another" not in str(pod)
    assert desk.order_of(job)["source"]["kind"] == "file"


def test_a_secret_of_somebody_else_is_not_mounted(desk: Desk) -> None:
    desk.apply("by-hand", {**BY_HAND, "credentialsSecretRef": {"name": "encoder-env"}})
    desk.settle("by-hand")
    desk.dispatch()
    desk.settle("by-hand")
    assert desk.api.all(PODS) == []
    assert desk.condition("by-hand", "Succeeded")[:2] == ("False", "RequestImpossible")


def test_one_operator_does_not_void_the_token_of_another(desk: Desk) -> None:
    """Both saw that there is no Pod yet; the second must neither make one nor a Secret."""
    other = desk.another()
    job = desk.submit()
    name = resource_name(job.uuid)
    desk.dispatch()
    desk.api.refuse["POST", PODS.plural] = refusal(500, "InternalError")
    with pytest.raises(KubeError):
        desk.settle(name)  # between its Secret and its Pod
    before = desk.order_of(job)["token"]
    del desk.api.refuse["POST", PODS.plural]
    other.settle(name)
    assert desk.api.all(PODS) == []
    assert desk.order_of(job)["token"] == before
    make.let_pass(desk.store, 11)  # the first has crashed, it seems
    other.settle(name)
    assert len(desk.api.all(PODS)) == 1
    assert desk.say(job, Started())


# --- The name of something else ------------------------------------------------------------------


def jobs_of(store: Store) -> list[tuple[str, str]]:
    """Status and uid of the resource of each job, the first one first."""
    with store.read() as tx:
        rows = tx.exec_driver_sql("SELECT status, resource_uid FROM jobs ORDER BY id").all()
    return [(str(status), str(uid)) for status, uid in rows]


def running_by_hand(desk: Desk) -> str:
    """The uid of a resource whose Pod runs."""
    uid: str = desk.apply("by-hand", BY_HAND)["metadata"]["uid"]
    desk.settle("by-hand")
    desk.dispatch()
    desk.settle("by-hand")
    desk.move_pod("by-hand", RUNNING)
    desk.settle("by-hand")
    return uid


def replace_unseen(desk: Desk) -> str:
    """Deleted and applied again between two looks; what it owned is not collected yet."""
    del desk.api.objects[JOBS.path("work", "by-hand")]
    uid: str = desk.apply("by-hand", BY_HAND)["metadata"]["uid"]
    return uid


def test_a_name_that_is_used_again_is_a_new_job_once_the_first_one_has_ended(desk: Desk) -> None:
    first = running_by_hand(desk)
    second = replace_unseen(desk)
    desk.settle("by-hand")
    desk.settle("by-hand")  # its Pod is gone
    desk.settle("by-hand")
    desk.dispatch()
    desk.settle("by-hand")
    assert jobs_of(desk.store) == [("canceled", first), ("starting", second)]
    owners = desk.pod("by-hand")["metadata"]["ownerReferences"]
    assert [owner["uid"] for owner in owners] == [second]
    assert desk.condition("by-hand", "Admitted")[0] == "True"


def test_it_says_what_it_waits_for(desk: Desk) -> None:
    running_by_hand(desk)
    old = desk.pod("by-hand")
    replace_unseen(desk)
    desk.settle("by-hand")
    old["metadata"]["deletionTimestamp"] = "2999-01-01T00:00:00Z"
    desk.api.objects[PODS.path("work", pod_name("by-hand", 1))] = old
    desk.settle("by-hand")
    assert desk.condition("by-hand", "Succeeded") == (
        *("Unknown", "PreviousEnding", "An earlier job of this name still ends."),
    )


def test_the_pod_of_the_first_does_not_end_the_second(desk: Desk) -> None:
    """Their Pods have the same name, and the first one's lies there as it ended."""
    first = running_by_hand(desk)
    old = desk.pod("by-hand")
    second = replace_unseen(desk)
    for _ in range(3):
        desk.settle("by-hand")
    old["status"] = SUCCEEDED
    desk.api.objects[PODS.path("work", pod_name("by-hand", 1))] = old
    desk.dispatch()
    with pytest.raises(KubeError, match="AlreadyExists"):
        desk.settle("by-hand")
    assert jobs_of(desk.store) == [("canceled", first), ("starting", second)]
    del desk.api.objects[PODS.path("work", pod_name("by-hand", 1))]  # collected
    desk.settle("by-hand")
    assert len(desk.api.all(PODS)) == 1


def test_an_ended_job_of_that_name_is_no_hindrance(desk: Desk) -> None:
    first = desk.apply("by-hand", {**BY_HAND, "desiredState": "Run"})["metadata"]["uid"]
    desk.settle("by-hand")
    desk.api.objects[JOBS.path("work", "by-hand")]["spec"]["desiredState"] = "Cancel"
    desk.settle("by-hand")
    second = replace_unseen(desk)
    desk.settle("by-hand")
    assert jobs_of(desk.store) == [("canceled", first), ("queued", second)]


def test_a_secret_that_is_called_like_a_pod_is_left_alone(desk: Desk) -> None:
    """An operator that replaces what is in its way would delete on behalf of who may not."""
    theirs = desk.api.put(SECRETS, "by-hand-a1", data={"password": "x"})
    running_by_hand(desk)
    assert desk.api.objects[SECRETS.path("work", "by-hand-a1")] is theirs
    assert len(desk.api.all(PODS)) == 1


def test_a_pod_of_somebody_else_costs_an_attempt_and_is_left_alone(desk: Desk) -> None:
    theirs = desk.api.put(PODS, "by-hand-a1", status=SUCCEEDED)
    desk.apply("by-hand", BY_HAND)
    desk.settle("by-hand")
    desk.dispatch()
    desk.settle("by-hand")
    status, reason, message = desk.condition("by-hand", "Succeeded")
    assert (status, reason) == ("Unknown", "Retrying")
    assert "There is a Pod by-hand-a1 that is not Encoder's." in message
    make.let_pass(desk.store, 120)
    desk.dispatch()
    desk.settle("by-hand")
    assert desk.api.objects[PODS.path("work", "by-hand-a1")] is theirs
    assert desk.pod("by-hand", 2)["metadata"]["ownerReferences"]


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        pytest.param("theirs", None, id="has labels alone"),
        pytest.param("theirs", "TranscodeJob", id="has another name"),
        pytest.param("", "ConfigMap", id="belongs to something else"),
    ],
)
def test_the_end_of_a_pod_counts_for_nothing_that(desk: Desk, name: str, owner: str | None) -> None:
    job, resource = desk.admitted()
    uid = desk.api.objects[JOBS.path("work", resource)]["metadata"]["uid"]
    del desk.api.objects[PODS.path("work", pod_name(resource, 1))]
    reference = {"apiVersion": "encoder.dev/v1", "kind": owner, "name": resource, "uid": uid}
    desk.api.put(
        PODS,
        name or pod_name(resource, 1),
        metadata={
            "labels": {"encoder.dev/job": resource, "encoder.dev/attempt": "1"},
            "ownerReferences": [reference] if owner else [],
        },
        status=SUCCEEDED,
    )
    desk.settle(resource)
    assert make.attempt_statuses(desk.store, job) == ["lost"]


def test_a_pool_of_another_engine_is_none_to_apply_a_job_to(desk: Desk) -> None:
    """Its jobs would run on machines that know nothing of the cluster's Secrets and policies."""
    desk.apply("by-hand", {**BY_HAND, "poolRef": {"name": "default"}})
    desk.settle("by-hand")
    assert desk.condition("by-hand", "Succeeded") == (
        *("Unknown", "PoolNotFound", "There is no TranscodePool default."),
    )
    assert jobs_of(desk.store) == []
