"""What a connection may take: bounds for those who have no key, and for those who do not read."""

from __future__ import annotations

import http.client
import json
import resource
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from encoder_api.app import create_app
from encoder_api.connections import Limits
from encoder_api.server import ApiServer
from encoder_api.settings import ApiSettings
from encoder_db import jobs as db_jobs
from encoder_db.store import Store
from tests.api.test_server import WAIT_S, connected, get, running
from tests.db import builders as make

LARGE_BYTES = 32 * 1024 * 1024  # more than two sockets hold between them
STREAM = {"Accept": "text/event-stream"}
LIMITS = Limits(head_bytes=2_000, headers=10, ahead=2)
LIVE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
END = b"\r\n"
CHUNKED = (
    b"POST /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
)


@contextmanager
def dialled(server: ApiServer) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.settimeout(WAIT_S)
        yield connection


def answer_of(connection: socket.socket) -> tuple[int, str | None, bytes]:
    """Status, `Connection` and body of the answer. Of two that came at once it takes both."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, response.headers["connection"], response.read()


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:  # it had not read all that was sent
        return True


def wait_until_gone(connection: socket.socket) -> None:
    """Without reading what was sent: the service must have reset the connection."""
    poll = select.poll()
    poll.register(connection, select.POLLHUP | select.POLLERR)
    assert poll.poll(WAIT_S * 1000)


# --- How much a request may say before it is one ---------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(LIVE + b"X: " + b"x" * 2_000, id="a header without an end"),
        pytest.param(LIVE + b"a:1\r\n" * 11, id="headers without an end"),
        pytest.param(LIVE + b"X: " + b"x" * 2_000 + END + END, id="a whole head"),
        pytest.param(LIVE + b"a:1\r\n" * 10 + END, id="a whole head of many headers"),
        pytest.param(b"GET /" + b"x" * 2_000, id="a path without an end"),
        pytest.param(END * 1_001, id="empty lines before a request"),
    ],
)
def test_a_head_without_bounds_is_refused(store: Store, head: bytes) -> None:
    app = create_app(ApiSettings(), store)
    with running(app, limits=LIMITS) as server, dialled(server) as connection:
        connection.sendall(head)
        status, then, body = answer_of(connection)
        assert (status, then) == (431, "close")
        problem = json.loads(body)
        assert problem["type"] == "urn:encoder:problem:head_too_large"
        assert problem["detail"].endswith("at most 2000 bytes, in 10 headers.")
        assert is_closed(connection)


def test_each_request_of_a_connection_has_the_whole_bound(store: Store) -> None:
    app = create_app(ApiSettings(), store)
    with running(app, limits=LIMITS) as server, connected(server) as connection:
        for _ in range(3):
            connection.request("GET", "/livez", headers={"X": "x" * 1_800})
            response = connection.getresponse()
            assert (response.status, response.read()[:1]) == (200, b"{")
        connection.request("GET", "/livez", headers={"X": "x" * 2_000})
        assert connection.getresponse().status == 431


def test_a_body_is_no_head(store: Store) -> None:
    body = json.dumps({"x" * 50: "x" * 20_000})
    app = create_app(ApiSettings(), store)
    with running(app, limits=LIMITS) as server, connected(server) as connection:
        for sent in (body, iter([body.encode()] * 3)):  # of a known length, and in chunks
            connection.request("POST", "/livez", body=sent, encode_chunked=True)
            response = connection.getresponse()
            assert (response.status, response.read()[:1]) == (405, b"{")
        assert get(connection, "/livez") == 200


@pytest.mark.parametrize(
    "trailer",
    [
        pytest.param(b"X: " + b"x" * 2_001, id="one without an end"),
        pytest.param(b"a:1\r\n" * 11, id="many"),
    ],
)
def test_what_follows_a_body_in_chunks_has_bounds_too(store: Store, trailer: bytes) -> None:
    app = create_app(ApiSettings(), store)
    with running(app, limits=LIMITS) as server, dialled(server) as connection:
        connection.sendall(CHUNKED)
        assert answer_of(connection)[0] == 405
        connection.sendall(trailer)
        assert answer_of(connection)[0] == 431
        assert is_closed(connection)


def test_requests_ahead_of_their_answers_have_bounds(store: Store) -> None:
    app = create_app(ApiSettings(), store)
    with running(app, limits=LIMITS) as server:
        with dialled(server) as connection:
            connection.sendall((LIVE + END) * 2 + LIVE + b"Connection: close\r\n" + END)
            answers = b"".join(iter(lambda: connection.recv(4096), b""))
            assert answers.count(b"HTTP/1.1 200 OK") == 3
        with dialled(server) as connection:
            connection.sendall((LIVE + END) * 4)  # in one read: none of them is answered yet
            assert is_closed(connection)


def test_what_is_no_http_does_not_fall_into_an_answer_that_has_begun(store: Store) -> None:
    app = create_app(ApiSettings(), store)
    with running(app) as server:
        with dialled(server) as connection:
            connection.sendall(b"\0")
            assert answer_of(connection)[0] == 400
        with dialled(server) as connection:
            connection.sendall(LIVE + END + b"\0")
            assert is_closed(connection)


# --- How long, and how many ------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param([], id="nothing"),
        pytest.param([LIVE], id="half a head"),
    ],
)
def test_a_connection_without_a_request_is_closed(store: Store, sent: list[bytes]) -> None:
    app = create_app(ApiSettings(), store)
    with running(app, limits=Limits(head_s=0.05)) as server, dialled(server) as connection:
        for piece in sent:
            connection.sendall(piece)
        assert is_closed(connection)


def test_bytes_do_not_put_off_the_end_of_the_wait_for_a_head(store: Store) -> None:
    app = create_app(ApiSettings(), store)
    with running(app, limits=Limits(head_s=0.2)) as server, dialled(server) as connection:
        connection.sendall(LIVE + b"X: ")
        connection.settimeout(0.01)
        for _ in range(int(WAIT_S / 0.01)):
            try:
                connection.sendall(b"x")
                assert connection.recv(1) == b""
                return
            except TimeoutError:
                continue
            except OSError:  # closed while a byte was under way
                return
        raise AssertionError("it was not closed")


def test_a_request_that_takes_longer_than_its_head_may_is_served(store: Store) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow(request: Request) -> Response:
        begun.set()
        assert may_end.wait(WAIT_S)
        return Response("done")

    app = create_app(ApiSettings(), store)
    app.router.routes.insert(0, Route("/slow", slow))
    with running(app, limits=Limits(head_s=2.0)) as server, dialled(server) as connection:
        connection.sendall(LIVE.replace(b"livez", b"slow") + END)
        assert begun.wait(WAIT_S)
        with dialled(server) as other:
            assert is_closed(other)  # it came later: the time of the first is over, too
        may_end.set()
        assert answer_of(connection)[2] == b"done"


def test_who_said_nothing_yet_gives_way_to_who_comes(store: Store) -> None:
    app = create_app(ApiSettings(), store)
    with (
        running(app, limits=Limits(most=2)) as server,
        dialled(server) as silent,
        connected(server) as known,
        connected(server) as other,
    ):
        assert get(known, "/livez") == 200
        assert get(other, "/livez") == 200
        assert is_closed(silent)
        assert get(known, "/livez") == 200


def test_a_request_that_is_served_gives_way_to_nobody(store: Store) -> None:
    created = make.create(store, make.spec())
    app = create_app(ApiSettings(), store)
    with running(app, limits=Limits(most=1)) as server, connected(server) as connection:
        connection.request("GET", f"/jobs/{created.id}/events", headers=STREAM)
        response = connection.getresponse()
        assert response.readline().startswith(b"retry:")
        with dialled(server) as other:
            assert is_closed(other)
        db_jobs.cancel_job(store, created.id, owner=None)
        assert b"job.canceled" in response.read()


def test_connections_leave_files_for_the_work() -> None:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert files == resource.RLIM_INFINITY or Limits().most < files


# --- Who does not read -----------------------------------------------------------------------


def serving_large(store: Store) -> Starlette:
    app = create_app(ApiSettings(), store)
    app.router.routes.insert(0, Route("/large", lambda request: Response(bytes(LARGE_BYTES))))
    return app


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(b"", id="on a connection that is kept"),
        pytest.param(b"Connection: close\r\n", id="on one that is closed"),
    ],
)
def test_an_answer_that_nobody_reads_is_given_up(store: Store, more: bytes) -> None:
    limits = Limits(unread_s=0.1)
    with running(serving_large(store), limits=limits) as server, dialled(server) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n" + more + END)
        wait_until_gone(connection)
