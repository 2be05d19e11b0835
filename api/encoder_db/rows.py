"""Rows as values, and how a job is looked up and locked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, select

from encoder_core.specs import Priority
from encoder_core.states import FINAL_JOB, OPEN_ATTEMPT, AttemptStatus, JobStatus
from encoder_db.dialect import by_number
from encoder_db.tables import job_attempts, jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job as it was when it was read. Inside a transaction that locked it, as it is."""

    id: int
    uuid: UUID
    owner: str
    pool: str
    priority: Priority
    status: JobStatus
    attempt: int
    attempts_forgiven: int
    version: int
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
    started_at: datetime | None
    finished_at: datetime | None
    deleted_at: datetime | None
    request_id: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        values = {field.name: row[field.name] for field in fields(cls)}
        values["priority"] = Priority(values["priority"])
        values["status"] = JobStatus(values["status"])
        return cls(**values)

    @property
    def is_final(self) -> bool:
        return self.status in FINAL_JOB


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
    def of(cls, row: Mapping[str, Any]) -> Self:
        values = {field.name: row[field.name] for field in fields(cls)}
        values["status"] = AttemptStatus(values["status"])
        values["token_hash"] = bytes(values["token_hash"])
        return cls(**values)

    @property
    def is_open(self) -> bool:
        return self.status in OPEN_ATTEMPT


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


JobRef = int | UUID


def by_ref(ref: JobRef, owner: str | None) -> ColumnElement[bool]:
    """The job that a client names by number or UUID, unless it is another's or deleted."""
    named = jobs.c.uuid == ref if isinstance(ref, UUID) else jobs.c.id == ref
    visible = named & jobs.c.deleted_at.is_(None)
    return visible if owner is None else visible & (jobs.c.owner == owner)


def lock_job(tx: Connection, which: ColumnElement[bool] | int) -> JobRow | None:
    """
    Read a job and keep everybody else from changing it until the transaction ends.

    Locks are taken in one order: pools, jobs, attempts and outputs, queue, events, deliveries.
    """
    where = jobs.c.id == which if isinstance(which, int) else which
    row = tx.execute(select(jobs).where(where).with_for_update()).mappings().one_or_none()
    return None if row is None else JobRow.of(dict(row))


def lock_jobs(tx: Connection, ids: Collection[int]) -> dict[int, JobRow]:
    """The same for several, by their numbers and in this order, as everybody does who has many."""
    query = select(jobs).where(jobs.c.id.in_(sorted(ids))).order_by(jobs.c.id).with_for_update()
    rows = tx.execute(by_number(query, jobs)).mappings()
    return {row["id"]: JobRow.of(dict(row)) for row in rows}


def read_attempt(tx: Connection, job_id: int, number: int) -> AttemptRow | None:
    query = select(job_attempts).where(
        job_attempts.c.job_id == job_id, job_attempts.c.number == number
    )
    row = tx.execute(query).mappings().one_or_none()
    return None if row is None else AttemptRow.of(dict(row))


def read_open_attempt(tx: Connection, job: JobRow) -> AttemptRow | None:
    """The attempt that holds the job's place, if any. Only the latest can be open."""
    attempt = read_attempt(tx, job.id, job.attempt) if job.attempt else None
    return attempt if attempt is not None and attempt.is_open else None
