"""
Between the operator and its API server: passes everything on, counts, and spoils on demand.

Watches may be silenced, doubled, delayed, ended with 410, or lose events; writes may be refused,
and whoever counts them is called between the server's answer and its delivery: the moment to kill.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

WRITES = {"POST", "PATCH", "PUT", "DELETE"}
GONE = {
    "type": "ERROR",
    "object": {
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410,
        "reason": "Expired", "message": "too old resource version",
    },
}  # fmt: skip


@dataclass(eq=False, slots=True)
class Watch:
    """One that runs."""

    kind: str
    upstream: socket.socket
    expired: bool = False


class Tamper(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, server: str, tls: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(server)
        self.tls = tls
        self.writes: list[str] = []
        self.after_write: Callable[[int], None] = lambda _: None
        """Called with the number of each write, once it is done and not yet answered."""
        self.refuse_writes = 0
        """So many of the next writes are answered with `refusal`."""
        self.refusal = 429
        self.reason = "NotNow"
        self.message = ""
        self.lose_answers = 0
        """So many of the next writes are done, and nobody hears of it."""
        self.lost = 0
        self.mute = threading.Event()
        """While set, watches bring nothing."""
        self.gone = Counter[str]()
        """So many of the next watches of a kind are answered with 410."""
        self.expired = Counter[str]()
        """The watches of a kind that ended with 410, at once or in their midst."""
        self.watches: list[Watch] = []
        self.double = False
        """Each event comes twice."""
        self.drop: Callable[[bytes], bool] = lambda _: False
        """Whether an event of a watch is lost; asked for each, as it came."""
        self.dropped = 0
        self.delay_s = 0.0
        """Each event comes so much later."""
        self.refused = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def watched(self) -> set[str]:
        with self.lock:
            return {watch.kind for watch in self.watches}

    def expire(self) -> None:
        """End all watches that run with 410, as a server does that remembers no further back."""
        with self.lock:
            for watch in self.watches:
                watch.expired = True
                # Not its own shutdown: that would take the TLS from under who reads.
                socket.socket.shutdown(watch.upstream, socket.SHUT_RDWR)

    def kubeconfig(self, folder: Path) -> Path:
        path = folder / f"tampered-{self.server_address[1]}.conf"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {"token": "dropped-on-the-way"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def handle_error(self, *_: Any) -> None:
        """Whoever was killed does not read our answer."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Tamper

    def do_GET(self) -> None:
        if "watch=" in self.path:
            self._watch()
        else:
            self._pass_on()

    def do_POST(self) -> None:
        self._write()

    do_PATCH = do_DELETE = do_PUT = do_POST

    def log_message(self, *_: Any) -> None:
        return

    def _write(self) -> None:
        server = self.server
        body = self._body()
        with server.lock:
            if server.refuse_writes > 0:
                server.refuse_writes -= 1
                server.refused += 1
                said = json.dumps({"reason": server.reason, "message": server.message})
                self._answer(server.refusal, said.encode(), {"Retry-After": "1"})
                return
        status, raw = self._ask(body)
        with server.lock:
            kind = urlsplit(self.path).path.split("/namespaces/")[-1].split("/")
            subresource = "/status" if kind[-1] == "status" else ""
            server.writes.append(f"{self.command} {kind[1]}{subresource} {status}")
            number = len(server.writes)
            lost = server.lose_answers > 0
            server.lose_answers -= lost
            server.lost += lost
        server.after_write(number)
        if lost:
            self.close_connection = True
            return
        self._answer(status, raw)

    def _pass_on(self) -> None:
        self._answer(*self._ask(self._body()))

    def _watch(self) -> None:
        server, kind = self.server, urlsplit(self.path).path.rpartition("/")[2]
        with server.lock:
            gone = server.gone[kind] > 0
            server.gone[kind] -= gone
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            if gone or self._pass_events(kind):
                self._chunk(json.dumps(GONE).encode() + b"\n")
                with server.lock:
                    server.expired[kind] += 1
            self._chunk(b"")
        except OSError:
            self.close_connection = True

    def _pass_events(self, kind: str) -> bool:
        """Whether it expired; else the server itself has ended it."""
        server, connection = self.server, self._connect()
        connection.connect()
        watch = Watch(kind, connection.sock)
        try:
            connection.request("GET", self.path, headers={"Accept": "application/json"})
            stream = connection.getresponse()
            with server.lock:
                server.watches.append(watch)
            while line := stream.readline():
                while server.mute.is_set():
                    time.sleep(0.05)
                if server.drop(line):
                    server.dropped += 1
                    continue
                if server.delay_s:
                    time.sleep(server.delay_s)
                for _ in range(2 if server.double else 1):
                    self._chunk(line)
        except (OSError, http.client.HTTPException):
            if not watch.expired:
                raise
        finally:
            with server.lock:
                if watch in server.watches:
                    server.watches.remove(watch)
            connection.close()
        return watch.expired

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _connect(self) -> http.client.HTTPSConnection:
        host, port = self.server.upstream.hostname, self.server.upstream.port
        assert host is not None
        return http.client.HTTPSConnection(host, port, context=self.server.tls, timeout=600)

    def _ask(self, body: bytes) -> tuple[int, bytes]:
        connection = self._connect()
        headers = {"Accept": "application/json"}
        if "Content-Type" in self.headers:
            headers["Content-Type"] = self.headers["Content-Type"]
        try:
            connection.request(self.command, self.path, body=body or None, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def tamper(server: str, authority: Path, certificate: Path, key: Path) -> Iterator[Tamper]:
    tls = ssl.create_default_context(cafile=str(authority))
    tls.load_cert_chain(certificate, key)
    proxy = Tamper(server, tls)
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
