"""End the attempts that the dead left open, so that their jobs go on and their places are free."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, select

from encoder_core.failures import FAILURES, failure
from encoder_core.retries import Retry, RetryLimits, decide_retry
from encoder_core.states import OPEN_ATTEMPT, AttemptStatus, JobStatus
from encoder_db.dialect import db_now
from encoder_db.endings import end_canceled, fail_job, reset_for_attempt
from encoder_db.outcomes import charged_budgets, close_attempt
from encoder_db.rows import AttemptRow, JobRow, lock_job, read_open_attempt
from encoder_db.store import Store, now
from encoder_db.tables import job_attempts, queue_jobs
from encoder_db.transitions import move_job

LAPSE_MARGIN_S: Final = 30.0  # clocks differ a little, and a PUT may be under way


def end_abandoned(
    store: Store, *, worker: str, limits: RetryLimits, besides: Collection[int] = ()
) -> int:
    """
    End open attempts whose message is due again: nobody holds a lease for them any more.

    Claiming alone would not come to them: a pool whose places are all held by the dead, or one
    that is stopped, is never claimed from. `besides` are jobs that the caller itself runs.
    """
    abandoned = (
        select(job_attempts.c.job_id)
        .join(queue_jobs, queue_jobs.c.job_id == job_attempts.c.job_id)
        .where(job_attempts.c.status.in_(sorted(OPEN_ATTEMPT)), queue_jobs.c.visible_at <= db_now())
        .distinct()
    )
    with store.read() as tx:
        found = [job_id for job_id in tx.execute(abandoned).scalars() if job_id not in besides]

    def work(tx: Connection, job_id: int) -> bool:
        job = lock_job(tx, job_id)
        attempt = None if job is None else read_open_attempt(tx, job)
        # Locked, so that nobody leases it in between.
        still_due = select(queue_jobs.c.id).where(
            queue_jobs.c.job_id == job_id, queue_jobs.c.visible_at <= db_now()
        )
        if job is None or attempt is None or not tx.execute(still_due.with_for_update()).first():
            return False
        if may_publish_s(tx, attempt, worker) > 0:
            return False
        if has_not_begun(attempt, job):
            close_attempt(tx, attempt, AttemptStatus.LOST)
        else:
            end_lost(tx, job, attempt, limits)
        return True

    return sum(store.run(lambda tx, job_id=job_id: work(tx, job_id)) for job_id in found)  # type: ignore[misc]  # mypy infers no type for a lambda's default


def has_not_begun(attempt: AttemptRow, job: JobRow) -> bool:
    """
    Whether nothing of the attempt can be running, so that it can simply be gone on with.

    On Kubernetes names are derived from the number, so whatever was created is found again. A
    local child may be running without a parent that knows of it: its attempt must end.
    """
    return (
        attempt.executor == "kubernetes"
        and attempt.status is AttemptStatus.CREATED
        and job.status is JobStatus.QUEUED
    )


def may_publish_s(tx: Connection, attempt: AttemptRow, worker: str) -> float:
    """For how long the attempt's own worker may still publish, as far as `worker` can know."""
    if attempt.worker == worker or attempt.publish_until is None:
        # The same name means the same place started anew: its children ended with its pipes.
        return 0.0
    until = attempt.publish_until + timedelta(seconds=LAPSE_MARGIN_S)
    return (until - now(tx)).total_seconds()


def end_lost(tx: Connection, job: JobRow, attempt: AttemptRow, limits: RetryLimits) -> JobRow:
    """
    Say that the attempt's worker disappeared, and what that means for its job.

    A job that is queued again keeps its message as it is, with whoever holds it.
    """
    if job.status is JobStatus.CANCELING:
        close_attempt(tx, attempt, AttemptStatus.CANCELED)
        return end_canceled(tx, job)
    because = failure("worker_lost")
    close_attempt(
        tx, attempt, AttemptStatus.LOST, because=because, budget=FAILURES[because.code].budget
    )
    decided = decide_retry(because.code, charged_budgets(tx, job), limits=limits, jitter=0.0)
    if not isinstance(decided, Retry):
        return fail_job(tx, job, because)
    return job if job.status is JobStatus.QUEUED else requeue_and_keep(tx, job)


def requeue_and_keep(tx: Connection, job: JobRow) -> JobRow:
    """The job is queued again while its message stays in the hands that it is in."""
    reset_for_attempt(tx, job.id)
    return move_job(tx, job, JobStatus.QUEUED)
