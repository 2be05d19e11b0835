"""The threads and sockets under the tests' HTTP servers: they start and end without leftovers."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self

NOTICE_STOP_S = 0.02


class QuietHandler(BaseHTTPRequestHandler):
    """HTTP/1.1 without a line on standard error per request: the servers keep their own record."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_version = "EncoderTests"

    def log_message(self, *_: Any, **__: Any) -> None:
        pass


class LoopbackHttp(ABC):
    """
    A threaded HTTP server on a free port of loopback, as long as the `with` block.

    `host` is another address of the machine where the callers are Pods.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, *, host: str = "127.0.0.1") -> None:
        self._tls = tls
        self._host = host
        #: Set when the server ends. Handlers that wait, wait on this.
        self.closing = threading.Event()

    @abstractmethod
    def handler(self) -> type[QuietHandler]:
        """The class that answers requests."""

    @property
    def url(self) -> str:
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{self._host}:{self.port}"

    @property
    def port(self) -> int:
        port: int = self._server.server_address[1]
        return port

    def __enter__(self) -> Self:
        self._server = _Server((self._host, 0), self.handler(), self._tls)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(NOTICE_STOP_S,), name=type(self).__name__
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = False  # server_close waits for them: no thread outlives its test
    allow_reuse_address = True
    request_queue_size = 128  # clients with parallel ranges connect in bursts

    def __init__(
        self,
        address: tuple[str, int],
        handler: Callable[[Any, Any, Any], BaseHTTPRequestHandler],
        tls: ssl.SSLContext | None,
    ) -> None:
        super().__init__(address, handler)
        self._tls = tls
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self._tls is not None:
            # The handshake happens at the first read, in the connection's own thread.
            connection = self._tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        with self._lock:
            self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End idle keep-alive connections, whose threads would wait for the next request."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away, or refuse the certificate, are what many tests are about."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)
