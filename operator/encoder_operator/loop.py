"""A deduplicating queue of keys and the workers that reconcile them, one key at a time each."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

log = logging.getLogger("encoder.operator.loop")

BACKOFF_FIRST_S: Final = 0.5
BACKOFF_LONGEST_S: Final = 60.0
FIRST: Final = 0
ORDINARY: Final = 1


@dataclass(slots=True)
class _Key:
    busy: bool = False
    again: bool = False
    """Woken while it was worked on: what was observed may be stale."""
    first: bool = False
    """Somebody waits for the next look: it comes before those that nobody waits for."""
    failures: int = 0
    timer: asyncio.TimerHandle | None = None
    woken_at: float = 0.0


Reconcile = Callable[[str], Awaitable[float | None]]
"""Bring one key closer to what it should be; the seconds after which to look again, if any."""


Measure = Callable[[float, float, bool], None]
"""How long a key waited to be looked at, how long the look took, and whether it went well."""


class Loop:
    """
    Calls `reconcile(key)` for every key that was woken, never twice at once for the same key.

    A key that raises is tried again with exponential back-off; waking it does not shorten that
    for errors of the same streak, so that a broken job cannot take the place of the others.
    """

    def __init__(
        self,
        reconcile: Reconcile,
        *,
        workers: int,
        measure: Measure = lambda *_: None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`jitter` gives numbers in [0, 1): what fails together is not tried again together."""
        self._jitter = jitter
        self._measure = measure
        self._reconcile = reconcile
        self._workers = workers
        self._queue: asyncio.PriorityQueue[tuple[int, int, str]] = asyncio.PriorityQueue()
        self._order = itertools.count()
        self._queued: dict[str, int] = {}
        self._keys: dict[str, _Key] = {}

    def wake(self, key: str, *, first: bool = False) -> None:
        """
        Look at this key soon. To be called on the event loop's thread.

        `first`: before all ordinary ones. Only for what is rare, or it would be all that is done.
        """
        state = self._keys.setdefault(key, _Key())
        state.first = state.first or first
        if state.busy:
            state.again = True
        elif state.failures == 0 or state.timer is None:
            self._put(key)

    def wake_later(self, key: str, after_s: float) -> None:
        state = self._keys.setdefault(key, _Key())
        if state.timer is not None:
            state.timer.cancel()
        state.timer = asyncio.get_running_loop().call_later(after_s, self._fire, key)

    @property
    def known(self) -> int:
        """Keys that are waited for, worked on, or to be looked at later."""
        return len(self._keys)

    @property
    def depth(self) -> int:
        return len(self._queued)

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    def _fire(self, key: str) -> None:
        state = self._keys.get(key)
        if state is None:
            return
        state.timer = None
        if state.busy:
            state.again = True
        else:
            self._put(key)

    def _put(self, key: str) -> None:
        state = self._keys.setdefault(key, _Key())
        rank = FIRST if state.first else ORDINARY
        known = self._queued.get(key)
        if known is not None and known <= rank:
            return
        if known is None:
            state.woken_at = time.monotonic()
        self._queued[key] = rank
        self._queue.put_nowait((rank, next(self._order), key))

    async def _work(self) -> None:
        while True:
            rank, _, key = await self._queue.get()
            if self._queued.get(key) != rank:
                continue  # it has been looked at since: it was asked to come first
            del self._queued[key]
            state = self._keys.setdefault(key, _Key())
            if state.busy:
                state.again = True
                continue
            state.busy, state.first = True, False
            began, well = time.monotonic(), False
            waited_s = began - state.woken_at
            try:
                after_s = await self._reconcile(key)
                well = True
            except Exception as error:  # one broken job must not end the loop of all the others
                delay_s = min(BACKOFF_FIRST_S * 2**state.failures, BACKOFF_LONGEST_S)
                delay_s *= 1 + self._jitter() / 2
                state.failures = min(state.failures + 1, 20)
                state.busy = state.again = False
                log.warning(
                    "reconcile_failed",
                    extra={"key": key, "error": str(error)[:500], "retry_s": delay_s},
                )
                self.wake_later(key, delay_s)
                continue
            finally:
                self._measure(waited_s, time.monotonic() - began, well)
            state.busy, state.failures = False, 0
            if state.again or after_s == 0:
                state.again = False
                self._put(key)
            elif after_s is not None:
                self.wake_later(key, after_s)
            elif state.timer is None:
                del self._keys[key]  # nothing to remember: every job that ever was has a key
