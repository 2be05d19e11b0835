"""Read what one decision needs: the watches' cache, and the job's row and document."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from encoder_core.documents import JobDocument
from encoder_core.names import job_of_resource
from encoder_core.states import JobStatus
from encoder_db import cluster, jobs, pools
from encoder_db.store import Store, now
from encoder_operator.cache import Cache
from encoder_operator.decide import Observed, RowSeen


@dataclass(frozen=True, slots=True)
class View:
    """What was seen of a job: for the decision, and for what people are shown."""

    observed: Observed
    document: JobDocument | None
    waiting_for: str | None
    """Why a queued job is not admitted."""


def observe(store: Store, cache: Cache, name: str, *, retention: timedelta) -> View:
    """Blocking: for a thread. The cache is read first: the row may only be newer than it."""
    job, pods = cache.jobs.get(name), cache.pods_of(name)
    with store.read() as tx:
        moment = now(tx)
        uuid = job.job_uid if job else job_of_resource(name)
        row = cluster.read_resource(
            tx, uuid=uuid, resource_uid=job.uid if job else None, resource_name=name
        )
        document = jobs.read_job(tx, row.uuid, owner=None) if row else None
        waiting_for = None
        if row is not None and row.status is JobStatus.QUEUED:
            pool = pools.read_pool(tx, row.pool)
            waiting_for = explain_waiting(row.pool, pool, document, moment)
    return View(
        Observed(
            name=name,
            now=moment,
            job=job,
            row=_seen(row) if row else None,
            pods=pods,
            retention=retention,
        ),
        document,
        waiting_for,
    )


def _seen(row: cluster.ResourceRow) -> RowSeen:
    return RowSeen(
        id=row.id,
        uuid=row.uuid,
        status=row.status,
        attempt=row.attempt,
        attempt_open=row.attempt_open,
        resource_uid=row.resource_uid,
        pod_created=row.pod_created,
        finished_at=row.finished_at,
    )


def explain_waiting(
    name: str, pool: pools.PoolRow | None, document: JobDocument | None, moment: datetime
) -> str:
    """Why a queued job does not run, in words. Pure."""
    if pool is None:
        return f"There is no pool {name}"
    if pool.stop_policy != "None":
        return f"Pool {name} is on {pool.stop_policy.lower()}"
    if document is not None and document.due_at is not None and document.due_at > moment:
        return f"Due at {document.due_at:%H:%M:%S} UTC"
    if pool.active >= pool.max_concurrency:
        return f"Pool {name} is full ({pool.active} of {pool.max_concurrency})"
    return f"Next in pool {name}"
