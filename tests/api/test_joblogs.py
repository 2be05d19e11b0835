"""What is known of how a job went: the end of its log, its timeline, the request behind it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert

from encoder_core.documents import Step
from encoder_core.reports import FinalReport, LogReport, Milestone, Outcome
from encoder_db.rows import Claimed
from encoder_db.store import Store
from encoder_db.tables import webhook_attempts
from encoder_db.timeline import Moment, build_timeline
from encoder_db.work import read_work
from tests.api.conftest import CheckedClient
from tests.api.samples import job
from tests.db import builders as make

T0 = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def worker(client: CheckedClient, store: Store) -> Claimed:
    """The worker of the first job, which was submitted with a request id of its own."""
    response = client.post("/jobs", json=job(), headers={"X-Request-ID": "r-1"})
    assert response.headers["x-request-id"] == "r-1"
    return make.running(store)


# --- Log -------------------------------------------------------------------------------------


def test_the_last_lines_of_the_latest_attempt(
    client: CheckedClient, store: Store, worker: Claimed
) -> None:
    assert client.get("/jobs/1/logs").status_code == 404
    make.say(store, worker, LogReport(tail="one\ntwo", lines=2))
    make.say(store, worker, LogReport(tail="two\nthree", lines=3))
    log = client.get("/jobs/1/logs").json()
    assert log.pop("updatedAt")
    assert log == {"attempt": 1, "lines": ["two", "three"], "skipped": 1}
    fewer = client.get("/jobs/1/logs?lines=1&attempt=1").json()
    assert (fewer["lines"], fewer["skipped"]) == (["three"], 2)
    assert client.get("/jobs/1/logs?attempt=2").status_code == 404


def test_a_log_that_did_not_grow_is_not_sent_again(
    client: CheckedClient, store: Store, worker: Claimed
) -> None:
    make.say(store, worker, LogReport(tail="one", lines=1))
    tag = client.get("/jobs/1/logs").headers["etag"]
    assert client.get("/jobs/1/logs", headers={"If-None-Match": tag}).status_code == 304


def test_a_log_is_taken_from_the_current_worker_only(
    client: CheckedClient, store: Store, worker: Claimed
) -> None:
    said = make.say(store, worker, LogReport(tail="forged", lines=1), token="x" * 43)
    assert not said.accepted
    assert client.get("/jobs/1/logs").status_code == 404


def test_a_log_goes_with_its_job(client: CheckedClient, store: Store, worker: Claimed) -> None:
    make.say(store, worker, LogReport(tail="one", lines=1))
    make.complete(store, worker)
    client.delete("/jobs/1")
    assert client.get("/jobs/1/logs").status_code == 404


# --- Request ---------------------------------------------------------------------------------


def test_a_job_keeps_the_id_of_its_request_for_the_log_of_its_worker(
    client: CheckedClient, store: Store, worker: Claimed
) -> None:
    assert client.get("/jobs/1").json()["requestId"] == "r-1"
    work = read_work(store, worker.job.id, worker.attempt)
    assert work is not None
    assert work.request_id == "r-1"


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a/b", "\u00e9", 'a"b'])
def test_a_request_id_that_is_not_sane_is_replaced(client: CheckedClient, given: str) -> None:
    response = client.get("/livez", headers={b"X-Request-ID": given.encode()})
    assert len(response.headers["x-request-id"]) == 36


# --- Timeline --------------------------------------------------------------------------------


def steps(client: CheckedClient) -> list[tuple[str, int | None]]:
    timeline = client.get("/jobs/1").json()["timeline"]
    assert [e["at"] for e in timeline] == sorted(e["at"] for e in timeline)
    return [(entry["step"], entry["attempt"]) for entry in timeline]


def test_the_timeline_of_a_job_that_goes_well(
    client: CheckedClient, store: Store, worker: Claimed
) -> None:
    begun = [("accepted", None), ("queued", None), ("admitted", 1), ("started", 1)]
    assert steps(client) == begun
    make.say(store, worker, make.uploaded())
    reached = dict.fromkeys(Milestone, 0.0)
    make.say(store, worker, FinalReport(outcome=Outcome.SUCCEEDED, reached=reached))
    make.finish(store, worker)
    worked = [("fetched", 1), ("encoded", 1), ("verified", 1), ("uploaded", 1), ("ended", 1)]
    assert steps(client) == begun + worked
    (event,) = [
        e for e in client.get("/jobs/1/events").json()["events"] if e["type"] == "job.completed"
    ]
    sent: dict[str, Any] = {
        "event_uuid": UUID(event["id"]),
        "event_type": event["type"],
        "job_id": 1,
        "seq": event["sequence"],
        "trigger_kind": "auto",
        "started_at": datetime(2999, 1, 1, tzinfo=UTC),
        "duration_ms": 5,
    }
    rows = [
        {**sent, "attempt": 1, "outcome": "timeout"},
        {**sent, "attempt": 2, "outcome": "delivered"},
    ]
    store.run(lambda tx: tx.execute(insert(webhook_attempts), rows))
    assert steps(client) == [*begun, *worked, ("notified", None)]


def test_what_a_worker_reached_is_placed_by_our_clock() -> None:
    attempt = {
        "number": 2,
        "created_at": T0 + timedelta(seconds=1),
        "scheduled_at": T0 + timedelta(seconds=2),
        "pulled_at": T0 + timedelta(seconds=4),
        "started_at": T0 + timedelta(seconds=5),
        "finished_at": None,
        "final_report": {"reached": {"fetched": 1.5, "encoded": 9.0}},
    }
    moments = [
        Moment("job.queued", T0, None),
        Moment("job.failed", T0 + timedelta(seconds=20), T0 + timedelta(seconds=21)),
    ]
    timeline = build_timeline(T0, [attempt], moments)
    assert [(entry.step, (entry.at - T0).total_seconds()) for entry in timeline] == [
        (Step.ACCEPTED, 0.0),
        (Step.QUEUED, 0.0),
        (Step.ADMITTED, 1.0),
        (Step.SCHEDULED, 2.0),
        (Step.PULLED, 4.0),
        (Step.STARTED, 5.0),
        (Step.FETCHED, 6.5),
        (Step.ENCODED, 14.0),
        (Step.NOTIFIED, 21.0),
    ]
