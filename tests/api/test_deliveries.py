"""The webhook log of a job, and sending an event again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert

from encoder_api.endpoints.jobs import PAGE
from encoder_db.deliveries import claim_deliveries, finish_delivery, reschedule_delivery
from encoder_db.store import Store
from encoder_db.tables import webhook_attempts
from tests.api.conftest import CheckedClient
from tests.api.samples import job

Headers = dict[str, str]
UNKNOWN = "01890000-0000-7000-8000-000000000000"


@pytest.fixture
def event(client: CheckedClient) -> str:
    """The id of the first event of job 1, which somebody wants to be told of."""
    client.post("/jobs", json=job(notificationUrl="https://app.example/hook"))
    found: str = client.get("/jobs/1/events").json()["events"][0]["id"]
    return found


def send(store: Store, *, succeed: bool) -> None:
    """What a sender does of one delivery."""
    (delivery,) = claim_deliveries(store, worker="sender", limit=1, lease_s=60)
    sent: Any = {"duration_ms": 7, "remote_ip": "203.0.113.9", "snippet": b"no\xff"}
    if succeed:
        assert finish_delivery(store, delivery, outcome="delivered", status=200, **sent)
    else:
        assert reschedule_delivery(
            store, delivery, delay_s=0, outcome="server_error", status=500, **sent
        )


def logged(event: str, number: int) -> dict[str, Any]:
    """A row of the log of job 1."""
    return {
        "event_uuid": UUID(event),
        "event_type": "job.queued",
        "job_id": 1,
        "seq": 1,
        "attempt": number,
        "trigger_kind": "auto",
        "started_at": datetime(2026, 1, 1, tzinfo=UTC),
        "duration_ms": 7,
        "outcome": "server_error",
    }


def test_the_log_says_what_was_sent_and_what_came_back(
    client: CheckedClient, store: Store, event: str
) -> None:
    assert client.get("/jobs/1/webhooks").json() == {"deliveries": [], "nextCursor": None}
    send(store, succeed=False)
    send(store, succeed=True)
    last, first = client.get("/jobs/1/webhooks").json()["deliveries"]
    assert (first.pop("startedAt"), first.pop("nextAttemptAt")) != (None, None)
    assert first == {
        "eventId": event,
        "eventType": "job.queued",
        "sequence": 1,
        "attempt": 1,
        "trigger": "auto",
        "durationMs": 7,
        "outcome": "server_error",
        "status": 500,
        "remoteIp": "203.0.113.9",
        "answer": "no\N{REPLACEMENT CHARACTER}",
    }
    assert (last["attempt"], last["outcome"], last["nextAttemptAt"]) == (2, "delivered", None)


def test_the_log_comes_page_by_page_the_latest_first(
    client: CheckedClient, store: Store, event: str
) -> None:
    count = 2 * PAGE + 1
    with store.begin() as tx:
        tx.execute(insert(webhook_attempts), [logged(event, number) for number in range(count)])
    numbers, links, path = [], [], "/jobs/1/webhooks"
    while path:
        answer = client.get(path)
        numbers.append([sent["attempt"] for sent in answer.json()["deliveries"]])
        links.append(answer.links.get("next", {}).get("url"))
        cursor = answer.json()["nextCursor"]
        path = cursor and f"/jobs/1/webhooks?cursor={cursor}"
        assert links[-1] == (cursor and f"?cursor={cursor}")
    assert [len(page) for page in numbers] == [PAGE, PAGE, 1]
    assert [number for page in numbers for number in page] == list(range(count))[::-1]


def test_what_is_sent_meanwhile_moves_no_page(
    client: CheckedClient, store: Store, event: str
) -> None:
    send(store, succeed=False)
    send(store, succeed=True)
    first = client.get("/jobs/1/webhooks?limit=1").json()
    [sent] = first["deliveries"]
    assert client.post(f"/jobs/1/events/{event}/redeliver").status_code == 202
    send(store, succeed=True)
    last = client.get(f"/jobs/1/webhooks?limit=1&cursor={first['nextCursor']}").json()
    assert (sent["attempt"], last["deliveries"][0]["attempt"]) == (2, 1)
    assert last["nextCursor"] is None, "full, and the last"


def test_a_cursor_is_of_the_log_of_one_job(client: CheckedClient, store: Store, event: str) -> None:
    client.post("/jobs", json=job())
    send(store, succeed=False)
    send(store, succeed=True)
    cursor = client.get("/jobs/1/webhooks?limit=1").json()["nextCursor"]
    for wrong in (f"/jobs/2/webhooks?cursor={cursor}", "/jobs/1/webhooks?cursor=made-up"):
        answer = client.get(wrong)
        assert answer.status_code == 400
        assert answer.json()["type"] == "urn:encoder:problem:invalid_cursor"


def test_an_event_is_sent_again(client: CheckedClient, store: Store, event: str) -> None:
    send(store, succeed=True)
    response = client.post(f"/jobs/1/events/{event}/redeliver")
    assert (response.status_code, response.json()) == (202, {"eventId": event})
    send(store, succeed=True)
    last, _ = client.get("/jobs/1/webhooks").json()["deliveries"]
    assert (last["eventId"], last["trigger"]) == (event, "manual")


@pytest.mark.parametrize("given", [UNKNOWN, "1", "x" * 36, "%00"])
def test_an_event_that_the_job_does_not_have(client: CheckedClient, event: str, given: str) -> None:
    assert client.post(f"/jobs/1/events/{given}/redeliver").status_code == 404


def test_a_job_that_nobody_is_told_of(client: CheckedClient) -> None:
    client.post("/jobs", json=job())
    response = client.post(f"/jobs/1/events/{UNKNOWN}/redeliver")
    assert response.status_code == 409
    assert response.json()["type"] == "urn:encoder:problem:no_receiver"


def test_owners_do_not_see_each_other(
    client: CheckedClient, event: str, add_key: Callable[..., Headers]
) -> None:
    other = add_key("other")
    assert client.get("/jobs/1/webhooks", headers=other).status_code == 404
    path = f"/jobs/1/events/{event}/redeliver"
    assert client.post(path, headers=other).status_code == 404
    reader = add_key("default", "jobs:read")
    assert client.post(path, headers=reader).status_code == 403
