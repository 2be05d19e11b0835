"""How fast the operator writes to the API server: at rest, at once, and after being told off."""

from __future__ import annotations

import asyncio

import pytest

from encoder_operator.budget import WriteBudget
from tests.operator.fake_time import run_in_fake_time


async def take(budget: WriteBudget, count: int) -> float:
    """The seconds that so many writes take."""
    loop = asyncio.get_running_loop()
    before = loop.time()
    for _ in range(count):
        await budget.take()
    return loop.time() - before


def a_budget(rate_per_s: float = 10, burst: int = 5) -> WriteBudget:
    return WriteBudget(rate_per_s, burst=burst, now=asyncio.get_running_loop().time)


def test_a_burst_passes_at_once_and_the_rest_at_the_rate() -> None:
    async def story() -> None:
        budget = a_budget()
        assert await take(budget, 5) == 0
        assert await take(budget, 20) == pytest.approx(2.0)
        assert budget.writes == 25

    run_in_fake_time(story())


def test_rest_fills_the_burst_and_no_more() -> None:
    async def story() -> None:
        budget = a_budget()
        await take(budget, 5)
        await asyncio.sleep(3600)
        assert await take(budget, 5) == 0
        assert await take(budget, 1) == pytest.approx(0.1)

    run_in_fake_time(story())


def test_writers_that_wait_at_once_are_held_for_the_time_that_passes_and_no_longer() -> None:
    async def story() -> None:
        budget = a_budget(burst=1)
        held = await asyncio.gather(*(budget.take() for _ in range(11)))
        assert sum(held) == pytest.approx(1.0)

    run_in_fake_time(story())


@pytest.mark.parametrize(
    ("retry_after_s", "wait_s"),
    [
        pytest.param(7.0, 7.0, id="as asked"),
        pytest.param(None, 1.0, id="a second, unasked"),
        pytest.param(1e9, 60.0, id="a minute at most"),
    ],
)
def test_a_429_holds_every_write(retry_after_s: float | None, wait_s: float) -> None:
    async def story() -> None:
        budget = a_budget()
        budget.throttled(retry_after_s)
        assert await take(budget, 1) == pytest.approx(wait_s)

    run_in_fake_time(story())


def test_a_429_halves_the_rate_and_writes_that_pass_give_it_back() -> None:
    async def story() -> None:
        budget = a_budget(burst=1)
        await take(budget, 1)
        budget.throttled(1.0)
        slow = await take(budget, 10)
        assert slow > 1.5
        await take(budget, 50)
        assert await take(budget, 10) == pytest.approx(1.0)

    run_in_fake_time(story())


def test_however_often_it_is_told_off_it_goes_on() -> None:
    async def story() -> None:
        budget = a_budget(burst=1)
        for _ in range(100):
            budget.throttled(0.1)
        assert await take(budget, 2) < 3

    run_in_fake_time(story())


def test_writers_pass_in_the_order_in_which_they_asked() -> None:
    async def story() -> None:
        budget, passed = a_budget(burst=1), []

        async def write(number: int) -> None:
            await budget.take()
            passed.append(number)

        await asyncio.gather(*(write(number) for number in range(5)))
        assert passed == [0, 1, 2, 3, 4]

    run_in_fake_time(story())
