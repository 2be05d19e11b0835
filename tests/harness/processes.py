"""The servers of one cluster as processes: started, killed, started again, all ended together."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.harness.addresses import Addresses
from tests.harness.undertaker import LEAVE
from tests.servers.process import LOG_TAIL_LINES, ServerFailed

REPOSITORY = Path(__file__).parents[2]
READY_S = 240.0  # a node on two cores that somebody else uses too; 8 s when idle
POLL_S = 0.1  # asking costs a TLS handshake, of the CPU that the servers need to start
# It joins its control group before it becomes the server: no child of it can be outside.
JOIN_GROUP = ("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"')


class Process:
    """One server. It runs from its making on."""

    def __init__(self, name: str, argv: Sequence[str], log: Path, owner: Processes) -> None:
        self.name = name
        self.argv = list(argv)
        self.log = log
        self._owner = owner
        self._started: subprocess.Popen[bytes]
        self.start()

    @property
    def pid(self) -> int:
        return self._started.pid

    def start(self) -> None:
        """Run it, again after `kill`, with the same arguments."""
        with self.log.open("ab") as log:
            self._started = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests, which then end the servers
            )
        self._owner.remember(self._started.pid)

    def kill(self) -> None:
        """End it at once, and only it: what it started lives on."""
        self._started.kill()
        self._started.wait()

    def reap(self) -> None:
        self._started.wait()

    def wait_until(self, ready: Callable[[], bool], *, timeout_s: float = READY_S) -> None:
        """Ask `ready` until it is true. An OSError of it counts as a no."""
        deadline = time.monotonic() + timeout_s
        while not _answers(ready):
            if self._started.poll() is not None:
                code = self._started.returncode
                raise ServerFailed(f"{self.name} ended with {code}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ServerFailed(
                    f"{self.name} was not ready in {timeout_s:.0f} s:\n{self.log_tail()}"
                )
            time.sleep(POLL_S)

    def log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])


class Processes:
    """
    All servers of a cluster. When this process ends, however it does, the undertaker ends them.

    `lock` is an open file that stays locked until the undertaker has finished.
    """

    def __init__(self, folder: Path, addresses: Addresses | None, lock: int | None = None) -> None:
        self._logs = folder / "log"
        self._logs.mkdir()
        self._all: list[Process] = []
        self._left = False
        self._undertaker = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.harness.undertaker", str(folder)),
                *([str(addresses.number)] if addresses is not None else []),
            ],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            pass_fds=[] if lock is None else [lock],
        )

    def start(self, name: str, *argv: str | Path, group: Path | None = None) -> Process:
        """Run a server, in the control group when one is given."""
        wrapper = [] if group is None else [*JOIN_GROUP, str(group)]
        command = [*wrapper, *(str(argument) for argument in argv)]
        process = Process(name, command, self._logs / f"{name}.log", self)
        self._all.append(process)
        return process

    def remember(self, pid: int) -> None:
        self._tell(str(pid))

    def leave(self) -> None:
        """Let everything run on when this process ends: `close` then does nothing."""
        self._tell(LEAVE)
        self._undertaker.communicate()
        self._left = True

    def close(self) -> None:
        """End every server and remove every trace. Raises when something is left."""
        if self._left:
            return
        _, problems = self._undertaker.communicate()
        for process in self._all:
            process.reap()
        if self._undertaker.returncode != 0:
            raise ServerFailed(f"the cluster left traces:\n{problems}")

    def _tell(self, line: str) -> None:
        assert self._undertaker.stdin is not None
        self._undertaker.stdin.write(f"{line}\n")
        self._undertaker.stdin.flush()


def _answers(ready: Callable[[], bool]) -> bool:
    try:
        return ready()
    except OSError:
        return False
