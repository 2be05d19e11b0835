"""What happened to a job: as pages, and as a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Final

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from encoder_api.conditional import answer_unless_known
from encoder_api.contract import Call, Reply, Scope, operation
from encoder_api.endpoints.jobs import MAX_ID, PAGE, TAG, known_row
from encoder_api.feed import Bell
from encoder_api.pages import NEXT, link_next
from encoder_api.streams import (
    LAST_EVENT_ID,
    MEDIA_TYPE,
    EventStream,
    follow,
    resume_after,
    wants_stream,
)
from encoder_core.documents import Document, EventDocument
from encoder_core.model import Model
from encoder_db import outbox
from encoder_db.rows import JobRow

STREAM_PAGE: Final = 50  # each event carries the job's document
STREAM_BYTES: Final = 256 * 1024  # what each of thousands of readers may leave unread


class EventList(Document):
    """A page of a job's changes, the earliest first."""

    events: list[EventDocument]
    next_after: int | None = None
    """For `after`, to go on; null when there are no more yet."""


class EventQuery(Model):
    after: Annotated[int, Field(ge=0, le=MAX_ID)] = 0
    """Only events with a larger sequence."""
    limit: Annotated[int, Field(ge=1, le=PAGE)] = PAGE
    """How many events at most, fewer where they are large; a stream has no limit."""


@operation(
    "GET",
    "/jobs/{id}/events",
    tag=TAG,
    scope=Scope.JOBS_READ,
    query=EventQuery,
    headers={
        "If-None-Match": "The ETag of an earlier answer.",
        LAST_EVENT_ID: "For a stream: the id of the last event that was seen. Browsers send it "
        "when they come back.",
    },
    replies={
        200: Reply(
            says="A page of events; a stream of them for `Accept: text/event-stream`.",
            model=EventList,
            also=(MEDIA_TYPE,),
            headers={"ETag": "Of this answer.", **NEXT},
        ),
        204: Reply(says="The stream is over: the job has ended, and all of it was seen."),
        304: Reply(says="Nothing has changed."),
    },
)
async def list_job_events(call: Call[None, EventQuery]) -> Response:
    """
    List what happened to a job, the earliest first, or follow it.

    With `Accept: text/event-stream` the answer goes on until the job ends: each change as it is
    recorded, with its sequence as `id`, so that a reader that was cut off goes on where it was. A
    comment comes every 15 seconds. Who has seen everything of a job that has ended gets 204, at
    which browsers stop.
    """
    if wants_stream(call.request):
        return await stream_events(call)
    return await run_in_threadpool(list_page, call)


def list_page(call: Call[None, EventQuery]) -> Response:
    query = call.query
    with call.services.store.read() as tx:
        job = known_row(tx, call)
        page = outbox.list_events(tx, job.id, after=query.after, limit=query.limit)
    after = page[-1].sequence if page.more else None
    return answer_unless_known(
        call.request,
        EventList(events=page, next_after=after),
        headers=link_next(call.request, "after", after),
    )


async def stream_events(call: Call[None, EventQuery]) -> Response:
    services, request = call.services, call.request
    after = resume_after(request, default=call.query.after)

    def find() -> JobRow:
        with services.store.read() as tx:
            return known_row(tx, call)

    def read_page(after: int) -> list[EventDocument] | None:
        with services.store.read() as tx:
            events = outbox.list_events(
                tx, job.id, after=after, limit=STREAM_PAGE, most_bytes=STREAM_BYTES
            )
            return events if events or outbox.has_events(tx, job.id) else None

    job = await run_in_threadpool(find)
    request.state.operation = "stream_job_events"  # how long it lasts is nobody's latency
    if job.is_final and after >= job.version:
        return Response(status_code=204)
    headers = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}

    def lines(bell: Bell) -> AsyncIterator[bytes]:
        return follow(
            services.feed,
            bell,
            after=after,
            read_page=read_page,
            may_go_on=lambda: services.authenticator.authenticate(request),
        )

    listening = services.feed.listen(job.id, who=call.principal.key)
    return EventStream(listening, lines, headers=headers)
