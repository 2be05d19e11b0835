"""The only place where a job's status changes: one step of its version, one event that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, update

from encoder_core.errors import EncoderError
from encoder_core.events import JOB_BUMPED, OUTPUT_UPLOADED, job_event
from encoder_core.failures import Failure
from encoder_core.specs import Priority
from encoder_core.states import FINAL_JOB, JOB_TRANSITIONS, JobStatus
from encoder_db.dialect import db_now
from encoder_db.events import record_event
from encoder_db.rows import JobRow
from encoder_db.tables import jobs


class IllegalTransition(EncoderError):
    """A mistake of ours: this status cannot follow that one."""


def move_job(
    tx: Connection,
    job: JobRow,
    to: JobStatus,
    *,
    failure: Failure | None = None,
    values: Mapping[str, Any] | None = None,
) -> JobRow:
    """
    Change the status of a job that this transaction has locked, and record the event.

    Outputs and attempts must have their new values already: the event carries the document.
    Returns the job as it is now.
    """
    if to not in JOB_TRANSITIONS[job.status]:
        raise IllegalTransition(f"job {job.id} is {job.status} and cannot become {to}")
    times = {"finished_at": db_now() if to in FINAL_JOB else None}
    if to is JobStatus.RUNNING and job.started_at is None:
        times["started_at"] = db_now()
    stored = None if failure is None else failure.to_json()
    _step(
        tx,
        job,
        status=to,
        failure=stored,
        failure_code=None if failure is None else failure.code,
        waiting_reason=None,
        waiting_message=None,
        **times,
        **(values or {}),
    )
    record_event(tx, job.id, job_event(to))
    return replace(job, status=to, version=job.version + 1, failure=stored)


def announce_upload(tx: Connection, job: JobRow) -> JobRow:
    """An output became `uploaded`: that is a change of the job without a change of its status."""
    _step(tx, job)
    record_event(tx, job.id, OUTPUT_UPLOADED)
    return replace(job, version=job.version + 1)


def announce_bump(tx: Connection, job: JobRow, priority: Priority) -> JobRow:
    """Somebody moved a waiting job to the front of this priority: a change of where it waits."""
    _step(tx, job, priority=priority)
    record_event(tx, job.id, JOB_BUMPED)
    return replace(job, version=job.version + 1, priority=priority)


def _step(tx: Connection, job: JobRow, **values: Any) -> None:
    unchanged = (jobs.c.id == job.id) & (jobs.c.version == job.version)
    change = update(jobs).where(unchanged)
    changed = tx.execute(change.values(version=job.version + 1, updated_at=db_now(), **values))
    if changed.rowcount != 1:
        raise IllegalTransition(f"job {job.id} was changed without its lock")
