"""Failures of the far side in one vocabulary, and the one way to try again what may pass."""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import StrEnum
from typing import Final, TypeVar

from encoder_core.clock import Clock
from encoder_core.errors import JobError
from encoder_core.retry_after import read_retry_after

T = TypeVar("T")

TRIES: Final = 4
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 8.0
LONGEST_ASKED_S: Final = 30.0
"""A server that asks for more patience than this gets another attempt of the job, not a worker
that sleeps."""


class Side(StrEnum):
    """Which end of the job a failure is about; begins its code and its sentence."""

    SOURCE = "source"
    DESTINATION = "destination"

    def fail(self, what: str, message: str, *, retry_after_s: float | None = None) -> JobError:
        return JobError(f"{self.value}_{what}", message, retry_after_s=retry_after_s)


class RangeIgnored(JobError):
    """
    The server sends all of a source where it was asked for a part, though it had sent parts before.

    The same request may reach a machine that knows better; the source can be had from its first
    byte in any case.
    """

    def __init__(self, host: str) -> None:
        super().__init__("source_unreachable", f"{host} does not go on where it stopped.")


def failure_of_status(
    side: Side, host: str, status: int, *, reason: str = "", retry_after: str | None = None
) -> JobError:
    """What an HTTP status of a source or destination means for the job."""
    said = f"{host} answered {status}{f' ({reason})' if reason else ''}"
    if status in (404, 410):
        return side.fail("not_found", f"{said}: the {side.value} does not exist.")
    if status in (401, 403, 407):
        return side.fail("denied", f"{said}: access to the {side.value} was refused.")
    if status == 507 and side is Side.DESTINATION:
        return side.fail("full", f"{said}: there is no room.")
    if status in (408, 425, 429) or status >= 500:
        wait_s = read_retry_after(retry_after)
        return side.fail("unreachable", f"{said} for the {side.value}.", retry_after_s=wait_s)
    return side.fail("rejected", f"{said} for the {side.value}.")


def is_transient(error: JobError) -> bool:
    """Whether the same request may succeed in a moment."""
    return error.code in ("source_unreachable", "destination_unreachable")


class Retries:
    """
    How often one thing is tried, and how long it waits in between.

    Pauses grow with full jitter, so that workers which failed together do not come back together;
    a pause that the server asked for is kept as it is.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        tries: int = TRIES,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`draw` gives a number between two, at random."""
        self._clock = clock
        self._draw = draw
        self._tries = tries
        self._failed = 0

    def wait(self, error: JobError, *, got_on: bool = False) -> None:
        """
        Return when it is time to try again; raise `error` when that was the last try, or when the
        server asks for more patience than we have. Whatever `got_on` before it failed starts anew.
        """
        self._failed = 1 if got_on else self._failed + 1
        asked = error.retry_after_s
        if self._failed >= self._tries or (asked is not None and asked > LONGEST_ASKED_S):
            raise error
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self._failed - 1))
        self._clock.sleep(asked if asked is not None else self._draw(0, longest))


def with_retries(operation: Callable[[], T], *, clock: Clock, tries: int = TRIES) -> T:
    """Call `operation` until it succeeds, fails for good or `tries` are used up."""
    retries = Retries(clock, tries=tries)
    while True:
        try:
            return operation()
        except JobError as error:
            if not is_transient(error):
                raise
            retries.wait(error)
