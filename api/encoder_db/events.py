"""Events: written with the change that they tell of, and with the delivery that may come of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import Connection, bindparam, delete, exists, insert, literal, select, update
from sqlalchemy.sql import Select

from encoder_core.deliveries import Outcome
from encoder_core.documents import EventDocument, JobDocument
from encoder_core.events import FINAL_EVENTS, job_event, webhook_payload
from encoder_core.ids import new_uuid
from encoder_core.states import JobStatus
from encoder_db.dialect import byte_length, db_now, insert_all, inserted_id, to_json
from encoder_db.documents import load_document
from encoder_db.portions import PAGE_BYTES, Page, begin_within
from encoder_db.secrets import read_sealed_webhook
from encoder_db.tables import job_events, jobs, webhook_attempts, webhook_deliveries

PARKED_UNTIL: Final = datetime(9999, 1, 1, tzinfo=UTC)
"""When a delivery is due that waits for an earlier one of its job."""


def record_event(tx: Connection, job_id: int, event_type: str) -> None:
    """
    Write down what just happened to a job, as its document is now.

    Runs in the transaction of the change, which holds the job's lock: numbers have no gaps
    because each step of the version writes exactly one event.
    """
    document = load_document(tx, job_id)
    assert document is not None, f"an event of job {job_id}, which does not exist"
    target = None if document.notification_url is None else read_sealed_webhook(tx, job_id)
    record_event_of(tx, document, event_type, target=target)


def record_event_of(
    tx: Connection, job: JobDocument, event_type: str, *, target: bytes | None
) -> None:
    """
    The same, for who has the document and the sealed address of its receiver at hand.

    No address: there never was one, or the receiver said that it is gone.
    """
    event = _event_row(job, event_type)
    event_id = inserted_id(tx.execute(insert(job_events), event))
    if job.notification_url is None or target is None:
        return
    if event_type in FINAL_EVENTS:
        _supersede(tx, job.id)
    due_at = PARKED_UNTIL if _has_earlier(tx, job) else db_now()
    tx.execute(
        insert(webhook_deliveries).values(next_attempt_at=due_at),
        _delivery_row(job, event, event_id, target),
    )


def record_accepted(tx: Connection, accepted: Sequence[tuple[JobDocument, bytes | None]]) -> None:
    """The first event of jobs that were just written, each with its receiver's sealed address."""
    first = job_event(JobStatus.QUEUED)
    events = [_event_row(job, first) for job, _ in accepted]
    ids = insert_all(tx, job_events, events, key=job_events.c.uuid)
    deliveries = [
        {**_delivery_row(job, event, event_id, target), "next_attempt_at": job.updated_at}
        for (job, target), event, event_id in zip(accepted, events, ids, strict=True)
        if target is not None
    ]
    if deliveries:
        tx.execute(insert(webhook_deliveries), deliveries)


def _event_row(job: JobDocument, event_type: str) -> dict[str, Any]:
    uuid = new_uuid(unix_ms=int(job.updated_at.timestamp() * 1000))
    payload = webhook_payload(
        event_type,
        event_id=uuid,
        occurred_at=job.updated_at,
        sequence=job.version,
        job=job.to_json(),
    )
    return {
        "uuid": uuid,
        "job_id": job.id,
        "seq": job.version,
        "type": event_type,
        "payload": to_json(payload),
        "created_at": job.updated_at,
    }


def _delivery_row(
    job: JobDocument, event: Mapping[str, Any], event_id: int, target: bytes
) -> dict[str, Any]:
    assert job.notification_url is not None, f"job {job.id} has a receiver without an address"
    return {
        "event_id": event_id,
        "event_uuid": event["uuid"],
        "event_type": event["type"],
        "job_id": job.id,
        "job_uuid": job.uuid,
        "seq": job.version,
        "trigger_kind": "auto",
        "target": target,
        "host_hash": hash_host(job.notification_url),
        "attempts": 0,
        "lease_seq": 0,
    }


def hash_host(url: str) -> bytes:
    """What deliveries to one host have in common, so that a dead host can be passed over."""
    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.hostname}:{parts.port}"
    return hashlib.sha256(place.encode()).digest()[:16]


def _has_earlier(tx: Connection, job: JobDocument) -> bool:
    if job.version == 1:
        return False
    return bool(tx.execute(_EARLIER, {"job_id": job.id}).scalar_one())


_EARLIER: Final = select(
    exists().where(
        webhook_deliveries.c.job_id == bindparam("job_id"),
        webhook_deliveries.c.trigger_kind == "auto",
    )
)


def _supersede(tx: Connection, job_id: int) -> None:
    """
    Drop deliveries that a final event makes pointless: those that failed and are not under way.

    A healthy receiver still sees every change, because only what failed once is dropped.
    """
    failed = (
        (webhook_deliveries.c.job_id == job_id)
        & (webhook_deliveries.c.trigger_kind == "auto")
        & (webhook_deliveries.c.attempts > 0)
        & webhook_deliveries.c.leased_by.is_(None)
    )
    log_superseded(tx, select(webhook_deliveries).where(failed).subquery())
    if tx.execute(delete(webhook_deliveries).where(failed)).rowcount:
        release_next(tx, job_id)  # what was parked behind them


def release_next(tx: Connection, job_id: int) -> None:
    """The earliest pending event of the job is due, if it was parked behind another."""
    earliest = (
        select(webhook_deliveries.c.id, webhook_deliveries.c.next_attempt_at)
        .where(webhook_deliveries.c.job_id == job_id, webhook_deliveries.c.trigger_kind == "auto")
        .order_by(webhook_deliveries.c.seq)
        .limit(1)
    )
    row = tx.execute(earliest).one_or_none()
    if row is not None and row.next_attempt_at == PARKED_UNTIL:
        due = update(webhook_deliveries).where(webhook_deliveries.c.id == row.id)
        tx.execute(due.values(next_attempt_at=db_now()))


def log_superseded(tx: Connection, dropped: object) -> None:
    columns = dropped.c  # type: ignore[attr-defined]  # a subquery of webhook_deliveries
    tx.execute(
        insert(webhook_attempts).from_select(
            [
                *("event_uuid", "event_type", "job_id", "seq", "attempt", "trigger_kind"),
                *("started_at", "duration_ms", "outcome"),
            ],
            select(
                columns.event_uuid,
                columns.event_type,
                columns.job_id,
                columns.seq,
                columns.attempts,
                columns.trigger_kind,
                db_now(),
                literal(0),
                literal(Outcome.SUPERSEDED.value),
            ),
        )
    )


# --- Reading ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StreamedEvent:
    """An event with what a stream needs to route it: its place, its job and who may see it."""

    row_id: int
    job_id: int
    owner: str
    document: EventDocument


def list_events(
    tx: Connection,
    job_id: int,
    *,
    after: int = 0,
    limit: int = 100,
    most_bytes: int = PAGE_BYTES,
) -> Page[EventDocument]:
    """A job's events with a higher sequence number than `after`, in order: one query."""
    sized = (
        select(job_events.c.id.label("key"), byte_length(job_events.c.payload).label("size"))
        .where(job_events.c.job_id == job_id, job_events.c.seq > after)
        .order_by(job_events.c.seq)
        .limit(limit + 1)
    )
    page = begin_within(sized, most_bytes)
    query = _events().add_columns(page.c.found).join(page, page.c.key == job_events.c.id)
    rows = tx.execute(query.order_by(job_events.c.seq).limit(limit)).all()
    return Page(
        (_event(row.payload) for row in rows), more=bool(rows) and rows[0].found > len(rows)
    )


def events_since(tx: Connection, event_row_id: int, *, limit: int = 500) -> list[StreamedEvent]:
    """
    The events of all jobs behind this row, in the order of their rows.

    Transactions commit in another order than their rows were numbered in: who follows the stream
    must look again at the last few rows, and knows an event it has seen by its id.
    """
    query = (
        _events()
        .join(jobs, jobs.c.id == job_events.c.job_id)
        .add_columns(jobs.c.owner)
        .where(job_events.c.id > event_row_id, jobs.c.deleted_at.is_(None))
        .order_by(job_events.c.id)
        .limit(limit)
    )
    return [
        StreamedEvent(row.id, row.job_id, row.owner, _event(row.payload))
        for row in tx.execute(query)
    ]


def changes_since(
    tx: Connection, event_row_id: int, *, besides: Sequence[int] = (), limit: int = 5_000
) -> list[tuple[int, int]]:
    """The rows behind this one, and those of `besides` that have come: number and job of each."""
    newer = select(job_events.c.id, job_events.c.job_id).where(job_events.c.id > event_row_id)
    found = [
        (row.id, row.job_id) for row in tx.execute(newer.order_by(job_events.c.id).limit(limit))
    ]
    if besides:
        late = select(job_events.c.id, job_events.c.job_id).where(job_events.c.id.in_(besides))
        found += [(row.id, row.job_id) for row in tx.execute(late)]
    return found


def has_events(tx: Connection, job_id: int) -> bool:
    """Whether the job is still there: it has its first event for as long as it exists."""
    return (
        tx.execute(select(job_events.c.id).where(job_events.c.job_id == job_id).limit(1)).first()
        is not None
    )


def last_event_row(tx: Connection) -> int:
    """Where a stream that begins now begins."""
    latest = select(job_events.c.id).order_by(job_events.c.id.desc()).limit(1)
    return tx.execute(latest).scalar_one_or_none() or 0


def _events() -> Select[tuple[int, int, str]]:
    return select(job_events.c.id, job_events.c.job_id, job_events.c.payload)


def _event(payload: str) -> EventDocument:
    return EventDocument.model_validate(json.loads(payload))
