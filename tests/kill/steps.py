"""Count a process's steps through its database, and end it with SIGKILL at one of them."""

from __future__ import annotations

import os
import signal
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.pool import Pool


class Steps:
    """
    A step is every point at which what is in the database may differ: before each statement,
    before each commit, and after it, when the connection is given back.

    Counting begins with the first statement that contains `armed_by`. At step `kill_at` this very
    process dies, as the kernel's out-of-memory killer would end it.
    """

    def __init__(self, *, kill_at: int | None = None, armed_by: str = "") -> None:
        self.count = 0
        self._kill_at = kill_at
        self._armed_by = armed_by
        self._is_armed = False
        event.listen(Engine, "before_cursor_execute", self._statement)
        event.listen(Engine, "commit", self._step)
        event.listen(Pool, "checkin", self._step)

    def _statement(self, _: Any, __: Any, statement: str, *rest: Any) -> None:
        if self._armed_by in statement:
            self._is_armed = True
        self._step()

    def _step(self, *_: Any) -> None:
        if not self._is_armed:
            return
        self.count += 1
        if self.count == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
