"""Forget what is old, by primary key and in transactions that end soon, so that nobody waits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, delete, exists, select

from encoder_core.states import FINAL_JOB
from encoder_db.dialect import db_now, in_seconds
from encoder_db.messages import forget_idle_queues, is_idle
from encoder_db.purge import (
    PORTION_BYTES,
    deleted_and_over,
    purge_deleted,
    purge_jobs,
    purge_rest,
    weigh_jobs,
)
from encoder_db.store import Store
from encoder_db.tables import (
    idempotency_keys,
    job_secrets,
    jobs,
    queue_owners,
    webhook_attempts,
)
from encoder_db.workers import forget_silent

BATCH: Final = 500
HOUR_S: Final = 3600.0


def delete_old_jobs(store: Store, *, older_than_h: float, batch: int = BATCH) -> int:
    """
    Delete jobs that ended longer ago than this, with all that belongs to them. Says how many.

    Also goes on with what others began to delete, and forgets expired answers and credentials,
    queues that have long been empty, and the log of webhooks of that age whose job is gone: while
    a job is there, its log says what its receiver knows.
    """
    age = in_seconds(-older_than_h * HOUR_S)
    deleted = 0
    more = True
    while more:
        count, more = store.run(lambda tx: _delete_jobs(tx, age, batch))
        deleted += count
    with store.read() as tx:
        begun = list(tx.execute(deleted_and_over()).scalars())
    for job_id in begun:
        purge_rest(store, job_id)
    _delete_rows(store, idempotency_keys, idempotency_keys.c.expires_at < db_now(), batch)
    _delete_rows(store, job_secrets, job_secrets.c.expires_at < db_now(), batch)
    of_no_job = ~exists().where(jobs.c.id == webhook_attempts.c.job_id)
    _delete_rows(store, webhook_attempts, (webhook_attempts.c.started_at < age) & of_no_job, batch)
    _forget_queues(store, batch)
    store.run(forget_silent)
    return deleted


def _delete_jobs(tx: Connection, age: ColumnElement[Any], batch: int) -> tuple[int, bool]:
    """How many jobs are gone, and whether there are more."""
    # Locked and looked at again: a job may have been retried since the index was read.
    old = (
        select(jobs.c.id, jobs.c.status)
        .where(jobs.c.finished_at < age)
        .order_by(jobs.c.finished_at, jobs.c.id)
        .limit(batch)
        .with_for_update(skip_locked=True)
    )
    ids = [row.id for row in tx.execute(old) if row.status in FINAL_JOB]
    together = _first_that_fit(tx, ids)
    if ids and not together:  # the first is too heavy for any batch
        return int(purge_deleted(tx, ids[0])), True
    if together:
        purge_jobs(tx, together)
    return len(together), len(ids) == batch or len(together) < len(ids)


def _forget_queues(store: Store, batch: int) -> None:
    """Those with nothing in them: each claim looks at every queue there is."""
    with store.read() as tx:
        idle = select(queue_owners.c.queue).where(*is_idle()).order_by(queue_owners.c.queue)
        queues = tx.execute(idle).scalars().all()
    for start in range(0, len(queues), batch):
        portion = queues[start : start + batch]
        store.run(lambda tx, portion=portion: forget_idle_queues(tx, portion))  # type: ignore[misc]  # mypy infers no type for a lambda's default


def _first_that_fit(tx: Connection, ids: Sequence[int]) -> list[int]:
    """As many of the first as one transaction should delete."""
    weights = weigh_jobs(tx, ids)
    totals = accumulate(weights[job_id].total_bytes for job_id in ids)
    return [job_id for job_id, total in zip(ids, totals, strict=True) if total <= PORTION_BYTES]


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
