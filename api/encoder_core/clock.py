"""The time as an object, so that tests own it. The record's time is the database's."""

from __future__ import annotations

import time
from typing import Protocol

_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the former is Linux's


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds that only ever grow, also while the machine sleeps; for spans."""
        ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def monotonic(self) -> float:
        # CLOCK_MONOTONIC stands still while a laptop sleeps and leases run out.
        return time.clock_gettime(_STEADY)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
