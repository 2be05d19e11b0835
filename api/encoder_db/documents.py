"""Read jobs as the documents that clients see, in a number of queries that does not grow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, select

from encoder_core.documents import (
    AttemptDocument,
    JobDocument,
    JobPage,
    JobSummary,
    OutputDocument,
    Waiting,
)
from encoder_core.documents import Progress as ProgressDocument
from encoder_core.failures import Failure, Warned
from encoder_core.reports import OutputResult, SourceInfo
from encoder_core.states import JobStatus
from encoder_db.tables import job_attempts, job_outputs, job_progress, jobs, queue_jobs
from encoder_db.timeline import build_timeline, read_moments

_PROGRESS = [column.label(f"progress_{column.name}") for column in job_progress.c]
_SEEN: Final = (
    select(
        jobs,
        *_PROGRESS,
        queue_jobs.c.visible_at.label("due_at"),
        queue_jobs.c.leased_by,
    )
    .outerjoin(job_progress, job_progress.c.job_id == jobs.c.id)
    .outerjoin(queue_jobs, queue_jobs.c.job_id == jobs.c.id)
)


def load_document(tx: Connection, which: ColumnElement[bool]) -> JobDocument | None:
    """One job with everything that is known of it: three queries, two before its first attempt."""
    found = _load(tx, which)
    return None if found is None else JobDocument(**found[0])


def load_page(tx: Connection, which: ColumnElement[bool]) -> JobPage | None:
    """The same, and when each step was over: one query more."""
    found = _load(tx, which)
    if found is None:
        return None
    fields, attempts = found
    timeline = build_timeline(fields["created_at"], attempts, read_moments(tx, fields["id"]))
    return JobPage(**fields, timeline=timeline)


def _load(
    tx: Connection, which: ColumnElement[bool]
) -> tuple[dict[str, Any], Sequence[RowMapping]] | None:
    row = tx.execute(_SEEN.where(which)).mappings().one_or_none()
    if row is None:
        return None
    outputs = _outputs_of(tx, [row["id"]])[row["id"]]
    attempts = _attempts_of(tx, row["id"]) if row["attempt"] else []
    waits = row["status"] == JobStatus.QUEUED and row["leased_by"] is None
    fields = {
        **_summary_fields(dict(row), outputs),
        "source_info": _model(SourceInfo, row["source_info"]),
        "warnings": _warnings(row["warnings"]),
        "due_at": row["due_at"] if waits else None,
        "attempts": [_attempt(attempt) for attempt in attempts],
        "waiting": _noted_waiting(dict(row)),
        "request_id": row["request_id"],
    }
    return fields, attempts


def _noted_waiting(row: Mapping[str, Any]) -> Waiting | None:
    """What the engine noted: such as that no node has room."""
    if row["waiting_reason"] is None:
        return None
    return Waiting(reason=row["waiting_reason"], message=row["waiting_message"] or "")


def document_of_new(
    row: Mapping[str, Any], outputs: list[OutputDocument], *, due_at: datetime
) -> JobDocument:
    """The document of a job that was written a moment ago: nothing has happened yet."""
    fields = _summary_fields({**row, "progress_job_id": None}, outputs)
    return JobDocument(**fields, due_at=due_at, request_id=row["request_id"])


def load_summaries(
    tx: Connection, where: Sequence[ColumnElement[bool]], *, limit: int
) -> list[JobSummary]:
    """The latest first: two queries."""
    query: Select[Any] = _SEEN.where(*where).order_by(jobs.c.id.desc()).limit(limit)
    rows = tx.execute(query).mappings().all()
    outputs = _outputs_of(tx, [row["id"] for row in rows])
    return [JobSummary(**_summary_fields(dict(row), outputs[row["id"]])) for row in rows]


def list_outputs(tx: Connection, job_id: int) -> list[OutputDocument]:
    """The outputs of a job in the order of the request: one query, 32 of them at most."""
    return _outputs_of(tx, [job_id])[job_id]


def list_attempts(
    tx: Connection, job_id: int, *, after: int = 0, limit: int = 200
) -> list[AttemptDocument]:
    """The attempts of a job with a higher number than `after`, the first ones first: one query."""
    query = _attempts(job_id).where(job_attempts.c.number > after).limit(limit)
    return [_attempt(row) for row in tx.execute(query).mappings()]


def _summary_fields(row: Mapping[str, Any], outputs: list[OutputDocument]) -> dict[str, Any]:
    request = row["request"]
    return {
        "id": row["id"],
        "uuid": row["uuid"],
        "status": row["status"],
        "owner": row["owner"],
        "pool": row["pool"],
        "priority": row["priority"],
        "attempt": row["attempt"],
        "version": row["version"],
        "source": row["source"],
        "outputs": outputs,
        "notification_url": request.get("notificationUrl"),
        "external_id": row["external_id"],
        "metadata": request.get("metadata") or {},
        "start_at": request.get("startAt"),
        "progress": _progress(row),
        "failure": _model(Failure, row["failure"]),
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "started_at": row["started_at"],
        "finished_at": row["finished_at"],
    }


def _progress(row: Mapping[str, Any]) -> ProgressDocument | None:
    if row["progress_job_id"] is None:
        return None
    names = ("phase", "percent", "speed", "fps", "eta_s", "updated_at")
    return ProgressDocument(**{name: row[f"progress_{name}"] for name in names})


def _outputs_of(tx: Connection, job_ids: Sequence[int]) -> dict[int, list[OutputDocument]]:
    """The outputs of these jobs in the order of the request: one query."""
    found: dict[int, list[OutputDocument]] = defaultdict(list)
    if not job_ids:
        return found
    query = (
        select(job_outputs)
        .where(job_outputs.c.job_id.in_(job_ids))
        .order_by(job_outputs.c.job_id, job_outputs.c.position)
    )
    for row in tx.execute(query).mappings():
        found[row["job_id"]].append(
            OutputDocument(
                id=row["id"],
                index=row["position"],
                status=row["status"],
                spec=row["spec"],
                result=_model(OutputResult, row["result"]),
                error=_model(Failure, row["error"]),
                warnings=_warnings(row["warnings"]),
            )
        )
    return found


def _attempts_of(tx: Connection, job_id: int) -> Sequence[RowMapping]:
    return tx.execute(_attempts(job_id)).mappings().all()


def _attempts(job_id: int) -> Select[Any]:
    of_job = job_attempts.c.job_id == job_id
    return select(job_attempts).where(of_job).order_by(job_attempts.c.number)


def _attempt(row: RowMapping) -> AttemptDocument:
    return AttemptDocument(
        number=row["number"],
        status=row["status"],
        executor=row["executor"],
        worker=row["worker"],
        node=row["node"],
        failure=_model(Failure, row["failure"]),
        budget=row["budget"],
        exit_code=row["exit_code"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )


def _model(model: Any, stored: dict[str, Any] | None) -> Any:
    return None if stored is None else model.model_validate(stored)


def _warnings(stored: list[dict[str, Any]] | None) -> list[Warned]:
    return [Warned.model_validate(item) for item in stored or []]
