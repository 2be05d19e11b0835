"""Jobs: submit, look at, cancel, try again, delete."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, Field
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from encoder_api.auth import visible_owner
from encoder_api.conditional import answer_unless_known
from encoder_api.contract import Call, Reply, Scope, answer, operation
from encoder_api.cursors import make_cursor, read_cursor
from encoder_api.idempotency import idempotency_of
from encoder_api.intake import check_job
from encoder_api.pages import NEXT, link_next
from encoder_api.problems import Problem
from encoder_core.documents import Document, JobDocument, JobPage, JobSummary
from encoder_core.errors import InvalidRequest
from encoder_core.model import Model, RenewedSecret
from encoder_core.redaction import escape_pointer
from encoder_core.specs import JobRequest, JobSpec, Label
from encoder_core.states import JobStatus
from encoder_db import jobs as db_jobs
from encoder_db.blobs import decode_inline, find_inline
from encoder_db.idempotency import Replayed
from encoder_db.intake import Submission
from encoder_db.rows import JobRow

log = logging.getLogger("encoder.api")

PAGE: Final = 200  # the original answered with its latest 200; also the largest page
Job = TypeVar("Job", bound=JobDocument)
MAX_ID: Final = 2**63 - 1
TAG: Final = "jobs"


class Accepted(Document):
    """A job that was taken in."""

    id: int
    uuid: UUID
    status: JobStatus


class JobList(Document):
    """A page of jobs, the latest first."""

    jobs: list[JobSummary]
    next_cursor: str | None = None
    """For `cursor`, to go on; null on the last page."""


Moment = Annotated[
    AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), le=datetime(2999, 1, 1, tzinfo=UTC))
]
"""With its zone: `2026-01-01T12:00:00Z`."""


class JobQuery(Model):
    limit: Annotated[int, Field(ge=1, le=PAGE)] = PAGE
    """How many jobs at most; fewer where they are large."""
    cursor: str | None = None
    """`nextCursor` of the page before, with the same filters."""
    status: JobStatus | None = None
    """Only jobs of this status."""
    pool: Label | None = None
    """Only jobs of this pool."""
    external_id: str | None = None
    """Only the job with this externalId."""
    owner: Label | None = None
    """Only jobs of this owner; of use to admins, who see all."""
    created_after: Moment | None = None
    """Only jobs that were submitted later."""
    created_before: Moment | None = None
    """Only jobs that were submitted earlier."""
    text: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Only jobs with this text in their source, externalId, metadata, notificationUrl or failure
    code, in any case. Looks through the latest 10,000 jobs."""


class Deleted(Document):
    """What is left of a deleted job."""

    id: int
    uuid: UUID
    status: Literal["deleted"] = "deleted"


class RetryRequest(Model):
    credentials: dict[str, RenewedSecret] = {}
    """New credentials by JSON pointer into the job's request, such as
    `/source/access_key_secret`. Needed once the old ones have been destroyed."""


EXAMPLE: Final = {
    "source": {
        "kind": "s3",
        "access_key_id": "AKIAIOSFODNN7EXAMPLE",
        "access_key_secret": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "region": "us-east-1",
        "bucket": "my-bucket",
        "path": "uploads/input/video.mp4",
    },
    "outputs": [
        {
            "container": "mp4",
            "videoCodec": "libx264",
            "videoBitrate": "2500k",
            "audioCodec": "aac",
            "audioBitrate": "128k",
            "width": 1280,
            "height": 720,
            "destination": {
                "kind": "s3",
                "access_key_id": "AKIAIOSFODNN7EXAMPLE",
                "access_key_secret": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                "region": "us-east-1",
                "bucket": "my-bucket",
                "path": "processed/output/video_720p.mp4",
                "acl": "public-read",
            },
        }
    ],
    "notificationUrl": "https://example.com/webhook",
}


ACCEPTING: Final[Mapping[str, Any]] = {
    "headers": {
        "Idempotency-Key": "1 to 255 printable ASCII characters, no spaces. The same key with "
        "the same body within 24 hours is answered with the first answer, and no second job is "
        "made."
    },
    "replies": {
        202: Reply(
            says="The job waits for its turn.",
            model=Accepted,
            names_job=True,
            headers={
                "Location": "Where to look at the job.",
                "Idempotency-Replayed": "`true` when this is the answer to an earlier request.",
            },
        )
    },
    "refuses": (
        "invalid_parameter",
        "idempotency_key_reused",
        "idempotency_in_progress",
        "external_id_taken",
        "pool_draining",
        "too_many_queued",
    ),
}
"""What operations have in common that make a job."""


@operation(
    "POST",
    "/jobs",
    tag=TAG,
    scope=Scope.JOBS_WRITE,
    body=JobRequest,
    body_limit=lambda services: services.settings.max_body_bytes,
    examples={"S3 to S3": EXAMPLE},
    **ACCEPTING,
)
async def submit_job(call: Call[JobRequest, None]) -> Response:
    """Submit a job."""
    return await accept_job(call)


async def accept_job(call: Call[Any, None]) -> Response:
    """Check the body, a JobSpec, as a whole, and make a job of it."""
    if find_inline(call.body):  # megabytes to decode and to recognise again
        submission = await run_in_threadpool(_submission, call)
    else:
        submission = _submission(call)
    try:
        job = await asyncio.wrap_future(call.services.intake.submit(submission))
    except Replayed as earlier:
        accepted = Accepted.model_validate(earlier.response)
        return _accept(accepted, {"Idempotency-Replayed": "true"})
    log.info("job_accepted", extra={"job": job.id, "owner": job.owner, "pool": job.pool})
    return _accept(Accepted(id=job.id, uuid=job.uuid, status=job.status))


def _submission(call: Call[Any, None]) -> Submission:
    spec: JobSpec = call.body
    check_job(spec, files_root=call.services.settings.files_root)
    return Submission(
        spec=spec,
        owner=call.principal.owner,
        inline=decode_inline(spec),
        idempotency=idempotency_of(call.request, spec, keys=call.services.store.keys),
        request_id=call.request.state.request_id,
        max_queued=call.services.settings.max_queued_per_owner,
    )


def _accept(job: Accepted, headers: Mapping[str, str] | None = None) -> Response:
    return answer(job, 202, headers={"Location": f"/jobs/{job.uuid}", **(headers or {})})


@operation(
    "GET",
    "/jobs",
    tag=TAG,
    scope=Scope.JOBS_READ,
    query=JobQuery,
    refuses=("invalid_cursor",),
    headers={"If-None-Match": "The ETag of an earlier answer."},
    replies={
        200: Reply(
            says="A page of jobs.", model=JobList, headers={"ETag": "Of this answer.", **NEXT}
        ),
        304: Reply(says="Nothing has changed."),
    },
)
def list_jobs(call: Call[None, JobQuery]) -> Response:
    """List jobs, the latest first."""
    query, keys = call.query, call.services.store.keys
    owner = visible_owner(call.principal)
    filters = query.model_dump(mode="json", exclude={"limit", "cursor"}, exclude_none=True)
    binding = repr((owner, sorted(filters.items())))
    before = None if query.cursor is None else read_cursor(keys, query.cursor, binding=binding)
    if owner is not None and query.owner not in (None, owner):
        return answer_unless_known(call.request, JobList(jobs=[]))  # as of one without jobs
    with call.services.store.read() as tx:
        page = db_jobs.list_jobs(
            tx,
            owner=owner if query.owner is None else query.owner,
            limit=query.limit,
            before_id=before,
            status=query.status,
            pool=query.pool,
            external_id=query.external_id,
            created_after=query.created_after,
            created_before=query.created_before,
            text=query.text,
        )
    cursor = make_cursor(keys, page[-1].id, binding=binding) if page.more else None
    return answer_unless_known(
        call.request,
        JobList(jobs=page, next_cursor=cursor),
        headers=link_next(call.request, "cursor", cursor),
        cursor=cursor,
    )


@operation(
    "GET",
    "/jobs/{id}",
    tag=TAG,
    scope=Scope.JOBS_READ,
    headers={"If-None-Match": "The ETag of an earlier answer."},
    replies={
        200: Reply(
            says="The job.", model=JobPage, names_job=True, headers={"ETag": "Of this answer."}
        ),
        304: Reply(says="Nothing has changed."),
    },
)
def read_job(call: Call[None, None]) -> Response:
    """Look at a job, its outputs, its attempts and how long each step took."""
    with call.services.store.read() as tx:
        job = db_jobs.read_page(tx, job_ref(call.request), owner=visible_owner(call.principal))
    return answer_unless_known(call.request, known(job))


@operation(
    "DELETE",
    "/jobs/{id}",
    tag=TAG,
    scope=Scope.JOBS_WRITE,
    replies={200: Reply(says="The job is gone from every answer.", model=Deleted)},
)
def delete_job(call: Call[None, None]) -> Response:
    """
    Delete a job, stopping it first when it runs.

    Its outputs and its place in the queue go with it; what had been uploaded stays where it is.
    Webhooks that are still to be sent are sent. Deleting it again answers 404.
    """
    store, owner = call.services.store, visible_owner(call.principal)
    with store.read() as tx:
        job = known_row(tx, call)
    if not db_jobs.delete_job(store, job.id, owner=owner):
        raise no_such_job()
    return answer(Deleted(id=job.id, uuid=job.uuid))


@operation(
    "POST",
    "/jobs/{id}/cancel",
    tag=TAG,
    scope=Scope.JOBS_WRITE,
    replies={200: Reply(says="The job as it is now.", model=JobDocument, names_job=True)},
)
def cancel_job(call: Call[None, None]) -> Response:
    """
    Cancel a job: at once when it waits, as soon as its worker has stopped when it runs.

    A job that has ended stays as it is. What had been uploaded stays uploaded.
    """
    job = db_jobs.cancel_job(
        call.services.store, job_ref(call.request), owner=visible_owner(call.principal)
    )
    return answer(known(job))


@operation(
    "POST",
    "/jobs/{id}/retry",
    tag=TAG,
    scope=Scope.JOBS_WRITE,
    body=RetryRequest,
    body_required=False,
    refuses=(
        *("job_not_final", "job_completed", "applied_resource"),
        *("credentials_required", "pool_draining", "too_many_queued"),
    ),
    replies={
        202: Reply(says="The job waits for its turn again.", model=JobDocument, names_job=True)
    },
)
def retry_job(call: Call[RetryRequest | None, None]) -> Response:
    """
    Try a failed or canceled job again.

    Only the outputs that are not uploaded are made. The job's own credentials are destroyed when
    it is completed or canceled, and a day after it failed; from then on they have to be sent again.
    """
    given = {} if call.body is None else call.body.credentials
    with pointing_into_body():
        job = db_jobs.retry_job(
            call.services.store,
            job_ref(call.request),
            owner=visible_owner(call.principal),
            secrets=revealed(given),
            max_queued=call.services.settings.max_queued_per_owner,
        )
    return answer(job, 202)


def revealed(given: Mapping[str, RenewedSecret]) -> dict[str, str]:
    return {pointer: secret.get_secret_value() for pointer, secret in given.items()}


@contextmanager
def pointing_into_body() -> Iterator[None]:
    """The record points into the job's request; this body has those pointers as names."""
    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(
            [
                replace(problem, pointer=f"/credentials/{escape_pointer(problem.pointer)}")
                for problem in error.problems
            ]
        ) from None


def known_row(tx: Connection, call: Call[Any, Any]) -> JobRow:
    """The bare row of the job in the path, when the caller may see it. Raises Problem (404)."""
    row = db_jobs.read_row(tx, job_ref(call.request), owner=visible_owner(call.principal))
    if row is None or row.deleted_at is not None:
        raise no_such_job()
    return row


def job_ref(request: Request) -> int | UUID:
    """The number or the uuid in the path. Raises Problem (404): anything else names no job."""
    text = request.path_params["id"]
    if text.isascii() and text.isdecimal() and len(text) <= 19 and 0 < int(text) <= MAX_ID:
        return int(text)
    if len(text) == 36:
        try:
            return UUID(text)
        except ValueError:
            pass
    raise no_such_job()


def known(job: Job | None) -> Job:
    if job is None:
        raise no_such_job()
    return job


def no_such_job() -> Problem:
    # Also for jobs of other owners: nobody learns that they exist.
    return Problem("not_found", "There is no such job; it may have been deleted.")
