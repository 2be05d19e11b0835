"""A port for the kubelet, of a process that serves nothing else: `/livez` and `/readyz`."""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

log = logging.getLogger(__name__)

Why = Callable[[], str | None]
"""Why the answer is no; None when it is yes."""

REQUEST_S: Final = 5.0  # whoever takes longer, from the connection on, holds a thread


class _Server(ThreadingHTTPServer):
    """Ends connections that are too old, however much comes on them: each holds a thread."""

    daemon_threads = True

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler], *, request_s: float):
        self._request_s = request_s
        self._until: dict[Any, float] = {}
        super().__init__(("", port), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._until[request] = time.monotonic() + self._request_s
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Each half second, and with each connection."""
        now = time.monotonic()
        for request, until in list(self._until.items()):
            if until < now:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)  # its thread reads an end, and closes it

    def shutdown_request(self, request: Any) -> None:
        self._until.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # nobody waits for the answer any more
            super().handle_error(request, client_address)


@contextmanager
def serve_probes(
    port: int | None, *, unwell: Why, unready: Why, request_s: float = REQUEST_S
) -> Iterator[int | None]:
    """
    Answer on this port of all addresses as long as the block, and yield it; 0 takes a free one.

    None serves nothing. Nothing is said there that a stranger could use.
    """
    if port is None:
        yield None
        return
    answers: Mapping[str, Why] = {"/livez": unwell, "/readyz": unready}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ask = answers.get(self.path)
            if ask is None:
                self._say(404, "not found")
            else:
                why = ask()
                self._say(200 if why is None else 503, why or "ok")

        def _say(self, status: int, text: str) -> None:
            body = f"{text}\n".encode()
            self.send_response_only(status)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = _Server(port, Handler, request_s=request_s)
    thread = threading.Thread(target=server.serve_forever, name="probes", daemon=True)
    thread.start()
    bound: int = server.server_address[1]
    log.info("probes_served", extra={"port": bound})
    try:
        yield bound
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
