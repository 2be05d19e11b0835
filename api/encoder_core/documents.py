"""The documents that clients see: a job with its outputs, progress and failure; an event."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from encoder_core.failures import Failure, Warned
from encoder_core.model import Model
from encoder_core.reports import OutputResult, Phase, SourceInfo
from encoder_core.specs import Priority
from encoder_core.states import AttemptStatus, JobStatus, OutputStatus


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
    updated_at: datetime


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
    failure: Failure | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class Waiting(Document):
    """Why a job does not run yet."""

    reason: str
    """One CamelCase word for programs, as in the conditions of a TranscodeJob."""
    message: str
    """The same for people, in the cluster's own words where it has some."""


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
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class JobDocument(JobSummary):
    """A job on its own page: also what its source is and what its attempts did."""

    source_info: SourceInfo | None = None
    warnings: list[Warned] = []
    due_at: datetime | None = None
    """When a waiting job is due: now, or after the back-off of its last failure."""
    waiting: Waiting | None = None
    """Why it does not run yet; null when it runs or is over."""
    attempts: list[AttemptDocument] = []


class EventDocument(Document):
    """One change of a job. `sequence` is gap-free per job and equals the job's version."""

    id: UUID
    type: str
    """`job.<status>` or `output.uploaded`."""
    timestamp: datetime
    sequence: int
    data: dict[str, Any]
    """The job's document as it was right after the change."""
