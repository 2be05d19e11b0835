"""A POST whose COMMIT was cut is sent again with its key: the job is there once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from encoder_api.app import create_app
from encoder_api.settings import ApiSettings
from encoder_db.migrations import migrate
from encoder_db.store import Store
from tests.api.conftest import KEYS, CheckedClient
from tests.api.samples import job
from tests.servers.database import Database
from tests.servers.mysql_way import Fault, MysqlWay

HEADERS = {"Idempotency-Key": "the-same"}


@pytest.fixture
def way(mysql_database: Database) -> Iterator[MysqlWay]:
    with Store.open(mysql_database.url, keys=KEYS) as store:
        migrate(store)
    with MysqlWay(mysql_database) as way:
        yield way


@pytest.fixture
def client(way: MysqlWay) -> Iterator[CheckedClient]:
    with (
        Store.open(way.url, keys=KEYS) as store,
        CheckedClient(create_app(ApiSettings(), store)) as client,
    ):
        yield client


@pytest.mark.parametrize("how", ["cut before", "cut within", "answer lost", "answer cut"])
def test_a_job_whose_commit_was_cut_is_there_once_when_it_is_sent_again(
    client: CheckedClient, way: MysqlWay, how: str
) -> None:
    way.expect(Fault(at="COMMIT", after="INSERT INTO jobs", how=how))  # type: ignore[arg-type]  # parametrised
    refused = client.post("/jobs", json=job(), headers=HEADERS)
    assert (refused.status_code, len(way.met)) == (503, 1)
    assert refused.headers["Retry-After"]
    accepted = client.post("/jobs", json=job(), headers=HEADERS)
    assert accepted.status_code == 202
    (only,) = client.get("/jobs").json()["jobs"]
    assert only["uuid"] == accepted.json()["uuid"]


def test_what_was_in_the_way_of_a_post_is_no_business_of_its_sender(
    client: CheckedClient, way: MysqlWay
) -> None:
    insert = "INSERT INTO jobs"
    way.expect(
        Fault(at=insert, how="refused", code=1213),
        Fault(at=insert, how="refused", code=1205),
    )
    assert client.post("/jobs", json=job()).status_code == 202
    way.expect(Fault(at=insert, how="cut before"))
    assert client.post("/jobs", json=job()).status_code == 202
    assert len(client.get("/jobs").json()["jobs"]) == 2
    told = client.get("/metrics").text
    for reason in ("deadlock", "lock_wait", "connection"):
        line = f'encoder_api_transactions_retried_total{{reason="{reason}"}} 1.0'
        assert line in told
