"""How a job leaves its active life: completed, failed, canceled, or queued for another attempt."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, case, delete, select, update

from encoder_core.failures import Failure, failure
from encoder_core.states import JobStatus, OutputStatus
from encoder_db.blobs import delete_blobs
from encoder_db.dialect import db_now
from encoder_db.messages import remove, requeue
from encoder_db.purge import purge_deleted
from encoder_db.rows import JobRow
from encoder_db.secrets import destroy_credentials, expire_credentials
from encoder_db.tables import job_outputs, job_progress
from encoder_db.transitions import move_job


def complete_job(tx: Connection, job: JobRow) -> JobRow:
    """Every output is uploaded."""
    destroy_credentials(tx, job.id)
    delete_blobs(tx, job.id)
    return _end(tx, job, JobStatus.COMPLETED)


def fail_job(tx: Connection, job: JobRow, because: Failure) -> JobRow:
    """
    It ends with outputs missing. Those that failed by themselves keep their own reason.

    The credentials stay for a day, so that a retry by request needs no new ones.
    """
    close_outputs(tx, job.id, OutputStatus.FAILED, because)
    expire_credentials(tx, job.id)
    return _end(tx, job, JobStatus.FAILED, because)


def end_canceled(tx: Connection, job: JobRow) -> JobRow:
    """Nothing of it runs any more. What had been uploaded stays so."""
    close_outputs(tx, job.id, OutputStatus.CANCELED, None)
    destroy_credentials(tx, job.id)
    return _end(tx, job, JobStatus.CANCELED, failure("canceled"))


def requeue_job(tx: Connection, job: JobRow, *, delay_s: float) -> JobRow:
    """Another attempt follows: due after the delay, with the outputs that are still missing."""
    reset_for_attempt(tx, job.id)
    requeue(tx, job, delay_s=delay_s)
    return move_job(tx, job, JobStatus.QUEUED)


def reset_for_attempt(tx: Connection, job_id: int) -> None:
    """What the last attempt left unfinished begins anew."""
    _forget_progress(tx, job_id)
    tx.execute(
        update(job_outputs)
        .where(job_outputs.c.job_id == job_id, job_outputs.c.status != OutputStatus.UPLOADED)
        .values(
            status=OutputStatus.PENDING,
            result=None,
            error=None,
            failure_code=None,
            warnings=None,
            updated_at=db_now(),
        )
    )


def missing_outputs(tx: Connection, job_id: int) -> list[int]:
    """The indexes of the outputs that are not uploaded."""
    query = (
        select(job_outputs.c.position)
        .where(job_outputs.c.job_id == job_id, job_outputs.c.status != OutputStatus.UPLOADED)
        .order_by(job_outputs.c.position)
    )
    return list(tx.execute(query).scalars())


def _end(tx: Connection, job: JobRow, status: JobStatus, because: Failure | None = None) -> JobRow:
    remove(tx, job.id)
    _forget_progress(tx, job.id)
    ended = move_job(tx, job, status, failure=because)
    if job.deleted_at is not None:
        purge_deleted(tx, job.id)
    return ended


def close_outputs(
    tx: Connection, job_id: int, status: OutputStatus, because: Failure | None
) -> None:
    """What is not uploaded ends with its job; what failed by itself keeps its own reason."""
    values: dict[str, Any] = {"status": status, "updated_at": db_now()}
    if because is not None:
        own = job_outputs.c.error.is_not(None)
        values["failure_code"] = case((own, job_outputs.c.failure_code), else_=because.code)
    unfinished = (job_outputs.c.job_id == job_id) & (job_outputs.c.status != OutputStatus.UPLOADED)
    tx.execute(update(job_outputs).where(unfinished).values(values))
    if because is not None:
        tx.execute(
            update(job_outputs)
            .where(unfinished, job_outputs.c.error.is_(None))
            .values(error=because.to_json())
        )


def _forget_progress(tx: Connection, job_id: int) -> None:
    tx.execute(delete(job_progress).where(job_progress.c.job_id == job_id))
