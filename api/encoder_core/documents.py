"""The documents that clients see: a job with its outputs, progress and failure; an event."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from encoder_core.failures import Failure, Warned
from encoder_core.model import Instant, Model
from encoder_core.reports import OutputResult, Phase, SourceInfo
from encoder_core.specs import Priority
from encoder_core.states import AttemptStatus, JobStatus, OutputStatus

MOST_ATTEMPTS: Final = 50  # each event carries them, and a job may be tried again for ever


class Document(Model):
    """A document has all of its fields always: what is not known is null."""

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True)


class Progress(Document):
    phase: Phase
    percent: float
    speed: float | None = None
    fps: float | None = None
    eta_s: float | None = None
    updated_at: Instant


class OutputDocument(Document):
    """One output of a job: what was asked for, and what became of it."""

    id: int
    index: int
    status: OutputStatus
    spec: dict[str, Any]
    """As requested; credentials are shown as `{"set": true}`."""
    result: OutputResult | None = None
    error: Failure | None = None
    warnings: list[Warned] = []


class AttemptDocument(Document):
    number: int
    status: AttemptStatus
    executor: str
    """`local` or `kubernetes`."""
    worker: str | None = None
    """The Pod, or the host and process."""
    node: str | None = None
    """Where that Pod ran."""
    failure: Failure | None = None
    budget: str | None = None
    """Which allowance the failure used up; see failures.md."""
    exit_code: int | None = None
    """Of the worker; negative for a signal."""
    created_at: Instant
    started_at: Instant | None = None
    finished_at: Instant | None = None


class Waiting(Document):
    """Why a job does not run yet."""

    reason: str
    """One CamelCase word for programs, as in the conditions of a TranscodeJob."""
    message: str
    """The same for people, in the cluster's own words where it has some."""


class Position(Document):
    """Where a waiting job stands, estimated from what waits now. It is no promise."""

    ahead: int
    """Jobs that will probably start before it, in its pool."""
    or_more: bool
    """There may be more of them: nobody counts a long queue to its end."""
    expected_start_at: Instant | None = None
    """By how long the pool's latest attempts took; null when nothing can be said, as for a pool
    that is stopped."""


class Step(StrEnum):
    """What a job has behind it, in the order in which it happens."""

    ACCEPTED = "accepted"  #: The request was answered.
    QUEUED = "queued"  #: It waits for its turn; again after each failure that is retried.
    ADMITTED = "admitted"  #: It holds a place in its pool.
    SCHEDULED = "scheduled"  #: Its Pod was given a node.
    PULLED = "pulled"  #: The image is on that node, and the Pod's container began.
    STARTED = "started"  #: Its worker has reported for the first time.
    FETCHED = "fetched"  #: The whole source was read; missing where an encode needed less of it.
    ENCODED = "encoded"  #: ffmpeg has made the last output.
    VERIFIED = "verified"  #: The last output is what was planned.
    UPLOADED = "uploaded"  #: The last destination confirmed.
    ENDED = "ended"  #: The attempt is over.
    NOTIFIED = "notified"  #: The receiver confirmed the webhook of how the job ended.


class TimelineEntry(Document):
    """When a step was over."""

    step: Step
    at: Instant
    attempt: int | None = None
    """Which attempt; null for what is the job's own."""


class JobSummary(Document):
    """A job in a list."""

    id: int
    uuid: UUID
    status: JobStatus
    owner: str
    pool: str
    priority: Priority
    attempt: int
    version: int
    source: dict[str, Any]
    outputs: list[OutputDocument]
    notification_url: str | None = None
    external_id: str | None = None
    metadata: dict[str, str] = {}
    progress: Progress | None = None
    failure: Failure | None = None
    created_at: Instant
    updated_at: Instant
    start_at: Instant | None = None
    """As requested: not before this moment."""
    started_at: Instant | None = None
    finished_at: Instant | None = None


class JobDocument(JobSummary):
    """A job on its own page: also what its source is and what its attempts did."""

    source_info: SourceInfo | None = None
    warnings: list[Warned] = []
    due_at: Instant | None = None
    """When a waiting job is due: now, or after the back-off of its last failure."""
    waiting: Waiting | None = None
    """Why it does not run yet; null when it runs or is over."""
    attempts: list[AttemptDocument] = []
    """The latest 50, the earliest of them first; `GET /jobs/{id}/attempts` has them all."""
    request_id: str | None = None
    """Of the request that made it; the log lines of its workers have it too."""


class JobPage(JobDocument):
    """A job as `GET /jobs/{id}` shows it: also where it stands and when each step was over."""

    position: Position | None = None
    """Of a job that waits: how many come before it, and when it is expected to start."""
    timeline: list[TimelineEntry] = []
    """The earliest first; of attempts, those that are shown."""


class LogDocument(Document):
    """The end of an attempt's log."""

    attempt: int
    lines: list[str]
    """The last ones, without credentials."""
    skipped: int
    """How many lines came before these."""
    updated_at: Instant


class EventDocument(Document):
    """One change of a job. `sequence` is gap-free per job and equals the job's version."""

    id: UUID
    type: str
    """`job.<status>`, `output.uploaded` or `job.bumped`."""
    timestamp: Instant
    sequence: int
    data: dict[str, Any]
    """The job's document as it was right after the change."""
