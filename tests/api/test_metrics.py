"""What Prometheus is told, in its own words, and what asking for it costs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from encoder_api.metrics import REMEMBERED_S
from encoder_db.store import Store
from tests.api.conftest import CheckedClient, ClientMaker, StillClock
from tests.api.samples import job
from tests.db import builders as make

Series = dict[tuple[str, str], float]


def scrape(client: CheckedClient) -> Series:
    """Each value by its metric and the value of its label."""
    response = client.get("/metrics")
    assert response.status_code == 200
    return {
        (sample.name, " ".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def client(make_client: ClientMaker, clock: StillClock) -> CheckedClient:
    return make_client(clock=clock)


def test_it_counts_by_operation(client: CheckedClient) -> None:
    client.get("/jobs")
    client.get("/jobs/1")
    client.get("/no/such/path")
    seen = scrape(client)
    assert seen["encoder_api_requests_total", "list_jobs 200"] == 1
    assert seen["encoder_api_requests_total", "read_job 404"] == 1
    assert seen["encoder_api_requests_total", "none 404"] == 1


def test_what_the_record_holds(client: CheckedClient, store: Store) -> None:
    client.post("/jobs", json=job(notificationUrl="https://receiver.example/"))
    client.post("/jobs", json=job())
    make.claimed(store)
    seen = scrape(client)
    assert seen["encoder_database_up", ""] == 1
    assert seen["encoder_jobs", "queued"] == 2
    assert seen["encoder_jobs", "failed"] == 0
    assert seen["encoder_queue_depth", "default"] == 2
    assert seen["encoder_queue_oldest_seconds", "default"] >= 0
    assert seen["encoder_pool_places_taken", "default"] == 1
    assert seen["encoder_webhook_deliveries", "due"] == 1
    assert seen["encoder_webhook_oldest_due_seconds", ""] >= 0
    assert seen["encoder_webhook_attempts_total", "delivered"] == 0
    assert seen["encoder_webhook_attempts_total", "address_not_allowed"] == 0  # counted by itself
    assert seen["encoder_dead_letters", ""] == 0


def test_a_storm_of_scrapers_counts_once(client: CheckedClient, store: Store) -> None:
    scrape(client)
    with make.statements(store) as seen, ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: scrape(client), range(40)):
            assert found["encoder_database_up", ""] == 1
    assert seen == []


def test_after_a_few_seconds_it_counts_again_in_four_queries(
    client: CheckedClient, store: Store, clock: StillClock
) -> None:
    assert scrape(client)["encoder_jobs", "queued"] == 0
    client.post("/jobs", json=job())
    assert scrape(client)["encoder_jobs", "queued"] == 0
    clock.now += REMEMBERED_S
    with make.statements(store) as seen:
        assert scrape(client)["encoder_jobs", "queued"] == 1
    assert len(seen) == 4


def test_a_database_that_is_away_is_said_and_nothing_is_made_up(
    client: CheckedClient, store: Store, clock: StillClock
) -> None:
    scrape(client)
    with store.begin() as tx:
        tx.execute(text("ALTER TABLE jobs RENAME TO elsewhere"))
    clock.now += REMEMBERED_S
    seen = scrape(client)
    assert seen["encoder_database_up", ""] == 0
    assert ("encoder_jobs", "queued") not in seen
    assert seen["encoder_api_requests_total", "read_metrics 200"] == 1
    with store.begin() as tx:
        tx.execute(text("ALTER TABLE elsewhere RENAME TO jobs"))
    clock.now += REMEMBERED_S
    assert scrape(client)["encoder_jobs", "queued"] == 0


def test_no_owner_and_no_job_is_in_a_label(
    client: CheckedClient, add_key: Callable[..., dict[str, str]]
) -> None:
    headers = add_key("team-canary")
    accepted = client.post("/jobs", json=job(externalId="canary-id"), headers=headers).json()
    told = client.get("/metrics").text
    for word in ("team-canary", "canary-id", accepted["uuid"]):
        assert word not in told
