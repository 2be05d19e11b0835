"""A port for the kubelet, of a process that serves nothing else: `/livez` and `/readyz`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

log = logging.getLogger(__name__)

Why = Callable[[], str | None]
"""Why the answer is no; None when it is yes."""

REQUEST_S: Final = 5.0  # whoever takes longer holds a thread


@contextmanager
def serve_probes(port: int | None, *, unwell: Why, unready: Why) -> Iterator[int | None]:
    """
    Answer on this port of all addresses as long as the block, and yield it; 0 takes a free one.

    None serves nothing. Nothing is said there that a stranger could use.
    """
    if port is None:
        yield None
        return
    answers: Mapping[str, Why] = {"/livez": unwell, "/readyz": unready}

    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_S

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

    server = ThreadingHTTPServer(("", port), Handler)
    server.daemon_threads = True
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
