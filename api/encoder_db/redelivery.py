"""What was sent, and sending it again because somebody asked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, RowMapping, insert, select, update

from encoder_db.dialect import db_now
from encoder_db.events import PARKED_UNTIL, hash_host, release_next
from encoder_db.rows import JobRef, JobRow, by_ref, lock_job
from encoder_db.secrets import read_sealed_webhook
from encoder_db.store import Store
from encoder_db.tables import job_events, webhook_attempts, webhook_deliveries


def has_receiver(tx: Connection, job_id: int) -> bool:
    """Whether there is anybody to send the job's events to."""
    return read_sealed_webhook(tx, job_id) is not None


def redeliver(store: Store, ref: JobRef, event_uuid: UUID, *, owner: str | None = None) -> bool:
    """
    Send an event once more, now: the same id and body, one attempt, out of order.

    One that is still pending is only brought forward, unless it waits for an earlier one. False
    when there is no such event, or nobody to send it to.
    """

    def work(tx: Connection) -> bool:
        job = lock_job(tx, by_ref(ref, owner))
        if job is None:
            return False
        which = (job_events.c.job_id == job.id) & (job_events.c.uuid == event_uuid)
        event = tx.execute(select(job_events).where(which)).mappings().one_or_none()
        target = read_sealed_webhook(tx, job.id)
        url = job.request.get("notificationUrl")
        if event is None or target is None or url is None:
            return False
        pending = webhook_deliveries.c.event_id == event["id"]
        waits = tx.execute(select(webhook_deliveries).where(pending)).mappings().one_or_none()
        if waits is not None:
            if waits["next_attempt_at"] != PARKED_UNTIL and waits["leased_by"] is None:
                forward = update(webhook_deliveries).where(pending)
                tx.execute(forward.values(next_attempt_at=db_now()))
            return True
        address = hash_host(url)
        _add_delivery(tx, job, event, target, address, trigger_kind="manual", due_at=db_now())
        return True

    return store.run(work)


def deliver_lost(tx: Connection, job: JobRow, versions: Collection[int]) -> None:
    """Write the deliveries that these events should have. The job is locked; it has a receiver."""
    target = read_sealed_webhook(tx, job.id)
    url = job.request.get("notificationUrl")
    if target is None or url is None:
        return
    these = (job_events.c.job_id == job.id) & job_events.c.seq.in_(list(versions))
    events = tx.execute(select(job_events).where(these).order_by(job_events.c.seq)).mappings().all()
    for event in events:
        address = hash_host(url)
        _add_delivery(tx, job, event, target, address, trigger_kind="auto", due_at=PARKED_UNTIL)
    release_next(tx, job.id)


def _add_delivery(
    tx: Connection,
    job: JobRow,
    event: RowMapping,
    target: bytes,
    host_hash: bytes,
    *,
    trigger_kind: str,
    due_at: Any,
) -> None:
    tx.execute(
        insert(webhook_deliveries).values(
            event_id=event["id"],
            event_uuid=event["uuid"],
            event_type=event["type"],
            job_id=job.id,
            job_uuid=job.uuid,
            seq=event["seq"],
            trigger_kind=trigger_kind,
            target=target,
            host_hash=host_hash,
            next_attempt_at=due_at,
            attempts=0,
            lease_seq=0,
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookAttempt:
    """One try to send an event, as the log keeps it."""

    id: int
    event_uuid: UUID
    event_type: str
    seq: int
    attempt: int
    trigger_kind: str
    started_at: datetime
    duration_ms: int
    outcome: str
    status: int | None
    remote_ip: str | None
    snippet: bytes | None
    next_attempt_at: datetime | None


def list_webhook_attempts(
    tx: Connection, job_id: int, *, limit: int = 200, before_id: int | None = None
) -> list[WebhookAttempt]:
    """What was sent of a job, the latest first."""
    query = (
        select(webhook_attempts)
        .where(webhook_attempts.c.job_id == job_id)
        .order_by(webhook_attempts.c.id.desc())
        .limit(limit)
    )
    if before_id is not None:
        query = query.where(webhook_attempts.c.id < before_id)
    names = WebhookAttempt.__dataclass_fields__
    return [
        WebhookAttempt(**{name: row[name] for name in names})
        for row in tx.execute(query).mappings()
    ]
