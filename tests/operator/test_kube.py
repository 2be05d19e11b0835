"""How much the operator asks of an API server at once."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from encoder_operator.kube import PODS, Kube, KubeError
from tests.operator.fake_api import FakeApi, refusal

AT_ONCE = 3


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
