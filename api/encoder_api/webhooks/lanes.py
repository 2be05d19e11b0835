"""Decide which claimed delivery may start: so many at once, so many to one host. No threads."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

PAUSE_MIN_S: Final = 0.5
"""After the first attempt that finds a host unwell; doubled by each that follows."""
PAUSE_MAX_S: Final = 15.0  # what one that hangs takes: refusing fast gets no more attempts
REMEMBERED: Final = 10_000  # hosts that answered: one that is forgotten answers again
FORGET_S: Final = 120.0
"""So long after its pause a host that nothing was sent to begins anew. Longer than an attempt."""


class ToHost(Protocol):
    @property
    def host_hash(self) -> bytes: ...


D = TypeVar("D", bound=ToHost)


@dataclass(frozen=True, slots=True)
class _Pause:
    until: float
    length_s: float


class Lanes(Generic[D]):
    """
    One lane for each receiver's host, so that one that hangs holds up nobody else.

    A host has one attempt at once until it has answered, and again from the moment in which it is
    not well: without that a handful of dead hosts would take every thread. While it is not well
    it also rests between attempts, longer each time, until it answers.

    Nor do many hosts that hang: those that are not well have a quarter of the places among them,
    and with those that have not answered yet three quarters. The last quarter is for hosts that
    answer.
    """

    def __init__(self, *, total: int, per_host: int) -> None:
        self._total = total
        self._per_host = per_host
        self._for_unwell = max(1, total // 4)
        self._for_unproven = max(1, total - total // 4)
        self._waiting: deque[tuple[D, float]] = deque()
        self._running: Counter[bytes] = Counter()
        self._answering: dict[bytes, None] = {}  # a set that knows whose answer is the oldest
        self._pauses: dict[bytes, _Pause] = {}

    @property
    def running(self) -> int:
        return self._running.total()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def room(self, *, now: float) -> int:
        """How many more it makes sense to claim now. What rests takes nobody's place."""
        ready = sum(
            not self._rests(delivery.host_hash, now) and not self._is_kept_out(delivery.host_hash)
            for delivery, _ in self._waiting
        )
        return max(0, self._total - self.running - ready)

    def full_hosts(self, *, now: float) -> frozenset[bytes]:
        """Hosts for which nothing more should be claimed: it would only wait here."""
        waiting = {delivery.host_hash for delivery, _ in self._waiting}
        busy = {host for host, count in self._running.items() if count >= self._limit(host)}
        kept_out = self._unwell_is_full() or self._unproven_is_full()
        resting = {host for host in self._pauses if kept_out or self._rests(host, now)}
        return frozenset(waiting | busy | resting)

    def wanted(self, host_hash: bytes) -> int:
        """
        How many of a host's deliveries to claim now, when it is none of the full ones.

        For one that answers also those that start next: a claim costs more than a delivery.
        """
        if self._is_kept_out(host_hash):
            return 0
        limit = self._limit(host_hash)
        ahead = limit if host_hash in self._answering else 0
        return limit + ahead - self._running[host_hash]

    def add(self, delivery: D, *, start_by: float) -> None:
        """`start_by`: after that its lease would lapse under way, and another sender has it."""
        self._waiting.append((delivery, start_by))

    def take(self, *, now: float) -> D | None:
        """The next delivery that may start, counted as running from now on."""
        self._waiting = deque(item for item in self._waiting if item[1] > now)
        if self.running >= self._total:
            return None
        for item in self._waiting:
            host_hash = item[0].host_hash
            if self._rests(host_hash, now) or self._is_kept_out(host_hash):
                continue
            if self._running[host_hash] < self._limit(host_hash):
                self._waiting.remove(item)
                self._running[host_hash] += 1
                return item[0]
        return None

    def done(self, host_hash: bytes, *, well: bool, now: float) -> None:
        """An attempt is over. `well`: the host answered, whatever it said."""
        self._running[host_hash] -= 1
        self._running += Counter()  # drops the zeros, or the hosts of a lifetime would add up
        if well:
            self._answering.pop(host_hash, None)
            self._answering[host_hash] = None
            if len(self._answering) > REMEMBERED:
                del self._answering[next(iter(self._answering))]
            self._pauses.pop(host_hash, None)
        else:
            self._answering.pop(host_hash, None)
            self._pause(host_hash, now)

    def _pause(self, host_hash: bytes, now: float) -> None:
        if self._rests(host_hash, now):
            return  # this attempt began before the pause: several at once are one finding
        self._pauses = {
            host: pause for host, pause in self._pauses.items() if pause.until + FORGET_S > now
        }
        before = self._pauses.get(host_hash)
        length_s = PAUSE_MIN_S if before is None else min(2 * before.length_s, PAUSE_MAX_S)
        self._pauses[host_hash] = _Pause(now + length_s, length_s)

    def _rests(self, host_hash: bytes, now: float) -> bool:
        pause = self._pauses.get(host_hash)
        return pause is not None and now < pause.until

    def _is_kept_out(self, host_hash: bytes) -> bool:
        """Whether all places of its like are taken. One that answers has no such bound."""
        if host_hash in self._answering:
            return False
        return self._unproven_is_full() or (host_hash in self._pauses and self._unwell_is_full())

    def _unproven_is_full(self) -> bool:
        running = (n for host, n in self._running.items() if host not in self._answering)
        return sum(running) >= self._for_unproven

    def _unwell_is_full(self) -> bool:
        running = (n for host, n in self._running.items() if host in self._pauses)
        return sum(running) >= self._for_unwell

    def _limit(self, host_hash: bytes) -> int:
        return self._per_host if host_hash in self._answering else 1
