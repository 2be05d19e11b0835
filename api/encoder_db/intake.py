"""Accept jobs: everything one needs to run, and to be told of, is written in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, bindparam, insert, select
from sqlalchemy.exc import IntegrityError

from encoder_core.documents import OutputDocument
from encoder_core.errors import FieldProblem, InvalidRequest, Refused
from encoder_core.ids import new_uuid
from encoder_core.redaction import split_secrets
from encoder_core.sealing import KeyRing
from encoder_core.specs import InlineSource, JobSpec, Source
from encoder_core.states import JobStatus, OutputStatus
from encoder_db.blobs import SOURCE_BLOB, decode_inline, image_blob, write_blob
from encoder_db.dialect import db_now, insert_all, to_json
from encoder_db.documents import document_of_new
from encoder_db.events import record_accepted
from encoder_db.idempotency import Idempotency, Replayed, keep_answer, read_idempotent
from encoder_db.messages import enqueue_new, queue_key, stays_for_now
from encoder_db.rows import JobRow
from encoder_db.secrets import Purpose, insert_secrets, seal_secrets
from encoder_db.tables import job_outputs, jobs, pools, queue_owners

NOTIFICATION = "/notificationUrl"
MAX_AHEAD: Final = timedelta(days=366)
MAX_SHOWN_BYTES: Final = 1024 * 1024  # each change of the job is recorded, and sent, with all of it
QUOTA_RETRY_S: Final = 30.0  # a place in the queue becomes free with every job that starts


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One job to accept."""

    spec: JobSpec
    owner: str
    inline: Mapping[int, bytes] | None = None
    """What `decode_inline` gives; left out, it is decoded now, within the transaction."""
    idempotency: Idempotency | None = None
    request_id: str | None = None
    """Of the request that brings it: the log of its workers has it too."""
    max_queued: int | None = None
    """How many jobs of its owner may wait, this one included; processes that accept jobs in the
    same instant may exceed it by their number."""


def create_job(
    tx: Connection,
    *,
    spec: JobSpec,
    owner: str,
    keys: KeyRing,
    inline: Mapping[int, bytes] | None = None,
    idempotency: Idempotency | None = None,
    request_id: str | None = None,
    max_queued: int | None = None,
) -> JobRow:
    """Record one job and put it into its queue; see `create_jobs`."""
    one = Submission(
        spec=spec,
        owner=owner,
        inline=inline,
        idempotency=idempotency,
        request_id=request_id,
        max_queued=max_queued,
    )
    return create_jobs(tx, [one], keys=keys)[0]


def create_jobs(
    tx: Connection, submissions: Sequence[Submission], *, keys: KeyRing
) -> list[JobRow]:
    """
    Record jobs and put them into their queues: all of them, in as many statements as one takes.

    Raises InvalidRequest when a pool does not exist, `startAt` is too far away or the job would be
    shown with more than 1 MiB; Refused when an owner's externalId is taken (409), the pool is being
    drained (409) or too many jobs of the owner wait (429); and Replayed when the request was
    answered before. Of several jobs nothing says which one it was, and what collides among them is
    an IntegrityError: take them one by one then.
    """
    moment, kept_queues, draining = _look_up(tx, submissions)
    new = [_New.of(one, moment, keys) for one in submissions]
    try:
        _refuse(tx, submissions, draining)
    except Refused:
        if len(submissions) == 1:
            _explain_conflict(tx, submissions[0])  # what was accepted before stays accepted
        raise
    try:
        ids = insert_all(tx, jobs, [one.row for one in new], key=jobs.c.uuid)
    except IntegrityError:
        if len(submissions) == 1:
            _explain_conflict(tx, submissions[0])
        raise
    for one, number in zip(new, ids, strict=True):
        one.row["id"] = number
    outputs = _insert_outputs(tx, new, moment)
    stored = [_as_row(one.row) for one in new]
    insert_secrets(tx, [(one.row["id"], one.sealed) for one in new])
    for one in new:
        for number, data in one.inline.items():
            write_blob(tx, one.row["id"], number, data)
    due_at = [one.due_at for one in new]
    enqueue_new(tx, stored, due_at=due_at, moment=moment, kept_queues=kept_queues)
    record_accepted(
        tx,
        [
            (
                document_of_new({**dict.fromkeys(_UNSET), **one.row}, documents, due_at=one.due_at),
                one.sealed.get("webhook"),
            )
            for one, documents in zip(new, outputs, strict=True)
        ],
    )
    for submission, job in zip(submissions, stored, strict=True):
        if submission.idempotency is not None:
            answer = {"id": job.id, "uuid": str(job.uuid), "status": job.status.value}
            keep_answer(
                tx,
                owner=submission.owner,
                idempotency=submission.idempotency,
                job_id=job.id,
                response=answer,
            )
    return stored


def _look_up(
    tx: Connection, submissions: Sequence[Submission]
) -> tuple[datetime, set[str], set[str]]:
    """
    The database's clock, which of the queues stay for now, and which pools are being drained.

    Raises for an unknown pool.
    """
    wanted = {one.spec.pool for one in submissions}
    queues = {queue_key(one.spec.pool, one.spec.priority, one.owner) for one in submissions}
    rows = tx.execute(_POOLS, {"names": sorted(wanted), "queues": sorted(queues)}).all()
    if {row[0] for row in rows} != wanted:
        raise InvalidRequest([FieldProblem("/pool", "pool_unknown", "there is no such pool")])
    kept_queues = {row[1] for row in rows if row[1] is not None}
    return rows[0][2], kept_queues, {row[0] for row in rows if row[3] == "Drain"}


# What every job asks is put together once: that costs as much as to send it.
_POOLS: Final = (
    select(pools.c.name, queue_owners.c.queue, db_now(), pools.c.stop_policy)
    .select_from(
        pools.outerjoin(
            queue_owners,
            (queue_owners.c.pool == pools.c.name)
            & queue_owners.c.queue.in_(bindparam("queues", expanding=True))
            & stays_for_now(),
        )
    )
    .where(pools.c.name.in_(bindparam("names", expanding=True)))
)
_QUEUED: Final = (
    select(jobs.c.id)
    .where(jobs.c.owner == bindparam("owner"), jobs.c.status == JobStatus.QUEUED.value)
    .limit(1)
    .offset(bindparam("besides"))  # counts no further than the quota
)
_OUTPUTS: Final = select(job_outputs.c.job_id, job_outputs.c.position, job_outputs.c.id).where(
    job_outputs.c.job_id.in_(bindparam("job_ids", expanding=True))
)


def _refuse(tx: Connection, submissions: Sequence[Submission], draining: Set[str]) -> None:
    """Raise when a pool takes no jobs, or an owner has enough of them."""
    for one in submissions:
        if one.spec.pool in draining:
            raise _draining(one.spec.pool)
    coming = Counter(one.owner for one in submissions)
    quotas = {one.owner: one.max_queued for one in submissions if one.max_queued is not None}
    for owner, most in quotas.items():
        refuse_too_many(tx, owner, most=most, coming=coming[owner])


def refuse_too_many(tx: Connection, owner: str, *, most: int, coming: int = 1) -> None:
    """Raise when more than so many jobs of an owner would wait, with those that are coming."""
    besides = {"owner": owner, "besides": max(0, most - coming)}
    if coming > most or tx.execute(_QUEUED, besides).first() is not None:
        raise Refused(
            "too_many_queued",
            f"{most} jobs of yours wait already; send this one again when some have started",
            status=429,
            retry_after_s=QUOTA_RETRY_S,
        )


def refuse_draining(tx: Connection, pool: str) -> None:
    """Raise what a caller is told who wants a job to run in a pool that is taken out of service."""
    policy = select(pools.c.stop_policy).where(pools.c.name == pool)
    if tx.execute(policy).scalar_one_or_none() == "Drain":
        raise _draining(pool)


def _draining(pool: str) -> Refused:
    return Refused(
        "pool_draining",
        f"the pool {pool!r} is being drained and takes no new jobs; choose another pool, or wait "
        "until it is open again",
        status=409,
    )


def _due_at(spec: JobSpec, moment: datetime) -> datetime:
    if spec.start_at is None:
        return moment
    if spec.start_at > moment + MAX_AHEAD:
        raise InvalidRequest(
            [FieldProblem("/startAt", "too_far_away", "must be within a year from now")]
        )
    return max(moment, spec.start_at)


@dataclass(slots=True)
class _New:
    """A job on its way into the tables."""

    row: dict[str, Any]
    outputs: list[dict[str, Any]]
    sealed: dict[Purpose, bytes]
    inline: Mapping[int, bytes]
    due_at: datetime

    @classmethod
    def of(cls, submission: Submission, moment: datetime, keys: KeyRing) -> _New:
        inline = submission.inline
        if inline is None:
            inline = decode_inline(submission.spec)
        public, secrets = split_secrets(_detach_inline(submission.spec, inline))
        _check_size(public)
        spec = submission.spec
        notification = secrets.pop(NOTIFICATION, None)
        if notification is None and spec.notification_url is not None:
            notification = spec.notification_url.get_secret_value()
        uuid = new_uuid(unix_ms=int(moment.timestamp() * 1000))
        row: dict[str, Any] = {
            "uuid": uuid,
            "owner": submission.owner,
            "pool": spec.pool,
            "priority": spec.priority.value,
            "status": JobStatus.QUEUED.value,
            "attempt": 0,
            "attempts_forgiven": 0,
            "version": 1,
            "source": public.pop("source"),
            "secret_fields": sorted(secrets),
            "external_id": spec.external_id,
            "request_id": submission.request_id,
            "created_at": moment,
            "updated_at": moment,
        }
        outputs = public.pop("outputs")
        row["request"] = public
        sealed = seal_secrets(uuid, keys=keys, credentials=secrets, webhook_url=notification)
        return cls(row, outputs, sealed, inline, _due_at(spec, moment))


def _insert_outputs(
    tx: Connection, new: Sequence[_New], moment: datetime
) -> list[list[OutputDocument]]:
    """Write the outputs of all jobs; what was written, by job. Only the numbers are read back."""
    rows = [
        {
            "job_id": one.row["id"],
            "position": position,
            "spec": output,
            "status": OutputStatus.PENDING.value,
            "updated_at": moment,
        }
        for one in new
        for position, output in enumerate(one.outputs)
    ]
    if not rows:
        return [[] for _ in new]
    tx.execute(insert(job_outputs), rows)
    numbers = tx.execute(_OUTPUTS, {"job_ids": [one.row["id"] for one in new]})
    ids = {(job_id, position): number for job_id, position, number in numbers}
    return [
        [
            OutputDocument(
                id=ids[one.row["id"], index],
                index=index,
                status=OutputStatus.PENDING,
                spec=dict(output),
            )
            for index, output in enumerate(one.outputs)
        ]
        for one in new
    ]


def check_size(spec: JobSpec) -> None:
    """Raise InvalidRequest of a job that nobody submits, as `create_jobs` would."""
    _check_size(_detach_inline(spec, decode_inline(spec)).to_json())


def _check_size(public: Mapping[str, Any]) -> None:
    size = len(to_json(public).encode())
    if size > MAX_SHOWN_BYTES:
        detail = (
            f"would be shown with {size} bytes of JSON, and {MAX_SHOWN_BYTES} are the most: give "
            "shorter URLs, texts and lists, or several jobs with fewer outputs each"
        )
        raise InvalidRequest([FieldProblem("", "too_large", detail)])


def _detach_inline(spec: JobSpec, inline: Mapping[int, bytes]) -> JobSpec:
    """The stored spec holds the sizes of what the request had in itself; the bytes are blobs."""
    if not inline:
        return spec
    outputs = [
        output
        if output.watermark is None
        else output.model_copy(
            update={
                "watermark": output.watermark.model_copy(
                    update={"source": _without_bytes(output.watermark.source, inline, number)}
                )
            }
        )
        for number, output in enumerate(spec.outputs, start=image_blob(0))
    ]
    source = _without_bytes(spec.source, inline, SOURCE_BLOB)
    return spec.model_copy(update={"source": source, "outputs": outputs})


def _without_bytes(place: Source, inline: Mapping[int, bytes], number: int) -> Source:
    if number not in inline:
        return place
    return InlineSource(kind="inline", size_bytes=len(inline[number]))


def _explain_conflict(tx: Connection, submission: Submission) -> None:
    """Raise what the caller must know of a row that exists already."""
    owner, external_id = submission.owner, submission.spec.external_id
    if submission.idempotency is not None:
        earlier = read_idempotent(tx, owner=owner, idempotency=submission.idempotency)
        if earlier is not None:
            raise Replayed(earlier)
    if external_id is None:
        return
    taken = select(jobs.c.id).where(jobs.c.owner == owner, jobs.c.external_id == external_id)
    job_id = tx.execute(taken).scalar_one_or_none()
    if job_id is not None:
        raise Refused("external_id_taken", f"job {job_id} has this externalId already", status=409)


_UNSET = (
    *("source_info", "warnings", "failure", "resource_name", "resource_uid"),
    *("started_at", "finished_at", "deleted_at"),
)


def _as_row(row: dict[str, Any]) -> JobRow:
    return JobRow.of({**dict.fromkeys(_UNSET), **row})
