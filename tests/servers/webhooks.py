"""A receiver of webhooks that verifies their signatures with the public library, and misbehaves."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from standardwebhooks import Webhook, WebhookVerificationError

from tests.servers.loopback import LoopbackHttp, QuietHandler

SECRET = "whsec_dGhpcyBpcyBvbmx5IGZvciB0aGUgdGVzdHM="  # base64 of a sentence that says so


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How to answer one delivery."""

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    hang: bool = False
    """Take the delivery, never answer."""
    drip_s: float | None = None
    """Answer with a byte of the body each so many seconds, for ever."""
    reset: bool = False
    """Take the delivery, then reset the connection."""
    flood: bool = False
    """Answer with a body that never ends, as fast as it is read."""
    lie: bool = False
    """Promise more of a body than ever comes, and keep the connection."""


MISBEHAVIOUR: Final = {
    "hangs": Answer(hang=True),
    "drips": Answer(status=200, drip_s=0.1),
    "resets": Answer(reset=True),
    "floods": Answer(status=200, flood=True),
    "promises more than it sends": Answer(status=200, lie=True),
    "redirects to itself": Answer(status=302, headers={"Location": "/hook"}),
}
"""What a receiver may do to its sender."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to deliver, as it arrived."""

    path: str
    id: str
    headers: dict[str, str]
    """Names in lower case."""
    raw: bytes
    body: Any
    refused: str
    """Why the signature does not hold; empty when it does."""
    at: float
    """time.monotonic() at its arrival."""


class WebhookReceiver(LoopbackHttp):
    """Answers 204 unless told otherwise. Any path is a receiver of its own."""

    def __init__(
        self,
        secret: str = SECRET,
        *,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(tls, host=host)
        self.secret = secret
        self._deliveries: list[Delivery] = []
        self._answers: dict[str, deque[Answer]] = {}
        self._changed = threading.Condition()

    def answer(self, path: str, *answers: Answer) -> str:
        """Answer the next deliveries to `path` so, then 204 again; returns the URL."""
        with self._changed:
            self._answers[path] = deque(answers)
        return self.url + path

    @property
    def deliveries(self) -> list[Delivery]:
        with self._changed:
            return list(self._deliveries)

    def wait_for(
        self, enough: int | Callable[[list[Delivery]], bool], *, timeout_s: float = 30
    ) -> list[Delivery]:
        """Wait until that many deliveries came, or until they satisfy the condition."""

        def satisfied() -> bool:
            if isinstance(enough, int):
                return len(self._deliveries) >= enough
            return enough(self._deliveries)

        with self._changed:
            if not self._changed.wait_for(satisfied, timeout_s):
                seen = [(delivery.path, delivery.body) for delivery in self._deliveries]
                raise AssertionError(f"not in {timeout_s} s; deliveries: {seen}")
            return list(self._deliveries)

    def handler(self) -> type[QuietHandler]:
        return type("Handler", (_Handler,), {"receiver": self})

    def take(self, path: str, headers: dict[str, str], raw: bytes) -> Answer:
        """Note a delivery down and say how to answer it."""
        refused = ""
        try:
            Webhook(self.secret).verify(raw, headers)
        except WebhookVerificationError as error:
            refused = str(error) or type(error).__name__
        except json.JSONDecodeError as error:
            refused = f"signed, but not JSON: {error}"
        body = json.loads(raw) if not refused else None
        delivery = Delivery(
            path, headers.get("webhook-id", ""), headers, raw, body, refused, time.monotonic()
        )
        with self._changed:
            self._deliveries.append(delivery)
            self._changed.notify_all()
            waiting = self._answers.get(path)
            return waiting.popleft() if waiting else Answer()


class _Handler(QuietHandler):
    receiver: WebhookReceiver

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.receiver.take(self.path, headers, raw)
        if answer.hang:
            self.close_connection = True
            self.receiver.closing.wait()
            return
        if answer.reset:
            self.close_connection = True
            # To linger for no time sends a RST instead of a FIN.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            # Half of a socketserver's goodbye is a FIN, which would come before the RST.
            self.connection.close()
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.flood or answer.lie:
            self.close_connection = True
            if answer.lie:
                self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"ok")
            with contextlib.suppress(OSError):  # the sender has read enough
                while answer.flood and not self.receiver.closing.is_set():
                    self.wfile.write(bytes(65536))
            if answer.lie:
                self.receiver.closing.wait()
            return
        if answer.drip_s is None:
            if answer.status != 204:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            with contextlib.suppress(OSError):  # the sender has read enough
                self.wfile.write(answer.body)
            return
        self.close_connection = True
        self.end_headers()
        while not self.receiver.closing.wait(answer.drip_s):
            self.wfile.write(b".")
