"""
Rows as values, and how a job is looked up and locked.

What is asked for each job is put together once, when the module is loaded: building a statement
costs as much as sending it. And it names the columns that somebody reads: to the driver, which is
written in Python, each column of an answer is work.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final, Self
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, bindparam, select

from encoder_core.specs import Priority
from encoder_core.states import FINAL_JOB, OPEN_ATTEMPT, AttemptStatus, JobStatus
from encoder_db.dialect import by_number
from encoder_db.tables import job_attempts, jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """How far a job is: all that a change of its status needs to know."""

    id: int
    status: JobStatus
    attempt: int
    version: int
    started_at: datetime | None

    @property
    def is_final(self) -> bool:
        return self.status in FINAL_JOB


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow(JobState):
    """A job as it was when it was read. Inside a transaction that locked it, as it is."""

    uuid: UUID
    owner: str
    pool: str
    priority: Priority
    attempts_forgiven: int
    source: dict[str, Any]
    request: dict[str, Any]
    secret_fields: list[str]
    source_info: dict[str, Any] | None
    warnings: list[dict[str, Any]] | None
    failure: dict[str, Any] | None
    external_id: str | None
    resource_name: str | None
    resource_uid: str | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    deleted_at: datetime | None
    request_id: str | None = None

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Self:
        values = {name: row[name] for name in _OF_JOB}
        values["priority"] = Priority(values["priority"])
        values["status"] = JobStatus(values["status"])
        return cls(**values)


_OF_JOB: Final = tuple(field.name for field in fields(JobRow))
JOB_COLUMNS: Final = [jobs.c[name] for name in _OF_JOB]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """What the rules need to know of an attempt."""

    job_id: int
    number: int
    status: AttemptStatus
    executor: str
    worker: str
    pool: str
    owner: str
    message_id: int | None
    lease_seq: int | None
    token_hash: bytes
    publish_until: datetime | None
    final_report: dict[str, Any] | None
    budget: str | None
    created_at: datetime
    started_at: datetime | None

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Self:
        values = {name: row[name] for name in _OF_ATTEMPT}
        values["status"] = AttemptStatus(values["status"])
        values["token_hash"] = bytes(values["token_hash"])
        return cls(**values)

    @property
    def is_open(self) -> bool:
        return self.status in OPEN_ATTEMPT


_OF_ATTEMPT: Final = tuple(field.name for field in fields(AttemptRow))


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueMessage:
    """
    A job that was handed to a claimer.

    `id` and `lease_seq` together are the lease: whatever is done with the message is done only
    while both still match.
    """

    id: int
    queue: str
    job_id: int
    deliveries: int
    failures: int
    lease_seq: int

    @property
    def pool(self) -> str:
        return self.queue.split("/", 1)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """An attempt that may be started now: it holds its place in the pool."""

    message: QueueMessage
    job: JobRow
    attempt: int
    token: str
    """What the worker proves itself with. In clear only here: the row has its hash."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a claimed message did not become an attempt. The message was dealt with."""

    reason: str
    """`pool_full`, `owner_full`, `pool_stopped`, `pool_unknown`, `engine_mismatch`, `lease_lost`,
    `publish_lease`, `job_final`, or `attempts_exhausted`."""


@dataclass(frozen=True, slots=True)
class Resource:
    """What stands for a job in the cluster."""

    name: str
    uid: str


JobRef = int | UUID


def by_ref(ref: JobRef, owner: str | None) -> ColumnElement[bool]:
    """The job that a client names by number or UUID, unless it is another's or deleted."""
    named = jobs.c.uuid == ref if isinstance(ref, UUID) else jobs.c.id == ref
    visible = named & jobs.c.deleted_at.is_(None)
    return visible if owner is None else visible & (jobs.c.owner == owner)


_JOB: Final = select(*JOB_COLUMNS).where(jobs.c.id == bindparam("job_id")).with_for_update()
_JOBS: Final = by_number(
    select(*JOB_COLUMNS)
    .where(jobs.c.id.in_(bindparam("job_ids", expanding=True)))
    .order_by(jobs.c.id)
    .with_for_update(),
    jobs,
)
_ATTEMPT: Final = select(*(job_attempts.c[name] for name in _OF_ATTEMPT)).where(
    job_attempts.c.job_id == bindparam("job_id"), job_attempts.c.number == bindparam("number")
)
_CURRENT: Final = (
    select(
        *(jobs.c.id, jobs.c.status, jobs.c.attempt, jobs.c.version, jobs.c.started_at),
        jobs.c.resource_uid,
        job_attempts.c.status.label("attempt_status"),
        *(job_attempts.c.executor, job_attempts.c.token_hash),
    )
    .join(job_attempts, job_attempts.c.job_id == jobs.c.id)
    .where(
        *(jobs.c.id == bindparam("job_id"), jobs.c.attempt == bindparam("number")),
        job_attempts.c.number == bindparam("number"),
    )
    .with_for_update()
)


def lock_job(tx: Connection, which: ColumnElement[bool] | int) -> JobRow | None:
    """
    Read a job and keep everybody else from changing it until the transaction ends.

    Locks are taken in one order: pools, jobs, attempts and outputs, queue, events, deliveries.
    """
    if isinstance(which, int):
        row = tx.execute(_JOB, {"job_id": which}).mappings().one_or_none()
    else:
        query = select(*JOB_COLUMNS).where(which).with_for_update()
        row = tx.execute(query).mappings().one_or_none()
    return None if row is None else JobRow.of(row)


def lock_jobs(tx: Connection, ids: Collection[int]) -> dict[int, JobRow]:
    """The same for several, by their numbers and in this order, as everybody does who has many."""
    rows = tx.execute(_JOBS, {"job_ids": sorted(ids)}).mappings()
    return {row["id"]: JobRow.of(row) for row in rows}


@dataclass(frozen=True, slots=True)
class CurrentAttempt:
    """A job's open attempt and how far the job is, both locked."""

    job: JobState
    resource_uid: str | None
    executor: str
    token_hash: bytes


def lock_current(tx: Connection, job_id: int, number: int) -> CurrentAttempt | None:
    """The attempt with this number, when it is its job's latest and open."""
    row = tx.execute(_CURRENT, {"job_id": job_id, "number": number}).one_or_none()
    if row is None or row.attempt_status not in OPEN_ATTEMPT:
        return None
    job = JobState(
        id=row.id,
        status=JobStatus(row.status),
        attempt=row.attempt,
        version=row.version,
        started_at=row.started_at,
    )
    return CurrentAttempt(job, row.resource_uid, row.executor, bytes(row.token_hash))


def read_attempt(tx: Connection, job_id: int, number: int) -> AttemptRow | None:
    row = tx.execute(_ATTEMPT, {"job_id": job_id, "number": number}).mappings().one_or_none()
    return None if row is None else AttemptRow.of(row)


def read_open_attempt(tx: Connection, job: JobRow) -> AttemptRow | None:
    """The attempt that holds the job's place, if any. Only the latest can be open."""
    attempt = read_attempt(tx, job.id, job.attempt) if job.attempt else None
    return attempt if attempt is not None and attempt.is_open else None
