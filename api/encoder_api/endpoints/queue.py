"""The queue by hand: to the front, what was given up, and putting it back."""

from __future__ import annotations

from typing import Annotated, Final
from uuid import UUID

from pydantic import Field
from starlette.responses import Response

from encoder_api.auth import visible_owner
from encoder_api.conditional import answer_unless_known
from encoder_api.contract import Call, Reply, Scope, answer, operation
from encoder_api.cursors import make_cursor, read_cursor
from encoder_api.endpoints.jobs import MAX_ID, PAGE, job_ref
from encoder_api.pages import NEXT, link_next
from encoder_core.documents import Document, JobDocument
from encoder_core.model import NOT_BOOLEAN, Instant, Model
from encoder_core.specs import Label, Priority
from encoder_db import bump, redrive
from encoder_db.redrive import DeadLetter, Redriven

TAG: Final = "queue"


class BumpRequest(Model):
    priority: Priority | None = None
    """Move it to this priority too. Left out, it keeps its own."""


class DeadLetterDocument(Document):
    """A job that was handed out again and again and never begun."""

    id: int
    job_id: int
    job_uuid: UUID
    owner: str
    queue: str
    """Pool, priority and owner, as `default/p1/default`."""
    deliveries: int
    """How often it was handed out."""
    failures: int
    """How many of these ended with a word."""
    reason: str
    last_error: str | None = None
    enqueued_at: Instant
    dead_at: Instant
    redriven_at: Instant | None = None
    """When it was put back."""


class DeadLetterList(Document):
    """A page of dead letters, the latest first."""

    dead_letters: list[DeadLetterDocument]
    next_cursor: str | None = None
    """For `cursor`, to go on; null on the last page."""


class DeadLetterQuery(Model):
    limit: Annotated[int, Field(ge=1, le=PAGE), NOT_BOOLEAN] = PAGE
    """How many at most."""
    cursor: str | None = None
    """`nextCursor` of the page before."""


class RedriveRequest(Model):
    failure_code: Annotated[str, Field(pattern=r"^[a-z][a-z_]{1,62}$")]
    """Of the failed jobs to try again; `abandoned` is that of dead letters."""
    pool: Label | None = None
    """Only jobs of this pool."""
    limit: Annotated[int, Field(ge=1, le=PAGE), NOT_BOOLEAN] = PAGE
    """How many jobs at most; the oldest first."""
    after_id: Annotated[int, Field(ge=0, le=MAX_ID), NOT_BOOLEAN] = 0
    """`nextAfterId` of the page before."""


class RefusedRetry(Document):
    """A job that cannot be tried again as it is."""

    id: int
    code: str
    """A problem's code, such as `credentials_required`."""
    detail: str


class RedriveResult(Document):
    """What became of one page of failed jobs."""

    queued: list[int]
    """Jobs that wait again."""
    refused: list[RefusedRetry]
    next_after_id: int | None = None
    """For `afterId`, to go on; null when these were all."""


@operation(
    "POST",
    "/jobs/{id}/bump",
    tag=TAG,
    scope=Scope.JOBS_WRITE,
    body=BumpRequest,
    body_required=False,
    refuses=("job_not_queued",),
    replies={200: Reply(says="The job as it is now.", model=JobDocument, names_job=True)},
    examples={"To the front of those in a hurry": {"priority": "high"}},
)
def bump_job(call: Call[BumpRequest | None, None]) -> Response:
    """
    Move a waiting job before all others of its owner.

    A back-off or a `startAt` is over then. Owners go on taking turns.
    """
    job = bump.bump_job(
        call.services.store,
        job_ref(call.request),
        owner=visible_owner(call.principal),
        priority=None if call.body is None else call.body.priority,
    )
    return answer(job)


@operation(
    "GET",
    "/dead-letters",
    tag=TAG,
    scope=Scope.JOBS_READ,
    query=DeadLetterQuery,
    refuses=("invalid_cursor",),
    headers={"If-None-Match": "The ETag of an earlier answer."},
    replies={
        200: Reply(
            says="A page of dead letters.",
            model=DeadLetterList,
            headers={"ETag": "Of this answer.", **NEXT},
        ),
        304: Reply(says="Nothing has changed."),
    },
)
def list_dead_letters(call: Call[None, DeadLetterQuery]) -> Response:
    """List the jobs that the queue gave up, the latest first."""
    query, keys = call.query, call.services.store.keys
    owner = visible_owner(call.principal)
    binding = f"dead-letters:{owner}"
    before = None if query.cursor is None else read_cursor(keys, query.cursor, binding=binding)
    with call.services.store.read() as tx:
        found = redrive.list_dead_letters(tx, owner=owner, limit=query.limit + 1, before_id=before)
    page, more = found[: query.limit], len(found) > query.limit
    cursor = make_cursor(keys, page[-1].id, binding=binding) if more else None
    letters = [_document(letter) for letter in page]
    return answer_unless_known(
        call.request,
        DeadLetterList(dead_letters=letters, next_cursor=cursor),
        headers=link_next(call.request, "cursor", cursor),
        cursor=cursor,
    )


@operation(
    "POST",
    "/dead-letters/redrive",
    tag=TAG,
    scope=Scope.JOBS_WRITE,
    body=RedriveRequest,
    replies={200: Reply(says="What was put back.", model=RedriveResult)},
    examples={
        "After a bucket's rights were mended": {"failureCode": "destination_denied"},
        "What was never begun": {"failureCode": "abandoned", "pool": "default", "limit": 50},
    },
)
def redrive_jobs(call: Call[RedriveRequest, None]) -> Response:
    """
    Try all failed jobs again that failed for one reason.

    As `POST /jobs/{id}/retry` does of each; what is done stays done when another cannot be. Of an
    admin, who sees the jobs of all, any number may wait again.
    """
    wanted, owner = call.body, visible_owner(call.principal)
    done = redrive.redrive_jobs(
        call.services.store,
        owner=owner,
        failure_code=wanted.failure_code,
        pool=wanted.pool,
        limit=wanted.limit,
        after_id=wanted.after_id,
        max_queued=None if owner is None else call.services.settings.max_queued_per_owner,
    )
    return answer(_result(done))


def _document(letter: DeadLetter) -> DeadLetterDocument:
    return DeadLetterDocument.model_validate(letter, from_attributes=True)


def _result(done: Redriven) -> RedriveResult:
    return RedriveResult(
        queued=list(done.queued),
        refused=[
            RefusedRetry(id=job_id, code=reason.code, detail=f"{reason}.")
            for job_id, reason in done.refused
        ],
        next_after_id=done.next_after_id,
    )
