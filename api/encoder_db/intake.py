"""Accept a job: everything it needs to run, and to be told of, is written in one transaction."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from encoder_core.documents import OutputDocument
from encoder_core.errors import FieldProblem, InvalidRequest, Refused
from encoder_core.events import job_event
from encoder_core.ids import new_uuid
from encoder_core.redaction import split_secrets
from encoder_core.sealing import KeyRing
from encoder_core.specs import InlineSource, JobSpec
from encoder_core.states import JobStatus, OutputStatus
from encoder_db.blobs import write_blob
from encoder_db.dialect import db_now, inserted_id
from encoder_db.documents import document_of_new
from encoder_db.events import record_event_of
from encoder_db.idempotency import Idempotency, Replayed, keep_answer, read_idempotent
from encoder_db.messages import enqueue, has_owner, queue_key
from encoder_db.rows import JobRow
from encoder_db.secrets import store_secrets
from encoder_db.tables import job_outputs, jobs, pools

NOTIFICATION = "/notificationUrl"


def create_job(
    tx: Connection,
    *,
    spec: JobSpec,
    owner: str,
    keys: KeyRing,
    inline: bytes | None = None,
    idempotency: Idempotency | None = None,
) -> JobRow:
    """
    Record a job and put it into its queue.

    `inline` are the bytes of an inline source; left out, they are decoded from the spec. Raises
    InvalidRequest when the pool does not exist, Refused when the owner's externalId is taken
    (409), and Replayed when the request was answered before.
    """
    spec, inline = _detach_inline(spec, inline)
    queue = queue_key(spec.pool, spec.priority, owner)
    found = tx.execute(
        select(db_now(), has_owner(queue)).select_from(pools).where(pools.c.name == spec.pool)
    ).one_or_none()
    if found is None:
        raise InvalidRequest([FieldProblem("/pool", "pool_unknown", "there is no such pool")])
    moment, owner_known = found

    public, secrets = split_secrets(spec)
    notification = secrets.pop(NOTIFICATION, None)
    if notification is None and spec.notification_url is not None:
        notification = spec.notification_url.get_secret_value()
    row: dict[str, Any] = {
        "uuid": new_uuid(unix_ms=int(moment.timestamp() * 1000)),
        "owner": owner,
        "pool": spec.pool,
        "priority": spec.priority.value,
        "status": JobStatus.QUEUED.value,
        "attempt": 0,
        "attempts_forgiven": 0,
        "version": 1,
        "source": public.pop("source"),
        "secret_fields": sorted(secrets),
        "external_id": spec.external_id,
        "created_at": moment,
        "updated_at": moment,
    }
    specs = public.pop("outputs")
    row["request"] = public
    try:
        row["id"] = inserted_id(tx.execute(insert(jobs), row))
    except IntegrityError:
        _explain_conflict(tx, owner, spec, idempotency)
        raise
    job = _as_row(row)
    if specs:
        tx.execute(
            insert(job_outputs),
            [
                {
                    "job_id": job.id,
                    "position": position,
                    "spec": output,
                    "status": OutputStatus.PENDING.value,
                    "updated_at": moment,
                }
                for position, output in enumerate(specs)
            ],
        )
    sealed = store_secrets(
        tx, job.id, job.uuid, keys=keys, credentials=secrets, webhook_url=notification
    )
    if inline is not None:
        write_blob(tx, job.id, inline)
    enqueue(tx, job, due_at=moment, owner_known=owner_known)
    document = document_of_new({**dict.fromkeys(_UNSET), **row}, _new_outputs(tx, job.id, specs))
    record_event_of(tx, document, job_event(JobStatus.QUEUED), target=sealed.get("webhook"))
    if idempotency is not None:
        answer = {"id": job.id, "uuid": str(job.uuid), "status": job.status.value}
        keep_answer(tx, owner=owner, idempotency=idempotency, job_id=job.id, response=answer)
    return job


def _detach_inline(spec: JobSpec, inline: bytes | None) -> tuple[JobSpec, bytes | None]:
    """The stored spec holds the size of an inline source; its bytes are a blob."""
    if not isinstance(spec.source, InlineSource):
        return spec, None
    if inline is None:
        inline = base64.b64decode(spec.source.data or "")
    source = InlineSource(kind="inline", size_bytes=len(inline))
    return spec.model_copy(update={"source": source}), inline


def _explain_conflict(
    tx: Connection, owner: str, spec: JobSpec, idempotency: Idempotency | None
) -> None:
    """Raise what the caller must know of a row that exists already."""
    if idempotency is not None:
        earlier = read_idempotent(tx, owner=owner, idempotency=idempotency)
        if earlier is not None:
            raise Replayed(earlier)
    taken = select(jobs.c.id).where(jobs.c.owner == owner, jobs.c.external_id == spec.external_id)
    job_id = tx.execute(taken).scalar_one_or_none()
    if spec.external_id is not None and job_id is not None:
        raise Refused("external_id_taken", f"job {job_id} has this externalId already", status=409)


_UNSET = (
    *("source_info", "warnings", "failure", "resource_name", "resource_uid"),
    *("started_at", "finished_at", "deleted_at"),
)


def _as_row(row: dict[str, Any]) -> JobRow:
    return JobRow.of({**dict.fromkeys(_UNSET), **row})


def _new_outputs(
    tx: Connection, job_id: int, specs: Sequence[Mapping[str, Any]]
) -> list[OutputDocument]:
    """The outputs that this transaction just wrote. Of them only the numbers are read back."""
    numbers = select(job_outputs.c.id).where(job_outputs.c.job_id == job_id)
    ids = tx.execute(numbers.order_by(job_outputs.c.position)).scalars()
    return [
        OutputDocument(id=number, index=index, status=OutputStatus.PENDING, spec=dict(spec))
        for index, (number, spec) in enumerate(zip(ids, specs, strict=True))
    ]
