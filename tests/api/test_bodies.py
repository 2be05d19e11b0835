"""A body is read as strictly as JSON can be read."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest
from starlette.requests import Request

from encoder_api.bodies import (
    MAX_DEPTH,
    MAX_MARKS,
    MAX_MEMBERS,
    MAX_NODES,
    ROOM_BYTES,
    SMALL_BYTES,
    Room,
    check_media_type,
    parse_json,
    read_json,
)
from encoder_api.problems import Problem


@pytest.mark.parametrize(
    ("body", "want"),
    [
        pytest.param(
            b'{"a": [1, 2.5, "x", null, true]}', {"a": [1, 2.5, "x", None, True]}, id="all"
        ),
        pytest.param(b" \n[]\t", [], id="space around it"),
        pytest.param('"ü 🎬"'.encode(), "ü 🎬", id="any Unicode text"),
        pytest.param(rb'"\ud83c\udfac"', "🎬", id="a whole surrogate pair"),
        pytest.param(b"null", None, id="null is JSON, and for the model to refuse"),
        pytest.param(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, ..., id="as deep as allowed"),
    ],
)
def test_json_is_read(body: bytes, want: Any) -> None:
    read = parse_json(body)
    assert want is ... or read == want


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="half an object"),
        pytest.param(b"{} {}", id="two documents"),
        pytest.param(b"{'a': 1}", id="single quotes"),
        pytest.param(b'{"a": 1,}', id="a comma too many"),
        pytest.param(b'{"a": 1, "a": 2}', id="a member named twice"),
        pytest.param(b'{"o": {"a": 1, "a": 1}}', id="a member named twice further in"),
        pytest.param(b"[NaN]", id="NaN"),
        pytest.param(b"[-Infinity]", id="minus infinity"),
        pytest.param(b"[1e400]", id="more than a float holds"),
        pytest.param(b"[-1e400]", id="less than a float holds"),
        pytest.param(b"[" + b"9" * 5000 + b"]", id="five thousand digits"),
        pytest.param(b'"\xff"', id="not UTF-8"),
        pytest.param('{"ä": 1}'.encode("latin-1"), id="Latin 1"),
        pytest.param('{"a": 1}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
        pytest.param(rb'"\ud800"', id="half a surrogate pair"),
        pytest.param(rb'{"\udfff": 1}', id="half a surrogate pair as a name"),
        pytest.param(rb'"a\u0000b"', id="an escaped NUL"),
        pytest.param(b'"a\x00b"', id="a raw NUL"),
        pytest.param(b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2), id="too deep"),
        pytest.param(b"[" * 100_000, id="a hundred thousand levels"),
        pytest.param(b'{"a":' * 10_000 + b"1" + b"}" * 10_000, id="ten thousand objects deep"),
        pytest.param(
            b"{" + b",".join(b'"%d":0' % n for n in range(MAX_MEMBERS + 1)) + b"}",
            id="an object with too many members",
        ),
        pytest.param(b"[" + b'"",' * (MAX_NODES + 1) + b'""]', id="an array with too many items"),
        pytest.param(b"[" + b"[]," * MAX_MARKS + b"[]]", id="too many values to be parsed at all"),
    ],
)
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(Problem) as refused:
        parse_json(body)
    assert refused.value.kind.code == "malformed_body"


def test_a_refusal_repeats_nothing_of_the_body() -> None:
    with pytest.raises(Problem) as refused:
        parse_json(b'{"password": canary}')
    assert "canary" not in refused.value.detail
    assert "line 1, column 14" in refused.value.detail


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "APPLICATION/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/json; profile=x",
    ],
)
def test_json_is_taken_by_any_spelling_of_its_type(content_type: str) -> None:
    check_media_type(content_type)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json-patch+json",
        "application/problem+json",
        "application/json; charset=latin-1",
        "text/plain; application/json",
    ],
)
def test_any_other_type_is_refused(content_type: str | None) -> None:
    with pytest.raises(Problem) as refused:
        check_media_type(content_type)
    assert refused.value.kind.status == 415


# --- Larger ones take turns ----------------------------------------------------------------------

LIMIT = 2 * ROOM_BYTES
LARGE = b'"' + b"a" * SMALL_BYTES


async def read(
    room: Room,
    until_answered: AsyncExitStack,
    *chunks: bytes,
    announced: int = ROOM_BYTES,
    timeout_s: float = 30,
    refusal: Problem | None = None,
) -> Any:
    """Read a body that comes in these pieces."""
    left = list(chunks)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def admit(size: int) -> None:
        if refusal is not None:
            raise refusal
        await until_answered.enter_async_context(room.take(size))

    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(announced).encode()),
    ]
    request = Request({"type": "http", "headers": headers}, receive)
    try:
        return await read_json(request, limit_bytes=LIMIT, timeout_s=timeout_s, admit=admit)
    finally:
        assert not left


def within_a_minute(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


def test_a_larger_body_waits_until_there_is_room_and_a_small_one_does_not() -> None:
    async def work() -> None:
        room = Room()
        async with AsyncExitStack() as later, AsyncExitStack() as answered:
            for _ in range(2):
                await read(room, answered, LARGE, b'"', announced=ROOM_BYTES // 2)
            waiting = asyncio.create_task(read(room, later, LARGE, b'"', announced=len(LARGE) + 1))
            assert await read(room, later, b"[1", b"]") == [1]
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await answered.aclose()
            assert len(await waiting) == SMALL_BYTES

    within_a_minute(work())


def test_who_waits_gets_room_in_turn() -> None:
    async def work() -> None:
        room, order = Room(), list[str]()

        async def one(name: str, size: int) -> None:
            async with room.take(size):
                order.append(name)

        async with AsyncExitStack() as answered:
            await answered.enter_async_context(room.take(ROOM_BYTES - 10))
            tasks = []
            for name, size in (("large", 2 * ROOM_BYTES), ("gone", 5), ("small", 5)):
                tasks.append(asyncio.create_task(one(name, size)))
                await asyncio.sleep(0)
            tasks[1].cancel()
            await asyncio.sleep(0)
            assert order == []
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == ["large", "small"]

    within_a_minute(work())


def test_a_larger_body_that_finds_no_room_is_to_be_sent_again() -> None:
    async def work() -> None:
        room = Room(wait_s=0.01)
        async with AsyncExitStack() as later, AsyncExitStack() as answered:
            await read(room, answered, LARGE, b'"')
            with pytest.raises(Problem) as refused:
                await read(room, later, LARGE, b'"')
        assert refused.value.kind.code == "unavailable"
        assert refused.value.headers == {"Retry-After": "10"}
        async with AsyncExitStack() as answered:
            await read(room, answered, LARGE, b'"')

    within_a_minute(work())


def test_who_is_given_room_and_canceled_at_once_gives_it_back() -> None:
    async def work() -> None:
        room = Room(wait_s=0.01)
        holding, waiting = room.take(ROOM_BYTES), room.take(ROOM_BYTES)
        await holding.__aenter__()
        task = asyncio.create_task(waiting.__aenter__())
        await asyncio.sleep(0)
        await holding.__aexit__(None, None, None)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with room.take(ROOM_BYTES):
            pass

    within_a_minute(work())


@pytest.mark.parametrize(
    ("rest", "code"),
    [
        pytest.param(b" {}", "malformed_body", id="that is no JSON"),
        pytest.param(b"a" * LIMIT, "body_too_large", id="that is too large"),
    ],
)
def test_a_larger_body_that_is_refused_gives_its_room_back(rest: bytes, code: str) -> None:
    async def work() -> None:
        room = Room(wait_s=0.01)
        for _ in range(2):
            with pytest.raises(Problem) as refused:
                async with AsyncExitStack() as answered:
                    await read(room, answered, LARGE, rest)
            assert refused.value.kind.code == code

    within_a_minute(work())


def test_a_larger_body_that_is_not_admitted_is_read_to_its_end_before_the_answer() -> None:
    async def work() -> None:
        refusal = Problem("not_found", "There is no such job.")
        async with AsyncExitStack() as answered:
            with pytest.raises(Problem) as refused:
                await read(Room(), answered, LARGE, b"a" * 100, b'"', refusal=refusal)
        assert refused.value is refusal

    within_a_minute(work())


def test_the_wait_for_room_is_not_held_against_the_body() -> None:
    async def work() -> None:
        room = Room()
        async with AsyncExitStack() as later, AsyncExitStack() as answered:
            await read(room, answered, LARGE, b'"')
            waiting = asyncio.create_task(read(room, later, LARGE, b'"', timeout_s=0.5))
            await asyncio.sleep(0.6)
            await answered.aclose()
            assert len(await waiting) == SMALL_BYTES

    within_a_minute(work())
