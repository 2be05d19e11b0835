"""
Serve the source to ffmpeg on a loopback port while it arrives.

ffmpeg meets neither the source's server nor its cuts, redirects and credentials: it reads a file of
known length that never changes, from an address that nobody can guess. What is not here yet blocks
its reader, and is fetched next. When the fetch fails the reader is cut off; the fetch's own failure
is then what counts, since ffmpeg takes a cut for an end.
"""

from __future__ import annotations

import re
import secrets
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from encoder_worker.fetch import Fetch

HOST: Final = "127.0.0.1"
MOST_READERS: Final = 16  # ffmpeg needs two at a time; each costs a thread
SEND_BUFFER_BYTES: Final = 256 * 1024  # what is copied for nothing each time a reader seeks
_RANGE: Final = re.compile(r"bytes=(\d+)-(\d*)$")


class Gateway:
    """One fetch, served as long as the block."""

    def __init__(self, fetch: Fetch, path: Path) -> None:
        assert fetch.stat.size_bytes is not None, "a reader is told how much there is"
        self.size_bytes = fetch.stat.size_bytes
        self._fetch = fetch
        self._file = path
        self._path = f"/{secrets.token_urlsafe(24)}"
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False
        self._waiting = 0
        self.requests = 0
        self.sent_bytes = 0

    def __enter__(self) -> Self:
        self._listener = socket.create_server((HOST, 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="gateway", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        with self._lock:
            self._closed = True
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}{self._path}"

    @property
    def holds_readers(self) -> bool:
        """Whether somebody waits for bytes that have not arrived."""
        return self._waiting > 0

    def _accept(self) -> None:
        while True:
            try:
                connection, address = self._listener.accept()
            except OSError:
                return
            threading.Thread(
                target=self._serve, args=(connection, address), name="gateway", daemon=True
            ).start()

    def _serve(self, connection: socket.socket, address: Any) -> None:
        with self._lock:
            if self._closed or len(self._open) >= MOST_READERS:
                connection.close()
                return
            self._open.add(connection)
        try:
            # Readers go away in the middle of an answer whenever they seek.
            with connection, suppress(OSError):
                _Handler(self, connection, address)
        finally:
            with self._lock:
                self._open.discard(connection)

    def is_path(self, path: str) -> bool:
        return secrets.compare_digest(path.encode(), self._path.encode())

    def send(self, connection: socket.socket, first: int, end: int) -> None:
        """The bytes of the span, each as soon as it is here. Raises what the fetch fails with."""
        with self._lock:
            self.requests += 1
        with self._file.open("rb") as file:
            while first < end:
                here = min(end, self._wait_for(first))
                connection.sendfile(file, first, here - first)
                with self._lock:
                    self.sent_bytes += here - first
                first = here

    def _wait_for(self, at: int) -> int:
        with self._lock:
            self._waiting += 1
        try:
            return self._fetch.wait_for(at)
        finally:
            with self._lock:
                self._waiting -= 1


class _Handler(BaseHTTPRequestHandler):
    """Answers GET for the one path, with or without a range; one request a connection."""

    protocol_version = "HTTP/1.1"

    def __init__(self, gateway: Gateway, connection: socket.socket, address: Any) -> None:
        self._gateway = gateway
        server: Any = gateway  # the base class keeps it and asks nothing of it
        super().__init__(connection, address, server)

    def do_GET(self) -> None:
        self.close_connection = True
        size = self._gateway.size_bytes
        if not self._gateway.is_path(self.path):
            self._answer(404, {"Content-Length": "0"})
            return
        asked = _RANGE.match(self.headers.get("Range", ""))
        first, end = 0, size
        if asked is not None:
            first = int(asked[1])
            end = min(size, int(asked[2]) + 1) if asked[2] else size
        if first >= end:
            self._answer(416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
            return
        place = {"Content-Range": f"bytes {first}-{end - 1}/{size}"} if asked else {}
        length = {"Content-Length": str(end - first), "Accept-Ranges": "bytes"}
        self._answer(206 if asked else 200, {**length, **place})
        with suppress(Exception):  # the fetch has failed: the reader is cut off here
            self._gateway.send(self.connection, first, end)

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in {**headers, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any, **__: Any) -> None:
        """Not to standard error: the path is a secret."""
