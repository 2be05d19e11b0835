"""Read the end of an attempt's log. reports.py writes it as the worker sends it."""

from __future__ import annotations

from sqlalchemy import Connection, select

from encoder_core.documents import LogDocument
from encoder_db.tables import job_logs


def read_log(
    tx: Connection, job_id: int, *, attempt: int | None = None, limit: int
) -> LogDocument | None:
    """The last lines of one attempt's log, of the latest that has one when none is named."""
    query = select(job_logs).where(job_logs.c.job_id == job_id)
    if attempt is not None:
        query = query.where(job_logs.c.attempt == attempt)
    row = tx.execute(query.order_by(job_logs.c.attempt.desc()).limit(1)).mappings().one_or_none()
    if row is None:
        return None
    lines = row["tail"].split("\n") if row["tail"] else []
    shown = lines[-limit:]
    return LogDocument(
        attempt=row["attempt"],
        lines=shown,
        skipped=row["lines"] - len(shown),
        updated_at=row["updated_at"],
    )
