"""
What can end an attempt from outside, and whether it may publish now.

Whoever learns that the attempt has to end calls `stop` from its own thread. The main thread, which
does all the work, gets `Stopped` raised wherever it is, also in the middle of a read or a write, so
that uploads are aborted and children killed by the same `finally` that ends any other failure.
"""

from __future__ import annotations

import os
import signal
import threading
from enum import Enum
from types import FrameType
from typing import Final

from encoder_core.clock import Clock
from encoder_core.exits import Exit

UNWIND_S: Final = 10.0  # aborting an upload takes a request or two; then the process just ends


class Why(Enum):
    """Why an attempt ends before its work does; the value is the failure's code."""

    INTERRUPTED = "worker_interrupted"  #: SIGTERM.
    CANCELED = "canceled"  #: The record says that the job is being canceled.
    FENCED = "worker_lost"  #: Another attempt is current, or the parent is gone.
    DEADLINE = "deadline_exceeded"  #: The attempt took too long.

    @property
    def exit(self) -> Exit:
        return _EXITS[self]


_EXITS: Final = {
    Why.INTERRUPTED: Exit.INTERRUPTED,
    Why.CANCELED: Exit.CANCELED,
    Why.FENCED: Exit.FENCED,
    Why.DEADLINE: Exit.DEADLINE,
}


class Stopped(BaseException):
    """Raised in the main thread. No Exception, so that no retry takes it for a fault."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.value)
        self.why = why


class Control:
    """One attempt's end and its publish lease."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._why: Why | None = None
        self._raised = False
        self._lease = threading.Condition()
        self._lease_until = float("-inf")

    def install(self) -> None:
        """Take over the signals. Must be called from the main thread."""
        signal.signal(signal.SIGTERM, self._on_terminate)
        signal.signal(signal.SIGINT, self._on_terminate)
        signal.signal(signal.SIGUSR1, self._on_stop)

    def stop(self, why: Why) -> None:
        """End the attempt; the first reason counts. From any thread but the main one."""
        if self._why is not None or self._raised:
            return
        self._why = why
        self._end_anyway_later()
        os.kill(os.getpid(), signal.SIGUSR1)

    def finish(self) -> None:
        """The work is over: nothing may interrupt the last words any more."""
        self._raised = True

    @property
    def why(self) -> Why | None:
        return self._why

    def _on_terminate(self, _number: int, _frame: FrameType | None) -> None:
        if self._raised:
            return
        if self._why is None:
            self._why = Why.INTERRUPTED
            self._end_anyway_later()
        self._raise()

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._raise()

    def _raise(self) -> None:
        if self._raised or self._why is None:
            return
        self._raised = True
        raise Stopped(self._why)

    def _end_anyway_later(self) -> None:
        """A call that never returns must not keep a dead attempt alive."""
        timer = threading.Timer(UNWIND_S, self._end_now)
        timer.daemon = True
        timer.start()

    def _end_now(self) -> None:
        assert self._why is not None
        os._exit(self._why.exit)

    # --- The publish lease -------------------------------------------------------------------

    def renew_lease(self, until: float) -> None:
        """`until` is on the monotonic clock, counted from when the report was sent."""
        with self._lease:
            self._lease_until = max(self._lease_until, until)
            self._lease.notify_all()

    def wait_for_lease(self) -> None:
        """Return once this attempt may publish. A lost node's worker waits here for good."""
        with self._lease:
            while self._lease_until <= self._clock.monotonic():
                self._lease.wait(timeout=1.0)
