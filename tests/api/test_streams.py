"""Events as a stream: everything from where the reader was, then what comes, to a clean end."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message

from encoder_api.app import create_app, services_of
from encoder_api.auth import unauthorized
from encoder_api.connections import Limits
from encoder_api.endpoints.events import STREAM_BYTES
from encoder_api.feed import GAP_S, MAX_GAPS, STREAMS_PER_KEY, Bell, Feed, Place
from encoder_api.problems import Problem
from encoder_api.settings import ApiSettings
from encoder_api.streams import EventStream, follow
from encoder_core.documents import EventDocument
from encoder_db import jobs as db_jobs
from encoder_db import outbox
from encoder_db.dialect import POOL_OVERFLOW, POOL_SIZE
from encoder_db.store import Store
from tests.api.conftest import CheckedClient
from tests.api.samples import job, output
from tests.api.test_connections import LARGE_BYTES, wait_until_gone
from tests.api.test_server import THREADS, WAIT_S, connected, running
from tests.db import builders as make

IDLE = 200
STREAM = {"Accept": "text/event-stream"}


def parse(text: str) -> list[dict[str, str]]:
    """The events of a stream, without comments."""
    blocks = [block for block in text.split("\n\n") if block]
    events = [dict(line.split(": ", 1) for line in b.split("\n") if line[0] != ":") for b in blocks]
    return [event for event in events if "id" in event]


def canceled_job(client: CheckedClient) -> str:
    """A job with two events, the last of which ends it."""
    path = client.post("/jobs", json=job()).headers["location"]
    client.post(f"{path}/cancel")
    return f"{path}/events"


# --- What is recorded ------------------------------------------------------------------------


def test_a_stream_tells_all_and_ends_with_the_job(client: CheckedClient) -> None:
    path = canceled_job(client)
    response = client.get(path, headers=STREAM)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["cache-control"] == "no-cache, no-transform"
    told = parse(response.text)
    assert [(event["id"], event["event"]) for event in told] == [
        ("1", "job.queued"),
        ("2", "job.canceled"),
    ]
    assert [json.loads(event["data"]) for event in told] == client.get(path).json()["events"]


def test_a_stream_of_large_events_is_read_in_portions_and_tells_all(client: CheckedClient) -> None:
    place = {"kind": "https", "url": "https://media.example/?a=" + "a" * 8000}
    large = [output(destination=place)] * 30
    path = client.post("/jobs", json=job(outputs=large)).headers["location"]
    for action in (*["bump"] * 3, "cancel"):
        assert client.post(f"{path}/{action}").status_code == 200
    told = parse(client.get(f"{path}/events", headers=STREAM).text)
    assert min(len(event["data"]) for event in told) > STREAM_BYTES / 2
    assert [event["id"] for event in told] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("headers", "query", "ids"),
    [
        pytest.param({"Last-Event-ID": "1"}, "", ["2"], id="by the header"),
        pytest.param({}, "?after=1", ["2"], id="by the query"),
        pytest.param({"Last-Event-ID": "0"}, "?after=1", ["1", "2"], id="the header counts"),
    ],
)
def test_a_reader_goes_on_where_it_was(
    client: CheckedClient, headers: dict[str, str], query: str, ids: list[str]
) -> None:
    response = client.get(canceled_job(client) + query, headers={**STREAM, **headers})
    assert [event["id"] for event in parse(response.text)] == ids


def test_who_has_seen_the_end_is_told_not_to_come_back(client: CheckedClient) -> None:
    response = client.get(canceled_job(client), headers={**STREAM, "Last-Event-ID": "2"})
    assert (response.status_code, response.content) == (204, b"")


@pytest.mark.parametrize("given", ["x", "-1", "1.0", "", "9" * 30, "1 "])
def test_an_id_that_is_none_of_ours_is_refused(client: CheckedClient, given: str) -> None:
    response = client.get(canceled_job(client), headers={**STREAM, "Last-Event-ID": given})
    if given.strip() != "1":  # spaces round a header's value do not count
        assert response.status_code == 400
        assert response.json()["errors"][0]["parameter"] == "Last-Event-ID"


def test_a_stream_of_a_job_of_another_owner_is_a_404(
    client: CheckedClient, add_key: Callable[..., dict[str, str]]
) -> None:
    mine, other = add_key("one"), add_key("two")
    path = client.post("/jobs", json=job(), headers=mine).headers["location"]
    assert client.get(f"{path}/events", headers={**STREAM, **other}).status_code == 404


# --- What comes ------------------------------------------------------------------------------


class Reader:
    """Reads a stream of a real server, line by line."""

    def __init__(self, connection: http.client.HTTPConnection, path: str, **more: str) -> None:
        connection.request("GET", path, headers={**STREAM, **more})
        self.response = connection.getresponse()

    def until(self, wanted: str) -> list[str]:
        """The lines up to one that begins so."""
        lines = []
        while True:
            line = self.response.readline().decode().rstrip("\n")
            lines.append(line)
            if line.startswith(wanted):
                return lines
            assert not self.response.isclosed(), lines

    def rest(self) -> str:
        return self.response.read().decode()


def test_a_change_is_told_as_it_happens(store: Store) -> None:
    created = make.create(store, make.spec())
    with running(create_app(ApiSettings(), store)) as server, connected(server) as connection:
        reader = Reader(connection, f"/jobs/{created.id}/events")
        reader.until("event: job.queued")
        worker = make.starting(store)
        reader.until("event: job.starting")
        db_jobs.cancel_job(store, created.id, owner=None)
        reader.until("event: job.canceling")
        db_jobs.delete_job(store, created.id, owner=None)
        make.finish(store, worker)  # its rows go with its attempt, and the stream with its rows
        reader.rest()


def test_a_stop_ends_streams_with_a_word_and_without_waiting(store: Store) -> None:
    created = make.create(store, make.spec())
    app = create_app(ApiSettings(), store)
    with running(app) as server, connected(server) as connection:
        reader = Reader(connection, f"/jobs/{created.id}/events")
        reader.until("event: job.queued")
        server.stop()
        assert ": the service stops" in reader.rest()
    assert services_of(app).feed.streams == 0


def test_a_reader_that_leaves_is_forgotten(store: Store) -> None:
    created = make.create(store, make.spec())
    app = create_app(ApiSettings(), store)
    with running(app) as server:
        with connected(server) as connection:
            Reader(connection, f"/jobs/{created.id}/events").until("event: job.queued")
            assert services_of(app).feed.streams == 1
        wait_until(lambda: services_of(app).feed.streams == 0)


def test_a_reader_that_leaves_with_a_request_behind_its_stream_is_forgotten(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """At once, and not when the next line turns out to have nowhere to go."""
    created = make.create(store, make.spec())
    app = create_app(ApiSettings(), store)
    with running(app) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            head = "GET {} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
            for path in (f"/jobs/{created.id}/events", "/livez"):
                connection.sendall(head.format(path).encode())
            wait_until(lambda: services_of(app).feed.streams == 1)
        wait_until(lambda: services_of(app).feed.streams == 0)
    assert "answer_broken_off" not in caplog.messages


def wait_until(true: Callable[[], bool]) -> None:
    """Nobody tells when a connection was noticed to be gone: look again for a while."""
    again = threading.Event()
    for _ in range(int(WAIT_S / 0.02)):
        if true():
            return
        again.wait(0.02)
    raise AssertionError("it did not become true")


def test_readers_of_jobs_in_which_nothing_happens_hold_no_thread_and_no_connection(
    store: Store, add_key: Callable[..., dict[str, str]]
) -> None:
    """More readers than there are of either, of several keys; a change still reaches its own."""
    quiet, busy = make.create(store), make.create(store)
    keys = [add_key() for _ in range(IDLE // 50)]
    begun, may_end = threading.Semaphore(0), threading.Event()

    def slow(request: Request) -> Response:
        begun.release()
        assert may_end.wait(WAIT_S)
        return Response("done")

    app = create_app(ApiSettings(), store)
    app.router.routes.insert(0, Route("/slow", slow))
    with running(app) as server, ExitStack() as stack:
        readers = []
        for number in range(IDLE):
            path = f"/jobs/{(busy if number == 0 else quiet).id}/events"
            connection = stack.enter_context(connected(server))
            readers.append(Reader(connection, path, **keys[number % len(keys)]))
            readers[-1].until("event: job.queued")
        assert services_of(app).feed.streams == IDLE
        with ExitStack() as taken:
            for _ in range(POOL_SIZE + POOL_OVERFLOW):
                taken.enter_context(store.reads.connect())
        others = [stack.enter_context(connected(server)) for _ in range(THREADS)]
        for other in others:
            other.request("GET", "/slow")
        for _ in range(THREADS):
            assert begun.acquire(timeout=WAIT_S)
        may_end.set()
        assert [other.getresponse().status for other in others] == [200] * THREADS
        db_jobs.cancel_job(store, busy.id, owner=None)
        readers[0].until("event: job.canceled")
        assert services_of(app).feed.streams >= IDLE - 1
        server.stop()
        assert all(": the service stops" in reader.rest() for reader in readers[1:])


def test_a_key_that_was_revoked_is_told_nothing_more(store: Store) -> None:
    """However many events come: they must not put off the question."""
    created = make.create(store, make.spec())
    feed, revoked = Feed(store), threading.Event()

    def read_page(after: int) -> list[EventDocument]:
        with store.read() as tx:
            return outbox.list_events(tx, created.id, after=after, limit=1)

    def may_go_on() -> None:
        if revoked.is_set():
            raise unauthorized("The API key is unknown or revoked.")

    async def listen() -> list[bytes]:
        told = []
        lines = follow(
            *(feed, Bell()), after=0, read_page=read_page, may_go_on=may_go_on, check_s=0.0
        )
        async for line in lines:
            told.append(line)
            if b"job.queued" in line:
                revoked.set()
                db_jobs.cancel_job(store, created.id, owner=None)
        return told

    told = asyncio.run(listen())
    assert [line.partition(b"\n")[0] for line in told] == [b"retry: 2000", b"id: 1"]


def test_a_reader_that_is_gone_before_the_first_line_keeps_no_place(store: Store) -> None:
    feed = Feed(store)

    async def lines(bell: Bell) -> AsyncIterator[bytes]:
        yield b": line\n\n"

    async def send(message: Message) -> None:
        assert feed.streams == 1
        raise ClientDisconnect

    async def receive() -> Message:
        return await asyncio.Future()

    async def answer() -> None:
        with pytest.raises(ClientDisconnect):
            await EventStream(feed.listen(1, who="a"), lines)({"type": "http"}, receive, send)

    asyncio.run(answer())
    assert feed.streams == 0
    feed.close()


def test_a_reader_that_does_not_read_keeps_no_place(store: Store) -> None:
    """Also when it never gets as far as its stream, because of the answer before it."""
    created = make.create(store, make.spec())
    app = create_app(ApiSettings(), store)
    app.router.routes.insert(0, Route("/large", lambda request: Response(bytes(LARGE_BYTES))))
    with running(app, limits=Limits(unread_s=0.1)) as server, ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        head = "GET {} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        for path in ("/large", f"/jobs/{created.id}/events"):
            connection.sendall(head.format(path).encode())
        wait_until_gone(connection)
        wait_until(lambda: services_of(app).feed.streams == 0)


# --- The feed --------------------------------------------------------------------------------


def test_one_key_may_not_take_every_connection(store: Store) -> None:
    feed = Feed(store)

    async def open_all() -> None:
        with ExitStack() as stack:
            for _ in range(STREAMS_PER_KEY):
                stack.enter_context(feed.listen(1, who="a"))
            with (
                pytest.raises(Problem, match="streams are open") as refused,
                feed.listen(1, who="a"),
            ):
                pass
            assert refused.value.kind.status == 429
            stack.enter_context(feed.listen(1, who="b"))

    asyncio.run(open_all())
    assert feed.streams == 0
    feed.close()


def test_nobody_is_asked_while_nobody_listens(store: Store) -> None:
    feed = Feed(store)

    async def listen() -> None:
        with feed.listen(1, who="a") as bell:
            assert await bell.wait(WAIT_S)  # the first look lets all ask once more

    asyncio.run(listen())
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "feed"])


def test_rows_that_become_visible_late_are_not_passed_over() -> None:
    place = Place(last=10)
    place.note([11, 14], now_s=0.0)
    assert (place.last, sorted(place.gaps)) == (14, [12, 13])
    place.note([13], now_s=1.0)
    assert sorted(place.gaps) == [12]
    place.note([], now_s=GAP_S + 1)
    assert not place.gaps


def test_a_jump_of_the_numbers_does_not_fill_the_memory() -> None:
    place = Place(last=1)
    place.note([10**9], now_s=0.0)
    assert place.last == 10**9
    assert len(place.gaps) <= MAX_GAPS
