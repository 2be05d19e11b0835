"""The only place where a job's status changes: one step of its version, one event that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import Connection, Update, bindparam, update

from encoder_core.errors import EncoderError
from encoder_core.events import JOB_BUMPED, OUTPUT_UPLOADED, job_event
from encoder_core.failures import Failure
from encoder_core.specs import Priority
from encoder_core.states import FINAL_JOB, JOB_TRANSITIONS, JobStatus
from encoder_db.dialect import db_now
from encoder_db.events import record_event
from encoder_db.rows import JobRow, JobState
from encoder_db.tables import jobs

Job = TypeVar("Job", bound=JobState)


class IllegalTransition(EncoderError):
    """A mistake of ours: this status cannot follow that one."""


def move_job(
    tx: Connection,
    job: Job,
    to: JobStatus,
    *,
    failure: Failure | None = None,
    values: Mapping[str, Any] | None = None,
) -> Job:
    """
    Change the status of a job that this transaction has locked, and record the event.

    Outputs and attempts must have their new values already: the event carries the document.
    Returns the job as it is now.
    """
    if to not in JOB_TRANSITIONS[job.status]:
        raise IllegalTransition(f"job {job.id} is {job.status} and cannot become {to}")
    stored = None if failure is None else failure.to_json()
    now_at = ["finished_at"] if to in FINAL_JOB else []
    if to is JobStatus.RUNNING and job.started_at is None:
        now_at.append("started_at")
    changed = {
        "status": to.value,
        "failure": stored,
        "failure_code": None if failure is None else failure.code,
        "waiting_reason": None,
        "waiting_message": None,
        **({} if to in FINAL_JOB else {"finished_at": None}),
        **(values or {}),
    }
    _step(tx, job, changed, now_at=tuple(now_at))
    record_event(tx, job.id, job_event(to))
    moved: dict[str, Any] = {"status": to, "version": job.version + 1}
    if isinstance(job, JobRow):
        moved["failure"] = stored
    return replace(job, **moved)


def announce_upload(tx: Connection, job: JobRow) -> JobRow:
    """An output became `uploaded`: that is a change of the job without a change of its status."""
    _step(tx, job, {})
    record_event(tx, job.id, OUTPUT_UPLOADED)
    return replace(job, version=job.version + 1)


def announce_bump(tx: Connection, job: JobRow, priority: Priority) -> JobRow:
    """Somebody moved a waiting job to the front of this priority: a change of where it waits."""
    _step(tx, job, {"priority": priority.value})
    record_event(tx, job.id, JOB_BUMPED)
    return replace(job, version=job.version + 1, priority=priority)


def _step(
    tx: Connection, job: JobState, values: Mapping[str, Any], *, now_at: tuple[str, ...] = ()
) -> None:
    """Set these columns, and those of `now_at` to the database's clock."""
    given = {f"new_{name}": value for name, value in values.items()}
    unchanged = {"job": job.id, "seen": job.version}
    if tx.execute(_change(tuple(values), now_at), given | unchanged).rowcount != 1:
        raise IllegalTransition(f"job {job.id} was changed without its lock")


@cache
def _change(names: tuple[str, ...], now_at: tuple[str, ...]) -> Update:
    """Put together once for each set of columns: that costs more than to send it."""
    unchanged = (jobs.c.id == bindparam("job")) & (jobs.c.version == bindparam("seen"))
    return (
        update(jobs)
        .where(unchanged)
        .values({name: bindparam(f"new_{name}") for name in names})
        .values({name: db_now() for name in (*now_at, "updated_at")})
        .values(version=jobs.c.version + 1)
    )
