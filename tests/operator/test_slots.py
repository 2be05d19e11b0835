"""Who gets the next slot: what starts or stops work, but nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from encoder_operator.slots import ORDINARY_TURN, Slots


class Calls:
    """Calls that end one after the other, in the order in which they got their slot."""

    def __init__(self, slots: Slots) -> None:
        self._slots, self._go = slots, asyncio.Semaphore(0)
        self.served: list[str] = []

    async def call(self, name: str, *, first: bool = False) -> None:
        async with self._slots.take(first=first):
            self.served.append(name)
            await self._go.acquire()

    def end(self, count: int = 1) -> None:
        for _ in range(count):
            self._go.release()


def run(story: Callable[[asyncio.TaskGroup], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        async with asyncio.TaskGroup() as group:
            await story(group)

    asyncio.run(all_of_it())


async def settle() -> None:
    for _ in range(200):  # steps of the event loop, more than these stories have
        await asyncio.sleep(0)


def test_no_more_than_so_many_are_under_way() -> None:
    async def story(group: asyncio.TaskGroup) -> None:
        calls = Calls(Slots(2))
        for name in "abc":
            group.create_task(calls.call(name))
        await settle()
        assert calls.served == ["a", "b"]
        calls.end()
        await settle()
        assert calls.served == ["a", "b", "c"]
        calls.end(2)

    run(story)


def test_what_starts_work_comes_before_what_waited_longer() -> None:
    async def story(group: asyncio.TaskGroup) -> None:
        calls = Calls(Slots(1))
        for name, first in (("at once", False), ("status", False), ("pod", True)):
            group.create_task(calls.call(name, first=first))
        await settle()
        calls.end(3)
        await settle()
        assert calls.served == ["at once", "pod", "status"]

    run(story)


def test_however_much_starts_the_others_get_their_turn() -> None:
    async def story(group: asyncio.TaskGroup) -> None:
        calls = Calls(Slots(1))
        for index in range(3 * ORDINARY_TURN):
            group.create_task(calls.call(f"pod {index}", first=True))
        for index in range(3):
            group.create_task(calls.call(f"status {index}"))
        await settle()
        calls.end(3 * ORDINARY_TURN + 3)
        await settle()
        order = [name.partition(" ")[0] for name in calls.served[1:]]
        assert order[: 2 * ORDINARY_TURN] == 2 * [*["pod"] * (ORDINARY_TURN - 1), "status"]

    run(story)


@pytest.mark.parametrize("moment", ["while it waits", "in the moment in which its turn comes"])
def test_who_is_cancelled_takes_no_slot_with_it(moment: str) -> None:
    async def story(group: asyncio.TaskGroup) -> None:
        calls = Calls(Slots(1))
        under_way = group.create_task(calls.call("a"))
        canceled = group.create_task(calls.call("b"))
        group.create_task(calls.call("c"))
        await settle()
        if moment == "while it waits":
            canceled.cancel()
            await settle()
            calls.end()
        else:
            calls.end()
            await under_way
            canceled.cancel()
        await settle()
        calls.end(2)
        await settle()
        assert "c" in calls.served

    run(story)
