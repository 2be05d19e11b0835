"""Read jobs as the documents that clients see, in a number of queries that does not grow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, Table, bindparam, func, select

from encoder_core.documents import (
    MOST_ATTEMPTS,
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
from encoder_db.dialect import byte_length
from encoder_db.portions import PAGE_BYTES, Page, begin_within
from encoder_db.tables import job_attempts, job_outputs, job_progress, jobs, queue_jobs
from encoder_db.timeline import build_timeline, read_moments

_SUMMARY: Final = (
    *("id", "uuid", "status", "owner", "pool", "priority", "attempt", "version", "source"),
    *("request", "external_id", "failure", "created_at", "updated_at", "started_at", "finished_at"),
)
_OWN_PAGE: Final = ("source_info", "warnings", "waiting_reason", "waiting_message", "request_id")
_PROGRESS: Final = ("job_id", "phase", "percent", "speed", "fps", "eta_s", "updated_at")
_OUTPUT: Final = ("id", "job_id", "position", "status", "spec", "result", "error", "warnings")
_ATTEMPT: Final = (
    *("number", "status", "executor", "worker", "node", "failure", "budget", "exit_code"),
    *("created_at", "started_at", "finished_at"),
)


def _columns(table: Table, names: Sequence[str], *, prefix: str = "") -> list[ColumnElement[Any]]:
    return [table.c[name].label(prefix + name) for name in names]


# Put together once, and of the columns that are shown: see rows.py.
_SUMMARIES: Final = select(
    *_columns(jobs, _SUMMARY), *_columns(job_progress, _PROGRESS, prefix="progress_")
).outerjoin(job_progress, job_progress.c.job_id == jobs.c.id)
_LISTED: Final = _SUMMARIES.add_columns(
    (byte_length(jobs.c.source) + byte_length(jobs.c.request)).label("size")
)
_SEEN: Final = _SUMMARIES.add_columns(
    *_columns(jobs, _OWN_PAGE), queue_jobs.c.visible_at.label("due_at"), queue_jobs.c.leased_by
).outerjoin(queue_jobs, queue_jobs.c.job_id == jobs.c.id)
_ONE: Final = _SEEN.where(jobs.c.id == bindparam("job_id"))
_OUTPUTS: Final = (
    select(*_columns(job_outputs, _OUTPUT))
    .where(job_outputs.c.job_id.in_(bindparam("job_ids", expanding=True)))
    .order_by(job_outputs.c.job_id, job_outputs.c.position)
)
_SIZES: Final = (
    select(
        job_outputs.c.job_id.label("key"),
        func.sum(
            byte_length(job_outputs.c.spec) + func.coalesce(byte_length(job_outputs.c.result), 0)
        ).label("size"),
    )
    .where(job_outputs.c.job_id.in_(bindparam("job_ids", expanding=True)))
    .group_by(job_outputs.c.job_id)
)
_PAGE: Final = begin_within(_SIZES, PAGE_BYTES, latest_first=True)
_LISTED_OUTPUTS: Final = (
    select(*_columns(job_outputs, _OUTPUT), _PAGE.c.found)
    .join(_PAGE, _PAGE.c.key == job_outputs.c.job_id)
    .order_by(job_outputs.c.job_id, job_outputs.c.position)
)
_ATTEMPTS: Final = (
    select(*_columns(job_attempts, _ATTEMPT))
    .where(job_attempts.c.job_id == bindparam("job_id"))
    .order_by(job_attempts.c.number)
)
_LATEST: Final = (
    _ATTEMPTS.order_by(None).order_by(job_attempts.c.number.desc()).limit(MOST_ATTEMPTS)
)
_LATEST_WITH_STEPS: Final = _LATEST.add_columns(
    job_attempts.c.scheduled_at, job_attempts.c.pulled_at, job_attempts.c.final_report
)


def load_document(tx: Connection, which: ColumnElement[bool] | int) -> JobDocument | None:
    """One job with everything that is known of it: three queries, two before its first attempt."""
    found = _load(tx, which, _LATEST)
    return None if found is None else JobDocument(**found[0])


def load_page(tx: Connection, which: ColumnElement[bool]) -> JobPage | None:
    """The same, and when each step was over: one query more."""
    found = _load(tx, which, _LATEST_WITH_STEPS)
    if found is None:
        return None
    fields, attempts = found
    timeline = build_timeline(fields["created_at"], attempts, read_moments(tx, fields["id"]))
    return JobPage(**fields, timeline=timeline)


def _load(
    tx: Connection, which: ColumnElement[bool] | int, query: Select[Any]
) -> tuple[dict[str, Any], Sequence[RowMapping]] | None:
    if isinstance(which, int):
        found = tx.execute(_ONE, {"job_id": which})
    else:
        found = tx.execute(_SEEN.where(which))
    row = found.mappings().one_or_none()
    if row is None:
        return None
    outputs = _outputs_of(tx, [row["id"]])[row["id"]]
    attempts: Sequence[RowMapping] = []
    if row["attempt"]:
        attempts = tx.execute(query, {"job_id": row["id"]}).mappings().all()[::-1]
    waits = row["status"] == JobStatus.QUEUED and row["leased_by"] is None
    fields = {
        **_summary_fields(row, outputs),
        "source_info": _model(SourceInfo, row["source_info"]),
        "warnings": _warnings(row["warnings"]),
        "due_at": row["due_at"] if waits else None,
        "attempts": [_attempt(attempt) for attempt in attempts],
        "waiting": _noted_waiting(row),
        "request_id": row["request_id"],
    }
    return fields, attempts


def _noted_waiting(row: Mapping[Any, Any]) -> Waiting | None:
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
) -> Page[JobSummary]:
    """The latest first: two queries."""
    query = _LISTED.where(*where).order_by(jobs.c.id.desc()).limit(limit + 1)
    found = tx.execute(query).mappings().all()
    before = accumulate((row["size"] for row in found), initial=0)
    rows = [row for row, begin in zip(found, before, strict=False) if begin <= PAGE_BYTES][:limit]
    outputs, last = _listed_outputs(tx, [row["id"] for row in rows])
    page = [row for row in rows if last is None or row["id"] >= last]
    return Page(
        (JobSummary(**_summary_fields(row, outputs[row["id"]])) for row in page),
        more=len(page) < len(found),
    )


def _listed_outputs(
    tx: Connection, job_ids: Sequence[int]
) -> tuple[Mapping[int, list[OutputDocument]], int | None]:
    """The outputs of the latest of these jobs, and the last job if not of all: one query."""
    if not job_ids:
        return defaultdict(list), None
    rows = tx.execute(_LISTED_OUTPUTS, {"job_ids": list(job_ids)}).mappings().all()
    outputs = _by_job(rows)
    cut = bool(rows) and rows[0]["found"] > len(outputs)
    return outputs, min(outputs) if cut else None


def list_outputs(tx: Connection, job_id: int) -> list[OutputDocument]:
    """The outputs of a job in the order of the request: one query, 32 of them at most."""
    return _outputs_of(tx, [job_id])[job_id]


def list_attempts(
    tx: Connection, job_id: int, *, after: int = 0, limit: int = 200
) -> list[AttemptDocument]:
    """The attempts of a job with a higher number than `after`, the first ones first: one query."""
    query = _ATTEMPTS.where(job_attempts.c.number > after).limit(limit)
    return [_attempt(row) for row in tx.execute(query, {"job_id": job_id}).mappings()]


def _summary_fields(row: Mapping[Any, Any], outputs: list[OutputDocument]) -> dict[str, Any]:
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


def _progress(row: Mapping[Any, Any]) -> ProgressDocument | None:
    if row["progress_job_id"] is None:
        return None
    names = ("phase", "percent", "speed", "fps", "eta_s", "updated_at")
    return ProgressDocument(**{name: row[f"progress_{name}"] for name in names})


def _outputs_of(tx: Connection, job_ids: Sequence[int]) -> dict[int, list[OutputDocument]]:
    """The outputs of these jobs in the order of the request: one query."""
    return _by_job(tx.execute(_OUTPUTS, {"job_ids": list(job_ids)}).mappings())


def _by_job(rows: Iterable[RowMapping]) -> dict[int, list[OutputDocument]]:
    found: dict[int, list[OutputDocument]] = defaultdict(list)
    for row in rows:
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
