"""Workers in Pods report over HTTP: their token is who they are, and only for their attempt."""

from __future__ import annotations

import asyncio
import base64
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event
from starlette.types import Message

from encoder_core.failures import failure
from encoder_core.ids import new_token
from encoder_db.attempts import open_attempt
from encoder_db.queue import claim
from encoder_db.rows import Claimed
from encoder_db.store import Store
from tests.api.conftest import CheckedClient, ClientMaker
from tests.api.samples import job

DATA = bytes(range(256)) * 9000  # more than one chunk


@pytest.fixture
def client(make_client: ClientMaker) -> CheckedClient:
    """Keys are on: workers have none."""
    return make_client(api_key="k" * 20)


@pytest.fixture
def claimed(client: CheckedClient, store: Store) -> Claimed:
    source = {"kind": "inline", "data": base64.b64encode(DATA).decode()}
    headers = {"Authorization": f"Bearer {'k' * 20}"}
    assert client.post("/jobs", json=job(source=source), headers=headers).status_code == 202
    (message,) = claim(store, engine="local", worker="w", limit=1, lease_s=600)
    opened = open_attempt(store, message, executor="local", worker="w")
    assert isinstance(opened, Claimed)
    return opened


def envelope(claimed: Claimed, **changes: Any) -> dict[str, Any]:
    return {
        "jobUuid": str(claimed.job.uuid),
        "attempt": claimed.attempt,
        "token": claimed.token,
        "report": {"type": "started"},
        **changes,
    }


def test_a_report_is_taken_in_and_answered(client: CheckedClient, claimed: Claimed) -> None:
    response = client.post("/internal/reports", json=envelope(claimed))
    assert response.json() == {"accepted": True, "cancel": False, "publishLeaseS": 120.0}
    headers = {"Authorization": f"Bearer {'k' * 20}"}
    assert client.get(f"/jobs/{claimed.job.id}", headers=headers).json()["status"] == "running"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"token": new_token()}, id="another token"),
        pytest.param({"attempt": 2}, id="another attempt"),
        pytest.param({"jobUuid": str(uuid4())}, id="another job"),
    ],
)
def test_who_does_not_hold_the_attempt_is_told(
    client: CheckedClient, claimed: Claimed, changes: dict[str, Any]
) -> None:
    response = client.post("/internal/reports", json=envelope(claimed, **changes))
    assert response.json()["accepted"] is False


def large_report(claimed: Claimed) -> dict[str, Any]:
    return envelope(claimed, report={"type": "log", "tail": "🎬" * 30_000, "lines": 900})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({}, 401, id="without a token"),
        pytest.param({"Authorization": "Bearer wrong"}, 404, id="without a job"),
        pytest.param(
            {"Authorization": "Bearer wrong", "Encoder-Job": str(uuid4())}, 404, id="unknown"
        ),
    ],
)
def test_a_large_report_is_read_only_from_who_holds_the_attempt(
    client: CheckedClient, claimed: Claimed, headers: dict[str, str], status: int
) -> None:
    report = large_report(claimed)
    assert client.post("/internal/reports", json=report, headers=headers).status_code == status
    held = {"Authorization": f"Bearer {claimed.token}", "Encoder-Job": str(claimed.job.uuid)}
    response = client.post("/internal/reports", json=report, headers=held)
    assert response.json()["accepted"] is True


def test_a_report_that_is_none_is_refused_by_pointer(
    client: CheckedClient, claimed: Claimed
) -> None:
    report = {"type": "progress", "phase": "encoding", "percent": 101}
    response = client.post("/internal/reports", json=envelope(claimed, report=report))
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "/report/percent"
    assert claimed.token not in response.text


@pytest.mark.parametrize("code", ["", "Not A Code", "a" * 65, "ü"])
def test_a_failure_whose_code_is_none_is_refused(
    client: CheckedClient, claimed: Claimed, code: str
) -> None:
    """It fits neither the record nor a TranscodeJob; what its exit code says counts then."""
    report = {
        "type": "final",
        "outcome": "failed",
        "failure": {**failure("worker_failed").to_json(), "code": code},
    }
    response = client.post("/internal/reports", json=envelope(claimed, report=report))
    assert response.status_code == 422
    assert [e["pointer"] for e in response.json()["errors"]] == ["/report/failure/code"]


def fetch(client: CheckedClient, job: Any, token: str | None) -> Any:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return client.get(f"/internal/jobs/{job}/inline/0", headers=headers)


def test_the_worker_fetches_the_bytes_of_an_inline_source(
    client: CheckedClient, claimed: Claimed
) -> None:
    response = fetch(client, claimed.job.uuid, claimed.token)
    assert (response.status_code, response.content) == (200, DATA)


def test_who_reads_slowly_keeps_nobody_from_the_database(
    client: CheckedClient, claimed: Claimed, store: Store
) -> None:
    in_use: set[object] = set()
    event.listen(store.reads, "checkout", lambda connection, *_: in_use.add(connection))
    event.listen(store.reads, "checkin", lambda connection, *_: in_use.discard(connection))
    held_while_sending = []

    async def send(message: Message) -> None:
        if message.get("body"):
            held_while_sending.append(len(in_use))

    async def receive() -> Message:
        await asyncio.Event().wait()  # the worker stays
        raise AssertionError

    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "query_string": b"",
        "path": f"/internal/jobs/{claimed.job.uuid}/inline/0",
        "scheme": "http",
        "server": ("127.0.0.1", 8080),
        "client": ("127.0.0.1", 50_000),
        "headers": [
            (b"host", b"127.0.0.1:8080"),
            (b"authorization", f"Bearer {claimed.token}".encode()),
        ],
    }

    async def ask() -> None:
        await client.app(scope, receive, send)

    asyncio.run(ask())
    assert held_while_sending == [0, 0, 0]


def test_nobody_else_does(client: CheckedClient, claimed: Claimed) -> None:
    assert fetch(client, claimed.job.uuid, None).status_code == 401
    for uuid, token in [
        (claimed.job.uuid, new_token()),
        (claimed.job.uuid, "k" * 20),
        (uuid4(), claimed.token),
        ("x", claimed.token),
    ]:
        assert fetch(client, uuid, token).status_code == 404
