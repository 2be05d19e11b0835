"""
Which keys are looked at, and when.

Aspects: deduplication, one at a time for a key, woken while busy, looking again later, back-off
after errors, what is remembered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from encoder_operator.loop import Loop
from tests.operator.fake_time import run_in_fake_time

HOUR_S = 3600.0


class Script:
    """Reconciles as told, and notes when it was asked."""

    def __init__(self, *answers: float | Exception | None, takes_s: float = 0.0) -> None:
        self._answers = list(answers)
        self._takes_s = takes_s
        self.calls: list[tuple[float, str]] = []
        self.running: set[str] = set()
        self.most_at_once = 0

    async def __call__(self, key: str) -> float | None:
        assert key not in self.running
        self.calls.append((round(asyncio.get_running_loop().time(), 6), key))
        self.running.add(key)
        self.most_at_once = max(self.most_at_once, len(self.running))
        await asyncio.sleep(self._takes_s)
        self.running.remove(key)
        answer = self._answers.pop(0) if self._answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


def run_with(
    script: Script,
    story: Callable[[Loop], Awaitable[None]],
    *,
    workers: int = 2,
    jitter: float = 0,
) -> list[tuple[float, str]]:
    """The calls, in an hour from the beginning of the story."""

    async def tell() -> None:
        loop = Loop(script, workers=workers, jitter=lambda: jitter)
        work = asyncio.create_task(loop.run())
        await story(loop)
        await asyncio.sleep(HOUR_S)
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work

    run_in_fake_time(tell())
    return script.calls


def wake(*keys: str) -> Callable[[Loop], Awaitable[None]]:
    async def story(loop: Loop) -> None:
        for key in keys:
            loop.wake(key)

    return story


def times(calls: Sequence[tuple[float, str]]) -> list[float]:
    return [at for at, _ in calls]


def test_a_key_that_is_woken_often_is_looked_at_once() -> None:
    assert run_with(Script(), wake("a", "a", "b", "a")) == [(0, "a"), (0, "b")]


def test_the_depth_counts_waiting_keys_once() -> None:
    async def story() -> None:
        loop = Loop(Script(), workers=1)
        for key in ("a", "b", "a"):
            loop.wake(key)
        assert loop.depth == 2

    run_in_fake_time(story())


def test_as_many_keys_at_once_as_there_are_workers() -> None:
    script = Script(takes_s=1)
    calls = run_with(script, wake("a", "b", "c"), workers=2)
    assert calls == [(0, "a"), (0, "b"), (1, "c")]
    assert script.most_at_once == 2


def test_what_somebody_waits_for_comes_before_the_others() -> None:
    async def story(loop: Loop) -> None:
        for key in ("a", "b", "c"):
            loop.wake(key)
        loop.wake("d", first=True)
        loop.wake("c", first=True)

    calls = run_with(Script(), story, workers=1)
    assert [key for _, key in calls] == ["d", "c", "a", "b"]


def test_it_comes_first_also_when_it_was_being_looked_at() -> None:
    async def story(loop: Loop) -> None:
        for key in ("a", "b", "c"):
            loop.wake(key)
        await asyncio.sleep(0.5)
        loop.wake("a", first=True)

    calls = run_with(Script(takes_s=1), story, workers=1)
    assert [key for _, key in calls] == ["a", "a", "b", "c"]


def test_it_comes_first_once() -> None:
    async def story(loop: Loop) -> None:
        loop.wake("a", first=True)
        await asyncio.sleep(0.5)
        for key in ("b", "a"):
            loop.wake(key)

    calls = run_with(Script(takes_s=1), story, workers=1)
    assert [key for _, key in calls] == ["a", "b", "a"]


def test_woken_while_busy_it_is_looked_at_again_once() -> None:
    async def story(loop: Loop) -> None:
        loop.wake("a")
        await asyncio.sleep(0.5)
        for _ in range(3):
            loop.wake("a")

    assert times(run_with(Script(takes_s=1), story)) == [0, 1]


def test_what_asks_to_be_looked_at_again_is() -> None:
    assert times(run_with(Script(0, 5, None), wake("a"))) == [0, 0, 5]


def test_a_wake_comes_before_a_later_look() -> None:
    async def story(loop: Loop) -> None:
        loop.wake("a")
        await asyncio.sleep(10)
        loop.wake("a")

    assert times(run_with(Script(60, 60, None), story)) == [0, 10, 70]


def test_errors_are_tried_again_ever_more_slowly_and_never_slower_than_a_minute() -> None:
    assert times(run_with(Script(*[OSError("no")] * 10), wake("a"))) == [
        *(0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 63.5, 123.5, 183.5, 243.5)
    ]


def test_what_fails_together_is_not_tried_again_together() -> None:
    """Stretched by up to half, at random."""
    no = [OSError("no")] * 3
    assert times(run_with(Script(*no), wake("a"), jitter=0.5)) == [0, 0.625, 1.875, 4.375]


def test_waking_a_key_that_fails_does_not_shorten_its_wait() -> None:
    async def story(loop: Loop) -> None:
        loop.wake("a")
        for _ in range(10):
            await asyncio.sleep(0.1)
            loop.wake("a")

    assert times(run_with(Script(OSError("no"), OSError("no")), story)) == [0, 0.5, 1.5]


def test_a_wake_while_it_fails_does_not_shorten_its_wait_either() -> None:
    async def story(loop: Loop) -> None:
        loop.wake("a")
        await asyncio.sleep(0.5)
        loop.wake("a")

    assert times(run_with(Script(OSError("no"), takes_s=1), story)) == [0, 1.5]


def test_a_success_ends_the_streak() -> None:
    no = OSError("no")

    async def story(loop: Loop) -> None:
        loop.wake("a")
        await asyncio.sleep(100)
        loop.wake("a")

    assert times(run_with(Script(no, no, None, no), story)) == [0, 0.5, 1.5, 100, 100.5]


def test_one_broken_key_holds_up_no_other() -> None:
    async def story(loop: Loop) -> None:
        loop.wake("broken")
        await asyncio.sleep(0.2)
        loop.wake("a")

    assert run_with(Script(OSError("no")), story, workers=1)[1] == (0.2, "a")


def test_a_key_that_needs_nothing_takes_no_room() -> None:
    async def story(loop: Loop) -> None:
        for number in range(100):
            loop.wake(f"job-{number}")
        await asyncio.sleep(1)
        assert loop.known == 1  # the one that wants to be looked at later

    run_with(Script(60), story)
