"""A MySQL of a test's own, with what a real one has to survive a kill, killed and started again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.servers.database import DatabaseServer, version_of
from tests.servers.mysql import command, prepare
from tests.servers.process import ServerProcess, free_port

# What is acknowledged is in the log of the server, and half-written pages are found again. The
# machine itself stays up, so nothing has to wait for a disk.
DURABLE = (
    "--innodb-flush-log-at-trx-commit=1",
    "--innodb-flush-method=nosync",
    "--innodb-buffer-pool-size=64M",
    "--max-connections=200",
    "--skip-log-bin",
)


class Mysqld:
    def __init__(self, folder: Path, *, host: str = "127.0.0.1") -> None:
        self._folder = folder
        self.host = host
        self.port = free_port()
        prepare(folder)
        self.kills = 0
        self.is_dead = True

    @property
    def server(self) -> DatabaseServer:
        return DatabaseServer(self.host, self.port, f"MySQL {version_of(self.host, self.port)}")

    def start(self) -> None:
        argv = command(self._folder, host=self.host, port=self.port, options=DURABLE)
        self._process = ServerProcess(argv, log=self._folder / "mysqld.log")
        self._process.__enter__()
        self._process.wait_until(lambda: bool(version_of(self.host, self.port)))
        self.is_dead = False

    def freeze(self) -> None:
        """It takes connections and answers nothing, as behind a network that is cut."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to the server itself."""
        self._signal(signal.SIGKILL)
        self._process.__exit__(None, None, None)
        self.kills += 1
        self.is_dead = True

    def stop(self) -> None:
        self._process.__exit__(None, None, None)

    def _signal(self, number: signal.Signals) -> None:
        os.kill(int((self._folder / "pid").read_text()), number)
