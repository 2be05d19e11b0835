"""
How a Pod ended, and why it does not run.

pod_statuses.json holds what a real kubelet left of Pods that were made to fail (Kubernetes 1.34,
containerd 1.6, cgroup v1); what only larger accidents leave is written out here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from encoder_core.exits import Exit
from encoder_core.failures import FAILURES, Budget, failure
from encoder_core.names import ATTEMPT_LABEL, JOB_LABEL
from encoder_core.retries import RetryLimits, Stop, decide_retry
from encoder_db.outcomes import judge
from encoder_operator.exits import (
    DISRUPTED,
    END_RULES,
    NEVER_FITS,
    WAIT_RULES,
    Ended,
    Stuck,
    classify_end,
    classify_waiting,
)
from encoder_operator.policy import PoolPolicy
from encoder_operator.seen import PodPhase, PodSeen, parse_pod
from tests.operator.builders import a_pod


def pod_with(status: dict[str, Any], **metadata: Any) -> PodSeen:
    labels = {JOB_LABEL: "tj-x", ATTEMPT_LABEL: "1"}
    owner = {"apiVersion": "encoder.dev/v1alpha1", "kind": "TranscodeJob", "name": "tj-x"}
    ours = {"name": "tj-x-a1", "uid": "u", "labels": labels, "ownerReferences": [owner]}
    body = {
        "metadata": {**ours, **metadata},
        "spec": {"nodeName": "node-1"},
        "status": status,
    }
    pod = parse_pod(body)
    assert pod is not None
    return pod


def terminated(exit_code: int, reason: str = "Error", message: str | None = None) -> dict[str, Any]:
    state = {"exitCode": exit_code, "reason": reason, "message": message}
    return {"containerStatuses": [{"name": "worker", "state": {"terminated": state}}]}


def disrupted(reason: str) -> dict[str, Any]:
    return {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": reason}]}


REAL: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("pod_statuses.json").read_text()
)
WRITTEN: dict[str, dict[str, Any]] = {
    "evicted": {
        "phase": "Failed",
        "reason": "Evicted",
        "message": "The node was low on resource: memory. Threshold quantity: 100Mi, available: "
        "90Mi. ",
        **disrupted("TerminationByKubelet"),
    },
    "drained, killed": {
        "phase": "Failed", **disrupted("EvictionByEvictionAPI"), **terminated(60),
    },
    "preempted, killed": {
        "phase": "Failed", **disrupted("PreemptionByScheduler"), **terminated(143),
    },
    "node lost": {"phase": "Failed", **disrupted("DeletionByPodGC")},
    "node out of service": {
        "phase": "Failed",
        **disrupted("DeletionByTaintManager"),
        "containerStatuses": [{"name": "worker", "state": {"running": {}}}],
    },
    "node controller": {"phase": "Failed", "reason": "NodeLost"},
    "node shut down": {
        "phase": "Failed",
        "reason": "Terminated",
        "message": "Pod was terminated in response to imminent node shutdown.",
        **disrupted("TerminationByKubelet"),
    },
    "rejected": {
        "phase": "Failed",
        "reason": "OutOfcpu",
        "message": "Pod was rejected: Node didn't have enough resource: cpu, requested: 2000, "
        "used: 1000, capacity: 2000",
    },
    "rejected for pressure": {
        "phase": "Failed",
        "reason": "Evicted",
        "message": "Pod was rejected: The node had condition: [DiskPressure]. ",
    },
    "status lost": {"phase": "Failed", **terminated(137, "ContainerStatusUnknown")},
    "killed without a word": {"phase": "Failed", **terminated(137)},
    "built for another machine": {
        "phase": "Failed", **terminated(1, message="exec /worker: exec format error\n"),
    },
    "of a source that is called so": {
        "phase": "Failed",
        **terminated(20, message='{"failure":{"message":"exec x: exec format error"}}'),
    },
    "out of memory by cgroup v2, whole container": {
        "phase": "Failed", **terminated(137, "OOMKilled"),
    },
    "out of memory, as the worker says": {"phase": "Failed", **terminated(41)},
    "told to stop": {"phase": "Failed", **terminated(60)},
    "no word at all": {"phase": "Failed"},
    "container cannot be made": {
        "phase": "Pending",
        "containerStatuses": [
            {"name": "worker", "state": {"waiting": {"reason": "CreateContainerError"}}}
        ],
    },
}  # fmt: skip

ENDS: dict[str, str | None] = {
    "succeeded": None,
    "succeeded, its sidecar killed": None,
    "a child out of memory, the worker succeeded": None,
    "drained, ended well": None,
    "preempted, ended well": None,
    "deleted, ended well": None,
    "failed by its own word": None,
    "failed, with the end of its log": None,
    "out of processes": None,
    "told to stop": None,
    "out of memory, as the worker says": None,
    "of a source that is called so": None,
    "out of memory": "capacity_memory",
    "a child out of memory, the worker failed": "capacity_memory",
    "out of memory by cgroup v2, whole container": "capacity_memory",
    "volume over its limit": "capacity_disk",
    "root over its disk limit": "capacity_disk",
    "past its deadline, killed": "deadline_exceeded",
    "past its deadline, ended by itself": "deadline_exceeded",
    "command not found": "pod_invalid",
    "built for another machine": "pod_invalid",
    "init container failed": "pod_not_started",
    "crashed": "worker_failed",
    "killed without a word": "worker_failed",
    "evicted": "pod_evicted",
    "drained, killed": "node_drained",
    "preempted, killed": "pod_preempted",
    "node lost": "node_lost",
    "node out of service": "node_lost",
    "node controller": "node_lost",
    "node shut down": "node_shutdown",
    "rejected": "pod_rejected",
    "rejected for pressure": "pod_rejected",
    "status lost": "worker_lost",
    "no word at all": "worker_lost",
}
DELETED: dict[str, str | None] = {
    "deleted, killed after the grace": "pod_deleted",
    "deleted by force": "pod_deleted",
    "told to stop": "pod_deleted",
    "deleted, ended well": None,
    "failed by its own word": None,
}
STUCK: dict[str, tuple[str, float] | None] = {
    "image name invalid": ("image_unavailable", 0),
    "image not on the node": ("image_unavailable", 30),
    "registry not reached": ("image_unavailable", 30),
    "Secret of a variable missing": ("pod_invalid", 60),
    "user not allowed": ("pod_invalid", 60),
    "container cannot be made": ("pod_invalid", 60),
    "no node matches": ("pod_unschedulable", 90),
    "no node has the cores": ("pod_unschedulable", 90),
    "Secret of a volume missing": None,  # nothing says so; the start deadline ends it
    "running": None,
}
POLICY = PoolPolicy(image_grace_s=30, start_deadline_s=90)


def seen(name: str, **metadata: Any) -> PodSeen:
    return pod_with((REAL | WRITTEN)[name], **metadata)


@pytest.mark.parametrize(("name", "code"), ENDS.items())
def test_how_it_ended(name: str, code: str | None) -> None:
    pod = seen(name)
    ended = classify_end(pod)
    assert (ended.code, ended.exit_code) == (code, pod.exit_code)


@pytest.mark.parametrize(("name", "code"), DELETED.items())
def test_how_it_ended_when_somebody_deleted_it(name: str, code: str | None) -> None:
    assert classify_end(seen(name, deletionTimestamp="2026-01-01T00:00:00Z")).code == code


def test_the_clusters_own_words_are_kept() -> None:
    assert classify_end(seen("volume over its limit")) == Ended(
        "capacity_disk", 'Usage of EmptyDir volume "t" exceeds the limit "20Mi".', 137
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("command not found", "no such file or directory"),
        ("built for another machine", "exec /worker: exec format error"),
    ],
)
def test_the_runtimes_own_words_are_kept_where_the_worker_never_spoke(name: str, said: str) -> None:
    assert said in (classify_end(seen(name)).message or "")


@pytest.mark.parametrize(("name", "want"), STUCK.items())
def test_why_it_does_not_run(name: str, want: tuple[str, float] | None) -> None:
    stuck = classify_waiting(seen(name), POLICY)
    assert (None if stuck is None else (stuck.code, stuck.grace_s)) == want


def test_the_schedulers_words_are_kept() -> None:
    said = REAL["no node has the cores"]["conditions"][0]["message"]
    assert "1 Insufficient cpu" in said
    assert classify_waiting(seen("no node has the cores"), POLICY) == Stuck(
        "pod_unschedulable", f"{said} {NEVER_FITS}", 90
    )


def test_every_status_that_was_recorded_is_judged() -> None:
    assert {*ENDS, *DELETED, *STUCK} == {*REAL, *WRITTEN}


def test_every_row_of_the_tables_has_a_status_that_it_is_for() -> None:
    ended = [seen(name) for name in ENDS]
    ended += [seen(name, deletionTimestamp="2026-01-01T00:00:00Z") for name in DELETED]
    hit = {next(rule.name for rule in END_RULES if rule.applies(pod)) for pod in ended}
    assert hit == {rule.name for rule in END_RULES}
    waiting = [seen(name) for name, want in STUCK.items() if want]
    hit = {next(rule.name for rule in WAIT_RULES if rule.applies(pod)) for pod in waiting}
    assert hit == {rule.name for rule in WAIT_RULES}


def test_every_row_names_a_failure_of_the_catalogue_with_a_budget_and_a_hint() -> None:
    codes = [rule.code for rule in (*END_RULES, *WAIT_RULES) if rule.code]
    assert all(FAILURES[code].hint for code in codes)


def test_what_the_cluster_did_is_never_charged_to_the_job() -> None:
    assert {FAILURES[code].budget for code in DISRUPTED} == {Budget.INFRA}


@given(
    phase=st.sampled_from([PodPhase.SUCCEEDED, PodPhase.FAILED]),
    reason=st.none() | st.text(max_size=20),
    message=st.none() | st.text(max_size=40),
    disruption=st.none() | st.sampled_from(["PreemptionByScheduler", "SomethingNew"]),
    exit_code=st.none() | st.integers(0, 255),
    container_reason=st.none() | st.sampled_from(["OOMKilled", "Error", "Completed", "New"]),
    deleting=st.booleans(),
)
def test_every_end_is_classified_by_a_code_of_the_catalogue(**changes: Any) -> None:
    ended = classify_end(a_pod(running=False, **changes))
    assert ended.code is None or ended.code in FAILURES
    if ended.code is None:
        assert ended.exit_code is not None


# --- Any status at all ---------------------------------------------------------------------------

CONTAINER_STATES = st.fixed_dictionaries(
    {},
    optional={
        "waiting": st.fixed_dictionaries(
            {}, optional={"reason": st.text(max_size=20), "message": st.text(max_size=20)}
        ),
        "running": st.just({}),
        "terminated": st.fixed_dictionaries(
            {"exitCode": st.sampled_from(Exit).map(int) | st.integers(0, 255)},
            optional={
                "reason": st.sampled_from(["OOMKilled", "Error", "Completed", "StartError", "New"]),
                "message": st.none() | st.text(max_size=40),
            },
        ),
    },
)
CONTAINERS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["worker", "sidecar", "init"])},
        optional={"state": CONTAINER_STATES},
    ),
    max_size=3,
)
CONDITIONS = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["PodScheduled", "DisruptionTarget", "Ready", "New"]),
            "status": st.sampled_from(["True", "False", "Unknown"]),
        },
        optional={
            "reason": st.sampled_from(
                ["Unschedulable", "DeletionByTaintManager", "EvictionByEvictionAPI", "New"]
            ),
            "message": st.text(max_size=30),
        },
    ),
    max_size=3,
)
STATUSES = st.fixed_dictionaries(
    {},
    optional={
        "phase": st.sampled_from([phase.value for phase in PodPhase]),
        "reason": st.sampled_from(["Evicted", "DeadlineExceeded", "OutOfcpu", "NodeLost", "New"]),
        "message": st.none() | st.text(max_size=40),
        "conditions": CONDITIONS,
        "containerStatuses": CONTAINERS,
        "initContainerStatuses": CONTAINERS,
    },
)


@given(status=STATUSES, deleting=st.booleans())
def test_any_status_of_a_pod_is_understood_and_always_the_same(
    status: dict[str, Any], deleting: bool
) -> None:
    metadata = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleting else {}
    pod, again = pod_with(status, **metadata), pod_with(status, **metadata)
    ended = classify_end(pod)
    assert ended == classify_end(again)
    assert ended.code is None or ended.code in FAILURES
    if ended.code is None:
        assert ended.exit_code is not None  # somebody's word there is
    stuck = classify_waiting(pod, POLICY)
    assert stuck == classify_waiting(again, POLICY)
    if stuck is not None:
        assert FAILURES[stuck.code].hint
        assert not pod.ended
        assert not pod.running


@given(
    status=STATUSES,
    deleting=st.booleans(),
    charged=st.dictionaries(st.sampled_from(Budget), st.integers(0, 1_000_000)),
    limits=st.builds(
        RetryLimits, app=st.integers(1, 100), infra=st.integers(1, 1000), config=st.integers(1, 100)
    ),
    jitter=st.floats(0, 1, exclude_max=True),
)
@example({"phase": "Failed", "reason": "DeadlineExceeded"}, False, {}, RetryLimits(), 0.0)
@example({"phase": "Failed", **terminated(int(Exit.SOURCE))}, True, {}, RetryLimits(), 0.0)
def test_no_status_of_a_pod_leads_from_a_failure_that_is_final_to_another_attempt(
    status: dict[str, Any],
    deleting: bool,
    charged: dict[Budget, int],
    limits: RetryLimits,
    jitter: float,
) -> None:
    metadata = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleting else {}
    pod = pod_with(status, **metadata)
    ended, stuck = classify_end(pod), classify_waiting(pod, POLICY)
    seen = failure(ended.code, ended.message) if ended.code else None
    because = judge(
        exit_code=ended.exit_code, final=None, lost=False, seen=seen, uploaded_all=False
    )
    for code in {each.code for each in (because, stuck) if each is not None}:
        follows = decide_retry(code, charged, limits=limits, jitter=jitter)
        if FAILURES[code].budget is Budget.NONE:
            assert follows == Stop()
        if FAILURES[code].budget is Budget.CAPACITY:
            assert follows != Stop()
