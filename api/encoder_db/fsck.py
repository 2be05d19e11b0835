"""Look through the record for rows that break an invariant, and repair them on request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, delete, exists, select, update

from encoder_core.events import job_event
from encoder_core.failures import Failure, Warned, failure
from encoder_core.states import AttemptStatus, JobStatus, OutputStatus
from encoder_db.dialect import db_now
from encoder_db.documents import load_document
from encoder_db.endings import close_outputs, end_canceled, requeue_job
from encoder_db.events import record_event_of
from encoder_db.invariants import (
    NO_BODY,
    ORPHAN,
    PARKED,
    AttemptSeen,
    Check,
    MessageSeen,
    OutputSeen,
    Record,
    broken,
)
from encoder_db.messages import enqueue, has_owner, queue_key, register_owner, remove
from encoder_db.purge import CHILDREN, purge_deleted
from encoder_db.redelivery import deliver_lost
from encoder_db.rows import JobRow, lock_job
from encoder_db.secrets import destroy_credentials, expire_credentials
from encoder_db.store import Store
from encoder_db.sweep import parked_jobs, unpark
from encoder_db.tables import (
    dead_letters,
    job_attempts,
    job_events,
    job_outputs,
    job_secrets,
    jobs,
    queue_jobs,
    webhook_attempts,
    webhook_deliveries,
)

PAGE: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One rule that rows break."""

    rule: str
    says: str
    job_id: int
    table: str | None = None
    """Where rows were left behind by a job that is gone; None for the rows of a job."""
    repaired: bool = False

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Report:
    jobs: int
    """How many were looked at."""
    findings: Sequence[Finding]

    @property
    def is_clean(self) -> bool:
        """Nothing is broken, or nothing is broken any more."""
        return all(finding.repaired for finding in self.findings)


def fsck(store: Store, *, repair: bool = False, page: int = PAGE) -> Report:
    """
    Check every job, and the rows that belong to none. Harmless while the service runs.

    Whatever looks broken is looked at again under the job's lock: between two transactions every
    rule holds, so what breaks one then is broken.
    """
    findings: list[Finding] = []
    looked_at = 0
    for ids in _pages(store, page):
        with store.read() as tx:
            suspects = [record.id for record in read_records(tx, ids) if broken(record)]
        looked_at += len(ids)
        for job_id in suspects:
            findings += store.run(lambda tx, job_id=job_id: _look_again(tx, job_id, repair=repair))  # type: ignore[misc]  # mypy infers no type for a lambda's default
    findings += _orphans(store, repair=repair)
    findings += _deliveries(store, repair=repair)
    return Report(looked_at, findings)


def _pages(store: Store, size: int) -> Iterator[list[int]]:
    last = 0
    while True:
        with store.read() as tx:
            page = select(jobs.c.id).where(jobs.c.id > last).order_by(jobs.c.id)
            ids = list(tx.execute(page.limit(size)).scalars())
        if not ids:
            return
        yield ids
        last = ids[-1]


# --- Jobs ------------------------------------------------------------------------------------


def read_records(tx: Connection, ids: Sequence[int]) -> list[Record]:
    """These jobs as the invariants see them, in one query a table."""
    rows = tx.execute(select(jobs).where(jobs.c.id.in_(ids)).order_by(jobs.c.id)).mappings().all()
    outputs = _by_job(tx, job_outputs, ids, job_outputs.c.position)
    attempts = _by_job(tx, job_attempts, ids, job_attempts.c.number)
    events: dict[int, list[int]] = defaultdict(list)
    numbered = select(job_events.c.job_id, job_events.c.seq).where(job_events.c.job_id.in_(ids))
    for event in tx.execute(numbered.order_by(job_events.c.seq)):
        events[event.job_id].append(event.seq)
    queued = select(
        queue_jobs.c.job_id, queue_jobs.c.queue, has_owner(queue_jobs.c.queue).label("known")
    ).where(queue_jobs.c.job_id.in_(ids))
    messages = {
        row.job_id: MessageSeen(queue=row.queue, is_known=bool(row.known))
        for row in tx.execute(queued)
    }
    kept = select(job_secrets.c.job_id, job_secrets.c.expires_at).where(
        job_secrets.c.job_id.in_(ids), job_secrets.c.purpose == "job-secrets"
    )
    credentials = {row.job_id: row.expires_at for row in tx.execute(kept)}
    told = _told(tx, ids)
    open_letter = (dead_letters.c.job_id.in_(ids), dead_letters.c.redriven_at.is_(None))
    letters = set(tx.execute(select(dead_letters.c.job_id).where(*open_letter)).scalars())
    return [
        Record(
            id=job.id,
            status=job.status,
            is_deleted=job.deleted_at is not None,
            version=job.version,
            attempt=job.attempt,
            has_failure=job.failure is not None,
            queue=queue_key(job.pool, job.priority, job.owner),
            outputs=[_output(row) for row in outputs[job.id]],
            attempts=[_attempt(row) for row in attempts[job.id]],
            message=messages.get(job.id),
            events=events[job.id],
            has_credentials=job.id in credentials,
            credentials_expire=credentials.get(job.id) is not None,
            untold=sorted(set(range(1, job.version + 1)) - told[job.id]) if job.id in told else [],
            has_open_letter=job.id in letters,
        )
        for job in (JobRow.of(dict(row)) for row in rows)
    ]


def _told(tx: Connection, ids: Sequence[int]) -> Mapping[int, set[int]]:
    """Of jobs with a receiver: the versions that it was told, or is going to be."""
    has_receiver = select(job_secrets.c.job_id).where(
        job_secrets.c.job_id.in_(ids), job_secrets.c.purpose == "webhook"
    )
    told: dict[int, set[int]] = {job_id: set() for job_id in tx.execute(has_receiver).scalars()}
    event = exists().where(job_events.c.id == webhook_deliveries.c.event_id)
    pending = select(webhook_deliveries.c.job_id, webhook_deliveries.c.seq).where(
        webhook_deliveries.c.job_id.in_(list(told)), webhook_deliveries.c.body.is_not(None) | event
    )
    # By number and not by event: one that was lost and written anew was told under its old name.
    logged = select(webhook_attempts.c.job_id, webhook_attempts.c.seq).where(
        webhook_attempts.c.job_id.in_(list(told)), webhook_attempts.c.next_attempt_at.is_(None)
    )
    for query in (pending, logged) if told else ():
        for row in tx.execute(query):
            told[row.job_id].add(row.seq)
    return told


def _by_job(
    tx: Connection, table: Table, ids: Sequence[int], order: ColumnElement[Any]
) -> Mapping[int, list[Mapping[str, Any]]]:
    found: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    query = select(table).where(table.c.job_id.in_(ids)).order_by(order)
    for row in tx.execute(query).mappings():
        found[row["job_id"]].append(dict(row))
    return found


def _output(row: Mapping[str, Any]) -> OutputSeen:
    return OutputSeen(
        index=row["position"],
        status=OutputStatus(row["status"]),
        has_result=row["result"] is not None,
        details_lost=any(item["code"] == "details_lost" for item in row["warnings"] or []),
    )


def _attempt(row: Mapping[str, Any]) -> AttemptSeen:
    return AttemptSeen(
        number=row["number"],
        status=AttemptStatus(row["status"]),
        executor=row["executor"],
        has_ended=row["finished_at"] is not None,
    )


def _look_again(tx: Connection, job_id: int, *, repair: bool) -> list[Finding]:
    job = lock_job(tx, job_id)
    if job is None:
        return []
    found = broken(*read_records(tx, [job_id]))
    if repair:
        for check in found:
            _repair(tx, job_id, check)
    after = read_records(tx, [job_id]) if repair else []
    left = {check.name for record in after for check in broken(record)}
    return [
        Finding(
            rule=check.name,
            says=check.rule,
            job_id=job_id,
            repaired=repair and check.name not in left,
        )
        for check in found
    ]


def _repair(tx: Connection, job_id: int, check: Check) -> None:
    job = lock_job(tx, job_id)
    if job is None:
        return  # an earlier repair deleted it
    [record] = read_records(tx, [job_id])
    if check.name in REPAIRS and check.is_broken(record):
        REPAIRS[check.name](tx, job, record)


# --- Repairs, by rule ------------------------------------------------------------------------


def _end_attempts(tx: Connection, job: JobRow, record: Record) -> None:
    stale = [a.number for a in record.attempts if a.is_open and a is not record.current]
    _change_attempts(tx, job, stale, status=AttemptStatus.LOST, finished_at=db_now())


def _number(tx: Connection, job: JobRow, record: Record) -> None:
    latest = max(item.number for item in record.attempts)
    tx.execute(update(jobs).where(jobs.c.id == job.id).values(attempt=latest))


def _time_attempts(tx: Connection, job: JobRow, record: Record) -> None:
    ended = [a.number for a in record.attempts if not a.is_open and not a.has_ended]
    going_on = [a.number for a in record.attempts if a.is_open and a.has_ended]
    _change_attempts(tx, job, ended, finished_at=db_now())
    _change_attempts(tx, job, going_on, finished_at=None)


def _change_attempts(tx: Connection, job: JobRow, numbers: Iterable[int], **values: Any) -> None:
    these = (job_attempts.c.job_id == job.id) & job_attempts.c.number.in_(list(numbers))
    tx.execute(update(job_attempts).where(these).values(values))


def _purge(tx: Connection, job: JobRow, record: Record) -> None:
    purge_deleted(tx, job.id)


def _restart(tx: Connection, job: JobRow, record: Record) -> None:
    if job.status is JobStatus.CANCELING:
        end_canceled(tx, job)
    else:
        requeue_job(tx, job, delay_s=0.0)


def _move_message(tx: Connection, job: JobRow, record: Record) -> None:
    register_owner(tx, pool=job.pool, priority=job.priority, owner=job.owner)
    tx.execute(update(queue_jobs).where(queue_jobs.c.job_id == job.id).values(queue=record.queue))


def _close_outputs(tx: Connection, job: JobRow, record: Record) -> None:
    if job.status is JobStatus.CANCELED:
        close_outputs(tx, job.id, OutputStatus.CANCELED, None)
        return
    because = Failure.model_validate(job.failure) if job.failure else failure("worker_lost")
    close_outputs(tx, job.id, OutputStatus.FAILED, because)


def _admit_loss(tx: Connection, job: JobRow, record: Record) -> None:
    lost = Warned(code="details_lost", message="Uploaded; its measured properties were lost.")
    unproven = [
        item.index
        for item in record.outputs
        if item.status is OutputStatus.UPLOADED and not item.has_result and not item.details_lost
    ]
    these = (job_outputs.c.job_id == job.id) & job_outputs.c.position.in_(unproven)
    tx.execute(update(job_outputs).where(these).values(warnings=[lost.to_json()]))


def _give_reason(tx: Connection, job: JobRow, record: Record) -> None:
    because = failure("worker_lost")
    tx.execute(
        update(jobs)
        .where(jobs.c.id == job.id)
        .values(failure=because.to_json(), failure_code=because.code)
    )


def _let_go_of_credentials(tx: Connection, job: JobRow, record: Record) -> None:
    if job.status is JobStatus.FAILED:
        expire_credentials(tx, job.id)
    else:
        destroy_credentials(tx, job.id)


def _fill_events(tx: Connection, job: JobRow, record: Record) -> None:
    """Whom nobody told of these changes then, as the log has it, is told by another repair."""
    version = max(job.version, *record.events, 1)
    tx.execute(update(jobs).where(jobs.c.id == job.id).values(version=version))
    document = load_document(tx, jobs.c.id == job.id)
    assert document is not None
    for missing in sorted(set(range(1, version + 1)) - set(record.events)):
        seen = document.model_copy(update={"version": missing})
        record_event_of(tx, seen, job_event(job.status), target=None)


def _close_letters(tx: Connection, job: JobRow, record: Record) -> None:
    these = (dead_letters.c.job_id == job.id) & dead_letters.c.redriven_at.is_(None)
    tx.execute(update(dead_letters).where(these).values(redriven_at=db_now()))


REPAIRS: Final[Mapping[str, Callable[[Connection, JobRow, Record], None]]] = {
    "place": _end_attempts,
    "attempt_number": _number,
    "attempt_end": _time_attempts,
    "deleted": _purge,
    "pointless_message": lambda tx, job, record: remove(tx, job.id),
    "waiting": lambda tx, job, record: enqueue(tx, job),
    "owner": _restart,
    "lease": lambda tx, job, record: enqueue(tx, job),
    "queue": _move_message,
    "unfinished_output": _close_outputs,
    "uploaded": _admit_loss,
    "reason": _give_reason,
    "credentials": _let_go_of_credentials,
    "events": _fill_events,
    "delivery": lambda tx, job, record: deliver_lost(tx, job, record.untold),
    "dead_letter": _close_letters,
}


# --- Rows that belong to no job --------------------------------------------------------------


def _orphans(store: Store, *, repair: bool) -> Iterator[Finding]:
    for table in CHILDREN:
        left = ~exists().where(jobs.c.id == table.c.job_id)
        with store.read() as tx:
            found = list(tx.execute(select(table.c.job_id).where(left).distinct()).scalars())
        for job_id in found:
            if repair:
                # Numbers are never given twice: no job with this one can come.
                rest = delete(table).where(table.c.job_id == job_id)
                store.run(lambda tx, rest=rest: tx.execute(rest))  # type: ignore[misc]  # mypy infers no type for a lambda's default
            yield Finding(
                rule="orphan", says=ORPHAN, job_id=job_id, table=table.name, repaired=repair
            )


def _deliveries(store: Store, *, repair: bool) -> Iterator[Finding]:
    columns = webhook_deliveries.c
    empty = columns.body.is_(None) & ~exists().where(job_events.c.id == columns.event_id)
    with store.read() as tx:
        found = tx.execute(select(columns.id, columns.job_id).where(empty)).all()
    for row in found:
        if repair:
            gone = delete(webhook_deliveries).where(columns.id == row.id, empty)
            store.run(lambda tx, gone=gone: tx.execute(gone))  # type: ignore[misc]  # as above
        yield Finding(
            rule="delivery_body",
            says=NO_BODY,
            job_id=row.job_id,
            table=webhook_deliveries.name,
            repaired=repair,
        )
    with store.read() as tx:
        parked = parked_jobs(tx)
    for job_id in parked:
        if repair:
            store.run(lambda tx, job_id=job_id: unpark(tx, job_id))  # type: ignore[misc]  # as above
        yield Finding(
            rule="parked",
            says=PARKED,
            job_id=job_id,
            table=webhook_deliveries.name,
            repaired=repair,
        )
