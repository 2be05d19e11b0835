"""A watch that was cut is noticed by what it does not bring back; then the process ends."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp.test_utils import TestClient, TestServer

from encoder_core.reports import AmbientCredentials
from encoder_db.settings import QueueSettings, TransferSettings
from encoder_db.store import Store
from encoder_operator.health import Deaf, Echoes, build_app
from encoder_operator.kube import JOBS, PODS, POOLS
from encoder_operator.metrics import Metrics
from encoder_operator.operator import Operator
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
    listed: list[bool] = []
    watches.hear("pods", "3", listed=False)

    async def ask() -> list[tuple[int, str]]:
        app = build_app(watches, metrics, ready=lambda: bool(listed))
        answers = []
        async with TestClient(TestServer(app)) as client:
            for path in ("/healthz", "/readyz", "/metrics"):
                answer = await client.get(path)
                answers.append((answer.status, await answer.text()))
            watches.expect("pods", "7")
            clock.now_s += 91
            listed.append(True)
            for path in ("/healthz", "/readyz"):
                answer = await client.get(path)
                answers.append((answer.status, await answer.text()))
        return answers

    healthy, early, told, deaf, ready = asyncio.run(ask())
    assert (healthy, ready) == ((200, "ok\n"), (200, "ok\n"))
    assert early[0] == 503
    assert deaf == (503, "no echo from: pods\n")
    assert 'transcode_watch_last_event_age_seconds{kind="pods"} 0.0' in told[1]


def test_an_operator_whose_watches_bring_nothing_ends(store: Store) -> None:
    """The API server answers every call; only the watches are silent."""
    make.kubernetes_pool(store)
    make.create(store, make.spec(pool="k8s"))
    api, metrics = FakeApi(), Metrics()
    api.put(POOLS, "k8s", spec={"maxConcurrency": 1})

    async def run() -> None:
        loop = asyncio.get_running_loop()
        watches = Echoes(
            (kind.plural for kind in (JOBS, PODS, POOLS)), patience_s=1.0, now=loop.time
        )
        operator = Operator(
            store,
            api.kube(echoes=watches, metrics=metrics),
            OperatorSettings(namespace="work", canary_s=0.3),
            QueueSettings(),
            TransferSettings(),
            AmbientCredentials(),
            echoes=watches,
            metrics=metrics,
        )
        await operator.run()

    with pytest.raises(Deaf, match="did not bring back what was written"):
        asyncio.run(run())
