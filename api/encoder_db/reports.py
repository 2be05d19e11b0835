"""Take in what workers report. Each report is fenced: current attempt, right token."""

from __future__ import annotations

import hmac
from typing import Any, assert_never

from sqlalchemy import Connection, select, update

from encoder_core.failures import Warned
from encoder_core.ids import hash_token
from encoder_core.reports import (
    PUBLISH_LEASE_S,
    Answer,
    Envelope,
    FinalReport,
    LogReport,
    OutputReport,
    ProgressReport,
    SourceReport,
    Started,
)
from encoder_core.states import OPEN_ATTEMPT, AttemptStatus, JobStatus, OutputStatus
from encoder_db.dialect import db_now, in_seconds, upsert
from encoder_db.rows import AttemptRow, JobRow, lock_job, read_attempt
from encoder_db.store import Store
from encoder_db.tables import job_attempts, job_logs, job_outputs, job_progress, jobs
from encoder_db.transitions import announce_upload, move_job

REFUSED = Answer(accepted=False)


def apply_report(store: Store, envelope: Envelope) -> Answer:
    """
    Record a report and answer it. May be sent twice; the second time changes nothing.

    Not accepted: the attempt is over or another's, and its worker must end without publishing.
    """
    report = envelope.report
    if isinstance(report, (ProgressReport, LogReport)):
        return store.run(lambda tx: _apply_unlocked(tx, envelope, report))
    return store.run(lambda tx: _apply_locked(tx, envelope))


def _apply_unlocked(
    tx: Connection, envelope: Envelope, report: ProgressReport | LogReport
) -> Answer:
    """
    The frequent ones: three statements, and no lock on the job.

    The lock on the attempt's row, taken by renewing its lease, is the fence.
    """
    query = select(jobs.c.id, jobs.c.status).where(
        jobs.c.uuid == envelope.job_uuid, jobs.c.attempt == envelope.attempt
    )
    job = tx.execute(query).one_or_none()
    if job is None:
        return REFUSED
    if job.status not in (JobStatus.RUNNING, JobStatus.CANCELING):
        return _apply_locked(tx, envelope)
    canceling = job.status == JobStatus.CANCELING
    lease = job_attempts.c.publish_until if canceling else in_seconds(PUBLISH_LEASE_S)
    renewed = tx.execute(
        update(job_attempts)
        .where(
            job_attempts.c.job_id == job.id,
            job_attempts.c.number == envelope.attempt,
            job_attempts.c.token_hash == hash_token(envelope.token.get_secret_value()),
            job_attempts.c.status.in_(sorted(OPEN_ATTEMPT)),
        )
        .values(publish_until=lease)
    )
    if renewed.rowcount != 1:
        return REFUSED
    if isinstance(report, ProgressReport):
        _write_progress(tx, job.id, envelope.attempt, report)
    else:
        _write_log(tx, job.id, envelope.attempt, report)
    return _answer(canceling)


def _apply_locked(tx: Connection, envelope: Envelope) -> Answer:
    job = lock_job(tx, jobs.c.uuid == envelope.job_uuid)
    attempt = None if job is None else read_attempt(tx, job.id, envelope.attempt)
    if job is None or attempt is None or not attempt.is_open or job.attempt != attempt.number:
        return REFUSED
    presented = hash_token(envelope.token.get_secret_value())
    if not hmac.compare_digest(attempt.token_hash, presented):
        return REFUSED
    canceling = job.status is JobStatus.CANCELING
    if not canceling:
        _change_attempt(tx, attempt, publish_until=in_seconds(PUBLISH_LEASE_S))
    match envelope.report:
        case Started():
            _ensure_running(tx, job, attempt)
        case ProgressReport() as report:
            job = _ensure_running(tx, job, attempt)
            _write_progress(tx, job.id, attempt.number, report)
        case LogReport() as report:
            job = _ensure_running(tx, job, attempt)
            _write_log(tx, job.id, attempt.number, report)
        case SourceReport() as report:
            job = _ensure_running(tx, job, attempt)
            _write_source(tx, job, report)
        case OutputReport() as report:
            job = _ensure_running(tx, job, attempt)
            apply_output(tx, job, report)
        case FinalReport() as report:
            _change_attempt(tx, attempt, final_report=report.to_json())
        case unknown:
            assert_never(unknown)
    return _answer(canceling)


def _answer(canceling: bool) -> Answer:
    if canceling:
        return Answer(accepted=True, cancel=True)
    return Answer(accepted=True, publish_lease_s=PUBLISH_LEASE_S)


def _change_attempt(tx: Connection, attempt: AttemptRow, **values: Any) -> None:
    tx.execute(
        update(job_attempts)
        .where(job_attempts.c.job_id == attempt.job_id, job_attempts.c.number == attempt.number)
        .values(values)
    )


def _ensure_running(tx: Connection, job: JobRow, attempt: AttemptRow) -> JobRow:
    """
    Whoever reports is running, whatever was recorded so far.

    A worker can be faster than the transaction that announces it, and a first report can be lost:
    the steps in between are made good, so that no status is skipped.
    """
    if attempt.status is AttemptStatus.CREATED:
        _change_attempt(tx, attempt, status=AttemptStatus.RUNNING, started_at=db_now())
    if job.status is JobStatus.QUEUED:
        job = move_job(tx, job, JobStatus.STARTING)
    if job.status is JobStatus.STARTING:
        job = move_job(tx, job, JobStatus.RUNNING)
    return job


def _write_progress(tx: Connection, job_id: int, attempt: int, report: ProgressReport) -> None:
    upsert(
        tx,
        job_progress,
        {"job_id": job_id},
        {
            "attempt": attempt,
            "phase": report.phase.value,
            "percent": report.percent,
            "speed": report.speed,
            "fps": report.fps,
            "eta_s": report.eta_s,
            "updated_at": db_now(),
        },
    )


def _write_log(tx: Connection, job_id: int, attempt: int, report: LogReport) -> None:
    upsert(
        tx,
        job_logs,
        {"job_id": job_id, "attempt": attempt},
        {"tail": report.tail, "lines": report.lines, "updated_at": db_now()},
    )


def _write_source(tx: Connection, job: JobRow, report: SourceReport) -> None:
    tx.execute(
        update(jobs)
        .where(jobs.c.id == job.id)
        .values(
            source_info=report.source.to_json(),
            warnings=_stored(report.warnings),
            updated_at=db_now(),
        )
    )


def apply_output(tx: Connection, job: JobRow, report: OutputReport) -> JobRow:
    """
    Record what became of an output of a job that this transaction has locked.

    `uploaded` is an event, and final: nothing that is reported later takes it back.
    """
    result = report.result
    values: dict[str, Any] = {
        "status": report.status,
        "result": None if result is None else result.to_json(),
        "error": None if report.failure is None else report.failure.to_json(),
        "failure_code": None if report.failure is None else report.failure.code,
        "warnings": _stored(report.warnings),
        "updated_at": db_now(),
    }
    if result is not None:
        values |= {"size_bytes": result.size_bytes, "duration_s": result.duration_s}
        values |= {"url": result.files[0].url, "checksum": result.files[0].sha256}
    changed = tx.execute(
        update(job_outputs)
        .where(
            job_outputs.c.job_id == job.id,
            job_outputs.c.position == report.index,
            job_outputs.c.status != OutputStatus.UPLOADED,
        )
        .values(values)
    )
    if changed.rowcount == 1 and report.status is OutputStatus.UPLOADED:
        return announce_upload(tx, job)
    return job


def _stored(warnings: list[Warned]) -> list[dict[str, Any]] | None:
    return [warning.to_json() for warning in warnings] or None
