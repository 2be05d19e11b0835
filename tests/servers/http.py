"""
An HTTP server that serves files, takes uploads, and misbehaves exactly as told.

It honours ranges, ETag, If-Match, If-None-Match and If-Range, and HEAD; it stores what is PUT or
POSTed. Per path it works through a list of faults. Every request is in `requests`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import socket
import ssl
import struct
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus

from tests.servers.loopback import LoopbackHttp, QuietHandler

CHUNK = 65536
DRIPS_PER_S = 20  # a slow server sends a little all the time, not a second's worth at once


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong for a request. Faults of one path are used in order, each `times` times."""

    times: int | None = None
    """For how many requests; None is for ever."""
    method: str | None = None
    """Only requests of this method meet (and use up) it."""

    status: int | None = None
    """Answer this and nothing else; uploads are not stored."""
    retry_after: str | None = None
    redirect_to: str | None = None
    """Answer with this Location; its own URL makes a loop."""
    redirect_status: int = HTTPStatus.FOUND
    hang: bool = False
    """Read the request, never answer."""
    cut_at: float | None = None
    """Close after this fraction of the body: of the answer, or of an upload."""
    reset: bool = False
    """Cut with a TCP reset instead of an orderly end."""
    stall_at: float | None = None
    """Send this fraction of the body, then nothing more, with the connection open."""
    hold_at: float | None = None
    """Send this fraction of the body, then wait for `until`, then the rest."""
    hold_beyond: int | None = None
    """Wait for `until` with what is beyond this byte of the file, whatever part is asked for."""
    until: threading.Event | None = None
    """An upload is taken, and stored and answered no earlier."""
    bytes_per_s: int | None = None
    """Send no faster."""
    ignore_range: bool = False
    """Answer 200 with everything, whatever range was asked for."""
    lying_range: bool = False
    """Answer 206 with bytes that start elsewhere, and say so in Content-Range."""
    length_off_by: int = 0
    """Declare a Content-Length this much larger (or smaller) than the body."""
    no_length: bool = False
    """Send chunked, without Content-Length."""
    encoding: str | None = None
    """Claim this Content-Encoding."""
    no_etag: bool = False
    changed: bool = False
    """Serve other bytes of the same length under another ETag: the file was replaced."""


@dataclass(slots=True)
class Request:
    """
    One request and its answer so far.

    It is listed before the client has the answer, so a test need not wait for what its own client
    has been told.
    """

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes = b""
    status: int = 0
    """0 as long as nothing was answered."""
    sent: int = 0
    """Bytes of the answer's body that were handed to the network."""
    finished: bool = False
    """Nothing more will be sent."""


@dataclass(frozen=True, slots=True)
class Served:
    data: bytes
    content_type: str
    etag: str


@dataclass
class _State:
    files: dict[str, Served] = field(default_factory=dict)
    faults: dict[str, list[list[Fault]]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)


class HttpServer(LoopbackHttp):
    """See the module. Paths begin with a slash and have no query."""

    def __init__(self, tls: ssl.SSLContext | None = None, *, host: str = "127.0.0.1") -> None:
        super().__init__(tls, host=host)
        self._state = _State()

    def serve(self, path: str, data: bytes, *, content_type: str = "video/mp4") -> str:
        """Serve these bytes; returns the URL."""
        etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        self._state.files[path] = Served(data, content_type, etag)
        return self.url + path

    def misbehave(self, path: str, *faults: Fault) -> str:
        """Meet requests of `path` with these faults, one after the other; returns the URL."""
        with self._state.changed:
            self._state.faults[path] = [[fault] * (fault.times or 1) for fault in faults]
        return self.url + path

    def stored(self, path: str) -> bytes:
        """What was uploaded to `path`."""
        return self._state.files[path].data

    def has(self, path: str) -> bool:
        return path in self._state.files

    @property
    def requests(self) -> list[Request]:
        with self._state.changed:
            return [dataclasses.replace(seen) for seen in self._state.requests]

    def wait_for(self, enough: Callable[[list[Request]], bool], *, timeout_s: float = 10) -> None:
        """Wait until the requests are enough; asked again at each arrival and end of one."""
        with self._state.changed:
            if not self._state.changed.wait_for(lambda: enough(self._state.requests), timeout_s):
                raise AssertionError(f"not in {timeout_s} s; requests: {self._state.requests}")

    def handler(self) -> type[QuietHandler]:
        return type("Handler", (_Handler,), {"state": self._state, "closing": self.closing})


class _Handler(QuietHandler):
    state: _State
    closing: threading.Event

    def do_GET(self) -> None:
        self._exchange(self._answer_with_file)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        self._exchange(self._take_upload)

    do_POST = do_PUT

    # --- One exchange ------------------------------------------------------------------------

    def _exchange(self, answer: Callable[[Fault], None]) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.seen = Request(self.command, self.path, headers)
        self.where = urllib.parse.urlsplit(self.path).path
        try:
            answer(self._next_fault())
        finally:
            with self.state.changed:
                self.seen.finished = True
                self.state.changed.notify_all()

    def _record(self, body: bytes = b"") -> None:
        self.seen.body = body
        with self.state.changed:
            self.state.requests.append(self.seen)
            self.state.changed.notify_all()

    def _next_fault(self) -> Fault:
        with self.state.changed:
            queue = self.state.faults.get(self.where, [])
            for turns in queue:
                fault = turns[0]
                if fault.method not in (None, self.command):
                    continue
                if fault.times is not None:
                    turns.pop()
                    if not turns:
                        queue.remove(turns)
                return fault
        return Fault()

    def _misbehaves(self, fault: Fault) -> bool:
        """Answer without looking at any file, when the fault is of that kind."""
        if fault.hang:
            self._hang()
            return True
        if fault.redirect_to is not None:
            self._finish(fault.redirect_status, Location=fault.redirect_to)
            return True
        if fault.status is not None:
            more = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
            self._finish(fault.status, **more)
            return True
        return False

    # --- Downloads ---------------------------------------------------------------------------

    def _answer_with_file(self, fault: Fault) -> None:
        self._record()
        if self._misbehaves(fault):
            return
        file = self.state.files.get(self.where)
        if file is None:
            self._finish(HTTPStatus.NOT_FOUND)
            return
        if fault.changed:
            file = Served(file.data[::-1], file.content_type, '"replaced"')
        if self.headers.get("If-Match", file.etag) not in (file.etag, "*"):
            self._finish(HTTPStatus.PRECONDITION_FAILED)
            return
        if self.headers.get("If-None-Match") == file.etag:
            self._finish(HTTPStatus.NOT_MODIFIED)
            return
        size = len(file.data)
        asked = None if fault.ignore_range else self.headers.get("Range")
        if asked is not None and self.headers.get("If-Range", file.etag) != file.etag:
            asked = None
        headers = {"Content-Type": file.content_type}
        if not fault.ignore_range:
            headers["Accept-Ranges"] = "bytes"
        if fault.encoding is not None:
            headers["Content-Encoding"] = fault.encoding
        if not fault.no_etag:
            headers["ETag"] = file.etag
        if asked is None:
            self._send_file(HTTPStatus.OK, headers, file.data, fault)
            return
        wanted = _parse_range(asked, size)
        if wanted is None:
            self._finish(
                HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, **{"Content-Range": f"bytes */{size}"}
            )
            return
        first, last = wanted
        if fault.lying_range:
            # Same length where possible, one byte off: nothing but Content-Range gives it away.
            first, last = (first - 1, last - 1) if first > 0 else (first + 1, last)
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        data = file.data[first : last + 1]
        self._send_file(HTTPStatus.PARTIAL_CONTENT, headers, data, fault, first)

    def _send_file(
        self, status: HTTPStatus, headers: dict[str, str], data: bytes, fault: Fault, first: int = 0
    ) -> None:
        self.seen.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if fault.no_length:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(data) + fault.length_off_by))
        self.end_headers()
        if self.command == "HEAD":
            return
        ends_at = min((f for f in (fault.cut_at, fault.stall_at) if f is not None), default=1.0)
        held_at = int(len(data) * min(fault.hold_at or 0.0, ends_at))
        if fault.hold_beyond is not None:
            held_at = min(len(data), max(0, fault.hold_beyond - first))
        for piece in self._paced(memoryview(data)[:held_at], fault):
            self._write(piece, chunked=fault.no_length)
        waits = fault.hold_beyond is None or held_at < len(data)
        if waits and fault.until is not None and not self._wait(fault.until):
            return
        for piece in self._paced(memoryview(data)[held_at : int(len(data) * ends_at)], fault):
            self._write(piece, chunked=fault.no_length)
        if fault.stall_at is not None:
            self._hang()
        elif fault.cut_at is not None:
            self._cut(fault)
        elif fault.no_length:
            self.wfile.write(b"0\r\n\r\n")
        if fault.length_off_by:
            self.close_connection = True

    def _paced(self, data: memoryview, fault: Fault) -> Iterator[memoryview]:
        """The data in pieces, no faster than the fault says."""
        step = CHUNK if fault.bytes_per_s is None else max(1, fault.bytes_per_s // DRIPS_PER_S)
        for start in range(0, len(data), step):
            if fault.bytes_per_s is not None and self.closing.wait(1 / DRIPS_PER_S):
                return
            yield data[start : start + step]

    def _write(self, piece: memoryview, *, chunked: bool) -> None:
        self.seen.sent += len(piece)
        if chunked:
            self.wfile.write(b"%x\r\n" % len(piece))
        self.wfile.write(piece)
        if chunked:
            self.wfile.write(b"\r\n")

    # --- Uploads -----------------------------------------------------------------------------

    def _take_upload(self, fault: Fault) -> None:
        length = self.headers.get("Content-Length")
        if fault.cut_at is not None:
            self._record(self.rfile.read(int(int(length or 0) * fault.cut_at)))
            self._cut(fault)
            return
        if length is None:
            body = _read_chunked(self.rfile.readline, self.rfile.read)
        else:
            body = self.rfile.read(int(length))
        self._record(body)
        if self._misbehaves(fault) or (fault.until is not None and not self._wait(fault.until)):
            return
        is_new = self.where not in self.state.files
        etag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
        kind = self.headers.get("Content-Type", "application/octet-stream")
        self.state.files[self.where] = Served(body, kind, etag)
        self._finish(HTTPStatus.CREATED if is_new else HTTPStatus.OK, ETag=etag)

    # --- Ends --------------------------------------------------------------------------------

    def _finish(self, status: int, **headers: str) -> None:
        self.seen.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _wait(self, until: threading.Event) -> bool:
        """Until the test says so; False when the server goes away first."""
        while not until.wait(1 / DRIPS_PER_S):
            if self.closing.is_set():
                return False
        return True

    def _hang(self) -> None:
        self.close_connection = True
        self.closing.wait()

    def _cut(self, fault: Fault) -> None:
        self.close_connection = True
        if fault.reset:
            # Closing with a linger time of zero sends RST instead of FIN.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()


def _parse_range(header: str, size: int) -> tuple[int, int] | None:
    """First and last byte of a single range; None when it cannot be satisfied."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip())
    if found is None:
        return None
    if not found[1]:
        suffix = int(found[2] or 0)
        return (max(0, size - suffix), size - 1) if suffix and size else None
    first = int(found[1])
    last = min(int(found[2] or size - 1), size - 1)
    return (first, last) if first <= last else None


def _read_chunked(read_line: Callable[[], bytes], read: Callable[[int], bytes]) -> bytes:
    body = bytearray()
    while size := int(read_line().split(b";")[0] or b"0", 16):
        body += read(size)
        read_line()
    while read_line().strip():
        pass  # trailers
    return bytes(body)
