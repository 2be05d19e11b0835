"""Count the steps of some work through its database, and strike at one of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, Self

from sqlalchemy import Engine, event
from sqlalchemy.pool import Pool


def die() -> None:
    """As the kernel's out-of-memory killer would end this very process."""
    os.kill(os.getpid(), signal.SIGKILL)


class Steps:
    """
    A step is every point at which what is in the database may differ: before each statement,
    before each commit, and after it, when the connection is given back.

    Counting begins with the first statement that contains `armed_by`. At step `kill_at` comes
    `strike`: by default this very process dies. `names` says what each step was; `phase` is what
    the work calls that part of it.
    """

    def __init__(
        self, *, kill_at: int | None = None, armed_by: str = "", strike: Callable[[], None] = die
    ) -> None:
        self.names: list[str] = []
        self.phase = ""
        self._kill_at = kill_at
        self._armed_by = armed_by
        self._strike = strike
        self._is_armed = False
        self._ways: tuple[tuple[Any, str, Callable[..., None]], ...] = (
            (Engine, "before_cursor_execute", self._statement),
            (Engine, "commit", self._commit),
            (Pool, "checkin", self._given_back),
        )
        for way in self._ways:
            event.listen(*way)

    @property
    def count(self) -> int:
        return len(self.names)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for way in self._ways:
            event.remove(*way)

    def _statement(self, _: Any, __: Any, statement: str, *rest: Any) -> None:
        if self._armed_by in statement:
            self._is_armed = True
        self._step(f"before {_shortened(statement)}")

    def _commit(self, *_: Any) -> None:
        self._step("before its commit")

    def _given_back(self, *_: Any) -> None:
        self._step("after it")

    def _step(self, name: str) -> None:
        if not self._is_armed:
            return
        self.names.append(f"{self.phase}: {name}" if self.phase else name)
        if self.count == self._kill_at:
            self._strike()


def _shortened(statement: str) -> str:
    """`SELECT jobs`, `UPDATE queue_jobs`: the verb and the table."""
    words = statement.split()
    after = {"SELECT": "FROM", "INSERT": "INTO", "DELETE": "FROM", "UPDATE": "UPDATE"}
    place = words.index(after[words[0]]) + 1 if after.get(words[0]) in words else None
    return words[0] if place is None or place >= len(words) else f"{words[0]} {words[place]}"
