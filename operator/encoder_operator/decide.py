"""Decide what one job needs next. Pure: observe.py reads, act.py carries out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from encoder_core.names import resource_name
from encoder_core.states import ACTIVE_JOB, FINAL_JOB, JobStatus
from encoder_operator.exits import Ended, classify_end, classify_waiting
from encoder_operator.seen import JobSeen, PodSeen

RETRY_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSeen:
    """The job's row: the truth about what it should be."""

    id: int
    uuid: UUID
    status: JobStatus
    attempt: int
    """The number of the latest attempt; 0 before the first."""
    attempt_open: bool
    """Whether that attempt holds a place."""
    resource_uid: str | None
    pod_created: bool
    """Whether a Pod was made for the latest attempt."""
    finished_at: datetime | None = None


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
    retention: timedelta


@dataclass(frozen=True, slots=True)
class Adopt:
    """Record a job that somebody applied with kubectl."""


@dataclass(frozen=True, slots=True)
class Disown:
    """Say that the resource is not what it claims to be; run nothing for it."""

    message: str


@dataclass(frozen=True, slots=True)
class CancelJob:
    reason: str


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
class FinishAttempt:
    attempt: int
    ended: Ended
    lost: bool = False


@dataclass(frozen=True, slots=True)
class DeleteResource:
    uid: str


Step = (
    Adopt | Disown | CancelJob | StartPod | RecordPod | DeletePod | FinishAttempt | DeleteResource
)


@dataclass(frozen=True, slots=True)
class Decision:
    steps: Sequence[Step] = ()
    wake_after_s: float | None = None
    """When to look again though nothing happens. None: only when something does."""


def decide(seen: Observed) -> Decision:
    """Total: every observation has a decision; it may be to wait for the next event."""
    if seen.row is None:
        return _without_row(seen)
    if seen.job is None:
        return _without_resource(seen, seen.row)
    if seen.row.resource_uid not in (None, seen.job.uid):
        return Decision([Disown("This job belongs to another resource.")])
    if seen.row.status in FINAL_JOB:
        return _final(seen, seen.row, seen.job)
    if seen.job.cancel and seen.row.status is not JobStatus.CANCELING:
        return Decision([CancelJob("spec.desiredState is Cancel")], wake_after_s=0)
    if seen.job.deleting and seen.row.status is not JobStatus.CANCELING:
        return Decision([CancelJob("The resource was deleted")], wake_after_s=0)
    if seen.row.status in ACTIVE_JOB and seen.row.attempt_open:
        return _active(seen, seen.row)
    if seen.row.status is JobStatus.QUEUED and seen.row.resource_uid is None and _is_done(seen.job):
        # Retried by request: the resource of the run before makes room for a new one.
        return Decision([DeleteResource(seen.job.uid)])
    return Decision()


def _without_row(seen: Observed) -> Decision:
    if seen.job is None or seen.job.deleting:
        return Decision([DeletePod(pod.name, pod.uid) for pod in _alive(seen)])
    if seen.job.job_uid is None and "jobId" in seen.job.status:
        # It was recorded once, and DELETE /jobs or retention removed it: it must not run again.
        return Decision([DeleteResource(seen.job.uid)])
    if seen.job.job_uid is None:
        return Decision([Adopt()], wake_after_s=RETRY_S)  # its pool may be made a little later
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
    if row.finished_at is None or not _is_done(job):
        return Decision()
    left_s = (row.finished_at + seen.retention - seen.now).total_seconds()
    if left_s > 0:
        return Decision(wake_after_s=left_s)
    return Decision([DeleteResource(job.uid)])


def _active(seen: Observed, row: RowSeen) -> Decision:
    pod = seen.pods.get(row.attempt)
    stopping = row.status is JobStatus.CANCELING
    if pod is None:
        if not row.pod_created and not stopping:
            return Decision([StartPod(row.attempt)])
        code = None if stopping else "pod_deleted"
        ended = Ended(code, None if stopping else "The Pod is gone.")
        return Decision([FinishAttempt(row.attempt, ended, lost=True)], wake_after_s=0)
    if not row.pod_created:
        return Decision([RecordPod(row.attempt)], wake_after_s=0)
    if pod.ended:
        return Decision([FinishAttempt(row.attempt, classify_end(pod))], wake_after_s=0)
    if stopping:
        return Decision(
            [] if pod.deleting else [DeletePod(pod.name, pod.uid)], wake_after_s=RETRY_S
        )
    stuck = classify_waiting(pod)
    if stuck is None:
        return Decision()
    since = pod.created_at or seen.now
    left_s = (since + timedelta(seconds=stuck.grace_s) - seen.now).total_seconds()
    if left_s > 0:
        return Decision(wake_after_s=left_s)
    # Its container never ran, so nothing of it can be published any more.
    ended = Ended(stuck.code, stuck.message)
    return Decision(
        [DeletePod(pod.name, pod.uid), FinishAttempt(row.attempt, ended)], wake_after_s=0
    )


def _is_done(job: JobSeen) -> bool:
    """Whether the record is known to be final: only then may evidence be deleted."""
    return job.conditions.get("ResultRecorded", {}).get("status") == "True"


def _alive(seen: Observed) -> list[PodSeen]:
    return [pod for pod in seen.pods.values() if not pod.ended and not pod.deleting]
