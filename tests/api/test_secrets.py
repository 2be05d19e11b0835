"""Unique words in every credential field come back in no answer and lie in no table or log."""

from __future__ import annotations

import copy
import json
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from encoder_core.logs import JsonFormatter
from encoder_db.store import Store
from tests.api.conftest import CheckedClient
from tests.canaries import leaks

CANARY = 'canary/6f+1="\\='  # with what URLs quote, base64 changes and JSON escapes

S3 = {
    "kind": "s3",
    "bucket": "bucket",
    "path": "a.mp4",
    "access_key_id": f"{CANARY}-id",
    "access_key_secret": f"{CANARY}-secret",
    "session_token": f"{CANARY}-session",
}
SIGNED = f"https://user:{quote(CANARY, safe='')}@example.com/a?X-Amz-Signature={quote(CANARY)}"
HTTP = {"kind": "https", "url": SIGNED, "headers": {"Authorization": f"Bearer {CANARY}"}}
FTP = {
    "kind": "ftp",
    "host": "example.com",
    "path": "a.mp4",
    "user": f"{CANARY}-user",
    "password": f"{CANARY}-password",
}
FTP_URL = {"kind": "ftp", "url": f"ftp://user:{quote(CANARY, safe='')}@example.com/a.mp4"}


def request_with(source: dict[str, Any]) -> dict[str, Any]:
    return {
        "source": source,
        "outputs": [{"destination": place} for place in (S3, HTTP, FTP, FTP_URL)],
        "notificationUrl": SIGNED,
    }


def assert_clean(text: str, where: str) -> None:
    assert leaks(text, [CANARY]) == [], where


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document that holds a canary."""
    inner = document.items() if isinstance(document, dict) else enumerate(document)
    for step, value in inner:
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, step))
        elif leaks(str(value), [CANARY]):
            yield (*path, step)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog
    formatter = JsonFormatter()
    for record in caplog.records:
        assert_clean(formatter.format(record), "the log")


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(S3, id="s3"),
        pytest.param(HTTP, id="http"),
        pytest.param(FTP, id="ftp"),
        pytest.param(FTP_URL, id="ftp by URL"),
    ],
)
@pytest.mark.usefixtures("logged")
def test_accepted_credentials_are_shown_and_stored_nowhere(
    client: CheckedClient, store: Store, source: dict[str, Any]
) -> None:
    headers = {"Idempotency-Key": "key"}
    submitted = client.post("/jobs", json=request_with(source), headers=headers)
    number = submitted.json()["id"]
    client.post("/jobs", json=request_with(source), headers=headers)
    for method, path in [
        ("GET", "/jobs"),
        ("GET", f"/jobs/{number}"),
        ("GET", f"/jobs/{number}/events"),
        ("POST", f"/jobs/{number}/cancel"),
        ("POST", f"/jobs/{number}/retry"),
        ("GET", f"/jobs/{number}/events"),
        ("GET", "/metrics"),
        ("GET", "/workers"),
    ]:
        response = client.request(method, path)
        assert_clean(response.text + str(response.headers), f"{method} {path}")
    path_of_database = store.engine.url.database
    assert path_of_database is not None
    for file in Path(path_of_database).parent.glob("encoder.db*"):
        assert_clean(file.read_bytes().decode("latin-1"), file.name)
    with sqlite3.connect(path_of_database) as connection:
        assert_clean("\n".join(connection.iterdump()), "the tables")
    connection.close()


@pytest.mark.parametrize("wrong", [f"{CANARY}\x01", [CANARY], {"value": CANARY}, {CANARY: 1}])
@pytest.mark.usefixtures("logged")
def test_refused_credentials_are_not_repeated(client: CheckedClient, wrong: Any) -> None:
    sent = 0
    for source in (S3, HTTP, FTP, FTP_URL):
        document = request_with(source)
        for path in places(document):
            broken = copy.deepcopy(document)
            target: Any = broken
            for step in path[:-1]:
                target = target[step]
            target[path[-1]] = wrong
            response = client.post("/jobs", json=broken)
            assert response.status_code == 422
            if wrong != {CANARY: 1}:  # a member's name is where the problem is, not a value
                assert_clean(response.text, str(path))
            sent += 1
    assert sent > 40


@pytest.mark.usefixtures("logged")
def test_a_body_that_is_no_json_is_not_repeated(client: CheckedClient) -> None:
    body = b'{"source": {"access_key_secret": "' + json.dumps(CANARY)[1:-1].encode() + b'",,,'
    response = client.post("/jobs", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert_clean(response.text, "the answer")
