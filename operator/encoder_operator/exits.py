"""How a Pod ended → which failure of the catalogue it is: one ordered table. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from encoder_operator.seen import PodPhase, PodSeen

IMAGE_REASONS: Final = {
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "ImageInspectError",
}
CONFIG_REASONS: Final = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
REJECTED_REASONS: Final = {
    "OutOfcpu", "OutOfmemory", "OutOfpods", "OutOfephemeral-storage", "UnexpectedAdmissionError",
    "NodeAffinity", "NodePorts", "PreemptContainers",
}  # fmt: skip
NEVER_BEGAN: Final = {"StartError", "ContainerCannotRun"}
DISRUPTIONS: Final = {
    "PreemptionByScheduler": "pod_preempted",
    "EvictionByEvictionAPI": "pod_evicted",
    "TerminationByKubelet": "pod_evicted",
    "DeletionByTaintManager": "node_lost",
    "DeletionByPodGC": "node_lost",
}


@dataclass(frozen=True, slots=True)
class Ended:
    """
    What a Pod's end says by itself.

    `code` is None when its container ended by its own will: then the worker's exit code and its
    final report say what happened.
    """

    code: str | None
    message: str | None = None
    exit_code: int | None = None


Rule = tuple[str, Callable[[PodSeen], bool], str | None]

RULES: Final[tuple[Rule, ...]] = (
    # The worker's own success is true whatever happened to its Pod afterwards, but a Pod that is
    # being disrupted may report success for a container that only handled SIGTERM: the worker
    # exits non-zero then, so exit code 0 stands.
    ("succeeded", lambda p: p.exit_code == 0 and p.phase is PodPhase.SUCCEEDED, None),
    ("out of memory", lambda p: p.container_reason == "OOMKilled", "capacity_memory"),
    ("past its deadline", lambda p: p.reason == "DeadlineExceeded", "deadline_exceeded"),
    (
        "disk limit",
        lambda p: p.reason == "Evicted" and "exceeds the" in (p.message or "") and not p.disruption,
        "capacity_disk",
    ),
    ("preempted", lambda p: p.disruption == "PreemptionByScheduler", "pod_preempted"),
    ("node gone", lambda p: DISRUPTIONS.get(p.disruption or "") == "node_lost", "node_lost"),
    ("evicted", lambda p: p.reason == "Evicted" or p.disruption is not None, "pod_evicted"),
    ("node shut down", lambda p: p.reason in {"NodeShutdown", "Terminated"}, "pod_evicted"),
    ("node lost", lambda p: p.reason in {"NodeLost", "Shutdown"}, "node_lost"),
    ("rejected", lambda p: p.reason in REJECTED_REASONS, "pod_rejected"),
    ("never began", lambda p: p.container_reason in NEVER_BEGAN, "pod_invalid"),
    ("status lost", lambda p: p.container_reason == "ContainerStatusUnknown", "worker_lost"),
    ("deleted", lambda p: p.deleting and p.exit_code in (None, 137, 143), "pod_deleted"),
    ("by its own will", lambda p: p.exit_code is not None and p.exit_code < 128, None),
    ("killed", lambda p: p.exit_code is not None, "worker_failed"),
)  # fmt: skip


def classify_end(pod: PodSeen) -> Ended:
    """Say what a Pod that ended says of its attempt. Total: every ended Pod has an answer."""
    for _, applies, code in RULES:
        if applies(pod):
            message = pod.message if code else None
            return Ended(code, message.strip() if message else None, pod.exit_code)
    return Ended("worker_lost", pod.message, pod.exit_code)


@dataclass(frozen=True, slots=True)
class Stuck:
    """A Pod that does not get to run: what it would fail with, and how long it may stay so."""

    code: str
    message: str
    grace_s: float


def classify_waiting(pod: PodSeen) -> Stuck | None:
    """Why a Pod that has not ended does not run; None when nothing is wrong with it."""
    if pod.ended or pod.running:
        return None
    if pod.waiting == "InvalidImageName":
        return Stuck("image_unavailable", pod.waiting_message or pod.waiting, 0)
    if pod.waiting in IMAGE_REASONS:
        # Pulls fail in passing when many nodes pull at once: ten minutes before it counts.
        return Stuck("image_unavailable", pod.waiting_message or pod.waiting, 600)
    if pod.waiting in CONFIG_REASONS:
        return Stuck("pod_invalid", pod.waiting_message or pod.waiting, 60)
    if pod.unschedulable is not None:
        return Stuck("pod_unschedulable", pod.unschedulable, 600)
    return None
