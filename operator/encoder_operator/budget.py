"""A token bucket over all writes to the API server: polite at rest, slower when told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

LONGEST_ASKED_S: Final = 60.0  # an API server that asks for an hour is asked again all the same
ROUNDING: Final = 1e-9  # of a token: a wait for less would not even move the clock


class WriteBudget:
    """
    `rate_per_s` writes a second, `burst` at once.

    A 429 halves the rate; every write that passes afterwards gives back a little, so that the
    full rate is reached again after about as many writes as it was lost by.
    """

    def __init__(self, rate_per_s: float, *, burst: int, now: Callable[[], float]) -> None:
        self._full_rate = rate_per_s
        self._rate = rate_per_s
        self._burst = float(burst)
        self._tokens = float(burst)
        self._now = now
        self._at = now()
        self._not_before = 0.0
        self._lock = asyncio.Lock()
        self.writes = 0

    async def take(self) -> float:
        """The seconds that this write was held, without those that it stood behind others."""
        held_s = 0.0
        async with self._lock:  # also keeps the order in which writers asked
            while (wait_s := self._wait_s()) > 0:
                held_s += wait_s
                await asyncio.sleep(wait_s)
            self._tokens -= 1
            self.writes += 1
            self._rate = min(self._full_rate, self._rate + self._full_rate * 0.02)
        return held_s

    @property
    def is_throttled(self) -> bool:
        """Whether the API server's wish for fewer writes is still obeyed."""
        return self._rate < self._full_rate or self._now() < self._not_before

    def throttled(self, retry_after_s: float | None) -> None:
        """The API server answered 429. It is obeyed for LONGEST_ASKED_S at most."""
        self._rate = max(self._full_rate / 16, self._rate / 2)
        pause_s = min(retry_after_s or 1.0, LONGEST_ASKED_S)
        self._not_before = max(self._not_before, self._now() + pause_s)

    def _wait_s(self) -> float:
        now = self._now()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if now < self._not_before:
            return self._not_before - now
        missing = 1 - self._tokens
        return 0.0 if missing < ROUNDING else missing / self._rate
