"""
How a Pod ended, and why one does not run → which failure of the catalogue it is: two tables.

They drive the retry rules, the conditions, the metrics and the table of docs/kubernetes.md. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from encoder_core.exits import Exit
from encoder_operator.policy import PoolPolicy
from encoder_operator.seen import PodPhase, PodSeen

REJECTED_REASONS: Final = {
    "OutOfcpu", "OutOfmemory", "OutOfpods", "OutOfephemeral-storage", "UnexpectedAdmissionError",
    "NodeAffinity", "NodePorts", "PreemptContainers",
}  # fmt: skip
NODE_GONE: Final = {"DeletionByTaintManager", "DeletionByPodGC"}

DISRUPTED: Final = {
    "pod_evicted": "Evicted",
    "pod_preempted": "Preempted",
    "node_drained": "NodeDrain",
    "node_shutdown": "NodeShutdown",
    "node_lost": "NodeLost",
    "pod_rejected": "NodeRejected",
    "pod_deleted": "PodDeleted",
}
"""Failures that are the cluster's doing → the reason of the condition `Disrupted`."""


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


def _words(pod: PodSeen) -> str:
    """What the container left as its last word: of the worker, JSON; of the runtime, a sentence."""
    return (pod.termination_message or "").strip()


@dataclass(frozen=True, slots=True)
class EndRule:
    """One row: how an ended Pod looks, and what that means."""

    name: str
    looks: str
    """What is seen in the Pod, for the documentation."""
    applies: Callable[[PodSeen], bool]
    code: str | None
    """None: by the worker's own word."""


END_RULES: Final = (
    # The worker's own success is true whatever happened to its Pod afterwards. A Pod that is being
    # disrupted may report success for a container that only handled SIGTERM, but the worker exits
    # non-zero then, so exit code 0 stands.
    EndRule("succeeded", "`Succeeded`, exit code 0",
            lambda p: p.exit_code == 0 and p.phase is PodPhase.SUCCEEDED, None),
    EndRule("out of memory", "container `OOMKilled`",
            lambda p: p.container_reason == "OOMKilled", "capacity_memory"),
    EndRule("past its deadline", "Pod `DeadlineExceeded`",
            lambda p: p.reason == "DeadlineExceeded", "deadline_exceeded"),
    EndRule("disk limit", "Pod `Evicted`, “exceeds the … limit”, no disruption",
            lambda p: p.reason == "Evicted" and "exceeds the" in (p.message or "")
            and not p.disruption, "capacity_disk"),
    EndRule("preempted", "`DisruptionTarget`/`PreemptionByScheduler`",
            lambda p: p.disruption == "PreemptionByScheduler", "pod_preempted"),
    EndRule("node gone", "`DisruptionTarget`/`DeletionByTaintManager`, `DeletionByPodGC`",
            lambda p: p.disruption in NODE_GONE, "node_lost"),
    EndRule("drained", "`DisruptionTarget`/`EvictionByEvictionAPI`",
            lambda p: p.disruption == "EvictionByEvictionAPI", "node_drained"),
    EndRule("node shut down", "Pod `Terminated` or `NodeShutdown`",
            lambda p: p.reason in {"NodeShutdown", "Terminated"}, "node_shutdown"),
    # A kubelet under pressure rejects with the reason of an eviction, and says so in its message.
    EndRule("rejected", "Pod `OutOfcpu`, `NodeAffinity`, …, or “Pod was rejected: …”",
            lambda p: p.reason in REJECTED_REASONS
            or (p.message or "").startswith("Pod was rejected"), "pod_rejected"),
    EndRule("evicted", "Pod `Evicted`, or another `DisruptionTarget`",
            lambda p: p.reason == "Evicted" or p.disruption is not None, "pod_evicted"),
    EndRule("node lost", "Pod `NodeLost` or `Shutdown`",
            lambda p: p.reason in {"NodeLost", "Shutdown"}, "node_lost"),
    EndRule("never began", "container `StartError` or `ContainerCannotRun`",
            lambda p: p.container_reason in {"StartError", "ContainerCannotRun"}, "pod_invalid"),
    EndRule("for another machine", "all that it said is “exec …: exec format error”",
            lambda p: _words(p).startswith("exec ") and _words(p).endswith("exec format error"),
            "pod_invalid"),
    EndRule("init container failed", "the worker never ran, an init container failed",
            lambda p: p.init_failed, "pod_not_started"),
    EndRule("status lost", "container `ContainerStatusUnknown`",
            lambda p: p.container_reason == "ContainerStatusUnknown", "worker_lost"),
    # We delete no Pod whose attempt is to go on, so somebody did; or the worker would say why.
    EndRule("deleted", "being deleted, exit code 60, 137, 143 or none",
            lambda p: p.deleting and p.exit_code in (None, Exit.INTERRUPTED, 137, 143),
            "pod_deleted"),
    EndRule("by its own will", "exit code below 128",
            lambda p: p.exit_code is not None and p.exit_code < 128, None),
    EndRule("killed", "exit code of a signal",
            lambda p: p.exit_code is not None, "worker_failed"),
    EndRule("no word at all", "anything else", lambda _: True, "worker_lost"),
)  # fmt: skip


def classify_end(pod: PodSeen) -> Ended:
    """Say what a Pod that ended says of its attempt. Total: the last rule takes what is left."""
    rule = next(rule for rule in END_RULES if rule.applies(pod))
    message = pod.message if rule.code else None
    if rule.code == "pod_invalid":
        message = message or pod.termination_message  # the runtime's, for the worker never spoke
    return Ended(rule.code, message.strip() if message else None, pod.exit_code)


@dataclass(frozen=True, slots=True)
class Stuck:
    """A Pod that does not get to run: what it would fail with, and how long it may stay so."""

    code: str
    message: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class WaitRule:
    """One row: why a Pod does not run, and how long that is borne."""

    name: str
    looks: str
    applies: Callable[[PodSeen], bool]
    code: str
    bears: str
    """For the documentation."""
    grace_s: Callable[[PoolPolicy], float]


WAIT_RULES: Final = (
    WaitRule("bad image name", "`InvalidImageName`",
             lambda p: p.waiting == "InvalidImageName",
             "image_unavailable", "not at all", lambda _: 0),
    # Pulls fail in passing when many nodes pull at once.
    WaitRule("image cannot be pulled", "`ErrImagePull`, `ImagePullBackOff`, `ErrImageNeverPull`",
             lambda p: p.waiting in {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull",
                                     "ImageInspectError", "RegistryUnavailable"},
             "image_unavailable", "`imagePullGraceSeconds`", lambda pool: pool.image_grace_s),
    WaitRule("container cannot be made", "`CreateContainerConfigError`, `CreateContainerError`",
             lambda p: p.waiting in {"CreateContainerConfigError", "CreateContainerError",
                                     "RunContainerError"},
             "pod_invalid", "60 s", lambda _: 60),
    WaitRule("no node has room", "`PodScheduled=False`/`Unschedulable`",
             lambda p: p.unschedulable is not None,
             "pod_unschedulable", "`startDeadlineSeconds`", lambda pool: pool.start_deadline_s),
)  # fmt: skip


NEVER_FITS: Final = (
    "It asks for more than any node has, even if that were empty: lower the resources of the job "
    "or of its pool, or add a larger node."
)
_NODES: Final = re.compile(r"0/(\d+) nodes are available")


def fits_nowhere(words: str) -> bool:
    """
    Whether by the scheduler's words no node that exists would take the Pod even if it were empty.

    A node without room now could take it once others ended. Of one that is too small the scheduler
    says that to preempt others does not help, as of those that the Pod may not go to.
    """
    nodes = _NODES.match(words)
    if nodes is None or "Insufficient" not in words:
        return False
    return f"available: {nodes[1]} Preemption is not helpful for scheduling" in words


def hinted(words: str) -> str:
    """
    The scheduler's words, and what follows from them where they do not say it.

    A hint and no verdict: an autoscaler may bring a larger node.
    """
    return f"{words} {NEVER_FITS}" if fits_nowhere(words) else words


def classify_waiting(pod: PodSeen, policy: PoolPolicy) -> Stuck | None:
    """Why a Pod that has not ended does not run; None when nothing is known to be wrong with it."""
    if pod.ended or pod.running:
        return None
    for rule in WAIT_RULES:
        if rule.applies(pod):
            unschedulable = rule.code == "pod_unschedulable"
            said = hinted(pod.unschedulable or "") if unschedulable else pod.waiting_message
            message = said or pod.waiting or rule.name
            return Stuck(rule.code, message, rule.grace_s(policy))
    return None
