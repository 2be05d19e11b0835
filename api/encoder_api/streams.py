"""Server-sent events of one job: what was recorded so far, then what comes, until it ends."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from encoder_api.feed import Bell, Feed
from encoder_api.problems import Problem, invalid_parameter
from encoder_core.documents import EventDocument
from encoder_core.events import FINAL_EVENTS

MEDIA_TYPE: Final = "text/event-stream"
LAST_EVENT_ID: Final = "Last-Event-ID"
BEAT_S: Final = 15.0  # proxies cut connections that are silent for 30 to 60 s
CHECK_S: Final = 2.0  # as for a request: a revoked key is told nothing after that
RETRY_MS: Final = 2_000

ReadPage = Callable[[int], list[EventDocument] | None]
"""The events behind a sequence number; None when the job is gone."""


class EventStream(StreamingResponse):
    """
    Lines about a job, from a bell that is listened to for as long as they are sent.

    Raises Problem (429), before it has begun, when there is no place for one more.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self,
        listening: AbstractContextManager[Bell],
        lines: Callable[[Bell], AsyncIterator[bytes]],
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__((), headers=headers)
        self._listening = listening
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Here and not in the lines: a client may be gone before the first of them.
        with self._listening as bell:
            self.body_iterator = self._lines(bell)
            await super().__call__(scope, receive, send)


def wants_stream(request: Request) -> bool:
    return MEDIA_TYPE in request.headers.get("accept", "").lower()


def resume_after(request: Request, *, default: int) -> int:
    """Where a reader that comes back was. Raises Problem (400)."""
    given = request.headers.get(LAST_EVENT_ID)
    if given is None:
        return default
    if not (given.isascii() and given.isdecimal() and len(given) <= 10):
        raise invalid_parameter(LAST_EVENT_ID, "must be the id of an event of this stream")
    return int(given)


async def follow(
    feed: Feed,
    bell: Bell,
    *,
    after: int,
    read_page: ReadPage,
    may_go_on: Callable[[], object],
    check_s: float = CHECK_S,
) -> AsyncIterator[bytes]:
    """
    The lines of a stream. Ends with the job's final event, with the job, or with the service.

    `may_go_on` raises Problem when the reader's key was revoked meanwhile. It is asked before
    anything is told, when it was not asked for `check_s`.
    """
    now = asyncio.get_running_loop().time
    checked_s, ended = -math.inf, False
    try:
        yield f"retry: {RETRY_MS}\n\n".encode()
        while True:
            page = await run_in_threadpool(read_page, after)
            if page is None:
                return
            if now() - checked_s >= check_s:
                checked_s = now()
                await run_in_threadpool(may_go_on)
            for event in page:
                after, ended = event.sequence, event.type in FINAL_EVENTS
                yield encode(event)
            if page:
                continue
            if ended:
                return
            if feed.closed.is_set():
                yield b": the service stops; come back\n\n"
                return
            if await bell.wait(BEAT_S):
                continue
            yield b": still here\n\n"
    except Problem:
        return


def encode(event: EventDocument) -> bytes:
    """One event; JSON has no line break of its own."""
    data = event.model_dump_json(by_alias=True)
    return f"id: {event.sequence}\nevent: {event.type}\ndata: {data}\n\n".encode()
