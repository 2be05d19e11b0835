"""How many requests one API key may make: a token bucket each, in this process alone."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Final

from encoder_api.problems import Problem
from encoder_core.clock import Clock, SystemClock

BURST_S: Final = 2.0  # so many seconds' worth may come at once
MAX_BUCKETS: Final = 10_000  # a full bucket need not be remembered


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a key has left, as the headers say it (RateLimit, of the IETF's httpapi group)."""

    quota: int
    window_s: int
    remaining: int
    wait_s: float
    """Until the next request is granted; 0 when this one was."""

    @property
    def headers(self) -> dict[str, str]:
        reset_s = math.ceil(self.wait_s) if self.wait_s else self.window_s
        return {
            "RateLimit-Policy": f'"key";q={self.quota};w={self.window_s}',
            "RateLimit": f'"key";r={self.remaining};t={reset_s}',
        }


class RateLimiter:
    def __init__(self, per_s: float, *, clock: Clock | None = None) -> None:
        """`per_s` 0 limits nobody."""
        self._per_s = per_s
        self._burst = max(1.0, per_s * BURST_S)
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}
        """Tokens left, and when that was."""

    def take(self, key: str) -> Allowance | None:
        """Count a request of this key. None: there is no limit for it."""
        if not self._per_s or not key:
            return None
        now = self._clock.monotonic()
        with self._lock:
            if len(self._buckets) >= MAX_BUCKETS:
                self._forget_full(now)
            tokens, since = self._buckets.get(key, (self._burst, now))
            tokens = min(self._burst, tokens + (now - since) * self._per_s)
            granted = tokens >= 1
            tokens -= granted
            self._buckets[key] = (tokens, now)
        return Allowance(
            quota=math.floor(self._burst),
            window_s=math.ceil(self._burst / self._per_s),
            remaining=math.floor(tokens),
            wait_s=0.0 if granted else (1 - tokens) / self._per_s,
        )

    def _forget_full(self, now: float) -> None:
        self._buckets = {
            key: (tokens, since)
            for key, (tokens, since) in self._buckets.items()
            if tokens + (now - since) * self._per_s < self._burst
        }


def refuse(allowance: Allowance) -> Problem:
    retry_s = max(1, math.ceil(allowance.wait_s))
    return Problem(
        "too_many_requests",
        f"This API key may make {allowance.quota} requests in {allowance.window_s} s; wait "
        f"{retry_s} s.",
        headers={"Retry-After": str(retry_s)},
    )
