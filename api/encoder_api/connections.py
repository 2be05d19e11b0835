"""
What one connection may take of the service: uvicorn's protocol with bounds.

Nobody needs a key to connect, so nothing here may grow with what a stranger sends.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import struct
import uuid
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from encoder_api.problems import Problem, respond

log = logging.getLogger("encoder.api")

PACE_BYTES: Final = 64 * 1024
RESET: Final = struct.pack("ii", 1, 0)  # of SO_LINGER: what the kernel holds is dropped as well
MOST: Final = 4096  # each takes up to 100 KiB while it says nothing of use


def most_connections() -> int:
    """What the limit of open files leaves: a quarter of it is for the database and the work."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if files == resource.RLIM_INFINITY else min(MOST, files * 3 // 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a connection may take."""

    head_bytes: int = 64 * 1024
    """Of the request line and the headers together; and of what may follow a body in chunks."""

    headers: int = 200
    """As objects they take 20 times what they take on the wire: 64 KiB would be 1.4 MiB."""

    ahead: int = 16
    """Requests that may wait for the answer to one before them. One read has room for 14,000."""

    head_s: float = 30.0
    """For the first head; each later one has as long as a connection may be idle."""

    unread_s: float = 30.0
    """How long a client may take to read PACE_BYTES of an answer: slower ones are cut off."""

    most: int = field(default_factory=most_connections)
    """Connections at once. For one more, the one gives way whose time for a head is up first."""


class Connection(HttpToolsProtocol):
    def __init__(self, *args: Any, limits: Limits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._unfinished_bytes = 0
        """What arrived since a head, or a piece of a body, was complete: the parser keeps it."""
        self._patience: asyncio.TimerHandle | None = None
        self._served: RequestResponseCycle | None = None
        """Whose answer is under way; `cycle` is the latest request, which may wait behind it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as there
        if len(self.connections) >= self._limits.most and not self._make_room():
            self.transport = transport
            transport.abort()  # a refusal would have to be written, and to wait for its reader
            return
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self._limits.head_s, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_keepalive_if_required()
        self._be_content()
        if self._served is not None and not self._served.response_complete:
            self._served.disconnected = True
            self._served.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unfinished_bytes += len(data)
        # Not bytes end the wait for a head, but a head: they may come one at a time.
        waiting, self.timeout_keep_alive_task = self.timeout_keep_alive_task, None
        super().data_received(data)
        if waiting is not None:
            if self._is_serving:
                waiting.cancel()
            else:
                self.timeout_keep_alive_task = waiting
        if self._is_head_too_large():
            self.send_400_response("")

    def on_headers_complete(self) -> None:
        if self._unfinished_bytes > self._limits.head_bytes:  # which may count a body, too
            self._unfinished_bytes = len(self.url) + sum(
                len(name) + len(value) + 4 for name, value in self.headers
            )
        if self._is_head_too_large() or len(self.pipeline) >= self._limits.ahead:
            raise ValueError("too much")  # ends the parsing of what is left: send_400_response
        self._unfinished_bytes = 0
        super().on_headers_complete()
        if not self.pipeline:
            self._served = self.cycle

    def on_body(self, body: bytes) -> None:
        self._unfinished_bytes = 0
        super().on_body(body)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._be_content()

    def on_response_complete(self) -> None:
        if self.pipeline:
            self._served, _ = self.pipeline[-1]
        super().on_response_complete()
        if self.transport.is_closing() and self in self.connections:  # until all is read
            self._expect_reader()

    def _expect_reader(self) -> None:
        unread = self.transport.get_write_buffer_size()
        if unread and self._patience is None:
            self._patience = self.loop.call_later(
                self._limits.unread_s, self._check_reader, max(0, unread - PACE_BYTES)
            )

    def _check_reader(self, most_bytes: int) -> None:
        self._patience = None
        if self.transport.get_write_buffer_size() > most_bytes:
            self._cut_off()
        else:
            self._expect_reader()

    def _be_content(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _cut_off(self) -> None:
        connection = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.transport.abort()

    @property
    def waits_until(self) -> float | None:
        """When it is closed if no head comes; None while a request is served."""
        timer = self.timeout_keep_alive_task
        return None if timer is None else timer.when()

    def timeout_keep_alive_handler(self) -> None:
        # Closing would wait for ever for one that does not read the end of its last answer.
        self._unset_keepalive_if_required()
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """The parser's refusal, and ours. In the middle of another answer nothing can be said."""
        if self.transport.is_closing():
            return
        if self._is_serving:
            self.transport.close()
        elif self._is_head_too_large():
            self._say_too_large()
            self.transport.close()
        else:
            super().send_400_response(msg)

    @property
    def _is_serving(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _make_room(self) -> bool:
        """Whether one that only waits was there to be closed."""
        waiting = [
            (until_s, connection)
            for connection in self.connections
            if isinstance(connection, Connection)
            and (until_s := connection.waits_until) is not None
        ]
        if not waiting:
            log.warning("connection_refused", extra={"connections": len(self.connections)})
            return False
        _, first = min(waiting, key=itemgetter(0))
        first.timeout_keep_alive_handler()
        return True

    def _is_head_too_large(self) -> bool:
        if self._unfinished_bytes > self._limits.head_bytes:
            return True
        return self.headers is not None and len(self.headers) > self._limits.headers

    def _say_too_large(self) -> None:
        limits = self._limits
        problem = Problem(
            "head_too_large",
            f"The request line and the headers may have at most {limits.head_bytes} bytes, in "
            f"{limits.headers} headers.",
            headers={"Connection": "close"},
        )
        answer = respond(problem, request_id=str(uuid.uuid4()))
        lines = [b"%s: %s\r\n" % header for header in answer.raw_headers]
        head = [STATUS_LINE[answer.status_code], *lines, b"\r\n"]
        self.transport.write(b"".join([*head, bytes(answer.body)]))
