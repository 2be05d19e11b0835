"""When each step of a job was over, put together from the rows that say so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, select

from encoder_core.documents import MOST_ATTEMPTS, Step, TimelineEntry
from encoder_core.events import FINAL_EVENTS, job_event
from encoder_core.states import JobStatus
from encoder_db.tables import job_events, webhook_attempts

_MOST_MOMENTS: Final = 2 * MOST_ATTEMPTS  # each was queued, and a job's last one confirmed
_ORDER: Final = list(Step)
_TELLING: Final = (job_event(JobStatus.QUEUED), *sorted(FINAL_EVENTS))


@dataclass(frozen=True, slots=True)
class Moment:
    """An event of the job that the timeline speaks of, and when its receiver confirmed it."""

    type: str
    at: datetime
    delivered_at: datetime | None


def read_moments(tx: Connection, job_id: int) -> list[Moment]:
    """The latest ones in their order: one query."""
    sent = webhook_attempts
    query = (
        select(
            *(job_events.c.type, job_events.c.created_at.label("at")),
            *(sent.c.started_at.label("sent_at"), sent.c.duration_ms),
        )
        .outerjoin(
            sent,
            (sent.c.job_id == job_events.c.job_id)
            & (sent.c.event_uuid == job_events.c.uuid)
            & (sent.c.outcome == "delivered"),
        )
        .where(job_events.c.job_id == job_id, job_events.c.type.in_(_TELLING))
        .order_by(job_events.c.seq.desc(), sent.c.id.desc())
        .limit(_MOST_MOMENTS)
    )
    return [
        Moment(row.type, row.at, _end(row.sent_at, row.duration_ms))
        for row in reversed(tx.execute(query).all())
    ]


def _end(begin: datetime | None, duration_ms: int | None) -> datetime | None:
    return None if begin is None else begin + timedelta(milliseconds=duration_ms or 0)


def build_timeline(
    accepted_at: datetime, attempts: Sequence[Mapping[Any, Any]], moments: Iterable[Moment]
) -> list[TimelineEntry]:
    """
    The steps in the order of their times. `attempts` are rows of job_attempts. Pure.

    What a worker says of itself is in seconds after its first report, whose time is ours: its own
    clock may be wrong. So may the cluster's, which tells whole seconds only: what it says is kept
    between the two times of ours around it.
    """
    entries = [TimelineEntry(step=Step.ACCEPTED, at=accepted_at), *_of_job(moments)]
    for row in attempts:
        entries += _of_attempt(row)
    return sorted(entries, key=lambda entry: (entry.at, _ORDER.index(entry.step)))


def _of_job(moments: Iterable[Moment]) -> Iterator[TimelineEntry]:
    for moment in moments:
        if moment.type not in FINAL_EVENTS:
            yield TimelineEntry(step=Step.QUEUED, at=moment.at)
        elif moment.delivered_at is not None:
            yield TimelineEntry(step=Step.NOTIFIED, at=moment.delivered_at)


def _of_attempt(row: Mapping[Any, Any]) -> Iterator[TimelineEntry]:
    times = {
        Step.ADMITTED: row["created_at"],
        Step.SCHEDULED: _between(row, row["scheduled_at"]),
        Step.PULLED: _between(row, row["pulled_at"]),
        Step.STARTED: row["started_at"],
        Step.ENDED: row["finished_at"],
    }
    reached = (row["final_report"] or {}).get("reached", {})
    if row["started_at"] is not None:
        for step, seconds in reached.items():
            times[Step(step)] = row["started_at"] + timedelta(seconds=seconds)
    for step, at in times.items():
        if at is not None:
            yield TimelineEntry(step=step, at=at, attempt=row["number"])


def _between(row: Mapping[Any, Any], at: datetime | None) -> datetime | None:
    """`at`, but neither before the attempt had its place nor after its worker was heard."""
    if at is None:
        return None
    begin: datetime = row["created_at"]
    end: datetime | None = row["started_at"] or row["finished_at"]
    return max(begin, at if end is None else min(at, end))
