"""Look at one job: read what the decision needs, decide, and read what people are to be shown."""

from __future__ import annotations

from dataclasses import dataclass

from encoder_core.documents import JobDocument
from encoder_core.names import job_of_resource
from encoder_db import cluster, jobs
from encoder_db.store import Store
from encoder_operator.cache import Cache
from encoder_operator.decide import Decision, Observed, RowSeen, decide
from encoder_operator.policy import PoolPolicy, read_policy


@dataclass(frozen=True, slots=True)
class View:
    """What was seen of a job, what follows from it, and what people are shown."""

    observed: Observed
    decision: Decision
    document: JobDocument | None
    """None: there is no such job, or its status is not to be written after this look."""


def observe(store: Store, cache: Cache, name: str, *, defaults: PoolPolicy) -> View:
    """Blocking: for a thread. The cache is read first: the row may only be newer than it."""
    job, known = cache.jobs.get(name), cache.pods_of(name)
    with store.read() as tx:
        uuid = job.job_uid if job else job_of_resource(name)
        moment, row = cluster.read_resource(
            tx, uuid=uuid, resource_uid=job.uid if job else None, resource_name=name
        )
        # Another resource may have had this name before: its Pods are not this one's.
        owner = row.resource_uid if row else job.uid if job else None
        pods = {n: pod for n, pod in known.items() if owner is None or pod.owner == owner}
        pool = row.pool if row else job.pool if job else ""
        seen = cache.pools.get(pool)
        observed = Observed(
            name=name,
            now=moment,
            job=job,
            row=_seen(row) if row else None,
            pods=pods,
            policy=read_policy(pool, seen.spec if seen else None, defaults),
        )
        decision = decide(observed)
        shown = row if decision.is_shown else None
        document = jobs.read_job(tx, shown.id, owner=None) if shown else None
    return View(observed, decision, document)


def _seen(row: cluster.ResourceRow) -> RowSeen:
    return RowSeen(
        id=row.id,
        uuid=row.uuid,
        status=row.status,
        priority=row.priority,
        attempt=row.attempt,
        attempt_open=row.attempt_open,
        resource_name=row.resource_name,
        resource_uid=row.resource_uid,
        pod_created=row.pod_created,
        finished_at=row.finished_at,
        publish_until=row.publish_until,
        reported_end=row.reported_end,
    )
