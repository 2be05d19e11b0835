"""Who may fetch what an attempt needs: the worker that holds the open attempt's token."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, select

from encoder_core.ids import hash_token
from encoder_core.states import OPEN_ATTEMPT
from encoder_db.tables import job_attempts, jobs


def job_of_token(tx: Connection, job: UUID, token: str) -> int | None:
    """The job's number, when the token is that of its current attempt and the attempt is open."""
    query = (
        select(jobs.c.id)
        .join(job_attempts, job_attempts.c.job_id == jobs.c.id)
        .where(
            jobs.c.uuid == job,
            job_attempts.c.number == jobs.c.attempt,
            job_attempts.c.status.in_(sorted(OPEN_ATTEMPT)),
            job_attempts.c.token_hash == hash_token(token),
        )
    )
    return tx.execute(query).scalar_one_or_none()
