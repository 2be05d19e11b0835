"""The queue by hand: to the front, what was given up, and putting it back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from encoder_core.failures import failure
from encoder_db.store import Store
from encoder_db.tables import dead_letters
from tests.api.conftest import CheckedClient
from tests.api.samples import job
from tests.db import builders as make

Headers = dict[str, str]


def fail(store: Store, code: str) -> None:
    """The next job fails for good."""
    worker = make.running(store)
    make.say(store, worker, make.failed(failure(code)))
    make.finish(store, worker, exit_code=20)


def bury(store: Store, job_id: int) -> None:
    row = {
        "job_id": job_id, "queue": "default/p1/default", "deliveries": 5, "failures": 0,
        "reason": "abandoned", "enqueued_at": make.read(store, job_id).created_at,
        "dead_at": make.read(store, job_id).created_at,
    }  # fmt: skip
    store.run(lambda tx: tx.execute(dead_letters.insert(), row))


def test_a_job_goes_to_the_front(client: CheckedClient, store: Store) -> None:
    for _ in range(3):
        client.post("/jobs", json=job())
    response = client.post("/jobs/3/bump")
    assert (response.status_code, response.json()["id"]) == (200, 3)
    assert make.claimed(store).job.id == 3
    assert client.post("/jobs/2/bump", json={"priority": "high"}).json()["priority"] == "high"


def test_only_a_job_that_waits_is_moved(client: CheckedClient, store: Store) -> None:
    client.post("/jobs", json=job())
    make.running(store)
    response = client.post("/jobs/1/bump")
    assert response.status_code == 409
    assert response.json()["type"] == "urn:encoder:problem:job_not_queued"
    assert client.post("/jobs/9/bump").status_code == 404
    assert client.post("/jobs/1/bump", json={"priority": "now"}).status_code == 422


def test_failed_jobs_are_tried_again_by_their_failure(client: CheckedClient, store: Store) -> None:
    for code in ("source_denied", "source_not_found", "source_denied"):
        client.post("/jobs", json=job())
        fail(store, code)
    first = client.post("/dead-letters/redrive", json={"failureCode": "source_denied", "limit": 1})
    assert first.json() == {"queued": [1], "refused": [], "nextAfterId": 1}
    rest = client.post("/dead-letters/redrive", json={"failureCode": "source_denied", "afterId": 1})
    assert rest.json() == {"queued": [3], "refused": [], "nextAfterId": None}
    assert client.get("/jobs/2").json()["status"] == "failed"


@pytest.mark.parametrize("body", [{}, {"failureCode": "No Such"}, {"failureCode": "a", "limit": 0}])
def test_a_wrong_redrive_is_refused(client: CheckedClient, body: object) -> None:
    assert client.post("/dead-letters/redrive", json=body).status_code == 422


def test_dead_letters_come_page_by_page_to_their_owner(
    client: CheckedClient, store: Store, add_key: Callable[..., Headers]
) -> None:
    mine, other = add_key("one"), add_key("two")
    for _ in range(3):
        bury(store, client.post("/jobs", json=job(), headers=mine).json()["id"])
    answer = client.get("/dead-letters?limit=2", headers=mine)
    page = answer.json()
    assert answer.links["next"]["url"] == f"?limit=2&cursor={page['nextCursor']}"
    assert [letter["jobId"] for letter in page["deadLetters"]] == [3, 2]
    assert page["deadLetters"][0]["reason"] == "abandoned"
    cursor = page["nextCursor"]
    last = client.get(f"/dead-letters?cursor={cursor}", headers=mine).json()
    assert [letter["jobId"] for letter in last["deadLetters"]] == [1]
    assert last["nextCursor"] is None
    assert client.get("/dead-letters", headers=other).json()["deadLetters"] == []
    assert client.get(f"/dead-letters?cursor={cursor}", headers=other).status_code == 400
