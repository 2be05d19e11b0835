"""Statuses of jobs, outputs and attempts, and which may follow which."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class JobStatus(StrEnum):
    QUEUED = "queued"  #: Waits for a free place in its pool, or for a retry's due time.
    STARTING = "starting"  #: Holds a place; its worker has been asked for and has not reported yet.
    RUNNING = "running"  #: Its worker has reported.
    CANCELING = "canceling"  #: To be stopped; its worker has not ended yet.
    COMPLETED = "completed"  #: Every output is uploaded.
    FAILED = "failed"  #: It ended with at least one output not uploaded; the failure says why.
    CANCELED = "canceled"  #: Ended by request. What had been uploaded stays uploaded.


class OutputStatus(StrEnum):
    PENDING = "pending"  #: Not begun by the current attempt.
    RUNNING = "running"  #: Being encoded, verified or delivered.
    UPLOADED = "uploaded"  #: Verified, and the destination confirmed that it has it.
    FAILED = "failed"  #: Will not be delivered by this job as it stands.
    CANCELED = "canceled"  #: The job was canceled first.


class AttemptStatus(StrEnum):
    CREATED = "created"  #: Holds a place in the pool; the executor is being started.
    RUNNING = "running"  #: Its worker has reported.
    SUCCEEDED = "succeeded"  #: With it every output of the job is uploaded.
    FAILED = "failed"  #: It ended before that; its failure says why.
    LOST = "lost"  #: Its executor is gone without a word.
    CANCELED = "canceled"  #: It was stopped because its job was canceled or deleted.


J = JobStatus
JOB_TRANSITIONS: Final[Mapping[JobStatus, frozenset[JobStatus]]] = {
    J.QUEUED: frozenset({J.STARTING, J.FAILED, J.CANCELED}),
    J.STARTING: frozenset({J.RUNNING, J.QUEUED, J.COMPLETED, J.FAILED, J.CANCELING}),
    J.RUNNING: frozenset({J.QUEUED, J.COMPLETED, J.FAILED, J.CANCELING}),
    J.CANCELING: frozenset({J.CANCELED}),
    J.COMPLETED: frozenset(),
    J.FAILED: frozenset({J.QUEUED}),  # retry by request
    J.CANCELED: frozenset({J.QUEUED}),  # retry by request
}
"""`starting -> completed` is a worker whose reports were all lost: its exit code still counts."""

FINAL_JOB: Final = frozenset({J.COMPLETED, J.FAILED, J.CANCELED})
ACTIVE_JOB: Final = frozenset({J.STARTING, J.RUNNING, J.CANCELING})
OPEN_ATTEMPT: Final = frozenset({AttemptStatus.CREATED, AttemptStatus.RUNNING})
"""Only these hold a place in a pool."""
