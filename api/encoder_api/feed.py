"""
Tell streams that something happened to their job: one look at the outbox for all of them.

A stream waits for its bell and then reads its job's events itself, so a slow reader holds up
nobody and costs no memory. While nobody listens, nobody asks the database.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from encoder_api.problems import Problem
from encoder_core.clock import Clock, SystemClock
from encoder_db.events import changes_since, last_event_row
from encoder_db.store import Store

log = logging.getLogger("encoder.api")

POLL_S: Final = 0.5
STREAMS_PER_KEY: Final = 100  # a forgotten loop must not take every connection there is
GAP_S: Final = 15.0  # a transaction that is this late was rolled back
MAX_GAPS: Final = 1_000


class Bell:
    """Rings in the event loop of the stream that waits for it, from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()

    def ring(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._rung.set)
        except RuntimeError:  # its loop has ended, and the stream with it
            log.debug("stream_gone")

    async def wait(self, timeout_s: float) -> bool:
        """Whether it rang. Rings that came before count."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        return True


@dataclass(slots=True)
class Place:
    """
    How far the outbox has been read.

    Rows become visible in another order than they were numbered in: numbers that were passed over
    are asked for again until they come or are too old to come.
    """

    last: int
    gaps: dict[int, float] = field(default_factory=dict)
    """Numbers that are missing, and since when."""

    def note(self, seen: Sequence[int], *, now_s: float) -> None:
        for number in sorted(seen):
            if number <= self.last:
                self.gaps.pop(number, None)
                continue
            for missing in range(max(self.last + 1, number - MAX_GAPS), number):
                self.gaps[missing] = now_s
            self.last = number
        overdue = [number for number, since in self.gaps.items() if now_s - since > GAP_S]
        surplus = sorted(self.gaps)[: max(0, len(self.gaps) - MAX_GAPS)]
        for number in {*overdue, *surplus}:
            del self.gaps[number]


class Feed:
    """One thread that looks, for as long as somebody listens."""

    def __init__(self, store: Store, *, clock: Clock | None = None) -> None:
        self._store = store
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._bells: dict[int, set[Bell]] = defaultdict(set)
        self._streams: Counter[str] = Counter()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self.closed = threading.Event()
        """Set when the service stops: streams say goodbye."""

    @contextmanager
    def listen(self, job_id: int, *, who: str) -> Iterator[Bell]:
        """A bell that rings when the job changes. Raises Problem (429) for one stream too many."""
        bell = Bell()
        with self._lock:
            if self._streams[who] >= STREAMS_PER_KEY:
                raise Problem(
                    "too_many_requests",
                    f"{STREAMS_PER_KEY} streams are open already; close some, or ask for events "
                    "without streaming.",
                    headers={"Retry-After": "10"},
                )
            self._streams[who] += 1
            self._bells[job_id].add(bell)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
                self._thread.start()
        try:
            yield bell
        finally:
            with self._lock:
                self._streams[who] -= 1
                self._bells[job_id].discard(bell)
                if not self._bells[job_id]:
                    del self._bells[job_id]
                if not self._bells:
                    self._wake.set()

    @property
    def streams(self) -> int:
        with self._lock:
            return sum(self._streams.values())

    def close(self) -> None:
        """Let every stream end. For the stop of the service."""
        self.closed.set()
        self._ring(None)
        self._wake.set()

    def _run(self) -> None:
        place: Place | None = None
        while True:
            with self._lock:
                if not self._bells or self.closed.is_set():
                    self._thread = None
                    self._wake.clear()
                    return
            try:
                place = self._look(place)
            except SQLAlchemyError as error:
                log.warning("feed_waits_for_database", extra={"error": type(error).__name__})
                place = None  # what was missed is found by a ring for all, below
            self._wake.wait(POLL_S)

    def _look(self, place: Place | None) -> Place:
        with self._store.read() as tx:
            if place is None:
                place = Place(last_event_row(tx))
                changed: list[tuple[int, int]] = []
                started = True
            else:
                changed = changes_since(tx, place.last, besides=sorted(place.gaps))
                started = False
        place.note([row for row, _ in changed], now_s=self._clock.monotonic())
        # The first look is later than the streams' own: each asks once more.
        self._ring(None if started else {job_id for _, job_id in changed})
        return place

    def _ring(self, job_ids: set[int] | None) -> None:
        with self._lock:
            wanted = set(self._bells) if job_ids is None else job_ids & set(self._bells)
            bells = [bell for job_id in wanted for bell in self._bells[job_id]]
        for bell in bells:
            bell.ring()
