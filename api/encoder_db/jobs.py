"""What a caller can do to a job: create, read, list, cancel, retry, delete."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import ColumnElement, Connection, Text, cast, func, or_, select, update

from encoder_core.documents import JobDocument, JobPage, JobSummary
from encoder_core.errors import FieldProblem, InvalidRequest, Refused
from encoder_core.failures import Failure
from encoder_core.names import resource_name
from encoder_core.redaction import merge_secrets
from encoder_core.sealing import CannotOpen
from encoder_core.specs import JobSpec
from encoder_core.states import AttemptStatus, JobStatus
from encoder_db.dialect import db_now
from encoder_db.documents import load_document, load_page, load_summaries
from encoder_db.endings import (
    end_canceled,
    fail_job,
    missing_outputs,
    requeue_job,
)
from encoder_db.idempotency import Idempotency, Replayed
from encoder_db.intake import create_job, refuse_draining, refuse_too_many
from encoder_db.outcomes import close_attempt
from encoder_db.portions import Page
from encoder_db.positions import read_position
from encoder_db.purge import purge_deleted, purge_rest
from encoder_db.rows import JOB_COLUMNS, JobRef, JobRow, by_ref, lock_job, read_open_attempt
from encoder_db.secrets import keep_credentials, read_credentials, replace_credentials
from encoder_db.store import Store
from encoder_db.tables import dead_letters, job_outputs, jobs
from encoder_db.transitions import move_job
from encoder_db.waiting import with_waiting

__all__ = [
    "Idempotency",
    "JobRef",
    "JobRow",
    "Replayed",
    "cancel_job",
    "create_job",
    "delete_job",
    "fail_queued",
    "list_jobs",
    "purge_deleted",
    "read_job",
    "read_page",
    "read_row",
    "renew_credentials",
    "retry_job",
]

APPLY_AGAIN = "the job was applied with kubectl; delete the TranscodeJob {} and apply it again"
TEXT_JOBS = 10_000  # some ten milliseconds
NO_OUTPUTS_LEFT = "every output is uploaded; there is nothing to try again"


def read_page(tx: Connection, ref: JobRef, *, owner: str | None) -> JobPage | None:
    """The job on its own page: with its timeline, and what it waits for."""
    page = load_page(tx, by_ref(ref, owner))
    if page is None or page.status is not JobStatus.QUEUED:
        return page
    return with_waiting(tx, page.model_copy(update={"position": read_position(tx, page.id)}))


def read_job(tx: Connection, ref: JobRef, *, owner: str | None) -> JobDocument | None:
    """The job as its owner sees it; with owner None, as an admin does."""
    document = load_document(tx, by_ref(ref, owner))
    return None if document is None else with_waiting(tx, document)


def read_row(tx: Connection, ref: JobRef, *, owner: str | None = None) -> JobRow | None:
    """The bare row, also of what runs while it is deleted."""
    where = jobs.c.uuid == ref if not isinstance(ref, int) else jobs.c.id == ref
    if owner is not None:
        where &= jobs.c.owner == owner
    row = tx.execute(select(*JOB_COLUMNS).where(where)).mappings().one_or_none()
    return None if row is None else JobRow.of(row)


def list_jobs(
    tx: Connection,
    *,
    owner: str | None,
    limit: int = 200,
    before_id: int | None = None,
    status: JobStatus | Collection[JobStatus] | None = None,
    pool: str | None = None,
    external_id: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    text: str | None = None,
) -> Page[JobSummary]:
    """
    The latest jobs first, in two queries. The next page begins before the last id of this one.
    """
    where: list[ColumnElement[bool]] = [jobs.c.deleted_at.is_(None)]
    if owner is not None:
        where.append(jobs.c.owner == owner)
    if before_id is not None:
        where.append(jobs.c.id < before_id)
    if isinstance(status, JobStatus):
        where.append(jobs.c.status == status)
    elif status is not None:
        where.append(jobs.c.status.in_(sorted(status)))
    if pool is not None:
        where.append(jobs.c.pool == pool)
    if external_id is not None:
        where.append(jobs.c.external_id == external_id)
    if created_after is not None:
        where.append(jobs.c.created_at > created_after)
    if created_before is not None:
        where.append(jobs.c.created_at < created_before)
    if text is not None:
        where += _having_text(text)
    return load_summaries(tx, where, limit=limit)


def _having_text(text: str) -> list[ColumnElement[bool]]:
    """
    The text anywhere in what a job is recognised by, in any case, among the latest jobs.

    No index finds it, so what is looked through is bounded.
    """
    newest = select(func.coalesce(func.max(jobs.c.id), 0)).scalar_subquery()
    places: list[ColumnElement[Any]] = [
        *(jobs.c.external_id, cast(jobs.c.source, Text), cast(jobs.c.request, Text))
    ]
    if text.isascii():  # what they hold is, and MySQL compares it with nothing else
        places += [jobs.c.failure_code, jobs.c.resource_name]
    found = [place.icontains(text, autoescape=True) for place in places]
    return [jobs.c.id > newest - TEXT_JOBS, or_(*found)]


def cancel_job(store: Store, ref: JobRef, *, owner: str | None) -> JobDocument | None:
    """
    Stop a job: at once when it waits, as soon as its worker has ended when it runs.

    A job that is over stays as it is. None when there is no such job.
    """

    def work(tx: Connection) -> JobDocument | None:
        job = lock_job(tx, by_ref(ref, owner))
        if job is None:
            return None
        _stop(tx, job)
        return load_document(tx, jobs.c.id == job.id)

    return store.run(work)


def _stop(tx: Connection, job: JobRow) -> JobRow:
    attempt = read_open_attempt(tx, job)
    if job.status is JobStatus.QUEUED:
        if attempt is not None:  # claimed this moment: its executor will be told that it lost
            close_attempt(tx, attempt, AttemptStatus.CANCELED)
        return end_canceled(tx, job)
    if job.status in (JobStatus.STARTING, JobStatus.RUNNING):
        job = move_job(tx, job, JobStatus.CANCELING)
        return job if attempt is not None else end_canceled(tx, job)
    return job


def retry_job(
    store: Store,
    ref: JobRef,
    *,
    owner: str | None,
    secrets: Mapping[str, str] | None = None,
    max_queued: int | None = None,
) -> JobDocument:
    """
    Queue a failed or canceled job again, for the outputs that are not uploaded.

    Attempt numbers go on, and their budgets begin anew. `secrets` are new credentials by JSON
    pointer, in place of the stored ones. `max_queued` is how many jobs of its owner may wait, this
    one included. Raises Refused: 404 `job_not_found`, 409 `job_not_final`, `job_completed`,
    `applied_resource`, `pool_draining` or `credentials_required`, 429 `too_many_queued`; and
    InvalidRequest when a secret does not fit.
    """

    def work(tx: Connection) -> JobDocument:
        job = lock_job(tx, by_ref(ref, owner))
        if job is None:
            raise Refused("job_not_found", "there is no such job", status=404)
        if job.status is JobStatus.COMPLETED:
            raise Refused("job_completed", NO_OUTPUTS_LEFT, status=409)
        if not job.is_final:
            raise Refused(
                "job_not_final", f"the job is {job.status.value}; cancel it first", status=409
            )
        if job.resource_name not in (None, resource_name(job.uuid)):
            raise Refused("applied_resource", APPLY_AGAIN.format(job.resource_name), status=409)
        specs = _specs_of(tx, job.id)
        if specs and not missing_outputs(tx, job.id):
            raise Refused("job_completed", NO_OUTPUTS_LEFT, status=409)
        refuse_draining(tx, job.pool)
        if max_queued is not None:
            refuse_too_many(tx, job.owner, most=max_queued)
        _renew_credentials(tx, store, job, specs, secrets or {})
        # Its next run gets a resource of its own: the one of the last run may be gone by now.
        anew = {"attempts_forgiven": job.attempt, "resource_name": None, "resource_uid": None}
        tx.execute(update(jobs).where(jobs.c.id == job.id).values(anew))
        tx.execute(
            update(dead_letters)
            .where(dead_letters.c.job_id == job.id, dead_letters.c.redriven_at.is_(None))
            .values(redriven_at=db_now())
        )
        requeue_job(tx, job, delay_s=0.0)
        document = load_document(tx, jobs.c.id == job.id)
        assert document is not None
        return document

    return store.run(work)


def renew_credentials(
    store: Store, ref: JobRef, *, owner: str | None, secrets: Mapping[str, str]
) -> JobDocument:
    """
    Put new credentials in place of those that a job waits with; its next attempt uses them.

    Raises Refused: 404 `job_not_found`, 409 `job_final`; and InvalidRequest when a secret does not
    fit.
    """

    def work(tx: Connection) -> JobDocument:
        job = lock_job(tx, by_ref(ref, owner))
        if job is None:
            raise Refused("job_not_found", "there is no such job", status=404)
        if job.is_final or job.status is JobStatus.CANCELING:
            raise Refused(
                "job_final", f"the job is {job.status.value}; retry it with new ones", status=409
            )
        _renew_credentials(tx, store, job, _specs_of(tx, job.id), secrets)
        document = load_document(tx, jobs.c.id == job.id)
        assert document is not None
        return document

    return store.run(work)


def _specs_of(tx: Connection, job_id: int) -> list[dict[str, object]]:
    query = select(job_outputs.c.spec).where(job_outputs.c.job_id == job_id)
    return list(tx.execute(query.order_by(job_outputs.c.position)).scalars())


def _renew_credentials(
    tx: Connection,
    store: Store,
    job: JobRow,
    specs: list[dict[str, object]],
    given: Mapping[str, str],
) -> None:
    unknown = sorted(set(given) - set(job.secret_fields))
    if unknown:
        raise InvalidRequest(
            [FieldProblem(p, "not_a_secret", "is not a credential of this job") for p in unknown]
        )
    try:
        stored = read_credentials(tx, job.id, job.uuid, keys=store.keys) or {}
    except CannotOpen:
        stored = {}  # as good as gone
    credentials = {**stored, **given}
    missing = [pointer for pointer in job.secret_fields if pointer not in credentials]
    if missing:
        raise Refused(
            "credentials_required",
            f"the stored credentials are gone; send them again: {', '.join(missing)}",
            status=409,
        )
    if not given:
        keep_credentials(tx, job.id)
        return
    public = {**job.request, "source": job.source, "outputs": specs}
    try:
        JobSpec.model_validate(merge_secrets(public, credentials))
    except ValidationError:
        problems = [FieldProblem(p, "invalid_secret", "does not fit") for p in sorted(given)]
        raise InvalidRequest(problems) from None
    replace_credentials(tx, job.id, job.uuid, keys=store.keys, credentials=credentials)


def delete_job(store: Store, ref: JobRef, *, owner: str | None) -> bool:
    """
    Make a job disappear from every answer, and stop it when it runs.

    Its rows go now, in portions when it is heavy, or with the end of its attempt. What was to be
    announced still is. False when there is no such job.
    """

    def work(tx: Connection) -> tuple[bool, int | None]:
        job = lock_job(tx, by_ref(ref, owner))
        if job is None:
            return False, None
        job = _stop(tx, job)
        if job.is_final:
            return True, None if purge_deleted(tx, job.id) else job.id
        # The caller's name for it is free again, although the row stays for a while.
        gone = update(jobs).where(jobs.c.id == job.id)
        tx.execute(gone.values(deleted_at=db_now(), external_id=None))
        return True, None

    existed, going = store.run(work)
    if going is not None:
        purge_rest(store, going)
    return existed


def fail_queued(tx: Connection, job_id: int, failure: Failure) -> bool:
    """A job that can never start: its spec, a policy, or no node that is large enough."""
    job = lock_job(tx, job_id)
    if job is None or job.status not in (JobStatus.QUEUED, JobStatus.STARTING):
        return False
    attempt = read_open_attempt(tx, job)
    if attempt is not None:
        close_attempt(tx, attempt, AttemptStatus.FAILED, because=failure)
    fail_job(tx, job, failure)
    return True
