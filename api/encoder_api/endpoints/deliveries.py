"""Webhooks of a job: what was sent, and sending it again."""

from __future__ import annotations

from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import Field
from starlette.responses import Response

from encoder_api.auth import visible_owner
from encoder_api.conditional import answer_unless_known
from encoder_api.contract import Call, Reply, Scope, answer, operation
from encoder_api.cursors import make_cursor, read_cursor
from encoder_api.endpoints.jobs import PAGE, known_row
from encoder_api.pages import NEXT, link_next
from encoder_api.problems import Problem
from encoder_core.deliveries import Outcome
from encoder_core.documents import Document
from encoder_core.model import Instant, Model
from encoder_db import outbox
from encoder_db.outbox import WebhookAttempt

TAG: Final = "webhooks"


class DeliveryDocument(Document):
    """One attempt to deliver one event."""

    event_id: UUID
    event_type: str
    sequence: int
    attempt: int
    trigger: Literal["auto", "manual"]
    """`manual`: somebody asked for it."""
    started_at: Instant
    duration_ms: int
    outcome: Outcome
    """docs/webhooks.md says what each means."""
    status: int | None = None
    """Of the receiver's answer."""
    remote_ip: str | None = None
    """The address that was dialled."""
    answer: str | None = None
    """The beginning of the receiver's answer; with `tls_failed`, what is wrong with its TLS."""
    next_attempt_at: Instant | None = None
    """When it is tried again; null when it is not."""


class DeliveryList(Document):
    """A page of what was sent of a job, the latest first."""

    deliveries: list[DeliveryDocument]
    next_cursor: str | None = None
    """For `cursor`, to go on; null on the last page."""


class DeliveryQuery(Model):
    limit: Annotated[int, Field(ge=1, le=PAGE)] = PAGE
    """How many at most."""
    cursor: str | None = None
    """`nextCursor` of the page before."""


class Redelivery(Document):
    """An event that will be sent again."""

    event_id: UUID


@operation(
    "GET",
    "/jobs/{id}/webhooks",
    tag=TAG,
    scope=Scope.JOBS_READ,
    query=DeliveryQuery,
    refuses=("invalid_cursor",),
    headers={"If-None-Match": "The ETag of an earlier answer."},
    replies={
        200: Reply(
            says="A page of attempts.",
            model=DeliveryList,
            headers={"ETag": "Of this answer.", **NEXT},
        ),
        304: Reply(says="Nothing has changed."),
    },
)
def list_job_webhooks(call: Call[None, DeliveryQuery]) -> Response:
    """List what was sent to the job's `notificationUrl`, and what became of it."""
    query, keys = call.query, call.services.store.keys
    with call.services.store.read() as tx:
        job = known_row(tx, call)
        binding = f"webhooks:{job.id}"
        before = None if query.cursor is None else read_cursor(keys, query.cursor, binding=binding)
        sent = outbox.list_webhook_attempts(tx, job.id, limit=query.limit + 1, before_id=before)
    page, more = sent[: query.limit], len(sent) > query.limit
    cursor = make_cursor(keys, page[-1].id, binding=binding) if more else None
    deliveries = [_document(attempt) for attempt in page]
    return answer_unless_known(
        call.request,
        DeliveryList(deliveries=deliveries, next_cursor=cursor),
        headers=link_next(call.request, "cursor", cursor),
        cursor=cursor,
    )


@operation(
    "POST",
    "/jobs/{id}/events/{event}/redeliver",
    tag=TAG,
    scope=Scope.JOBS_WRITE,
    refuses=("no_receiver",),
    replies={202: Reply(says="It will be sent at once.", model=Redelivery)},
)
def redeliver_event(call: Call[None, None]) -> Response:
    """
    Send an event to the job's receiver once more, now.

    The same id and the same body, one attempt. One that is still to be sent is brought forward.
    """
    event_id = _event_id(call.request.path_params["event"])
    with call.services.store.read() as tx:
        job = known_row(tx, call)
        if not outbox.has_receiver(tx, job.id):
            raise Problem(
                "no_receiver", "The job has no notificationUrl, or its receiver answered 410."
            )
    owner = visible_owner(call.principal)
    if not outbox.redeliver(call.services.store, job.id, event_id, owner=owner):
        raise _no_such_event()
    return answer(Redelivery(event_id=event_id), 202)


def _document(attempt: WebhookAttempt) -> DeliveryDocument:
    return DeliveryDocument(
        event_id=attempt.event_uuid,
        event_type=attempt.event_type,
        sequence=attempt.seq,
        attempt=attempt.attempt,
        trigger="manual" if attempt.trigger_kind == "manual" else "auto",
        started_at=attempt.started_at,
        duration_ms=attempt.duration_ms,
        outcome=Outcome(attempt.outcome),
        status=attempt.status,
        remote_ip=attempt.remote_ip,
        answer=None if attempt.snippet is None else attempt.snippet.decode(errors="replace"),
        next_attempt_at=attempt.next_attempt_at,
    )


def _event_id(text: str) -> UUID:
    if len(text) == 36:
        try:
            return UUID(text)
        except ValueError:
            pass
    raise _no_such_event()


def _no_such_event() -> Problem:
    return Problem("not_found", "The job has no such event.")
