"""Ask the database how it does, at most once a second for all probes together."""

from __future__ import annotations

import threading
from typing import Final

import anyio
from sqlalchemy.exc import SQLAlchemyError

from encoder_core.clock import Clock, SystemClock
from encoder_db.migrations import schema_version
from encoder_db.store import Store

BELIEVED_S: Final = 1.0


class DatabaseHealth:
    def __init__(self, store: Store, *, clock: Clock | None = None) -> None:
        self.places = anyio.CapacityLimiter(1)
        """For the threads that ask: requests that take all others must not look like an illness."""
        self._store = store
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._answer = ""
        self._asked_s = float("-inf")

    def ask(self) -> str:
        """`ok`, or in a word what is wrong. Waits for the database: call it in a thread."""
        with self._lock:
            if self._clock.monotonic() - self._asked_s >= BELIEVED_S:
                self._answer = self._ping()
                self._asked_s = self._clock.monotonic()
            return self._answer

    def _ping(self) -> str:
        try:
            with self._store.read() as tx:
                return "ok" if schema_version(tx) is not None else "without schema"
        except SQLAlchemyError:
            return "unreachable"
