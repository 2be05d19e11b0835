"""A socket that gives up at one moment, however slowly the other side drips."""

from __future__ import annotations

import io
import socket
import time
from typing import Any


class DeadlineSocket:
    """
    What `http.client` needs of a socket, with one deadline for everything that is done on it.

    A socket's own time-out starts anew with each byte, so a receiver that sends one a second could
    hold a sender for hours.
    """

    def __init__(self, connection: socket.socket, *, deadline: float) -> None:
        self._connection = connection
        self.deadline = deadline
        """On the monotonic clock. May be brought forward."""

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._allow_what_is_left()
            view = view[self._connection.send(view) :]

    def makefile(self, mode: str, *_: Any, **__: Any) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self))

    def recv_into(self, buffer: Any) -> int:
        self._allow_what_is_left()
        return self._connection.recv_into(buffer)

    def close(self) -> None:
        """Whoever opened the connection closes it, not the response that was read from it."""

    def _allow_what_is_left(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        self._connection.settimeout(left)


class _Reader(io.RawIOBase):
    def __init__(self, wire: DeadlineSocket) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._wire.recv_into(buffer)
