"""
A way to a real HTTP server that loses, spoils and refuses exactly what it is told to.

Requests are passed on as they came, `Host` and signature included, so that the server behind takes
them for the client's own. Faults are met in order, each `times` times.
"""

from __future__ import annotations

import http.client
import re
import threading
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.servers.loopback import LoopbackHttp, QuietHandler

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
TIMEOUT_S = 60


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What happens to requests of a method whose target has `of` in it."""

    method: str
    of: str = ""
    times: int = 1
    status: int | None = None
    """Answer this; nothing is passed on."""
    retry_after: str | None = None
    cut_at: float | None = None
    """Take so much of the upload, then close; nothing is passed on."""
    spoil: bool = False
    """Pass the upload on with one byte changed."""
    lose_answer: bool = False
    """Pass the request on, and close instead of answering."""
    say: bytes | None = None
    """Answer 200, or the status, with this; nothing is passed on."""
    silent: bool = False
    """Pass nothing on and never answer."""

    def is_met_by(self, method: str, target: str) -> bool:
        return method == self.method and self.of in target


class TroubledWay(LoopbackHttp):
    """See the module. `seen` has method and target of every request."""

    def __init__(self, upstream: str) -> None:
        super().__init__()
        self._upstream = urlsplit(upstream)
        self._troubles: list[Trouble] = []
        self._lock = threading.Condition()
        self.seen: list[tuple[str, str]] = []

    def expect(self, *troubles: Trouble) -> None:
        with self._lock:
            self._troubles = [trouble for trouble in troubles for _ in range(trouble.times)]

    def wait_for(self, *wanted: tuple[str, str], timeout_s: float = TIMEOUT_S) -> None:
        """Return when for each method and pattern of a target such a request has come."""

        def have_come() -> bool:
            return all(
                any(method == came and re.search(pattern, target) for came, target in self.seen)
                for method, pattern in wanted
            )

        with self._lock:
            if not self._lock.wait_for(have_come, timeout_s):
                raise AssertionError(f"of {wanted} not all came: {self.seen}")

    def meet(self, method: str, target: str) -> Trouble:
        with self._lock:
            self.seen.append((method, target))
            self._lock.notify_all()
            for trouble in self._troubles:
                if trouble.is_met_by(method, target):
                    self._troubles.remove(trouble)
                    return trouble
        return Trouble(method=method)

    def forward(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        port = self._upstream.port
        server = http.client.HTTPConnection(self._upstream.hostname or "", port, timeout=TIMEOUT_S)
        try:
            server.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                server.putheader(name, value)
            server.endheaders(body)
            answer = server.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            server.close()

    def handler(self) -> type[QuietHandler]:
        return type("Handler", (_Handler,), {"way": self})


class _Handler(QuietHandler):
    way: TroubledWay

    def do_GET(self) -> None:
        trouble = self.way.meet(self.command, self.path)
        length = int(self.headers.get("Content-Length", "0"))
        if trouble.cut_at is not None:
            self.rfile.read(int(length * trouble.cut_at))
            self.close_connection = True
            return
        body = self.rfile.read(length)
        if trouble.silent:
            self.way.closing.wait()
            self.close_connection = True
            return
        if trouble.status is not None or trouble.say is not None:
            more = [] if trouble.retry_after is None else [("Retry-After", trouble.retry_after)]
            self._answer(trouble.status or 200, more, trouble.say or b"")
            return
        if trouble.spoil:
            body = bytes([body[0] ^ 1]) + body[1:]
        answer = self.way.forward(self.command, self.path, dict(self.headers.items()), body)
        if trouble.lose_answer:
            self.close_connection = True
            return
        self._answer(*answer)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        said = dict(headers)
        length = said.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        for name, value in headers:
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
