"""HTTP through the checked dialler: urllib3's pools, whose sockets come from a Dialler."""

from __future__ import annotations

import io
import re
import socket
import ssl
from collections.abc import Mapping
from typing import IO, Any, Final
from urllib.parse import urlsplit

from urllib3 import BaseHTTPResponse, PoolManager, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError

from encoder_core.egress import BLOCK_BYTES, Dialler

CONNECTIONS: Final = 8  # to one host that are kept: parts of a file that are under way together
CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)$")
Body = bytes | IO[bytes] | None


class CheckedHttp:
    """
    Sends single requests to hosts that a user named.

    Follows no redirect and tries nothing twice: each of those is a decision of the caller, who has
    to look at the new address or at what was sent. Knows nothing of proxies in the environment.
    """

    def __init__(
        self, dialler: Dialler, *, connect_timeout_s: float = 10.0, read_timeout_s: float = 60.0
    ) -> None:
        self._timeout = Timeout(connect=connect_timeout_s, read=read_timeout_s)
        self._pools = PoolManager(
            retries=False,
            timeout=self._timeout,
            ssl_context=ssl.create_default_context(),
            maxsize=CONNECTIONS,
            blocksize=BLOCK_BYTES,
        )
        self._pools.pool_classes_by_scheme = _make_pool_classes(
            dialler, connect_timeout_s, read_timeout_s
        )

    def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: Body = None
    ) -> BaseHTTPResponse:
        """
        The response with its body still to be read, as it came: nothing is decoded.

        A body may take as long as it moves: the time to read bounds each block of it, too.

        Raises JobError `address_not_allowed`, or urllib3's HTTPError.
        """
        sent = dict(headers)
        if isinstance(body, bytes):
            # Sent as one it would have to be taken whole within the time of one block.
            sent.setdefault("Content-Length", str(len(body)))
            body = io.BytesIO(body)
        return self._pools.urlopen(
            method,
            url,
            headers=sent,
            body=body,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )

    def close(self) -> None:
        self._pools.clear()


def _make_pool_classes(dialler: Dialler, connect_s: float, idle_s: float) -> dict[str, Any]:
    def dial(connection: HTTPConnection) -> socket.socket:
        try:
            return dialler.connect(connection.host, connection.port, timeout_s=connect_s)
        except OSError as error:
            raise NewConnectionError(connection, str(error)) from error

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return dial(self)

        def connect(self) -> None:
            super().connect()
            self.sock.settimeout(idle_s)

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return dial(self)

        def connect(self) -> None:
            super().connect()
            self.sock.settimeout(idle_s)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


def host_of(url: str) -> str:
    """The part of a URL that a message may name."""
    return urlsplit(url).hostname or "the server"


def origin_of(url: str) -> tuple[str, str | None, int | None]:
    """What has to be the same for headers with credentials to be sent on."""
    parts = urlsplit(url)
    default = 443 if parts.scheme.lower() == "https" else 80
    return parts.scheme.lower(), parts.hostname, parts.port or default
