"""
What one connection may take of the service: uvicorn's protocol with bounds.

Nobody needs a key to connect, so nothing here may grow with what a stranger sends.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from encoder_api.problems import Problem, respond


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a connection may take."""

    head_bytes: int = 64 * 1024
    """Of the request line and the headers together; and of what may follow a body in chunks."""

    headers: int = 200
    """As objects they take 20 times what they take on the wire: 64 KiB would be 1.4 MiB."""

    ahead: int = 16
    """Requests that may wait for the answer to one before them. One read has room for 14,000."""


class Connection(HttpToolsProtocol):
    def __init__(self, *args: Any, limits: Limits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._unfinished_bytes = 0
        """What arrived since a head, or a piece of a body, was complete: the parser keeps it."""

    def data_received(self, data: bytes) -> None:
        self._unfinished_bytes += len(data)
        super().data_received(data)
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

    def on_body(self, body: bytes) -> None:
        self._unfinished_bytes = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """The parser's refusal, and ours. In the middle of another answer nothing can be said."""
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()
        elif self._is_head_too_large():
            self._say_too_large()
            self.transport.close()
        else:
            super().send_400_response(msg)

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
