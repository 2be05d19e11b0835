"""How a Pod ended, by statuses that a real kubelet left (Kubernetes 1.34, containerd)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder_core.failures import FAILURES
from encoder_core.names import ATTEMPT_LABEL, JOB_LABEL
from encoder_operator.exits import Ended, Stuck, classify_end, classify_waiting
from encoder_operator.seen import PodPhase, PodSeen, parse_pod
from tests.operator.builders import a_pod


def pod_with(status: dict[str, Any], **metadata: Any) -> PodSeen:
    labels = {JOB_LABEL: "tj-x", ATTEMPT_LABEL: "1"}
    body = {
        "metadata": {"name": "tj-x-a1", "uid": "u", "labels": labels, **metadata},
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


FULL_DISK = 'Usage of EmptyDir volume "scratch" exceeds the limit "20Mi". '
DEADLINE = "Pod was active on the node longer"


@pytest.mark.parametrize(
    ("status", "want"),
    [
        pytest.param(
            {"phase": "Succeeded", **terminated(0, "Completed")},
            Ended(None, None, 0),
            id="succeeded",
        ),
        pytest.param(
            {"phase": "Succeeded", **terminated(0, "OOMKilled")},
            Ended(None, None, 0),
            id="a child was killed for memory, and the worker verified its outputs all the same",
        ),
        pytest.param(
            {"phase": "Failed", **terminated(137, "OOMKilled")},
            Ended("capacity_memory", None, 137),
            id="out of memory",
        ),
        pytest.param(
            {"phase": "Failed", **terminated(41, "OOMKilled")},
            Ended("capacity_memory", None, 41),
            id="ffmpeg ran out of memory and the worker ended by itself",
        ),
        pytest.param(
            {"phase": "Failed", **terminated(20)}, Ended(None, None, 20), id="the worker's own word"
        ),
        pytest.param(
            {"phase": "Failed", "reason": "DeadlineExceeded", "message": DEADLINE}
            | terminated(137),
            Ended("deadline_exceeded", DEADLINE, 137),
            id="deadline",
        ),
        pytest.param(
            {"phase": "Failed", "reason": "Evicted", "message": FULL_DISK, **terminated(137)},
            Ended("capacity_disk", FULL_DISK.strip(), 137),
            id="its own disk limit",
        ),
        pytest.param(
            {
                "phase": "Failed",
                "reason": "Evicted",
                "message": "The node was low on resource: memory.",
                **disrupted("TerminationByKubelet"),
            },
            Ended("pod_evicted", "The node was low on resource: memory."),
            id="node pressure",
        ),
        pytest.param(
            {"phase": "Failed", **disrupted("EvictionByEvictionAPI"), **terminated(60)},
            Ended("pod_evicted", None, 60),
            id="drained",
        ),
        pytest.param(
            {"phase": "Failed", **disrupted("PreemptionByScheduler"), **terminated(143)},
            Ended("pod_preempted", None, 143),
            id="preempted",
        ),
        pytest.param(
            {"phase": "Failed", **disrupted("DeletionByPodGC")},
            Ended("node_lost", None),
            id="node lost",
        ),
        pytest.param(
            {"phase": "Failed", "reason": "OutOfcpu", "message": "Pod was rejected"},
            Ended("pod_rejected", "Pod was rejected"),
            id="rejected by the kubelet",
        ),
        pytest.param(
            {"phase": "Failed", **terminated(128, "StartError", "exec: no such file")},
            Ended("pod_invalid", None, 128),
            id="its command cannot be run",
        ),
        pytest.param(
            {"phase": "Failed", **terminated(139)}, Ended("worker_failed", None, 139), id="crashed"
        ),
        pytest.param({"phase": "Failed"}, Ended("worker_lost", None, None), id="no word at all"),
    ],
)  # fmt: skip
def test_how_it_ended(status: dict[str, Any], want: Ended) -> None:
    assert classify_end(pod_with(status)) == want


def test_a_deleted_pod_whose_worker_was_killed() -> None:
    pod = pod_with({"phase": "Failed", **terminated(137)}, deletionTimestamp="2026-01-01T00:00:00Z")
    assert classify_end(pod) == Ended("pod_deleted", None, 137)


def waiting(reason: str, message: str) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{"name": "worker", "state": state}]}


@pytest.mark.parametrize(
    ("status", "want"),
    [
        pytest.param(
            waiting("InvalidImageName", "bad"),
            Stuck("image_unavailable", "bad", 0),
            id="a bad image name cannot get better",
        ),
        pytest.param(
            waiting("ErrImagePull", "refused"),
            Stuck("image_unavailable", "refused", 600),
            id="a failed pull may",
        ),
        pytest.param(
            waiting("CreateContainerConfigError", "no secret"),
            Stuck("pod_invalid", "no secret", 60),
            id="missing configuration",
        ),
        pytest.param(waiting("ContainerCreating", ""), None, id="being created"),
        pytest.param(
            {
                "phase": "Pending",
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/2 nodes are available: 2 Insufficient cpu.",
                    }
                ],
            },
            Stuck("pod_unschedulable", "0/2 nodes are available: 2 Insufficient cpu.", 600),
            id="no node has room",
        ),
    ],
)
def test_why_it_does_not_run(status: dict[str, Any], want: Stuck | None) -> None:
    assert classify_waiting(pod_with(status)) == want


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
