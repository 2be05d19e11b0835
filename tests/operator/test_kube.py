"""How much the operator asks of an API server: at once, and by writing."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest

from encoder_operator.budget import WriteBudget
from encoder_operator.kube import EVENTS, JOBS, PODS, POOLS, SECRETS, Kube, KubeError
from encoder_operator.seen import parse_pod
from tests.operator.fake_api import FakeApi, refusal
from tests.operator.fake_time import run_in_fake_time

AT_ONCE = 3
THERE, NEW = "there", {"metadata": {"name": "new"}}


async def everybody_waits() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def ask(kube: Kube, how: str, number: int) -> None:
    with suppress(KubeError):
        if how == "reads":
            await kube.get(PODS, f"pod-{number}")
        else:
            await kube.create(PODS, {"metadata": {"name": f"pod-{number}"}})


@pytest.mark.parametrize("how", ["reads", "writes", "refused writes"])
def test_no_more_calls_than_that_are_under_way_and_all_are_made_in_the_end(how: str) -> None:
    """A server that answers slowly is not asked by all at once, also when it refuses."""

    async def story() -> FakeApi:
        api = FakeApi()
        api.gate = asyncio.Event()
        if how == "refused writes":
            api.refuse["POST", PODS.plural] = refusal(500, "InternalError")
        kube = api.kube(in_flight=AT_ONCE)
        asked = [asyncio.create_task(ask(kube, how, number)) for number in range(4 * AT_ONCE)]
        await everybody_waits()
        assert api.at_once == AT_ONCE
        api.gate.set()
        await asyncio.gather(*asked)
        return api

    api = asyncio.run(story())
    assert (api.most_at_once, api.at_once) == (AT_ONCE, 0)
    assert len(api.all(PODS)) == (4 * AT_ONCE if how == "writes" else 0)


def test_a_call_that_is_given_up_makes_room_for_the_next() -> None:
    async def story() -> None:
        api = FakeApi()
        api.gate = asyncio.Event()
        kube = api.kube(in_flight=1)
        first = asyncio.create_task(ask(kube, "writes", 1))
        await everybody_waits()
        first.cancel()
        second = asyncio.create_task(ask(kube, "writes", 2))
        await everybody_waits()
        assert api.at_once == 1
        api.gate.set()
        await second
        assert [pod["metadata"]["name"] for pod in api.all(PODS)] == ["pod-2"]

    asyncio.run(story())


@pytest.mark.parametrize(
    ("write", "call"),
    [
        ("POST transcodejobs", lambda kube: kube.create(JOBS, NEW)),
        ("POST secrets", lambda kube: kube.create(SECRETS, NEW)),
        ("POST pods", lambda kube: kube.create(PODS, NEW)),
        ("DELETE pods", lambda kube: kube.delete(PODS, THERE)),
    ],
)
def test_what_starts_or_stops_work_does_not_wait_for_what_tells_of_it(
    write: str, call: Callable[[Kube], Awaitable[Any]]
) -> None:
    async def story() -> None:
        api = FakeApi()
        api.put(PODS, THERE)
        api.put(JOBS, THERE)
        api.gate = asyncio.Event()
        kube = api.kube(in_flight=1)
        calls = [
            kube.get(JOBS, THERE),
            kube.apply_status(JOBS, THERE, {"status": {}}),
            kube.create_once(EVENTS, NEW),
            kube.delete(JOBS, THERE),
            call(kube),
        ]
        asked = []
        for each in calls:
            asked.append(asyncio.ensure_future(each))
            await everybody_waits()
        api.gate.set()
        await asyncio.gather(*asked)
        telling = ["PATCH transcodejobs/status", "POST events", "DELETE transcodejobs"]
        assert api.writes == [write, *telling]

    asyncio.run(story())


# --- Lists ---------------------------------------------------------------------------------------


def test_of_a_list_whole_objects_are_held_for_one_page_at_a_time() -> None:
    async def story() -> None:
        api = FakeApi()
        for number in range(1001):
            api.put(PODS, f"pod-{number}")
        done: list[str] = []
        api.while_listing = lambda plural: done.append(plural)

        def project(body: Mapping[str, Any]) -> str:
            done.append("project")
            return str(body["metadata"]["name"])

        assert await api.kube().list_all(PODS, project) == [f"pod-{n}" for n in range(1001)]
        pages = [500 * ["project"], 500 * ["project"], ["project"]]
        assert done == [step for page in pages for step in ("pods", *page)]

    asyncio.run(story())


# --- One budget over all writes ------------------------------------------------------------------

METHODS: dict[str, tuple[Callable[[Kube], Awaitable[Any]], int]] = {
    "list_all": (lambda kube: kube.list_all(PODS, parse_pod), 0),
    "check_served": (lambda kube: kube.check_served(JOBS, POOLS), 0),
    "get": (lambda kube: kube.get(PODS, THERE), 0),
    "create": (lambda kube: kube.create(PODS, NEW), 1),
    "create_once": (lambda kube: kube.create_once(EVENTS, NEW), 1),
    "apply_status": (lambda kube: kube.apply_status(PODS, THERE, {"status": {}}), 1),
    "delete": (lambda kube: kube.delete(PODS, THERE), 1),
}
"""A call of each, and how often it writes."""


def test_every_method_that_calls_is_known() -> None:
    methods = inspect.getmembers(Kube, inspect.iscoroutinefunction)
    assert {name for name, _ in methods if not name.startswith("_")} == METHODS.keys()


@pytest.mark.parametrize("refused", [False, True], ids=["answered", "refused"])
@pytest.mark.parametrize("method", METHODS)
def test_every_write_takes_one_token_and_no_read_does(method: str, refused: bool) -> None:
    api = FakeApi()
    moments: list[str] = []
    api.put(PODS, THERE)
    if refused:
        for verb in ("POST", "PATCH", "DELETE"):
            for kind in (PODS, EVENTS):
                api.refuse[verb, kind.plural] = refusal(500, "InternalError")
    api.around_write = moments.append
    kube = api.kube()
    call, writes = METHODS[method]

    async def story() -> None:
        with suppress(KubeError):
            await call(kube)

    asyncio.run(story())
    sent = [moment for moment in moments if moment.startswith("before")]
    assert (kube.budget.writes, len(sent)) == (writes, writes)


def test_writes_of_every_kind_wait_for_one_another_and_no_read_waits() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        api, sent_at = FakeApi(), []
        api.put(PODS, THERE)
        kube = api.kube(budget=WriteBudget(1.0, burst=1, now=loop.time))
        api.around_write = lambda moment: sent_at.append(round(loop.time() - began, 3))
        began = loop.time()
        calls = [asyncio.ensure_future(call(kube)) for call, writes in METHODS.values() if writes]
        for call, writes in METHODS.values():
            if not writes:
                await call(kube)
        assert loop.time() == began
        await asyncio.gather(*calls)
        assert sent_at[::2] == [0.0, 1.0, 2.0, 3.0]

    run_in_fake_time(story())
