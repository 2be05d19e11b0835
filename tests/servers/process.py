"""One server process: started behind the guard, asked until it answers, stopped, its log kept."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.servers import guard

POLL_S = 0.02  # another process says by no other means that it listens; 20 ms is not noticed
READY_S = 60.0  # cold disks and two busy cores; an ordinary start takes under 2 s
LOG_TAIL_LINES = 30


class ServerFailed(Exception):
    """A test server did not start. Carries the end of its log."""


def free_port() -> int:
    """
    A TCP port of loopback that nobody holds now.

    Somebody may take it before the server does. The kernel hands out ephemeral ports in no order
    among some 28,000, so that has to be bad luck, and the server then fails to start, loudly.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServerProcess:
    """A command that runs as long as the `with` block, or as long as this process lives."""

    def __init__(
        self, argv: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.argv = [str(argument) for argument in argv]
        self.log = log
        self._env = {**os.environ, **(env or {})}

    def __enter__(self) -> ServerProcess:
        with self.log.open("ab") as log:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, *self.argv],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._env,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait(guard.GRACE_S + 5)

    def wait_until(self, ready: Callable[[], bool], *, timeout_s: float = READY_S) -> None:
        """Ask `ready` until it is true. An OSError of it counts as a no."""
        deadline = time.monotonic() + timeout_s
        while not _answers(ready):
            if self._guard.poll() is not None:
                raise ServerFailed(
                    f"{self.argv[0]} ended with {self._guard.returncode}:\n{self.log_tail()}"
                )
            if time.monotonic() > deadline:
                raise ServerFailed(
                    f"{self.argv[0]} was not ready in {timeout_s:.0f} s:\n{self.log_tail()}"
                )
            time.sleep(POLL_S)

    def log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])


def _answers(ready: Callable[[], bool]) -> bool:
    try:
        return ready()
    except OSError:
        return False


def listening(port: int, host: str = "127.0.0.1") -> bool:
    with socket.create_connection((host, port), timeout=1):
        return True
