"""
Post one webhook: signed bytes out, a verdict in, within one deadline and through the dialler.

Nothing here trusts the receiver: it is an address that somebody put into a request. Redirects are
not followed, no proxy or cookie of this machine is used, the answer is read up to a limit.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from encoder_api.webhooks.outcomes import Exchange, outcome_of_status
from encoder_api.webhooks.wire import DeadlineSocket
from encoder_core.deliveries import Outcome
from encoder_core.egress import Dialler
from encoder_core.errors import JobError
from encoder_core.redaction import Redactor

CONNECT_S: Final = 5.0  # resolve and connect; a receiver farther away than that is down
ANSWER_BODY_S: Final = 2.0  # the status is what counts; the body only helps who reads the log
READ_BYTES: Final = 16 * 1024
SNIPPET_BYTES: Final = 1024
MAX_ADDRESSES: Final = 4  # a name with hundreds of dead addresses must not use up the deadline


@dataclass(frozen=True, slots=True)
class Target:
    """Where to post: a URL that was parsed once, so that what is checked is what is used."""

    tls: bool
    host: str
    port: int
    request_target: str
    authorization: str | None

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def read_target(url: str) -> Target:
    """Raises ValueError for what is no http or https URL with a host."""
    parts = urlsplit(url)
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http or https URL")
    tls = parts.scheme.lower() == "https"
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = quote(parts.query, safe="/?%:@!$&'()*+,;=~-._")
    return Target(
        tls=tls,
        # Encoded as the resolver would, so that Host, TLS name and lookup agree.
        host=parts.hostname.encode("idna").decode()
        if ":" not in parts.hostname
        else parts.hostname,
        port=parts.port or (443 if tls else 80),
        request_target=f"{path}?{query}" if query else path,
        authorization=_basic_authorization(parts),
    )


def _user_and_password(parts: SplitResult) -> str | None:
    if parts.username is None:
        return None
    return f"{unquote(parts.username)}:{unquote(parts.password or '')}"


def _basic_authorization(parts: SplitResult) -> str | None:
    pair = _user_and_password(parts)
    return None if pair is None else f"Basic {base64.b64encode(pair.encode()).decode()}"


def secrets_of(url: str) -> list[str]:
    """The parts of a URL that must not show up in a log when a receiver echoes its request."""
    parts = urlsplit(url)
    values = [value for _, value in parse_qsl(parts.query) if len(value) >= 8]  # not `true`
    credentials = (_user_and_password(parts), parts.password and unquote(parts.password))
    return [url, *values, *filter(None, credentials)]


class Client:
    """Posts webhooks. Safe to use from many threads at once: it keeps no state between posts."""

    def __init__(
        self,
        dialler: Dialler,
        *,
        timeout_s: float = 15.0,
        https_only: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._dialler = dialler
        self._timeout_s = timeout_s
        self._https_only = https_only
        self._tls = tls or ssl.create_default_context()

    def post(self, url: str, *, headers: Mapping[str, str], body: bytes) -> Exchange:
        """One attempt. Whatever goes wrong with the receiver is an outcome, not an exception."""
        began = time.monotonic()
        exchange = self._attempt(url, headers, body, deadline=began + self._timeout_s)
        return replace(exchange, duration_ms=round((time.monotonic() - began) * 1000))

    def _attempt(
        self, url: str, headers: Mapping[str, str], body: bytes, *, deadline: float
    ) -> Exchange:
        try:
            target = read_target(url)
        except ValueError:
            return Exchange(Outcome.ADDRESS_NOT_ALLOWED, 0)
        if self._https_only and not target.tls:
            return Exchange(Outcome.ADDRESS_NOT_ALLOWED, 0)
        remote_ip: str | None = None
        try:
            connection, remote_ip = self._connect(target, deadline=deadline)
            with self._secure(connection, target, deadline=deadline) as secured:
                wire = DeadlineSocket(secured, deadline=deadline)
                answer = _ask(wire, target, headers, body)
                wire.deadline = min(deadline, time.monotonic() + ANSWER_BODY_S)
                return Exchange(
                    outcome_of_status(answer.status),
                    0,
                    status=answer.status,
                    remote_ip=remote_ip,
                    snippet=_snippet(_read_some(answer), url),
                    retry_after=answer.getheader("retry-after"),
                )
        except JobError:
            outcome = Outcome.ADDRESS_NOT_ALLOWED
        except TimeoutError:
            outcome = Outcome.TIMEOUT
        except (http.client.RemoteDisconnected, ssl.SSLEOFError):
            outcome = Outcome.CONNECTION_FAILED
        except ssl.SSLError as error:
            return Exchange(
                Outcome.TLS_FAILED, 0, remote_ip=remote_ip, snippet=_why(error).encode()
            )
        except http.client.HTTPException:
            outcome = Outcome.INVALID_ANSWER
        except OSError:
            outcome = Outcome.CONNECTION_FAILED
        return Exchange(outcome, 0, remote_ip=remote_ip)

    def _connect(self, target: Target, *, deadline: float) -> tuple[socket.socket, str]:
        until = min(deadline, time.monotonic() + CONNECT_S)
        last: OSError = OSError(f"{target.host} has no address")
        timeout_s = until - time.monotonic()
        found = self._dialler.check(target.host, target.port, timeout_s=timeout_s)
        for endpoint in found[:MAX_ADDRESSES]:
            connection = socket.socket(endpoint.family, socket.SOCK_STREAM)
            try:
                connection.settimeout(max(0.001, until - time.monotonic()))
                connection.connect((endpoint.address, endpoint.port))
            except OSError as error:
                connection.close()
                last = error
                continue
            return connection, endpoint.address
        raise last

    def _secure(
        self, connection: socket.socket, target: Target, *, deadline: float
    ) -> socket.socket:
        if not target.tls:
            return connection
        try:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            return self._tls.wrap_socket(connection, server_hostname=target.host)
        except BaseException:
            connection.close()
            raise


def _ask(
    wire: DeadlineSocket, target: Target, headers: Mapping[str, str], body: bytes
) -> http.client.HTTPResponse:
    """Send the request and read the head of the answer."""
    request = http.client.HTTPConnection(target.host, target.port)
    request.auto_open = 0  # never connects by itself: that would go round the dialler
    request.sock = wire
    request.putrequest("POST", target.request_target, skip_host=True, skip_accept_encoding=True)
    request.putheader("host", target.host_header)
    request.putheader("connection", "close")
    request.putheader("content-length", str(len(body)))
    if target.authorization is not None:
        request.putheader("authorization", target.authorization)
    for name, value in headers.items():
        request.putheader(name, value)
    # Who answers before the body has been read, and hangs up, has answered all the same.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        request.endheaders(body)
    return request.getresponse()


def _read_some(answer: http.client.HTTPResponse) -> bytes:
    """The beginning of the body. One that breaks off changes nothing: the status has been said."""
    body = bytearray()
    try:
        while len(body) < READ_BYTES and (piece := answer.read1(READ_BYTES - len(body))):
            body += piece
    except (OSError, http.client.HTTPException, ValueError):
        pass
    return bytes(body)


def _why(error: ssl.SSLError) -> str:
    """OpenSSL's own words, such as "certificate has expired"; they name a host at most."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or "TLS failed").replace("_", " ").lower()


def _snippet(body: bytes, url: str) -> bytes:
    # Redacted before it is cut: a secret across the edge would keep its head.
    text = Redactor(secrets_of(url))(body.decode("utf-8", "replace"))
    return text.encode()[:SNIPPET_BYTES]
