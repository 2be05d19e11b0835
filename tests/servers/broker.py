"""
Start each shared server once a run, on first request, whichever test process asks.

pytest-xdist's controller (or the only process) owns the servers and ends them. Its test processes
ask over a socket in a private folder; what they get are plain values such as a host and a port.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from tests.servers.process import ServerFailed

Start = Callable[[Path], AbstractContextManager[Any]]


class Broker:
    """Owns the servers of one run. `close` stops what was started, in reverse order."""

    def __init__(self, kinds: Mapping[str, Start]) -> None:
        self._kinds = kinds
        self._locks = {kind: threading.Lock() for kind in kinds}
        self._stack = ExitStack()
        # A short path: sockets have 107 characters for theirs.
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="enc-")))
        self.started: dict[str, Any] = {}
        self.address = str(self.folder / "broker")
        self._listener: Listener | None = None

    def get(self, kind: str) -> Any:
        """The server's values; starts it when nobody asked before. Safe from any thread."""
        with self._locks[kind]:
            if kind not in self.started:
                folder = self.folder / kind
                folder.mkdir(exist_ok=True)
                self.started[kind] = self._stack.enter_context(self._kinds[kind](folder))
            return self.started[kind]

    def listen(self) -> None:
        """Answer other processes from now on."""
        self._listener = Listener(self.address, "AF_UNIX")
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        if self._listener is not None:
            # Closing alone does not wake the thread that waits in accept; a last caller does.
            with contextlib.suppress(OSError):
                Client(self.address, "AF_UNIX").close()
            self._listener.close()
        self._stack.close()

    def _accept(self, listener: Listener) -> None:
        while True:
            try:
                caller = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(caller,), daemon=True).start()

    def _answer(self, caller: Connection[Any, Any]) -> None:
        with caller:
            try:
                kind = caller.recv()
            except EOFError:
                return
            try:
                caller.send((self.get(kind), ""))
            except Exception as error:  # whatever it was, the test that asked must show it
                caller.send((None, f"{type(error).__name__}: {error}"))


def ask(address: str, kind: str) -> Any:
    """Get a server's values from the broker of another process."""
    with Client(address, "AF_UNIX") as broker:
        broker.send(kind)
        values, problem = broker.recv()
    if problem:
        raise ServerFailed(problem)
    return values
