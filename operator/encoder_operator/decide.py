"""Decide what one job needs next. Pure: observe.py reads, act.py carries out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from encoder_core.names import resource_name
from encoder_core.specs import Priority
from encoder_core.states import ACTIVE_JOB, FINAL_JOB, JobStatus
from encoder_operator.exits import NODE_GONE, Ended, Stuck, classify_end, classify_waiting
from encoder_operator.policy import PoolPolicy
from encoder_operator.seen import JobSeen, PodSeen

RETRY_S: Final = 5.0
UNKNOWN_POOL_S: Final = 60.0
"""How often a job asks for a pool that does not exist; one that is made wakes it at once."""
WAITING_S: Final = 60.0
"""
How old what a job that waits is told may be: how many places are taken changes with every job, and
nothing tells those that wait. What people change is told at once.
"""
UNBOUND_S: Final = 180.0
"""
From making a resource to noting it takes milliseconds; after a crash, a claim's lease of 60 s and
some work. Who is called a stranger too early is told so in its conditions.
"""
STUCK_MARGIN_S: Final = 30.0
"""Past a Pod's grace, and past the publish lease: clocks differ, and a PUT may be under way."""
UNSEEN: Final = "The Pod is gone, and nobody saw why."
SILENT_S: Final = 1800.0
"""
A worker reports every two seconds. So long without a word it hangs, or nothing reaches the API; an
outage of the API or of the database that is shorter ends no Pod.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSeen:
    """The job's row: the truth about what it should be."""

    id: int
    uuid: UUID
    status: JobStatus
    priority: Priority
    attempt: int
    """The number of the latest attempt; 0 before the first."""
    attempt_open: bool
    """Whether that attempt holds a place."""
    resource_name: str | None
    resource_uid: str | None
    pod_created: bool
    """Whether a Pod was made for the latest attempt."""
    finished_at: datetime | None = None
    publish_until: datetime | None = None
    """Until then the worker of that attempt may publish outputs."""
    reported_end: bool = False
    """Whether that worker has said its last word: then it publishes nothing more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """All that a decision needs, at one moment."""

    name: str
    """Of the TranscodeJob."""
    now: datetime
    job: JobSeen | None
    row: RowSeen | None
    pods: Mapping[int, PodSeen]
    """By attempt."""
    policy: PoolPolicy


@dataclass(frozen=True, slots=True)
class Adopt:
    """Record a job that somebody applied with kubectl."""


@dataclass(frozen=True, slots=True)
class Disown:
    """Say that the resource is not what it claims to be; run nothing for it."""

    message: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Say why nothing runs for this resource, and if it is `final`, never will."""

    reason: str
    message: str
    final: bool = True


@dataclass(frozen=True, slots=True)
class CancelJob:
    reason: str


@dataclass(frozen=True, slots=True)
class Bump:
    """Somebody gave a job that waits another priority: it is the next of that one's."""

    priority: Priority


@dataclass(frozen=True, slots=True)
class StartPod:
    attempt: int


@dataclass(frozen=True, slots=True)
class RecordPod:
    """The Pod exists, and the record does not know it: we crashed between the two."""

    attempt: int


@dataclass(frozen=True, slots=True)
class DeletePod:
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class DeleteSecret:
    """
    The order of an attempt that never ran, with credentials that serve nobody any more.

    There may be any number of such attempts, while those that run are few: their Secrets go with
    the resource.
    """

    attempt: int


@dataclass(frozen=True, slots=True)
class FinishAttempt:
    attempt: int
    ended: Ended
    lost: bool = False
    """Nobody knows what its worker does now."""
    gone: bool = False
    """Only if the API server agrees that the Pod is not there."""


@dataclass(frozen=True, slots=True)
class DeleteResource:
    uid: str


Step = (
    Adopt
    | Disown
    | Refuse
    | CancelJob
    | Bump
    | StartPod
    | RecordPod
    | DeletePod
    | DeleteSecret
    | FinishAttempt
    | DeleteResource
)


@dataclass(frozen=True, slots=True)
class Decision:
    steps: Sequence[Step] = ()
    wake_after_s: float | None = None
    """When to look again though nothing happens. None: only when something does."""

    @property
    def is_shown(self) -> bool:
        """
        Whether its look ends with the resource's status. Not when the next look is due at once,
        whose status would overwrite this one, nor when nothing is left to show it on.
        """
        if self.wake_after_s == 0:
            return False
        return not any(isinstance(step, StartPod | DeleteResource) for step in self.steps)


def decide(seen: Observed) -> Decision:
    """Total: every observation has a decision; it may be to wait for the next event."""
    if seen.row is None:
        return _without_row(seen)
    if seen.job is None:
        return _without_resource(seen, seen.row)
    if seen.row.resource_uid not in (None, seen.job.uid):
        if seen.row.resource_name == seen.name and seen.row.status not in FINAL_JOB:
            return _replaced(seen, seen.row)
        return Decision([Disown("The job in spec.jobUID belongs to another resource.")])
    if seen.row.resource_uid is None:
        return _unbound(seen, seen.row, seen.job)
    if seen.row.status in FINAL_JOB:
        return _final(seen, seen.row, seen.job)
    if seen.job.cancel and seen.row.status is not JobStatus.CANCELING:
        return Decision([CancelJob("spec.desiredState is Cancel")], wake_after_s=0)
    if seen.job.deleting and seen.row.status is not JobStatus.CANCELING:
        return Decision([CancelJob("The resource was deleted")], wake_after_s=0)
    if seen.row.status in ACTIVE_JOB and seen.row.attempt_open:
        return _active(seen, seen.row)
    wanted = _wanted_priority(seen.row, seen.job)
    if wanted is not None:
        return Decision([Bump(wanted)], wake_after_s=0)
    return Decision(wake_after_s=WAITING_S)


def _wanted_priority(row: RowSeen, job: JobSeen) -> Priority | None:
    """
    The priority that the spec was changed to while the job waits.

    Only a change that no status has told of yet: a bump by the API leaves the spec behind, and must
    not be undone by it.
    """
    if row.status is not JobStatus.QUEUED or job.generation <= max(job.observed, 1):
        return None
    return next((p for p in Priority if p == job.priority and p is not row.priority), None)


def _unbound(seen: Observed, row: RowSeen, job: JobSeen) -> Decision:
    """
    No resource stands for this job yet, so this one decides nothing: neither its spec nor its
    deletion. It is ours in the moment between making and noting it, or somebody forged it.
    """
    if row.status is JobStatus.QUEUED and job.done:
        # Retried by request: the resource of the run before makes room for a new one.
        return Decision([DeleteResource(job.uid)])
    born = job.created_at or seen.now
    left_s = (born + timedelta(seconds=UNBOUND_S) - seen.now).total_seconds()
    if left_s > 0 or row.status in FINAL_JOB:
        return Decision(wake_after_s=max(left_s, RETRY_S) if left_s > 0 else None)
    return Decision([Disown("The job in spec.jobUID is not admitted; its resource is not yours.")])


def _replaced(seen: Observed, row: RowSeen) -> Decision:
    """Names are unique, so the job's own resource is gone; the one that has its name now waits."""
    ending = _without_resource(seen, row)
    if ending.wake_after_s == 0:
        return ending
    said = "An earlier job of this name still ends."
    return replace(ending, steps=[*ending.steps, Refuse("PreviousEnding", said, final=False)])


def _without_row(seen: Observed) -> Decision:
    if seen.job is None or seen.job.deleting:
        return Decision([DeletePod(pod.name, pod.uid) for pod in _alive(seen)])
    if seen.job.job_uid is None and "jobID" in seen.job.status:
        # It was recorded once, and DELETE /jobs or retention removed it: it must not run again.
        return Decision([DeleteResource(seen.job.uid)])
    if seen.job.over:
        return Decision()  # refused for good, and it says so
    if seen.job.job_uid is None and seen.job.cancel:
        return Decision([Refuse("Canceled", "Canceled before it was admitted")])
    if seen.job.job_uid is None:
        return Decision([Adopt()], wake_after_s=UNKNOWN_POOL_S)  # its pool may come later
    if seen.name == resource_name(seen.job.job_uid):
        # Only the operator may use such names, so it was ours, and DELETE /jobs removed its row.
        return Decision([DeleteResource(seen.job.uid)])
    return Decision([Disown("No job has the UUID in spec.jobUID.")])


def _without_resource(seen: Observed, row: RowSeen) -> Decision:
    if row.status in FINAL_JOB:
        return Decision([DeletePod(pod.name, pod.uid) for pod in _alive(seen)])
    if row.status is JobStatus.QUEUED and row.resource_uid is None:
        return Decision()  # not admitted yet: there is no resource to miss
    if row.status is not JobStatus.CANCELING:
        return Decision([CancelJob("The resource was deleted")], wake_after_s=0)
    return _active(seen, row) if row.attempt_open else Decision()


def _final(seen: Observed, row: RowSeen, job: JobSeen) -> Decision:
    alive: list[Step] = [DeletePod(pod.name, pod.uid) for pod in _alive(seen)]
    if alive:
        return Decision(alive)
    if row.finished_at is None or not job.done:
        return Decision()
    completed = row.status is JobStatus.COMPLETED
    keep = seen.policy.keep_completed if completed else seen.policy.keep_failed
    left_s = (row.finished_at + keep - seen.now).total_seconds()
    if left_s > 0:
        return Decision(wake_after_s=left_s)
    return Decision([DeleteResource(job.uid)])


def _active(seen: Observed, row: RowSeen) -> Decision:
    pod = seen.pods.get(row.attempt)
    stopping = row.status is JobStatus.CANCELING
    if pod is None:
        return _without_pod(seen, row)
    if not row.pod_created:
        return Decision([RecordPod(row.attempt)], wake_after_s=0)
    if pod.ended:
        if pod.exit_code is None and (left_s := _may_publish_s(seen, row)) > 0:
            return Decision(wake_after_s=left_s)  # its node did not say that, and may be cut off
        return Decision([FinishAttempt(row.attempt, classify_end(pod))], wake_after_s=0)
    if pod.deleting:
        return _terminating(seen, row, pod)
    if stopping:
        return Decision([DeletePod(pod.name, pod.uid)], wake_after_s=RETRY_S)
    if seen.policy.stop_policy == "Drain" and row.status is JobStatus.STARTING and not pod.running:
        return _end_unstarted(row, pod, Ended("pool_drained", _drained(seen)))
    return _starting(seen, row, pod)


def _without_pod(seen: Observed, row: RowSeen) -> Decision:
    stopping = row.status is JobStatus.CANCELING
    if not row.pod_created and not stopping:
        if seen.policy.stop_policy == "Drain":
            drained = Ended("pool_drained", _drained(seen))
            return Decision([FinishAttempt(row.attempt, drained)], wake_after_s=0)
        return Decision([StartPod(row.attempt)])
    left_s = _may_publish_s(seen, row)
    if left_s > 0 and not stopping:
        return Decision(wake_after_s=left_s)  # deleted by force: that ends no worker
    ended = Ended(None) if stopping else Ended("pod_deleted", UNSEEN)
    return Decision([FinishAttempt(row.attempt, ended, lost=True, gone=True)], wake_after_s=0)


def _drained(seen: Observed) -> str:
    return f"Pool {seen.policy.name} is drained: it goes back to the queue."


def _terminating(seen: Observed, row: RowSeen, pod: PodSeen) -> Decision:
    """
    Wait for a Pod that is being deleted; not for ever.

    On a node that is lost nobody ends it, and its worker may go on working there. The next attempt
    may begin when the grace is over, and so is the lease under which that worker publishes.
    """
    if row.reported_end and pod.disruption in NODE_GONE:
        # Its last word is all that will ever come of it.
        return Decision([FinishAttempt(row.attempt, Ended(None))], wake_after_s=0)
    over = (pod.delete_at or seen.now) + timedelta(seconds=STUCK_MARGIN_S)
    left_s = max((over - seen.now).total_seconds(), _may_publish_s(seen, row))
    if left_s > 0:
        return Decision(wake_after_s=left_s)
    said = "Its node does not end the Pod; most likely it is lost."
    ended = Ended(None if row.status is JobStatus.CANCELING else "node_lost", said)
    return Decision([FinishAttempt(row.attempt, ended, lost=True)], wake_after_s=0)


def _may_publish_s(seen: Observed, row: RowSeen) -> float:
    """
    For how long its worker may still publish, wherever it is: nobody else may meanwhile.

    A Pod that is gone, or ended without an exit code, is a controller's word. On a node that is cut
    off its containers go on.
    """
    if row.publish_until is None or row.reported_end:
        return 0.0
    until = row.publish_until + timedelta(seconds=STUCK_MARGIN_S)
    return max(0.0, (until - seen.now).total_seconds())


def _starting(seen: Observed, row: RowSeen, pod: PodSeen) -> Decision:
    born = pod.created_at or seen.now
    if pod.running:
        heard = row.publish_until or born
        left_s = (heard + timedelta(seconds=SILENT_S) - seen.now).total_seconds()
        if left_s > 0:
            return Decision()  # the clock that writes progress comes by again
        ended = Ended("worker_stalled", f"The Pod runs and has said nothing for {SILENT_S:.0f} s.")
        return Decision([DeletePod(pod.name, pod.uid), FinishAttempt(row.attempt, ended)], 0)
    stuck = why_not_started(pod, seen.policy, seen.job)
    left_s = (born + timedelta(seconds=stuck.grace_s) - seen.now).total_seconds()
    if left_s > 0:
        return Decision(wake_after_s=left_s)
    return _end_unstarted(row, pod, Ended(stuck.code, stuck.message))


def why_not_started(pod: PodSeen, policy: PoolPolicy, job: JobSeen | None) -> Stuck:
    """Also of a Pod with which nothing seems wrong: it may not stay so past the start deadline."""
    spec = job.spec if job else {}
    asked = spec.get("startDeadlineSeconds", policy.start_deadline_s)
    deadline_s = min(asked, policy.start_deadline_s)
    stuck = classify_waiting(pod, policy)
    if stuck is not None:
        return replace(stuck, grace_s=min(stuck.grace_s, deadline_s))
    secret = (spec.get("credentialsSecretRef") or {}).get("name")
    if pod.scheduled and secret and job is not None and job.job_uid is None:
        said = f"The Pod waits for its volumes. Is there a Secret {secret} in this namespace?"
        return Stuck("credentials_missing", said, deadline_s)
    said = "The container is not made yet." if pod.scheduled else "No node was chosen yet."
    return Stuck("pod_not_started", said, deadline_s)


def _end_unstarted(row: RowSeen, pod: PodSeen, ended: Ended) -> Decision:
    """Its container never ran, so nothing of it can be published any more."""
    finish = FinishAttempt(row.attempt, ended)
    return Decision([DeletePod(pod.name, pod.uid), finish, DeleteSecret(row.attempt)], 0)


def _alive(seen: Observed) -> list[PodSeen]:
    return [pod for pod in seen.pods.values() if not pod.ended and not pod.deleting]
