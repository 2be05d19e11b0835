"""So many calls at once; of those that wait for a slot, what starts or stops work goes first."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

ORDINARY_TURN: Final = 3  # every third slot that is given goes to an ordinary call, if one waits


class Slots:
    """
    `count` slots. Each class is served in the order in which it asked.

    Neither class waits for ever: while both wait, ordinary calls get one slot in ORDINARY_TURN.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._first: deque[asyncio.Future[None]] = deque()
        self._ordinary: deque[asyncio.Future[None]] = deque()
        self._given = 0

    @asynccontextmanager
    async def take(self, *, first: bool) -> AsyncIterator[None]:
        await self._wait(self._first if first else self._ordinary)
        try:
            yield
        finally:
            self._give()

    async def _wait(self, line: deque[asyncio.Future[None]]) -> None:
        if self._free > 0:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # given in the same moment: pass it on
                self._give()
            raise

    def _give(self) -> None:
        """To who waits, without letting go of it: nobody who asks meanwhile comes before."""
        self._given += 1
        lines = (self._first, self._ordinary)
        for line in lines if self._given % ORDINARY_TURN else reversed(lines):
            while line:
                turn = line.popleft()
                if not turn.done():  # whoever was cancelled is still in line
                    turn.set_result(None)
                    return
        self._free += 1
