"""What is said of a job's changes, to webhooks, event streams and the audit log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from encoder_core.states import FINAL_JOB, JobStatus

OUTPUT_UPLOADED: Final = "output.uploaded"  #: An output is verified and at its destination.
JOB_BUMPED: Final = "job.bumped"  #: Moved to the front of its queue, or of another priority's.


def job_event(status: JobStatus) -> str:
    return f"job.{status.value}"


EVENT_TYPES: Final = (*(job_event(status) for status in JobStatus), OUTPUT_UPLOADED, JOB_BUMPED)
FINAL_EVENTS: Final = frozenset(job_event(status) for status in FINAL_JOB)


def webhook_payload(
    event_type: str, *, event_id: UUID, occurred_at: datetime, sequence: int, job: dict[str, Any]
) -> dict[str, Any]:
    """
    The body of a webhook, after Standard Webhooks: type, timestamp, data.

    `data` is the job's document as of this change, so that a receiver needs no second request.
    """
    return {
        "type": event_type,
        "id": str(event_id),
        "timestamp": occurred_at.astimezone(UTC).isoformat(timespec="milliseconds"),
        "sequence": sequence,
        "data": job,
    }
