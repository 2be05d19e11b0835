"""Every answer, whoever gives it: problem details, security headers, request ids, limits."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import encoder_db
from encoder_api.app import create_app, services_of
from encoder_api.edge import problem_of
from encoder_api.problems import PROBLEMS
from encoder_api.settings import ApiSettings
from encoder_db.migrations import migrate
from encoder_db.store import Store
from tests.api.conftest import CheckedClient, ClientMaker
from tests.api.samples import job


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/jobs/1/nothing", 404, "not_found"),
        ("GET", "/static/nothing.js", 404, "not_found"),
        ("GET", "/static/", 404, "not_found"),
        ("GET", "/static/../app.py", 404, "not_found"),
        ("GET", "/static/%2e%2e/app.py", 404, "not_found"),
        ("PUT", "/jobs", 405, "method_not_allowed"),
        ("OPTIONS", "/jobs", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("POST", "/static/app.js", 405, "method_not_allowed"),
    ],
)
def test_what_is_not_there(
    client: CheckedClient, method: str, path: str, status: int, code: str
) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == f"urn:encoder:problem:{code}"
    assert response.json()["status"] == status


def test_a_refused_method_comes_with_all_that_are_offered(client: CheckedClient) -> None:
    allowed = client.put("/jobs/1").headers["allow"]
    assert set(allowed.split(", ")) == {"GET", "HEAD", "DELETE"}


def test_a_trailing_slash_does_not_matter(client: CheckedClient) -> None:
    assert client.post("/jobs/", json=job()).status_code == 202
    assert client.get("/jobs/1/").status_code == 200


def test_head_is_get_without_the_body(client: CheckedClient) -> None:
    response = client.head("/jobs")
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        pytest.param({}, b"{}", 415, id="no type"),
        pytest.param({"Content-Type": "text/plain"}, b"{}", 415, id="text"),
        pytest.param({"Content-Type": "application/json"}, b"", 400, id="no body"),
        pytest.param({"Content-Type": "application/json"}, b"{", 400, id="half a body"),
        pytest.param({"Content-Type": "application/json"}, b"[]", 422, id="an array"),
        pytest.param({"Content-Type": "application/json; charset=utf-8"}, b"{}", 422, id="charset"),
    ],
)
def test_bodies(client: CheckedClient, headers: Any, body: bytes, status: int) -> None:
    assert client.post("/jobs", content=body, headers=headers).status_code == status


def test_a_body_that_is_announced_too_large_is_not_read(make_client: ClientMaker) -> None:
    client = make_client(max_body_bytes=2000)
    response = client.post(
        "/jobs", content=b"[" + b" " * 2000, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 413
    assert "2000" in response.json()["detail"]


def speak(store: Store, chunks: Iterator[Any]) -> list[Any]:
    """Speak to the app as a server does: the test client reads a whole body before it sends it."""
    app = create_app(ApiSettings(max_body_bytes=2000), store)
    answers: list[Any] = []

    async def receive() -> Any:
        return next(chunks)

    async def send(message: Any) -> None:
        answers.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/jobs",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    }
    asyncio.run(app(scope, receive, send))
    return answers


def test_a_body_that_grows_too_large_is_given_up(store: Store) -> None:
    chunk = {"type": "http.request", "body": b" " * 1000, "more_body": True}
    chunks = itertools.repeat(chunk, 10)
    answers = speak(store, chunks)
    assert answers[0]["status"] == 413
    assert len(list(chunks)) == 7


def test_a_client_that_goes_away_is_no_mistake_of_ours(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    half = {"type": "http.request", "body": b"{", "more_body": True}
    assert speak(store, iter([half, {"type": "http.disconnect"}])) == []
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_the_limit_of_other_bodies_is_small(client: CheckedClient) -> None:
    body = b'{"key": "' + b"x" * 300_000 + b'"}'
    headers = {"Content-Type": "application/json"}
    assert client.post("/session", content=body, headers=headers).status_code == 413


def test_every_answer_has_the_headers_that_keep_browsers_safe(client: CheckedClient) -> None:
    for method, path in [("GET", "/"), ("GET", "/jobs"), ("GET", "/no"), ("POST", "/jobs")]:
        headers = client.request(method, path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
        assert headers["cache-control"] in ("no-store", "no-cache", "private, no-cache")
        assert re.fullmatch(r"[0-9a-f-]{36}", headers["x-request-id"])


def test_a_request_id_of_the_caller_is_kept(client: CheckedClient) -> None:
    response = client.get("/jobs/1", headers={"X-Request-ID": "trace-7"})
    assert response.headers["x-request-id"] == "trace-7"
    assert response.json()["instance"] == "urn:encoder:request:trace-7"
    forged = client.get("/jobs/1", headers={"X-Request-ID": "a b"})
    assert forged.headers["x-request-id"] != "a b"


def test_each_request_is_logged_without_its_query(
    client: CheckedClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "encoder.access"):
        client.get("/jobs?externalId=canary", headers={"Authorization": "Bearer canary"})
    (record,) = [r for r in caplog.records if r.name == "encoder.access"]
    logged = vars(record)
    assert (logged["method"], logged["path"], logged["status"]) == ("GET", "/jobs", 200)
    assert "canary" not in str(logged)


def broken_app(store: Store) -> Starlette:
    app = create_app(ApiSettings(), store)

    def broken(request: Request) -> Response:
        raise RuntimeError("canary")

    app.router.routes.insert(0, Route("/broken", broken))
    return app


def test_a_mistake_of_ours_is_logged_and_not_shown(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with CheckedClient(broken_app(store)) as client:
        response = client.get("/broken", headers={"X-Request-ID": "trace-7"})
    assert response.status_code == 500
    assert response.json()["type"] == "urn:encoder:problem:internal_error"
    assert "canary" not in response.text
    (record,) = [r for r in caplog.records if r.getMessage() == "request_failed"]
    assert record.exc_info is not None


def test_a_database_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    gone = Store.open(f"sqlite:///{tmp_path / 'none' / 'encoder.db'}")
    migrate(gone)
    app = create_app(ApiSettings(api_key="k" * 20), gone)
    gone.close()  # no open connection, which would outlive the file
    shutil.rmtree(tmp_path / "none")
    with gone, CheckedClient(app) as client:
        response = client.get("/jobs", headers={"Authorization": f"Bearer {'k' * 20}"})
        assert (response.status_code, response.headers["retry-after"]) == (503, "2")
        assert client.get("/readyz").status_code == 503
        assert client.get("/health").json() == {
            "status": "unavailable",
            "components": {"database": "unreachable"},
        }
        assert client.get("/livez").status_code == 200


def test_health(client: CheckedClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "components": {"database": "ok"}}
    assert client.get("/readyz").json()["status"] == "ok"
    services_of(client.app).draining.set()  # type: ignore[arg-type]  # the app as ASGI
    stopping = client.get("/readyz")
    assert (stopping.status_code, stopping.json()["components"]["process"]) == (503, "stopping")
    assert client.get("/livez").status_code == 200


def test_whatever_the_record_refuses_with_is_in_the_catalogue() -> None:
    """`Refused(code, …, status=…)` in encoder_db becomes a problem of that code and status."""
    found = set()
    for path in Path(encoder_db.__file__).parent.rglob("*.py"):
        found |= set(
            re.findall(
                r'raise Refused\(\s*"(\w+)",.*?status=(\d+)', path.read_text(), flags=re.DOTALL
            )
        )
    assert found
    for code, status in found:
        if status != "404":  # all of them are `not_found`
            assert PROBLEMS[code].status == int(status), code


def test_the_dashboard_can_be_left_out(client: CheckedClient, make_client: ClientMaker) -> None:
    assert client.get("/").headers["content-type"].startswith("text/html")
    bare = make_client(dashboard=False)
    assert bare.get("/").status_code == 404
    assert bare.get("/static/app.js").status_code == 404


@pytest.mark.parametrize(
    ("error", "cut", "code"),
    [
        (OperationalError("", {}, pymysql.OperationalError(1205, "lock wait")), False, 503),
        (OperationalError("", {}, pymysql.OperationalError(1290, "read only")), False, 503),
        (OperationalError("", {}, pymysql.OperationalError(2006, "gone away")), True, 503),
        (OperationalError("", {}, pymysql.OperationalError(2013, "lost")), True, 503),
        (InterfaceError("", {}, pymysql.InterfaceError(0, "")), True, 503),
        (InterfaceError("", {}, pymysql.InterfaceError(0, "a mistake of ours")), False, None),
    ],
    ids=["lock wait", "read only", "gone away", "lost", "closed", "of ours"],
)
def test_a_database_that_cannot_answer_now_is_no_mistake_of_ours(
    error: DBAPIError, cut: bool, code: int | None
) -> None:
    error.connection_invalidated = cut
    problem = problem_of(error)
    assert (problem and problem.kind.status) == code
