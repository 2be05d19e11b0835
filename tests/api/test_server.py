"""The server: it takes a free port, says which, finishes what it began, and stops when told."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from encoder_api.app import create_app, services_of
from encoder_api.connections import Limits
from encoder_api.endpoints.health import PING_S
from encoder_api.server import ApiServer, listen
from encoder_api.settings import ApiSettings
from encoder_core.errors import ConfigurationError
from encoder_db.dialect import POOL_OVERFLOW, POOL_SIZE
from encoder_db.store import Store

WAIT_S = 30.0
THREADS = 40  # anyio's, for handlers


@contextmanager
def running(
    app: Starlette, *, drain_s: float = 0.0, limits: Limits | None = None
) -> Iterator[ApiServer]:
    server = ApiServer(app, host="127.0.0.1", port=0, drain_s=drain_s, limits=limits)
    started = threading.Event()
    thread = threading.Thread(target=server.run, kwargs={"ready": started.set})
    thread.start()
    try:
        assert started.wait(WAIT_S)
        yield server
    finally:
        server.stop()
        server.stop()
        thread.join(WAIT_S)
        assert not thread.is_alive()


@contextmanager
def connected(server: ApiServer) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)
    try:
        yield connection
    finally:
        connection.close()


def get(connection: http.client.HTTPConnection, path: str) -> int:
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    return response.status


def test_it_serves_on_a_free_port(store: Store) -> None:
    with (
        running(create_app(ApiSettings(), store)) as server,
        connected(server) as connection,
    ):
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert get(connection, "/health") == 200
        assert get(connection, "/jobs") == 200


def test_an_answer_does_not_wait_for_the_client_to_acknowledge_its_head() -> None:
    """asyncio turns Nagle's algorithm off only on sockets that say that they are TCP."""
    with listen("127.0.0.1", 0) as socket_:
        assert socket_.proto == socket.IPPROTO_TCP


def test_a_taken_port_is_said_in_a_sentence(store: Store) -> None:
    app = create_app(ApiSettings(), store)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"port {port}.*PORT"):
            ApiServer(app, host="127.0.0.1", port=port)


def test_a_body_too_large_does_not_disturb_the_next_request(store: Store) -> None:
    with running(create_app(ApiSettings(max_body_bytes=2000), store)) as server:
        with connected(server) as connection:
            connection.request(
                "POST", "/jobs", body=b"[" * 3000, headers={"Content-Type": "application/json"}
            )
            response = connection.getresponse()
            assert (response.status, response.headers["connection"]) == (413, "close")
            response.read()
        with connected(server) as connection:
            assert get(connection, "/health") == 200


def test_a_body_that_drips_is_given_up_and_disturbs_nobody(store: Store) -> None:
    app = create_app(ApiSettings(body_timeout_s=0.5), store)
    with running(app) as server, socket.create_connection(("127.0.0.1", server.port)) as dripping:
        dripping.settimeout(WAIT_S)
        head = "POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        dripping.sendall(f'{head}Content-Length: 1000\r\n\r\n{{"sou'.encode())
        with connected(server) as connection:
            assert get(connection, "/jobs") == 200
        response = http.client.HTTPResponse(dripping)
        response.begin()
        assert (response.status, response.headers["connection"]) == (408, "close")
        problem = json.loads(response.read())
        assert problem["type"] == "urn:encoder:problem:request_timeout"
        assert problem["detail"] == "The body did not arrive within 0.5 s."
        assert dripping.recv(1) == b""
        with connected(server) as connection:
            connection.request("GET", "/jobs")
            assert json.load(connection.getresponse())["jobs"] == []


def test_probes_are_answered_while_all_connections_and_threads_wait_for_the_database(
    store: Store,
) -> None:
    """A restart would mend nothing: it lives. Nothing should be sent here: it is not ready."""
    with running(create_app(ApiSettings(), store)) as server:
        with ExitStack() as taken, ExitStack() as others:
            for _ in range(POOL_SIZE + POOL_OVERFLOW):
                taken.enter_context(store.reads.connect())
            stuck = [others.enter_context(connected(server)) for _ in range(50)]
            for connection in stuck:  # more than there are threads for handlers
                connection.request("GET", "/jobs")
            for path, want in (("/livez", 200), ("/readyz", 503), ("/health", 503)):
                with connected(server) as connection:
                    begun_s = time.monotonic()
                    connection.request("GET", path)
                    response = connection.getresponse()
                    components = json.loads(response.read())["components"]
                    assert (path, response.status) == (path, want)
                    assert time.monotonic() - begun_s < PING_S + 5
                    assert components.get("database", "slow") == "slow"
            taken.close()
            assert [connection.getresponse().status for connection in stuck] == [200] * 50
        with connected(server) as connection:
            assert get(connection, "/readyz") == 200


def test_it_is_ready_while_all_threads_for_requests_are_taken(store: Store) -> None:
    """What one client sends must not have every client sent elsewhere."""
    begun, may_end = threading.Semaphore(0), threading.Event()

    def slow(request: Request) -> Response:
        begun.release()
        assert may_end.wait(WAIT_S)
        return Response("done")

    app = create_app(ApiSettings(), store)
    app.router.routes.insert(0, Route("/slow", slow))
    with running(app) as server, ExitStack() as stack:
        others = [stack.enter_context(connected(server)) for _ in range(THREADS + 1)]
        for other in others:
            other.request("GET", "/slow")
        for _ in range(THREADS):
            assert begun.acquire(timeout=WAIT_S)
        with connected(server) as connection:
            assert get(connection, "/readyz") == 200
        may_end.set()
        assert [other.getresponse().status for other in others] == [200] * len(others)


def test_it_says_that_it_stops_before_it_stops(store: Store) -> None:
    app = create_app(ApiSettings(), store)
    with running(app, drain_s=WAIT_S) as server, connected(server) as connection:
        assert get(connection, "/readyz") == 200
        server.stop()
        assert services_of(app).draining.is_set()
        assert get(connection, "/readyz") == 503
        assert get(connection, "/jobs") == 200


def test_while_it_drains_each_answer_ends_its_connection(store: Store) -> None:
    """Else a client's next request on it may meet the end, and a POST is not safe to repeat."""
    with running(create_app(ApiSettings(), store), drain_s=WAIT_S) as server:
        for stops, says in ((False, None), (True, "close")):
            if stops:
                server.stop()
            for path in ("/jobs", "/nothing", "/docs"):
                with connected(server) as connection:
                    connection.request("GET", path)
                    response = connection.getresponse()
                    response.read()
                    assert response.headers["connection"] == says, path


def test_a_request_that_is_under_way_is_finished(store: Store) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow(request: Request) -> Response:
        begun.set()
        assert may_end.wait(WAIT_S)
        return Response("done")

    app = create_app(ApiSettings(), store)
    app.router.routes.insert(0, Route("/slow", slow))
    statuses: list[int] = []
    with running(app) as server:

        def ask() -> None:
            with connected(server) as connection:
                statuses.append(get(connection, "/slow"))

        client = threading.Thread(target=ask)
        client.start()
        assert begun.wait(WAIT_S)
        server.stop()
        may_end.set()
        client.join(WAIT_S)
    assert statuses == [200]
