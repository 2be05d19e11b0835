"""End attempts: the exit code decides, the stored final report tells why, the retry rules go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select, update

from encoder_core.exits import EXIT_FAILURES, Exit
from encoder_core.failures import Budget, Failure, Warned, failure, kind_of
from encoder_core.reports import FinalReport, Outcome
from encoder_core.retries import Retry, RetryLimits, decide_retry
from encoder_core.states import AttemptStatus, JobStatus, OutputStatus
from encoder_db.dialect import db_now
from encoder_db.endings import (
    complete_job,
    end_canceled,
    fail_job,
    missing_outputs,
    requeue_job,
)
from encoder_db.messages import requeue
from encoder_db.reports import apply_output
from encoder_db.rows import AttemptRow, JobRow, lock_job, read_attempt
from encoder_db.store import Store
from encoder_db.tables import job_attempts, job_outputs
from encoder_db.transitions import move_job


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    job: JobStatus
    """What its job is now."""
    code: str | None
    """The failure it was charged with: the executor's, the worker's own, or `canceled`. None when
    it succeeded."""


def finish_attempt(
    store: Store,
    job_id: int,
    attempt: int,
    *,
    exit_code: int | None,
    lost: bool = False,
    failure: Failure | None = None,
    last_word: FinalReport | None = None,
    may_retry: bool = True,
    limits: RetryLimits,
    jitter: float,
) -> AttemptEnd | None:
    """
    End an attempt, and say what it was and what its job is now.

    `exit_code` is None when nobody knows it, negative when a signal ended the process; `lost`
    says that the executor is gone without a word; `failure` is what the executor saw itself;
    `last_word` is what the worker left elsewhere, for when its final report never arrived.
    `may_retry` is False when another attempt would end like this one. `jitter` is a random
    number in [0, 1). None: the attempt was ended by another, or is not current; losing is
    normal.
    """

    def work(tx: Connection) -> AttemptEnd | None:
        job = lock_job(tx, job_id)
        row = read_attempt(tx, job_id, attempt)
        if job is None or row is None or not row.is_open or job.attempt != attempt:
            return None
        final = last_word
        if row.final_report is not None:
            final = FinalReport.model_validate(row.final_report)
        for report in final.outputs if final else []:
            job = apply_output(tx, job, report)
        if job.status is JobStatus.CANCELING:
            close_attempt(tx, row, AttemptStatus.CANCELED, exit_code=exit_code)
            return AttemptEnd(end_canceled(tx, job).status, "canceled")
        missing = missing_outputs(tx, job_id)
        because = judge(
            exit_code=exit_code,
            final=final,
            lost=lost,
            seen=failure,
            uploaded_all=not missing and _has_outputs(tx, job_id),
        )
        if because is None:
            _believe_uploaded(tx, job_id, missing)
            close_attempt(tx, row, AttemptStatus.SUCCEEDED, exit_code=exit_code)
            if job.status is JobStatus.QUEUED:
                job = move_job(tx, job, JobStatus.STARTING)  # it ended before it was announced
            return AttemptEnd(complete_job(tx, job).status, None)
        close_attempt(
            tx,
            row,
            AttemptStatus.LOST if lost else AttemptStatus.FAILED,
            because=because,
            budget=kind_of(because.code).budget,
            exit_code=exit_code,
        )
        decided = decide_retry(
            because.code,
            charged_budgets(tx, job),
            limits=limits,
            jitter=jitter,
            retry_after_s=final.retry_after_s if final else None,
        )
        if not may_retry or not isinstance(decided, Retry):
            return AttemptEnd(fail_job(tx, job, because).status, because.code)
        if job.status is JobStatus.QUEUED:
            requeue(tx, job, delay_s=decided.after_s)
            return AttemptEnd(job.status, because.code)
        return AttemptEnd(requeue_job(tx, job, delay_s=decided.after_s).status, because.code)

    return store.run(work)


def judge(
    *,
    exit_code: int | None,
    final: FinalReport | None,
    lost: bool,
    seen: Failure | None,
    uploaded_all: bool,
) -> Failure | None:
    """
    Say why an attempt failed, or None when it succeeded. Pure.

    What the record knows to be uploaded was verified and confirmed, so when that is everything
    it does not matter how the worker ended. A worker that says it failed is believed even when
    it exits with 0: calling a failure success would be a lie about somebody's files.
    """
    if uploaded_all:
        return None
    said = None if final is None else final.outcome
    if said is Outcome.SUCCEEDED and exit_code in (0, None):
        return None
    if exit_code == Exit.SUCCEEDED and said is None and seen is None and not lost:
        return None
    if seen is not None:
        return seen
    if final is not None and final.failure is not None:
        return final.failure
    if lost or exit_code is None:
        return failure("worker_lost")
    return _failure_of_exit(exit_code)


def _failure_of_exit(exit_code: int) -> Failure:
    if exit_code < 0 or exit_code > 128:
        return failure("worker_lost", "A signal ended the worker.")
    if exit_code == Exit.CANCELED:
        return failure("worker_interrupted")  # of its own accord: the job is not being canceled
    try:
        code = EXIT_FAILURES.get(Exit(exit_code), "worker_failed")
    except ValueError:
        code = "worker_failed"
    return failure(code, f"The worker ended with exit code {exit_code} and said nothing more.")


def _has_outputs(tx: Connection, job_id: int) -> bool:
    query = select(job_outputs.c.id).where(job_outputs.c.job_id == job_id).limit(1)
    return tx.execute(query).first() is not None


def _believe_uploaded(tx: Connection, job_id: int, missing: Sequence[int]) -> None:
    """The worker succeeded, but what it said of these outputs never arrived."""
    if not missing:
        return
    lost = Warned(code="details_lost", message="Uploaded; its measured properties were lost.")
    tx.execute(
        update(job_outputs)
        .where(job_outputs.c.job_id == job_id, job_outputs.c.position.in_(missing))
        .values(
            status=OutputStatus.UPLOADED,
            error=None,
            failure_code=None,
            warnings=[lost.to_json()],
            updated_at=db_now(),
        )
    )


def close_attempt(
    tx: Connection,
    attempt: AttemptRow,
    status: AttemptStatus,
    *,
    because: Failure | None = None,
    budget: Budget | None = None,
    exit_code: int | None = None,
) -> None:
    """From now on it holds no place, and nothing that it writes is accepted."""
    tx.execute(
        update(job_attempts)
        .where(job_attempts.c.job_id == attempt.job_id, job_attempts.c.number == attempt.number)
        .values(
            status=status,
            failure=None if because is None else because.to_json(),
            failure_code=None if because is None else because.code,
            budget=budget,
            exit_code=exit_code,
            finished_at=db_now(),
        )
    )


def charged_budgets(tx: Connection, job: JobRow) -> Mapping[Budget, int]:
    """How many attempts were charged to each budget since the last retry by request."""
    query = (
        select(job_attempts.c.budget, func.count().label("attempts"))
        .where(
            job_attempts.c.job_id == job.id,
            job_attempts.c.number > job.attempts_forgiven,
            job_attempts.c.budget.is_not(None),
        )
        .group_by(job_attempts.c.budget)
    )
    return {Budget(row.budget): row.attempts for row in tx.execute(query)}
