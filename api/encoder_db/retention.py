"""Forget what is old, a few hundred rows at a time and by primary key, so that nobody waits."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, delete, exists, select

from encoder_core.states import FINAL_JOB
from encoder_db.dialect import db_now, in_seconds
from encoder_db.purge import purge_jobs
from encoder_db.store import Store
from encoder_db.tables import (
    idempotency_keys,
    job_secrets,
    jobs,
    webhook_attempts,
)
from encoder_db.workers import forget_silent

BATCH: Final = 500
HOUR_S: Final = 3600.0


def delete_old_jobs(store: Store, *, older_than_h: float, batch: int = BATCH) -> int:
    """
    Delete jobs that ended longer ago than this, with all that belongs to them. Says how many.

    Also forgets expired answers and credentials, and the log of webhooks of that age whose job is
    gone: while a job is there, its log says what its receiver knows.
    """
    age = in_seconds(-older_than_h * HOUR_S)
    deleted = 0
    while True:
        count = store.run(lambda tx: _delete_jobs(tx, age, batch))
        deleted += count
        if count < batch:
            break
    _delete_rows(store, idempotency_keys, idempotency_keys.c.expires_at < db_now(), batch)
    _delete_rows(store, job_secrets, job_secrets.c.expires_at < db_now(), batch)
    of_no_job = ~exists().where(jobs.c.id == webhook_attempts.c.job_id)
    _delete_rows(store, webhook_attempts, (webhook_attempts.c.started_at < age) & of_no_job, batch)
    store.run(forget_silent)
    return deleted


def _delete_jobs(tx: Connection, age: ColumnElement[Any], batch: int) -> int:
    # Locked and looked at again: a job may have been retried since the index was read.
    old = (
        select(jobs.c.id, jobs.c.status)
        .where(jobs.c.finished_at < age)
        .order_by(jobs.c.finished_at, jobs.c.id)
        .limit(batch)
        .with_for_update(skip_locked=True)
    )
    ids = [row.id for row in tx.execute(old) if row.status in FINAL_JOB]
    if ids:
        purge_jobs(tx, ids)
    return len(ids)


def _delete_rows(store: Store, table: Table, old: ColumnElement[bool], batch: int) -> None:
    keys = list(table.primary_key.columns)

    def work(tx: Connection) -> int:
        found = tx.execute(select(*keys).where(old).limit(batch)).all()
        for row in found:
            same = [column == value for column, value in zip(keys, row, strict=True)]
            tx.execute(delete(table).where(*same, old))
        return len(found)

    while store.run(work) == batch:
        pass
