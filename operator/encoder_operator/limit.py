"""Whether jobs wait because as many run in all pools together as the operator may run. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from encoder_db.pools import operator_full
from encoder_operator.poolstatus import Blocked


@dataclass(slots=True)
class Limit:
    most: int
    """Attempts that may be open in all pools together; 0 starts nothing."""
    _running: int | None = None
    """How many are, while others wait for that."""

    def note(self, *, in_pools: int, left: int, asked: int, taken: int, granted: int) -> None:
        """
        What came of a look for work, with so many places free in pools and `left` of the limit.

        It stays reached as long as whatever ends is followed at once by what waits: for somebody
        who looks now and then, it would otherwise come and go with each job.
        """
        if in_pools <= left:
            self._running = None  # it is the pools that are full
        elif granted >= left:
            self._running = self.most - left + granted
        elif taken < asked:
            self._running = None  # there was room for all that were due

    def reached(self) -> Blocked | None:
        if self.most > 0 and self._running is None:
            return None
        said = operator_full(running=self._running or 0, most=self.most)
        return Blocked("Ready", "OperatorFull", said, "limit")
