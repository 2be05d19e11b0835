"""A store on the loopback with one rate for each direction, however many connections share it."""

from __future__ import annotations

import re
import threading
import time
from http import HTTPStatus
from pathlib import Path

from tests.servers.loopback import LoopbackHttp, QuietHandler

CHUNK = 16_384  # a line brings little at a time, to all who share it
ETAG = '"of-the-benchmark"'


class Rate:
    """Bytes a second for all who take of it together. Whoever takes too early waits."""

    def __init__(self, bytes_per_s: float | None = None) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0
        self._lock = threading.Lock()
        self.taken = 0

    def take(self, size: int) -> None:
        with self._lock:
            self.taken += size
            if self._bytes_per_s is None:
                return
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + size / self._bytes_per_s
            wait_s = self._free_at - now
        time.sleep(wait_s)


class Store(LoopbackHttp):
    """
    Answers every path with one file, in ranges too, and takes whatever is PUT.

    It speaks as much S3 as an upload in parts needs, and keeps nothing of what it takes.
    """

    def __init__(self, path: Path, *, down: Rate | None = None, up: Rate | None = None) -> None:
        super().__init__()
        self.path = path
        self.down = down or Rate()
        self.up = up or Rate()
        self.requests = 0
        self.lock = threading.Lock()

    def handler(self) -> type[QuietHandler]:
        return type("Handler", (_Handler,), {"store": self})


class _Handler(QuietHandler):
    store: Store

    def do_GET(self) -> None:
        with self.store.lock:
            self.store.requests += 1
        size = self.store.path.stat().st_size
        first, end, status = 0, size, HTTPStatus.OK
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is not None:
            status = HTTPStatus.PARTIAL_CONTENT
            first, end = int(asked[1]), min(size, int(asked[2] or size) + 1)
        self.send_response(status)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Length", str(end - first))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", ETAG)
        if asked is not None:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
        self.end_headers()
        with self.store.path.open("rb") as file:
            file.seek(first)
            while left := end - file.tell():
                piece = file.read(min(CHUNK, left))
                self.store.down.take(len(piece))
                self.wfile.write(piece)

    def do_PUT(self) -> None:
        left = int(self.headers["Content-Length"])
        while left:
            piece = self.rfile.read(min(CHUNK, left))
            if not piece:
                break
            self.store.up.take(len(piece))
            left -= len(piece)
        self.send_response(HTTPStatus.OK)
        self.send_header("ETag", ETAG)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        """The beginning of an upload in parts, and its end."""
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        begins = self.path.endswith("?uploads")
        body = b"<A><UploadId>1</UploadId></A>" if begins else b"<A><ETag>1</ETag></A>"
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
