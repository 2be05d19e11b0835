"""What attempts have to do, and which of them hold a place. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, select

from encoder_core.errors import JobError
from encoder_core.redaction import merge_secrets
from encoder_core.reports import OrderedOutput, SourceInfo
from encoder_core.sealing import CannotOpen
from encoder_core.specs import JobSpec
from encoder_core.states import OPEN_ATTEMPT, AttemptStatus, JobStatus, OutputStatus
from encoder_db.blobs import list_blobs
from encoder_db.queue import Engine
from encoder_db.rows import JOB_COLUMNS, JobRow
from encoder_db.secrets import read_credentials
from encoder_db.store import Store
from encoder_db.tables import job_attempts, job_outputs, jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What an attempt has to do."""

    job_id: int
    job_uuid: UUID
    owner: str
    """Whose job it is: what it may borrow depends on it."""
    attempt: int
    spec: JobSpec
    """With its secrets in place, and with the outputs of `outputs` only."""
    outputs: list[OrderedOutput]
    """Those that are not uploaded yet, under their index in the job."""
    source_info: SourceInfo | None
    """What an earlier attempt learned of the source."""
    inline: frozenset[int]
    """Numbers of what came with the request: to be read with `blobs.read_blob`."""
    request_id: str | None = None
    """Of the request that made the job; none for jobs that were applied with kubectl."""


def read_work(store: Store, job_id: int, attempt: int) -> Work | None:
    """
    The work of an attempt; None when it is not current any more.

    Raises JobError with `credentials_required` when secrets that the job needs are gone, or
    sealed with a key that this installation does not have.
    """
    with store.read() as tx:
        query = select(*JOB_COLUMNS).where(jobs.c.id == job_id)
        row = tx.execute(query).mappings().one_or_none()
        if row is None or row["attempt"] != attempt:
            return None
        job = JobRow.of(row)
        outputs = tx.execute(
            select(job_outputs.c.position, job_outputs.c.spec, job_outputs.c.status)
            .where(job_outputs.c.job_id == job_id)
            .order_by(job_outputs.c.position)
        ).all()
        try:
            credentials = read_credentials(tx, job.id, job.uuid, keys=store.keys) or {}
        except CannotOpen as error:
            raise JobError("credentials_required", f"They cannot be opened: {error}.") from error
        inline = list_blobs(tx, job_id)
    if set(job.secret_fields) - set(credentials):
        raise JobError("credentials_required")
    public = {**job.request, "source": job.source, "outputs": [row.spec for row in outputs]}
    spec = JobSpec.model_validate(merge_secrets(public, credentials))
    missing = [row.position for row in outputs if row.status != OutputStatus.UPLOADED]
    ordered = [OrderedOutput(index=index, spec=spec.outputs[index]) for index in missing]
    return Work(
        job_id=job.id,
        job_uuid=job.uuid,
        owner=job.owner,
        attempt=attempt,
        request_id=job.request_id,
        spec=spec.model_copy(update={"outputs": [item.spec for item in ordered]}),
        outputs=ordered,
        source_info=SourceInfo.model_validate(job.source_info) if job.source_info else None,
        inline=inline,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAttempt:
    """An attempt that holds a place, as an executor lists its own when it starts or sweeps."""

    job_id: int
    job_uuid: UUID
    job_status: JobStatus
    number: int
    status: AttemptStatus
    worker: str


def open_attempts(
    tx: Connection, *, executor: Engine, worker: str | None = None
) -> list[OpenAttempt]:
    query = (
        select(
            *(job_attempts.c.job_id, jobs.c.uuid, jobs.c.status.label("job_status")),
            *(job_attempts.c.number, job_attempts.c.status, job_attempts.c.worker),
        )
        .join(jobs, jobs.c.id == job_attempts.c.job_id)
        .where(
            job_attempts.c.executor == executor,
            job_attempts.c.status.in_(sorted(OPEN_ATTEMPT)),
        )
        .order_by(job_attempts.c.job_id)
    )
    if worker is not None:
        query = query.where(job_attempts.c.worker == worker)
    return [
        OpenAttempt(
            job_id=row.job_id,
            job_uuid=row.uuid,
            job_status=JobStatus(row.job_status),
            number=row.number,
            status=AttemptStatus(row.status),
            worker=row.worker,
        )
        for row in tx.execute(query)
    ]
