"""A job that waits takes new credentials: nobody has to cancel it because a key has expired."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from encoder_db import jobs as db_jobs
from encoder_db.secrets import read_credentials
from encoder_db.store import Store
from tests.api.conftest import CheckedClient
from tests.api.samples import job
from tests.original import ORIGINAL

AddKey = Callable[..., dict[str, str]]

NEW = {"credentials": {"/source/access_key_secret": "renewed"}}


def submit(client: CheckedClient, document: Any = ORIGINAL, **headers: str) -> dict[str, Any]:
    response = client.post("/jobs", json=document, headers=headers)
    assert response.status_code == 202
    accepted: dict[str, Any] = response.json()
    return accepted


def test_the_next_attempt_gets_the_new_ones_beside_those_that_stay(
    client: CheckedClient, store: Store
) -> None:
    accepted = submit(client)
    response = client.patch(f"/jobs/{accepted['id']}/credentials", json=NEW)
    assert (response.status_code, response.json()["status"]) == (200, "queued")
    assert "renewed" not in response.text
    with store.read() as tx:
        row = db_jobs.read_row(tx, accepted["id"])
        assert row is not None
        credentials = read_credentials(tx, row.id, row.uuid, keys=store.keys)
    assert credentials is not None
    asked: Any = ORIGINAL
    assert credentials["/source/access_key_secret"] == "renewed"
    assert credentials["/source/access_key_id"] == asked["source"]["access_key_id"]


def test_a_job_that_has_ended_takes_them_with_a_retry(client: CheckedClient) -> None:
    accepted = submit(client)
    client.post(f"/jobs/{accepted['id']}/cancel")
    response = client.patch(f"/jobs/{accepted['id']}/credentials", json=NEW)
    assert (response.status_code, response.json()["type"]) == (409, "urn:encoder:problem:job_final")
    assert "retry it" in response.json()["detail"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        pytest.param(
            {"credentials": {"/source/bucket": "b"}},
            "/credentials/~1source~1bucket",
            id="a field that is no credential",
        ),
        pytest.param(
            {"credentials": {"/source/access_key_secret": ""}},
            "/credentials/~1source~1access_key_secret",
            id="a credential that does not fit",
        ),
        pytest.param({"credentials": {}}, "/credentials", id="none at all"),
        pytest.param({}, "/credentials", id="nothing"),
    ],
)
def test_it_names_what_does_not_fit(client: CheckedClient, body: Any, pointer: str) -> None:
    accepted = submit(client)
    response = client.patch(f"/jobs/{accepted['id']}/credentials", json=body)
    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]


def test_a_signed_url_is_renewed_however_long_it_may_be(client: CheckedClient) -> None:
    url = f"https://example.com/in.mp4?X-Amz-Security-Token={'t' * 8000}"
    source = {"kind": "https", "url": url}
    accepted = submit(client, job(source=source))
    renewed = {"credentials": {"/source/url": url.replace("ttt", "new", 1)}}
    assert client.patch(f"/jobs/{accepted['id']}/credentials", json=renewed).status_code == 200
    client.post(f"/jobs/{accepted['id']}/cancel")
    assert client.post(f"/jobs/{accepted['id']}/retry").status_code == 409
    assert client.post(f"/jobs/{accepted['id']}/retry", json=renewed).status_code == 202


def test_another_credential_is_no_longer_than_at_first(client: CheckedClient) -> None:
    accepted = submit(client)
    renewed = {"credentials": {"/source/access_key_secret": "s" * 4097}}
    response = client.patch(f"/jobs/{accepted['id']}/credentials", json=renewed)
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["pointer"] == "/credentials/~1source~1access_key_secret"


def test_jobs_of_others_are_not_there(client: CheckedClient, add_key: AddKey) -> None:
    accepted = submit(client, job(), **add_key("one"))
    path = f"/jobs/{accepted['id']}/credentials"
    assert client.patch(path, json=NEW, headers=add_key("two")).status_code == 404
