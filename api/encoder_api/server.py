"""
Serve the API over HTTP until it is told to stop, and let nobody's request be cut off.

    stop()  →  /readyz says 503 for `drain_s`  →  no new connections, requests end  →  run() returns
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import uvicorn
import uvloop
from starlette.applications import Starlette

from encoder_api.app import services_of
from encoder_api.connections import Connection, Limits
from encoder_core.errors import ConfigurationError

BACKLOG: Final = 2048
KEEP_ALIVE_S: Final = 75  # longer than the idle time-outs of common load balancers


class ApiServer:
    """
    One listening socket and its event loop, in the thread that calls `run`.

    `stop` may be called from any thread and from signal handlers.
    """

    def __init__(
        self,
        app: Starlette,
        *,
        host: str,
        port: int,
        drain_s: float = 0.0,
        shutdown_s: float = 20.0,
        limits: Limits | None = None,
    ) -> None:
        """Binds the socket, so that a taken port is an error here. Raises ConfigurationError."""
        self._socket = listen(host, port)
        self._draining = services_of(app).draining
        self._feed = services_of(app).feed
        self._drain_s = drain_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.RLock()  # a signal handler may interrupt its own holder
        self._server = _Server(
            uvicorn.Config(
                app,
                http=partial(Connection, limits=limits or Limits()),  # type: ignore[arg-type]  # made like one
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=max(1, round(shutdown_s)),
            )
        )

    @property
    def port(self) -> int:
        """The real one, also when 0 was asked for."""
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Where a client on this machine finds it."""
        host: str = self._socket.getsockname()[0]
        if host in ("0.0.0.0", "::"):
            host = "127.0.0.1" if host == "0.0.0.0" else "::1"
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def run(self, *, ready: Callable[[], None] | None = None) -> None:
        """Serve until stopped. `ready` is called once requests are answered."""
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve(ready))
        finally:
            self.close()

    def close(self) -> None:
        """For one that is not run after all. May be called again."""
        self._socket.close()

    def stop(self) -> None:
        """Begin to stop; returns at once. A second call does not wait for the drain."""
        with self._lock:
            again, loop = self._draining.is_set(), self._loop
            self._draining.set()
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just ended by itself
                loop.call_soon_threadsafe(self._end_after, 0.0 if again else self._drain_s)

    async def _serve(self, ready: Callable[[], None] | None) -> None:
        with self._lock:
            self._loop = asyncio.get_running_loop()
            if self._draining.is_set():
                return
        self._server.when_started = ready
        await self._server.serve(sockets=[self._socket])

    def _end_after(self, delay_s: float) -> None:
        assert self._loop is not None
        self._loop.call_later(delay_s, self._end)

    def _end(self) -> None:
        self._feed.close()  # streams would go on for as long as a stop may take
        self._server.end()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has one place for signals."""

    when_started: Callable[[], None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started and self.when_started is not None:
            self.when_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def end(self) -> None:
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A socket on an address, 0 for a free port. Raises ConfigurationError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP: asyncio turns Nagle's algorithm off only then, and with it on each answer of
    # two writes waits 40 ms for the client's acknowledgement.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host.strip("[]"), port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {error.strerror}; set ENCODER_HOST and PORT"
        ) from error
    listening.setblocking(False)
    return listening
