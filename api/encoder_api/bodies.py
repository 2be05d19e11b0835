"""
Read a request's body as strictly as JSON can be read, before any model sees it.

What two parsers could read differently is refused: other encodings, duplicate names, NaN, numbers
beyond floats, lone surrogates. So is what only costs: depth, huge objects, bodies over the limit.
What is larger takes turns, so that many at once do not take all memory.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from encoder_api.problems import Problem

MAX_DEPTH: Final = 24  # a job needs eight levels
MAX_MEMBERS: Final = 1_000  # of one object; headers and metadata have their own, smaller limits
MAX_NODES: Final = 50_000  # values in the whole body; 32 outputs with all fields have about 2,000
MAX_MARKS: Final = 4 * MAX_NODES
"""Commas and opening brackets, also those in texts. They are counted before the body is parsed: of
empty lists alone seven million fit into the largest body, and as values they take half a GiB."""
SMALL_BYTES: Final = 64 * 1024
"""Larger bodies are parsed in a thread, or they would hold up everybody else's requests. And they
take room: as bytes, text and values each has more than three times its size until its answer."""
ROOM_BYTES: Final = 48 * 1024 * 1024
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")


class Room:
    """The bytes of larger bodies that are under way at once. Who finds no room waits in turn."""

    def __init__(self, *, wait_s: float = 30.0) -> None:
        self._free = ROOM_BYTES
        self._wait_s = wait_s
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def take(self, size: int) -> AsyncIterator[None]:
        """Raises Problem (503) when there was none for so long."""
        size = min(size, ROOM_BYTES)
        await self._wait_for(size)
        try:
            yield
        finally:
            self._give_back(size)

    async def _wait_for(self, size: int) -> None:
        if not self._waiting and size <= self._free:
            self._free -= size
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            async with asyncio.timeout(self._wait_s):
                await turn
        except BaseException as error:
            given = turn.done() and not turn.cancelled()
            turn.cancel()
            self._give_back(size if given else 0)
            if isinstance(error, TimeoutError):
                raise Problem(
                    "unavailable",
                    "Too many large requests are being taken; send this one again, or give large "
                    "sources by URL.",
                    headers={"Retry-After": "10"},
                ) from None
            raise

    def _give_back(self, size: int) -> None:
        self._free += size
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= self._free):
            next_size, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= next_size
                turn.set_result(None)


Admit = Callable[[int], Awaitable[None]]
"""Asked once for a larger body, with its size, before more of it is kept. Raises Problem."""


async def read_json(request: Request, *, limit_bytes: int, timeout_s: float, admit: Admit) -> Any:
    """The body as Python values. Raises Problem: 400, 408, 413, 415, or what `admit` raises."""
    check_media_type(request.headers.get("content-type"))
    body = await _read_body(request, limit_bytes, timeout_s, admit)
    if len(body) > SMALL_BYTES:
        return await run_in_threadpool(parse_json, body)
    return parse_json(body)


def check_media_type(content_type: str | None) -> None:
    """Only `application/json`, in any case and with parameters, as long as it is UTF-8."""
    media_type, *parameters = [part.strip() for part in (content_type or "").split(";")]
    if media_type.lower() != "application/json":
        raise Problem(
            "unsupported_media_type", "Send the body as JSON with Content-Type: application/json."
        )
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip(' "').lower() not in (
            "utf-8",
            "utf8",
        ):
            raise Problem("unsupported_media_type", "Send JSON in UTF-8; other charsets are not.")


async def _read_body(request: Request, limit_bytes: int, timeout_s: float, admit: Admit) -> bytes:
    """
    The whole body, given up as soon as it is announced or found to be over the limit.

    `timeout_s` is for all of it, without the wait in `admit`: who drips bytes must not hold a
    connection for ever. One that is not admitted is read to its end and not kept: who has not sent
    all would see a broken connection in place of the answer.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit_bytes:
        raise _too_large(limit_bytes)
    now = asyncio.get_running_loop().time
    started, size = now(), 0
    chunks: list[bytes] = []
    refusal: Problem | None = None
    try:
        async with asyncio.timeout(timeout_s) as allowed:
            async for chunk in request.stream():
                before, size = size, size + len(chunk)
                if size > limit_bytes:
                    raise _too_large(limit_bytes)
                if before <= SMALL_BYTES < size:
                    spent_s = now() - started
                    allowed.reschedule(None)
                    try:
                        await admit(int(announced) if announced.isdecimal() else limit_bytes)
                    except Problem as error:
                        refusal = error
                        chunks.clear()
                    allowed.reschedule(now() + timeout_s - spent_s)
                if refusal is None:
                    chunks.append(chunk)
    except TimeoutError:
        raise Problem(
            "request_timeout",
            f"The body did not arrive within {timeout_s:g} s.",
            headers={"Connection": "close"},
        ) from None
    if refusal is not None:
        raise refusal
    return b"".join(chunks)


def _too_large(limit_bytes: int) -> Problem:
    # The rest of the body is not read, so the connection cannot be used for another request.
    return Problem(
        "body_too_large",
        f"The body may have at most {limit_bytes} bytes; give large sources by URL.",
        headers={"Connection": "close"},
    )


def parse_json(body: bytes) -> Any:
    """Strict JSON. Raises Problem (400); the message has a position and no content."""
    if not body:
        raise _malformed("The body is empty; a JSON object is needed")
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_MARKS:
        raise _malformed("The body has too many values")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise _malformed(f"The body is not UTF-8 at byte {error.start}") from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except RecursionError:
        raise _malformed(f"The body is nested deeper than {MAX_DEPTH} levels") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise _malformed(f"The body is not JSON: {error.msg} at {where}") from None
    except ValueError:  # a whole number of more digits than Python converts
        raise _malformed("The body has a number that is far too large") from None
    # JSON takes no raw control characters, and UTF-8 no surrogates: both can only be escaped.
    _check_tree(value, escapes="\\u" in text)
    return value


def _malformed(detail: str) -> Problem:
    return Problem("malformed_body", f"{detail}.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_MEMBERS:
        raise _malformed(f"The body has an object with more than {MAX_MEMBERS} members")
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _malformed("The body has an object that names a member twice")
    return members


def _no_constant(name: str) -> Any:
    raise _malformed(f"The body has {name}, which is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise _malformed("The body has a number that is far too large")
    return number


def _check_tree(root: Any, *, escapes: bool) -> None:
    """Without recursion: depth is one of the things to check."""
    level: list[Any] = [[root]]
    depth, nodes = -1, 0
    while level:
        below: list[Any] = []
        for value in level:
            members = value.values() if isinstance(value, dict) else value
            nodes += len(members)
            below.extend(member for member in members if isinstance(member, (dict, list)))
            if escapes:
                names = value if isinstance(value, dict) else ()
                _check_texts(member for member in (*names, *members) if isinstance(member, str))
        level, depth = below, depth + 1
        if depth > MAX_DEPTH or nodes > MAX_NODES:
            raise _malformed(f"The body is nested deeper than {MAX_DEPTH} levels or too large")


def _check_texts(texts: Iterable[str]) -> None:
    if any(_UNSTORABLE.search(text) for text in texts):
        raise _malformed("The body has the character U+0000 or half a surrogate pair")
