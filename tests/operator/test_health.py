"""A watch that was cut is noticed by what it does not bring back; then the process ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from encoder_core.names import ATTEMPT_LABEL, JOB_LABEL
from encoder_core.reports import AmbientCredentials
from encoder_db.queue import claim
from encoder_db.settings import QueueSettings, TransferSettings
from encoder_db.store import Store
from encoder_operator.health import Deaf, Echoes, build_app
from encoder_operator.kube import JOBS, PODS, POOLS
from encoder_operator.metrics import Metrics
from encoder_operator.operator import RECORD_AWAY_S, Operator
from encoder_operator.settings import OperatorSettings
from tests.db import builders as make
from tests.operator.fake_api import FakeApi


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def echoes(clock: Clock) -> Echoes:
    return Echoes(["pods", "transcodejobs"], patience_s=90.0, now=clock)


@pytest.mark.parametrize(
    ("heard", "deaf"),
    [
        pytest.param([], ["pods"], id="brings nothing"),
        pytest.param([("pods", "7", False)], [], id="brings it back"),
        pytest.param([("pods", "9", False)], [], id="brings something later"),
        pytest.param([("pods", "6", False)], ["pods"], id="brings something earlier only"),
        pytest.param([("pods", "6", True)], [], id="began anew meanwhile"),
        pytest.param([("transcodejobs", "9", False)], ["pods"], id="is not the one that speaks"),
    ],
)
def test_a_watch_that(heard: list[tuple[str, str, bool]], deaf: list[str]) -> None:
    clock = Clock()
    watches = echoes(clock)
    watches.expect("pods", "7")
    for kind, version, listed in heard:
        watches.hear(kind, version, listed=listed)
    assert watches.deaf() == []  # not at once
    clock.now_s += 91
    assert watches.deaf() == deaf


def test_what_came_back_before_the_answer_is_not_waited_for() -> None:
    clock = Clock()
    watches = echoes(clock)
    watches.hear("pods", "7", listed=False)
    watches.expect("pods", "7")
    clock.now_s += 1000
    assert watches.deaf() == []


def test_a_cluster_in_which_nothing_happens_is_healthy() -> None:
    clock = Clock()
    watches = echoes(clock)
    clock.now_s += 1e6
    watches.check()


def test_probes_and_metrics() -> None:
    clock = Clock()
    watches, metrics = echoes(clock), Metrics()
    why: list[str | None] = ["the database does not answer"]
    watches.hear("pods", "3", listed=False)

    async def ask() -> list[tuple[int, str]]:
        app = build_app(watches, metrics, unready=lambda: why[-1])
        answers = []
        async with TestClient(TestServer(app)) as client:
            for path in ("/healthz", "/readyz", "/metrics"):
                answer = await client.get(path)
                answers.append((answer.status, await answer.text()))
            why.append(None)
            for late_s in (0, 91):
                clock.now_s += late_s
                for path in ("/healthz", "/readyz"):
                    answer = await client.get(path)
                    answers.append((answer.status, await answer.text()))
                watches.expect("pods", "7")
        return answers

    alive, away, told, *well, deaf, unready = asyncio.run(ask())
    assert [alive, *well] == [(200, "ok\n")] * 3
    assert away == (503, "the database does not answer\n")
    assert deaf == unready == (503, "no echo from: pods\n")
    assert 'transcode_watch_last_event_age_seconds{kind="pods"} 0.0' in told[1]


def all_watches(now: Callable[[], float]) -> Echoes:
    return Echoes((kind.plural for kind in (JOBS, PODS, POOLS)), patience_s=1.0, now=now)


def an_operator(
    store: Store,
    api: FakeApi,
    now: Callable[[], float],
    *,
    watches: Echoes | None = None,
    **settings: Any,
) -> Operator:
    metrics, watches = Metrics(), watches or all_watches(now)
    return Operator(
        store,
        api.kube(echoes=watches, metrics=metrics),
        OperatorSettings(namespace="work", **settings),
        QueueSettings(),
        TransferSettings(),
        AmbientCredentials(),
        echoes=watches,
        metrics=metrics,
        now=now,
    )


def a_cluster_with_a_job(store: Store) -> FakeApi:
    make.kubernetes_pool(store)
    make.create(store, make.spec(pool="k8s"))
    api = FakeApi()
    api.put(POOLS, "k8s", spec={"maxConcurrency": 1})
    return api


def test_an_operator_whose_watches_bring_nothing_ends(store: Store) -> None:
    """The API server answers every call; only the watches are silent."""
    api = a_cluster_with_a_job(store)

    async def run() -> None:
        now = asyncio.get_running_loop().time
        await an_operator(store, api, now, canary_s=0.3).run()

    with pytest.raises(Deaf, match="did not bring back what was written"):
        asyncio.run(run())


def an_ended_pod(version: int) -> dict[str, Any]:
    metadata = {
        "name": "tj-a1",
        "uid": "pod-1",
        "resourceVersion": str(version),
        "labels": {JOB_LABEL: "tj", ATTEMPT_LABEL: "1"},
        "ownerReferences": [
            {"apiVersion": "encoder.dev/v1alpha1", "kind": "TranscodeJob", "name": "tj", "uid": "1"}
        ],
    }
    return {"metadata": metadata, "status": {"phase": "Succeeded"}}


@pytest.mark.parametrize(
    ("told", "deaf"),
    [
        pytest.param([], ["pods"], id="which nobody tells of"),
        pytest.param([("MODIFIED", 6)], ["pods"], id="of which only something earlier is told"),
        pytest.param([("MODIFIED", 7)], [], id="that is told"),
        pytest.param([("MODIFIED", 8)], [], id="after which a later one is told"),
        pytest.param([("DELETED", 8)], [], id="whose object is told to be deleted"),
        pytest.param([(None, 7)], [], id="when the watch begins anew"),
    ],
)
@pytest.mark.parametrize("late", [False, True], ids=["before the list", "after the list"])
def test_a_change_by_others_is_an_echo_too(
    store: Store, told: list[tuple[str | None, int]], deaf: list[str], late: bool
) -> None:
    """Nothing is written by us: no job, no pool, and an ended Pod that is nobody's."""
    api, clock = FakeApi(), Clock()
    watches = all_watches(clock)
    api.put(PODS, "tj-a1", **an_ended_pod(5))

    async def run() -> None:
        operator = an_operator(store, api, clock, watches=watches, resync_s=0.02)

        def tell() -> None:
            for event, version in told:
                operator.pod_changed(event, an_ended_pod(version))

        async def resync() -> None:
            lists, whole = 0, asyncio.Event()

            def count(plural: str) -> None:
                nonlocal lists
                lists += plural == POOLS.plural
                if lists == 3:  # what was listed before the second of them is taken in
                    whole.set()

            api.while_listing = count
            await asyncio.wait_for(whole.wait(), timeout=60)

        running = asyncio.create_task(operator.run())
        await asyncio.wait_for(operator.listed.wait(), timeout=60)
        operator.pod_changed(None, an_ended_pod(5))
        await resync()
        clock.now_s += 1000
        assert watches.deaf() == []
        api.put(PODS, "tj-a1", **an_ended_pod(7))
        if not late:
            tell()
        await resync()
        if late:
            tell()
        clock.now_s += 1000
        said.append(watches.deaf())
        running.cancel()
        await asyncio.wait([running])

    said: list[list[str]] = []
    asyncio.run(run())
    assert said == [deaf]
    assert api.writes == []


def test_what_is_listed_before_the_watches_begin_is_not_waited_for(store: Store) -> None:
    api, clock = FakeApi(), Clock()
    watches = all_watches(clock)
    api.put(PODS, "tj-a1", **an_ended_pod(5))

    async def run() -> None:
        operator = an_operator(store, api, clock, watches=watches)
        running = asyncio.create_task(operator.run())
        await asyncio.wait_for(operator.listed.wait(), timeout=60)
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(run())
    clock.now_s += 1000
    assert watches.deaf() == []


def test_it_is_ready_once_all_is_listed_and_while_the_database_answers(store: Store) -> None:
    api, clock = a_cluster_with_a_job(store), Clock()
    said: list[str | None] = []

    async def run() -> None:
        operator = an_operator(store, api, lambda: clock.now_s)
        said.append(operator.unready())
        running = asyncio.create_task(operator.run())
        await asyncio.wait_for(operator.listed.wait(), timeout=60)
        said.append(operator.unready())
        running.cancel()
        await asyncio.wait([running])
        clock.now_s += RECORD_AWAY_S + 1  # nobody has asked it since
        said.append(operator.unready())

    asyncio.run(run())
    assert said == ["not everything is listed yet", None, "the database does not answer"]


def test_one_that_is_started_anew_takes_back_what_it_was_admitting(store: Store) -> None:
    """Not after the minute of the lease: in its Pod it has the name that it had before."""
    api = a_cluster_with_a_job(store)

    async def run() -> None:
        operator = an_operator(store, api, lambda: 0.0)
        claim(store, engine="kubernetes", worker=operator.worker, limit=1, lease_s=3600)
        made = asyncio.Event()
        api.around_write = lambda said: made.set() if "transcodejobs" in said else None
        running = asyncio.create_task(operator.run())
        await asyncio.wait_for(made.wait(), timeout=60)
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(run())
    assert len(api.all(JOBS)) == 1
