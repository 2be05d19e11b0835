"""A webhook receiver on loopback for the demo: keeps what comes, in order."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass(frozen=True, slots=True)
class Received:
    """One webhook: its headers by lower-case name, its raw body, and the body as JSON."""

    headers: Mapping[str, str]
    body: bytes
    event: dict[str, Any] = field(default_factory=dict)


class Receiver:
    """Answers 204 to every POST. A context manager; `url` is where it listens."""

    def __init__(self) -> None:
        self._arrived = threading.Condition()
        self._received: list[Received] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver._add(Received(headers, body, json.loads(body)))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/webhook"

    def received(self) -> list[Received]:
        with self._arrived:
            return list(self._received)

    def wait_for(self, event_types: set[str], *, timeout_s: float) -> Received | None:
        """The first webhook of one of these types, waiting for it if it has not come yet."""

        def found() -> Received | None:
            return next((r for r in self._received if r.event.get("type") in event_types), None)

        with self._arrived:
            self._arrived.wait_for(lambda: found() is not None, timeout=timeout_s)
            return found()

    def _add(self, received: Received) -> None:
        with self._arrived:
            self._received.append(received)
            self._arrived.notify_all()

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
