"""Server-sent events of one job: what was recorded so far, then what comes, until it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Message, Send

from encoder_api.feed import Bell, Feed
from encoder_api.problems import Problem, invalid_parameter
from encoder_core.documents import EventDocument
from encoder_core.events import FINAL_EVENTS

MEDIA_TYPE: Final = "text/event-stream"
LAST_EVENT_ID: Final = "Last-Event-ID"
BEAT_S: Final = 15.0  # proxies cut connections that are silent for 30 to 60 s
CHECK_BEATS: Final = 4  # how often a long stream is asked again for its key
PATIENCE_S: Final = 30.0  # who does not read for so long is gone, or might as well be
RETRY_MS: Final = 2_000

ReadPage = Callable[[int], list[EventDocument] | None]
"""The events behind a sequence number; None when the job is gone."""


class EventStream(StreamingResponse):
    """Ends when its reader does not read."""

    media_type = MEDIA_TYPE

    def __init__(
        self,
        content: AsyncIterator[bytes],
        *,
        headers: Mapping[str, str] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        super().__init__(content, headers=headers)
        self._patience_s = patience_s

    async def stream_response(self, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(self._patience_s):
                    await send(message)
            except TimeoutError:
                raise ClientDisconnect from None

        await super().stream_response(send_in_time)


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
    listening: AbstractContextManager[Bell],
    bell: Bell,
    *,
    after: int,
    read_page: ReadPage,
    may_go_on: Callable[[], object],
) -> AsyncIterator[bytes]:
    """
    The lines of a stream. Ends with the job's final event, with the job, or with the service.

    `may_go_on` raises Problem when the reader's key was revoked meanwhile. `listening` is left at
    the end, whoever ends it.
    """
    beats, ended = 0, False
    try:
        yield f"retry: {RETRY_MS}\n\n".encode()
        while True:
            page = await run_in_threadpool(read_page, after)
            if page is None:
                return
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
            beats += 1
            if beats % CHECK_BEATS == 0:
                await run_in_threadpool(may_go_on)
    except Problem:
        return
    finally:
        listening.__exit__(None, None, None)


def encode(event: EventDocument) -> bytes:
    """One event; JSON has no line break of its own."""
    data = event.model_dump_json(by_alias=True)
    return f"id: {event.sequence}\nevent: {event.type}\ndata: {data}\n\n".encode()
