"""The API over each kind of database: what differs between them is the record's own business."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from encoder_api.app import create_app
from encoder_api.settings import ApiSettings
from encoder_db.migrations import migrate
from encoder_db.store import Store
from tests.api.conftest import KEYS, CheckedClient
from tests.api.samples import job
from tests.original import ORIGINAL


@pytest.fixture
def client(database_url: str) -> Iterator[CheckedClient]:
    with Store.open(database_url, keys=KEYS) as store:
        migrate(store)
        with CheckedClient(create_app(ApiSettings(), store)) as client:
            yield client


def test_a_job_from_its_submission_to_its_end(client: CheckedClient) -> None:
    headers = {"Idempotency-Key": "key"}
    accepted = client.post("/jobs", json=ORIGINAL, headers=headers)
    again = client.post("/jobs", json=ORIGINAL, headers=headers)
    assert again.json() == accepted.json()
    uuid = accepted.json()["uuid"]
    client.post("/jobs", json=job(externalId="naïve 🎬"))
    assert len(client.get("/jobs").json()["jobs"]) == 2
    (found,) = client.get("/jobs", params={"externalId": "naïve 🎬"}).json()["jobs"]
    assert found["externalId"] == "naïve 🎬"
    cursor = client.get("/jobs?limit=1").json()["nextCursor"]
    (last,) = client.get(f"/jobs?cursor={cursor}").json()["jobs"]
    assert last["uuid"] == uuid
    assert client.post(f"/jobs/{uuid}/cancel").json()["status"] == "canceled"
    events = client.get(f"/jobs/{uuid}/events").json()["events"]
    assert [event["type"] for event in events] == ["job.queued", "job.canceled"]
    assert client.delete(f"/jobs/{uuid}").status_code == 200
    assert client.get(f"/jobs/{uuid}").status_code == 404
    assert client.get("/health").status_code == 200
    assert client.patch("/pools/default", json={"maxConcurrency": 3}).status_code == 200
