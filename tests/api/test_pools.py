"""Pools and workers over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from encoder_db.pools import create_pool
from encoder_db.store import Store
from encoder_db.workers import beat
from tests.api.conftest import CheckedClient
from tests.api.samples import job

AddKey = Callable[..., dict[str, str]]


def test_the_default_pool_is_there(client: CheckedClient) -> None:
    client.post("/jobs", json=job())
    (pool,) = client.get("/pools").json()["pools"]
    assert (pool["name"], pool["engine"], pool["stopPolicy"]) == ("default", "local", "None")
    assert (pool["active"], pool["queued"]) == (0, 1)


def test_what_is_given_is_changed(client: CheckedClient) -> None:
    before = client.get("/pools").json()["pools"][0]["maxConcurrency"]
    held = client.patch("/pools/default", json={"stopPolicy": "Hold"}).json()
    assert (held["stopPolicy"], held["maxConcurrency"]) == ("Hold", before)
    scaled = client.patch("/pools/default", json={"maxConcurrency": 7}).json()
    assert (scaled["stopPolicy"], scaled["maxConcurrency"]) == ("Hold", 7)


def test_a_new_pool_takes_jobs(client: CheckedClient) -> None:
    assert client.post("/pools", json={"name": "hd", "maxConcurrency": 2}).status_code == 201
    assert client.post("/jobs", json=job(pool="hd")).status_code == 202
    again = client.post("/pools", json={"name": "hd", "maxConcurrency": 2})
    assert (again.status_code, again.json()["type"]) == (409, "urn:encoder:problem:pool_exists")


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"maxConcurrency": -1}, "/maxConcurrency"),
        ({"maxConcurrency": "many"}, "/maxConcurrency"),
        ({"stopPolicy": "Stop"}, "/stopPolicy"),
        ({"engine": "kubernetes"}, "/engine"),
    ],
)
def test_a_wrong_change_is_refused(
    client: CheckedClient, change: dict[str, Any], pointer: str
) -> None:
    response = client.patch("/pools/default", json=change)
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, pointer)


@pytest.mark.parametrize("name", ["nowhere", "UPPER", "%C3%A9", "x" * 200])
def test_a_pool_that_is_not_there(client: CheckedClient, name: str) -> None:
    assert client.patch(f"/pools/{name}", json={}).status_code == 404


def test_a_pool_of_the_cluster_is_changed_there(client: CheckedClient, store: Store) -> None:
    with store.begin() as tx:
        create_pool(tx, "gpu", engine="kubernetes", max_concurrency=4)
    response = client.patch("/pools/gpu", json={"maxConcurrency": 5})
    assert response.status_code == 409
    assert "kubectl scale" in response.json()["detail"]


def test_the_workers_that_are_alive(client: CheckedClient, store: Store, add_key: AddKey) -> None:
    assert client.get("/workers").json() == {"workers": []}
    beat(store, "host:7", kind="app", host="host", pid=7, capacity=4, running=[1, 2])
    (worker,) = client.get("/workers").json()["workers"]
    assert (worker["name"], worker["capacity"], worker["busy"]) == ("host:7", 4, 2)
    assert worker["running"] == [1, 2]
    (shown,) = client.get("/workers", headers=add_key("one")).json()["workers"]
    assert (shown["busy"], shown["running"]) == (2, [])
