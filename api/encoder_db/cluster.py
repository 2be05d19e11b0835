"""What only the Kubernetes engine writes: resources, Pods, tokens of attempts, mirrored pools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, RowMapping, Select, bindparam, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from encoder_core.errors import FieldProblem, InvalidRequest
from encoder_core.ids import hash_token, new_token
from encoder_core.names import pod_name
from encoder_core.sealing import KeyRing
from encoder_core.specs import JobSpec, Priority
from encoder_core.states import FINAL_JOB, OPEN_ATTEMPT, AttemptStatus, JobStatus
from encoder_db.dialect import db_now, in_seconds
from encoder_db.intake import create_job
from encoder_db.pools import DELETED, StopPolicy
from encoder_db.rows import JobRow, lock_job
from encoder_db.store import now
from encoder_db.tables import job_attempts, job_outputs, jobs, pools

KUBERNETES_OWNER = "kubernetes"
"""Whose jobs those are that people apply with kubectl."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRow:
    """A job as the operator needs it for one decision."""

    id: int
    uuid: UUID
    pool: str
    priority: Priority
    status: JobStatus
    attempt: int
    attempt_open: bool
    pod_created: bool
    resource_name: str | None
    resource_uid: str | None
    finished_at: datetime | None
    publish_until: datetime | None
    """Until then the worker of the latest attempt may publish outputs."""
    reported_end: bool
    """Whether that worker's final report is stored."""


_LATEST: Final = (job_attempts.c.job_id == jobs.c.id) & (job_attempts.c.number == jobs.c.attempt)
_RESOURCE: Final = (
    select(
        *(jobs.c.id, jobs.c.uuid, jobs.c.pool, jobs.c.priority, jobs.c.status, jobs.c.attempt),
        *(jobs.c.resource_name, jobs.c.resource_uid, jobs.c.finished_at),
        job_attempts.c.status.label("attempt_status"),
        *(job_attempts.c.worker, job_attempts.c.publish_until),
        job_attempts.c.final_report.is_not(None).label("reported_end"),
        db_now().label("now"),
    )
    .outerjoin(job_attempts, _LATEST)
    .order_by(jobs.c.id.desc())
    .limit(1)
)


@cache
def _resource_query(*, by_uuid: bool, by_uid: bool, by_name: bool) -> Select[Any]:
    """Each way to ask is put together once: a job is looked at ten times in its life."""
    named = [jobs.c.uuid == bindparam("uuid")] if by_uuid else []
    if by_uid:
        named.append(jobs.c.resource_uid == bindparam("resource_uid"))
    if by_name:
        is_named = jobs.c.resource_name == bindparam("resource_name")
        if by_uid:
            is_named &= jobs.c.status.not_in(sorted(FINAL_JOB))
        named.append(is_named)
    return _RESOURCE.where(or_(*named))


def read_resource(
    tx: Connection, *, uuid: UUID | None, resource_uid: str | None, resource_name: str | None = None
) -> tuple[datetime, ResourceRow | None]:
    """
    The time, and the job of a TranscodeJob: by the UUID in its spec, or by the resource's own uid
    or name.

    By name alone only as long as nobody knows another resource of that name, or while the job is
    under way: an earlier one's is over, and people use a name again.
    """
    query = _resource_query(
        by_uuid=uuid is not None,
        by_uid=resource_uid is not None,
        by_name=resource_name is not None,
    )
    named = {"uuid": uuid, "resource_uid": resource_uid, "resource_name": resource_name}
    row = tx.execute(query, named).mappings().one_or_none()
    if row is None:
        return now(tx), None
    return row["now"], _resource_row(row)


def _resource_row(row: RowMapping) -> ResourceRow:
    is_open = row["attempt_status"] is not None and row["attempt_status"] in OPEN_ATTEMPT
    expected = pod_name(row["resource_name"], row["attempt"]) if row["resource_name"] else None
    return ResourceRow(
        id=row["id"],
        uuid=row["uuid"],
        pool=row["pool"],
        priority=Priority(row["priority"]),
        status=JobStatus(row["status"]),
        attempt=row["attempt"],
        attempt_open=is_open,
        pod_created=expected is not None and row["worker"] == expected,
        resource_name=row["resource_name"],
        resource_uid=row["resource_uid"],
        finished_at=row["finished_at"],
        publish_until=row["publish_until"],
        reported_end=bool(row["reported_end"]),
    )


def bind_resource(tx: Connection, job_id: int, *, name: str, uid: str) -> bool:
    """Note which resource stands for a job. False: it has another, or none any more. Repeatable."""
    return tx.execute(_BIND, {"job": job_id, "name": name, "uid": uid}).rowcount == 1


_BIND: Final = (
    update(jobs)
    .where(
        jobs.c.id == bindparam("job"),
        or_(jobs.c.resource_uid.is_(None), jobs.c.resource_uid == bindparam("uid")),
    )
    .values(resource_name=bindparam("name"), resource_uid=bindparam("uid"), updated_at=db_now())
)


def adopt_job(
    tx: Connection, *, spec: JobSpec, name: str, uid: str, keys: KeyRing
) -> JobRow | None:
    """
    Record a job that somebody applied with kubectl. None: it is recorded already.

    Raises InvalidRequest when its pool does not exist, or belongs to another engine.
    """
    known = select(jobs.c.id).where(jobs.c.resource_uid == uid)
    if tx.execute(known).first() is not None:
        return None
    engine = tx.execute(select(pools.c.engine).where(pools.c.name == spec.pool)).scalar()
    if engine != "kubernetes":
        raise InvalidRequest(
            [FieldProblem("/pool", "pool_unknown", f"there is no TranscodePool {spec.pool}")]
        )
    job = create_job(tx, spec=spec, owner=KUBERNETES_OWNER, keys=keys)
    bind_resource(tx, job.id, name=name, uid=uid)
    return job


BEGUN_S = 10.0
"""From setting out to make a Pod to having made it takes milliseconds; a crash costs this."""


class BegunByAnother(Exception):
    """Another operator is about to make this Pod; its token must not become void."""


def begin_pod(
    tx: Connection, job_id: int, attempt: int, *, resources: Mapping[str, Any], by: str
) -> str | None:
    """
    Give an attempt a fresh token before its Pod exists, and note what the Pod is to have.

    None when the attempt is not current any more: then no Pod may be made for it. The same operator
    may begin again as long as no worker has used the token: the earlier one is void then.
    Raises BegunByAnother while another operator, `by` its name, is at it.
    """
    job = lock_job(tx, job_id)
    row = tx.execute(_BEGUN, {"job": job_id, "attempt": attempt}).one_or_none()
    if job is None or row is None or job.attempt != attempt or row.status != AttemptStatus.CREATED:
        return None
    if job.status is not JobStatus.STARTING:
        return None
    begun = row.begun_at is not None and row.begun_at + timedelta(seconds=BEGUN_S) > row.now
    if begun and row.worker != by:
        raise BegunByAnother
    token = new_token()
    tx.execute(
        _BEGIN.values(
            worker=by, begun_at=db_now(), token_hash=hash_token(token), resources=dict(resources)
        ),
        {"job": job_id, "attempt": attempt},
    )
    return token


def still_begun(tx: Connection, job_id: int, attempt: int, *, by: str) -> bool:
    """Whether the Pod is still this operator's to make; then for as long again."""
    lock_job(tx, job_id)
    which = {"job": job_id, "attempt": attempt}
    row = tx.execute(_BEGUN, which).one_or_none()
    if row is None or row.worker != by or row.status != AttemptStatus.CREATED:
        return False
    tx.execute(_BEGIN.values(begun_at=db_now()), which)
    return True


# Both in the lock of the job, so that two cannot find it free.
_THIS: Final = (job_attempts.c.job_id == bindparam("job")) & (
    job_attempts.c.number == bindparam("attempt")
)
_BEGUN: Final = select(
    *(job_attempts.c.status, job_attempts.c.worker, job_attempts.c.begun_at),
    db_now().label("now"),
).where(_THIS)
_BEGIN: Final = update(job_attempts).where(_THIS)


def record_pod(tx: Connection, job_id: int, attempt: int, *, resource: str) -> bool:
    """The Pod exists: from now on its absence means that it is gone. Repeatable."""
    change = (
        update(job_attempts)
        .where(
            job_attempts.c.job_id == job_id,
            job_attempts.c.number == attempt,
            job_attempts.c.status.in_(sorted(OPEN_ATTEMPT)),
        )
        .values(worker=pod_name(resource, attempt))
    )
    return tx.execute(change).rowcount == 1


@dataclass(frozen=True, slots=True)
class EarlierAttempt:
    """What became of a Pod before this one."""

    resources: dict[str, Any] | None
    failure_code: str | None
    node: str | None


def earlier_attempts(tx: Connection, job_id: int, before: int) -> list[EarlierAttempt]:
    """The latest twenty first."""
    query = (
        select(job_attempts.c.resources, job_attempts.c.failure_code, job_attempts.c.node)
        .where(job_attempts.c.job_id == job_id, job_attempts.c.number < before)
        .order_by(job_attempts.c.number.desc())
        .limit(20)
    )
    return [EarlierAttempt(row.resources, row.failure_code, row.node) for row in tx.execute(query)]


def record_place(
    tx: Connection,
    job_id: int,
    attempt: int,
    *,
    node: str,
    scheduled_at: datetime | None,
    pulled_at: datetime | None,
) -> None:
    """Where the Pod runs, and since when, as far as the cluster says. Repeatable."""
    known = job_attempts.c
    tx.execute(
        update(job_attempts)
        .where(known.job_id == job_id, known.number == attempt)
        .values(
            node=node,
            scheduled_at=func.coalesce(known.scheduled_at, scheduled_at),
            pulled_at=func.coalesce(known.pulled_at, pulled_at),
        )
    )


def output_specs(tx: Connection, job_id: int) -> list[dict[str, object]]:
    """What was asked for, redacted, in the job's order."""
    query = (
        select(job_outputs.c.spec)
        .where(job_outputs.c.job_id == job_id)
        .order_by(job_outputs.c.position)
    )
    return [dict(spec) for spec in tx.execute(query).scalars()]


def resources_to_watch(tx: Connection) -> list[str]:
    """Resources of jobs that are active or to be stopped: a restarted operator sees to them."""
    active = [JobStatus.STARTING, JobStatus.RUNNING, JobStatus.CANCELING]
    query = select(jobs.c.resource_name).where(
        jobs.c.status.in_([status.value for status in active]), jobs.c.resource_name.is_not(None)
    )
    return list(tx.execute(query).scalars())


def canceling_resources(tx: Connection) -> list[str]:
    query = select(jobs.c.resource_name).where(
        jobs.c.status == JobStatus.CANCELING.value, jobs.c.resource_name.is_not(None)
    )
    return list(tx.execute(query).scalars())


def lately_stopped_resources(tx: Connection, *, lately_s: float) -> list[str]:
    """
    Resources of jobs that ended without success in the last seconds.

    A job that waits has no Pod whose end would tell its resource that the API canceled it.
    """
    query = select(jobs.c.resource_name).where(
        jobs.c.finished_at >= in_seconds(-lately_s),
        jobs.c.status.in_([JobStatus.CANCELED.value, JobStatus.FAILED.value]),
        jobs.c.resource_name.is_not(None),
    )
    return list(tx.execute(query).scalars())


def mirror_pool(
    tx: Connection,
    name: str,
    *,
    max_concurrency: int,
    stop_policy: StopPolicy,
    max_per_owner: int | None = None,
) -> None:
    """Make the pool's row say what its TranscodePool says. The cluster rules it from then on."""
    values = {
        "engine": "kubernetes",
        "max_concurrency": max_concurrency,
        "stop_policy": stop_policy,
        "max_per_owner": max_per_owner,
        "updated_at": db_now(),
    }
    changed = tx.execute(update(pools).where(pools.c.name == name).values(values))
    if changed.rowcount == 0:
        try:
            with tx.begin_nested():
                tx.execute(insert(pools).values(name=name, created_at=db_now(), **values))
        except IntegrityError:
            tx.execute(update(pools).where(pools.c.name == name).values(values))


def hold_pool(tx: Connection, name: str) -> None:
    """Its TranscodePool is gone: its jobs wait until it comes back."""
    tx.execute(
        update(pools)
        .where(pools.c.name == name, pools.c.engine == "kubernetes")
        .values(stop_policy="Hold", blocked=DELETED, updated_at=db_now())
    )


def note_blocked(tx: Connection, name: str, why: str | None) -> None:
    """Say why nothing can start in a pool, such as that no node has room; None: it can."""
    tx.execute(
        update(pools)
        .where(pools.c.name == name, pools.c.engine == "kubernetes")
        .values(blocked=None if why is None else why[:512])
    )


def note_waiting(tx: Connection, job_id: int, *, reason: str | None, message: str) -> bool:
    """
    Say why a job that holds a place does not run yet; None: nothing keeps it any more.

    No change of the job: neither version nor event. False when it is not starting any more, whose
    next status forgets the reason.
    """
    starting = (jobs.c.id == job_id) & (jobs.c.status == JobStatus.STARTING.value)
    values = {
        "waiting_reason": reason,
        "waiting_message": None if reason is None else message[:1024],
    }
    return tx.execute(update(jobs).where(starting).values(values)).rowcount == 1


@dataclass(frozen=True, slots=True)
class FreePlaces:
    in_pools: int
    """How many attempts could be opened in the pools of the cluster, if enough were queued."""
    left: int
    """How many of the total. Below 0 where it was lowered and more run; 0 if the pools are full."""


def free_places(tx: Connection, *, total: int) -> FreePlaces:
    opened = job_attempts.c.status.in_(sorted(OPEN_ATTEMPT))
    in_pool = select(func.count()).where(job_attempts.c.pool == pools.c.name, opened)
    query = select(pools.c.max_concurrency, in_pool.scalar_subquery().label("taken")).where(
        pools.c.engine == "kubernetes", pools.c.stop_policy == "None"
    )
    free = sum(max(0, row.max_concurrency - row.taken) for row in tx.execute(query))
    if not free:
        return FreePlaces(0, 0)
    everywhere = select(func.count()).where(job_attempts.c.executor == "kubernetes", opened)
    return FreePlaces(free, total - tx.execute(everywhere).scalar_one())
