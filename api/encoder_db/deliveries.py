"""Webhook deliveries: claimed like jobs, ended or put off, in the order of each job's events."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, RowMapping, Select, delete, exists, func, insert, select, update

from encoder_core.deliveries import Outcome
from encoder_core.events import FINAL_EVENTS
from encoder_core.sealing import CannotOpen
from encoder_db.dialect import by_index, claimable, db_now, in_seconds
from encoder_db.events import log_superseded, release_next
from encoder_db.secrets import destroy_webhook, sealing_purpose
from encoder_db.store import Store
from encoder_db.tables import job_events, jobs, webhook_attempts, webhook_deliveries

SNIPPET_BYTES: Final = 1024
LOOK_AHEAD: Final = 64
"""So many that are due are looked through before each host is asked for its oldest."""

_CLAIM: Final = "ix_webhook_deliveries_claim"
_OF_HOST: Final = "ix_webhook_deliveries_of_host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """An event to be sent now. `id` and `lease_seq` are the lease, as with queue messages."""

    id: int
    event_id: int
    event_uuid: UUID
    event_type: str
    job_id: int
    seq: int
    trigger_kind: str
    """`auto`, or `manual` for a delivery that somebody asked for: that has one attempt."""
    body: bytes
    """The same bytes for every attempt."""
    url: str
    attempts: int
    """How many were made before this one."""
    lease_seq: int
    host_hash: bytes
    first_attempt_at: datetime | None
    """None when this is the first."""


def claim_deliveries(
    store: Store,
    *,
    worker: str,
    limit: int,
    lease_s: float,
    skip_hosts: Collection[bytes] = (),
    most_of: Callable[[bytes], int] | None = None,
) -> list[Delivery]:
    """
    Lease deliveries that are due, up to `limit`, and of each host no more than `most_of` says.
    `skip_hosts` are hosts that have enough to do.

    A sender that dies lets its leases lapse, and the same events go out again.
    """

    def work(tx: Connection) -> list[RowMapping]:
        rows = lock_due(tx, limit=limit, skip_hosts=frozenset(skip_hosts), most_of=most_of)
        if rows:
            table = webhook_deliveries
            tx.execute(
                update(table)
                .where(table.c.id.in_([row["id"] for row in rows]))
                .values(
                    next_attempt_at=in_seconds(lease_s),
                    lease_seq=table.c.lease_seq + 1,
                    leased_by=worker,
                    first_attempt_at=func.coalesce(table.c.first_attempt_at, db_now()),
                )
            )
        return rows

    rows = store.run(work)
    if not rows:
        return []
    with store.read() as tx:
        bodies = _bodies(tx, [row["id"] for row in rows])
    deliveries = []
    for row in rows:
        delivery = _open(store, row, bodies.get(row["id"]))
        if delivery is not None:
            deliveries.append(delivery)
    return deliveries


def lock_due(
    tx: Connection,
    *,
    limit: int,
    skip_hosts: frozenset[bytes] = frozenset(),
    most_of: Callable[[bytes], int] | None = None,
) -> list[RowMapping]:
    """
    Deliveries that are due, locked in the caller's transaction.

    First the hosts, then the deliveries of each: to go past those of a host that is down would be
    to read and lock all of them at each look, however many there are. All claims lock by the same
    index: a row that is passed over leaves its entry there locked, and two orders would deadlock.
    """
    table = webhook_deliveries
    rows: list[RowMapping] = []
    for host_hash, most in _hosts_due(tx, limit, skip_hosts, most_of or (lambda _: limit)):
        if (wanted := min(most, limit - len(rows))) > 0:
            of_host = _due(wanted).where(table.c.host_hash == host_hash)
            rows += tx.execute(claimable(of_host, table, _OF_HOST)).mappings()
    return sorted(rows, key=lambda row: (row["next_attempt_at"], row["id"]))


def _hosts_due(
    tx: Connection, limit: int, skip_hosts: frozenset[bytes], most_of: Callable[[bytes], int]
) -> list[tuple[bytes, int]]:
    """
    Hosts for which something is due and wanted, with how much: those that wait longest first.

    Nearly always one is among the first deliveries that are due. Only when those to be skipped
    have so many that no other shows is each host of the outbox asked for its oldest.
    """

    def wanted(hosts: Iterable[bytes]) -> list[tuple[bytes, int]]:
        counted = ((host_hash, most_of(host_hash)) for host_hash in hosts)
        return [(host_hash, most) for host_hash, most in counted if most > 0][:limit]

    table = webhook_deliveries
    first = by_index(_due(LOOK_AHEAD).with_only_columns(table.c.host_hash), table, _CLAIM)
    seen = [bytes(host_hash) for host_hash in tx.execute(first).scalars()]
    hosts = wanted(host_hash for host_hash in dict.fromkeys(seen) if host_hash not in skip_hosts)
    if hosts or len(seen) < LOOK_AHEAD:
        return hosts
    oldest = func.min(table.c.next_attempt_at)
    each = (
        select(table.c.host_hash)
        .where(table.c.host_hash.not_in(skip_hosts.union(seen)))
        .group_by(table.c.host_hash)
        .having(oldest <= db_now())
        .order_by(oldest)
        .limit(LOOK_AHEAD)
    )
    found = tx.execute(by_index(each, table, _OF_HOST)).scalars()
    return wanted(bytes(host_hash) for host_hash in found)


def _due(limit: int) -> Select[Any]:
    table = webhook_deliveries
    return (
        select(table)
        .where(table.c.next_attempt_at <= db_now())
        .order_by(table.c.next_attempt_at, table.c.id)
        .limit(limit)
    )


def _bodies(tx: Connection, ids: list[int]) -> dict[int, str | None]:
    query = (
        select(
            webhook_deliveries.c.id,
            func.coalesce(webhook_deliveries.c.body, job_events.c.payload).label("body"),
        )
        .outerjoin(job_events, job_events.c.id == webhook_deliveries.c.event_id)
        .where(webhook_deliveries.c.id.in_(ids))
    )
    return {row.id: row.body for row in tx.execute(query)}


def _open(store: Store, row: RowMapping, body: str | None) -> Delivery | None:
    """The delivery with its URL; one that cannot be sent ever is given up here."""
    url = ""
    try:
        purpose = sealing_purpose("webhook", row["job_uuid"])
        url = store.keys.open(bytes(row["target"]), purpose=purpose).decode()
    except CannotOpen:
        body = None
    delivery = Delivery(
        id=row["id"],
        event_id=row["event_id"],
        event_uuid=row["event_uuid"],
        event_type=row["event_type"],
        job_id=row["job_id"],
        seq=row["seq"],
        trigger_kind=row["trigger_kind"],
        body=(body or "").encode(),
        url=url,
        attempts=row["attempts"],
        lease_seq=row["lease_seq"] + 1,
        host_hash=bytes(row["host_hash"]),
        first_attempt_at=row["first_attempt_at"],
    )
    if body is None:
        give_up_delivery(store, delivery, outcome=Outcome.TARGET_LOST.value)
        return None
    return delivery


def finish_delivery(
    store: Store,
    delivery: Delivery,
    *,
    outcome: str,
    status: int | None = None,
    duration_ms: int = 0,
    remote_ip: str | None = None,
    snippet: bytes | None = None,
) -> bool:
    """
    It arrived, or is given up: log it, and let the job's next event go.

    False, with nothing written, when the lease was lost: another sender has it.
    """
    sent = _Sent(outcome, status, duration_ms, remote_ip, snippet)
    return store.run(_holding(delivery, lambda tx: _end(tx, delivery, sent)))


def give_up_delivery(
    store: Store,
    delivery: Delivery,
    *,
    outcome: str,
    status: int | None = None,
    duration_ms: int = 0,
    remote_ip: str | None = None,
    snippet: bytes | None = None,
    whole_job: bool = False,
) -> bool:
    """
    No attempt follows. With `whole_job` the receiver said that it is gone for good: what else is
    pending for the job is dropped, and nothing is announced any more.
    """
    sent = _Sent(outcome, status, duration_ms, remote_ip, snippet)

    def work(tx: Connection) -> None:
        _end(tx, delivery, sent)
        if whole_job:
            of_job = webhook_deliveries.c.job_id == delivery.job_id
            tx.execute(delete(webhook_deliveries).where(of_job))
            destroy_webhook(tx, delivery.job_id)

    return store.run(_holding(delivery, work))


def reschedule_delivery(
    store: Store,
    delivery: Delivery,
    *,
    delay_s: float,
    outcome: str,
    status: int | None = None,
    duration_ms: int = 0,
    remote_ip: str | None = None,
    snippet: bytes | None = None,
) -> bool:
    """
    It failed and is tried again after the delay, unless the job has ended meanwhile.

    Then the final event takes its place: a receiver that comes back learns first how it ended.
    """
    sent = _Sent(outcome, status, duration_ms, remote_ip, snippet)

    def work(tx: Connection) -> None:
        if delivery.trigger_kind == "manual":
            _end(tx, delivery, sent)
            return
        if delivery.event_type not in FINAL_EVENTS and _final_waits(tx, delivery):
            held = webhook_deliveries.c.id == delivery.id
            log_superseded(tx, select(webhook_deliveries).where(held).subquery())
            _end(tx, delivery, sent)
            return
        _log(tx, delivery, sent, delay_s=delay_s)
        tx.execute(
            update(webhook_deliveries)
            .where(webhook_deliveries.c.id == delivery.id)
            .values(
                next_attempt_at=in_seconds(delay_s),
                attempts=webhook_deliveries.c.attempts + 1,
                leased_by=None,
            )
        )

    return store.run(_holding(delivery, work))


@dataclass(frozen=True, slots=True)
class _Sent:
    outcome: str
    status: int | None
    duration_ms: int
    remote_ip: str | None
    snippet: bytes | None


def _holding(
    delivery: Delivery, work: Callable[[Connection], None]
) -> Callable[[Connection], bool]:
    """
    Do the work only while the lease is ours.

    The job is locked first: an event that is being written meanwhile would otherwise park behind
    a delivery that is just ending, and wait for ever.
    """

    def guarded(tx: Connection) -> bool:
        tx.execute(select(jobs.c.id).where(jobs.c.id == delivery.job_id).with_for_update())
        held = select(webhook_deliveries.c.id).where(
            webhook_deliveries.c.id == delivery.id,
            webhook_deliveries.c.lease_seq == delivery.lease_seq,
        )
        if tx.execute(held.with_for_update()).first() is None:
            return False
        work(tx)
        return True

    return guarded


def _end(tx: Connection, delivery: Delivery, sent: _Sent) -> None:
    _log(tx, delivery, sent, delay_s=None)
    tx.execute(delete(webhook_deliveries).where(webhook_deliveries.c.id == delivery.id))
    release_next(tx, delivery.job_id)


def _log(tx: Connection, delivery: Delivery, sent: _Sent, *, delay_s: float | None) -> None:
    tx.execute(
        insert(webhook_attempts).values(
            event_uuid=delivery.event_uuid,
            event_type=delivery.event_type,
            job_id=delivery.job_id,
            seq=delivery.seq,
            attempt=delivery.attempts + 1,
            trigger_kind=delivery.trigger_kind,
            started_at=in_seconds(-sent.duration_ms / 1000),
            duration_ms=sent.duration_ms,
            outcome=sent.outcome,
            status=sent.status,
            remote_ip=sent.remote_ip,
            snippet=None if sent.snippet is None else sent.snippet[:SNIPPET_BYTES],
            next_attempt_at=None if delay_s is None else in_seconds(delay_s),
        )
    )


def _final_waits(tx: Connection, delivery: Delivery) -> bool:
    final = exists().where(
        webhook_deliveries.c.job_id == delivery.job_id,
        webhook_deliveries.c.seq > delivery.seq,
        webhook_deliveries.c.event_type.in_(sorted(FINAL_EVENTS)),
    )
    return bool(tx.execute(select(final)).scalar_one())
