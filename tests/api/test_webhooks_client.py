"""One POST to a receiver that may do anything."""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import trustme

from encoder_api.webhooks.client import READ_BYTES, SNIPPET_BYTES, Client, read_target
from encoder_api.webhooks.outcomes import Exchange
from encoder_core.deliveries import Outcome
from encoder_core.egress import Dialler
from tests.servers.tls import UNACCEPTABLE, bad_server

LOOPBACK = ["127.0.0.0/8"]
TIMEOUT_S = 0.4
BOMB_BYTES = 64 * 1024 * 1024
BODY = '{"type":"job.queued","name":"Übung 🎬"}'.encode()

Behaviour = Callable[[socket.socket], None]


@dataclass
class Receiver:
    """Does what its behaviour says with each connection, and keeps what it was sent."""

    port: int
    requests: list[bytes] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"


@contextmanager
def receiver(behaviour: Behaviour, *, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)
    here = Receiver(listener.getsockname()[1])

    def serve() -> None:
        while not here.closing.is_set():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                if here.closing.is_set():
                    connection.close()
                    return
                with tls.wrap_socket(connection, server_side=True) if tls else connection as wire:
                    wire.settimeout(10)
                    here.requests.append(read_request(wire))
                    behaviour(wire)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield here
    finally:
        here.closing.set()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", here.port), timeout=5).close()
        thread.join(timeout=15)
        listener.close()
    assert not thread.is_alive()


def read_request(wire: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = wire.recv(65536)
        if not piece:
            return data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    while len(body) < length:
        body += wire.recv(65536)
    return head + b"\r\n\r\n" + body


def answers(text: str, body: bytes = b"") -> Behaviour:
    head = f"HTTP/1.1 {text}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    return lambda wire: wire.sendall(head + body)


def waits_for_the_end(wire: socket.socket) -> None:
    wire.recv(1)


def resets(wire: socket.socket) -> None:
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


def drips(head: bytes, drop: bytes) -> Behaviour:
    def behave(wire: socket.socket) -> None:
        wire.sendall(head)
        wire.settimeout(0.02)
        while True:
            wire.sendall(drop)
            # The pause between drops, cut short when the client has hung up.
            with contextlib.suppress(TimeoutError):
                if not wire.recv(1):
                    return

    return behave


def floods(wire: socket.socket) -> None:
    wire.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        wire.sendall(b"x" * 65536)


def client(**options: object) -> Client:
    return Client(Dialler(LOOPBACK), timeout_s=TIMEOUT_S, **options)  # type: ignore[arg-type]


def test_a_post_carries_exactly_the_bytes_and_headers_that_were_signed() -> None:
    with receiver(answers("204 No Content")) as here:
        exchange = client().post(
            here.url + "?id=7&q=ü#part", headers={"webhook-id": "abc"}, body=BODY
        )
        assert exchange.outcome is Outcome.DELIVERED
        assert exchange.status == 204
        assert exchange.remote_ip == "127.0.0.1"
        head, _, body = here.requests[0].partition(b"\r\n\r\n")
    assert body == BODY
    assert head.decode().splitlines() == [
        "POST /hook?id=7&q=%C3%BC HTTP/1.1",
        f"host: 127.0.0.1:{here.port}",
        "connection: close",
        f"content-length: {len(BODY)}",
        "webhook-id: abc",
    ]


@pytest.mark.parametrize(
    ("behaviour", "want"),
    [
        pytest.param(answers("200 OK", b"thanks"), Outcome.DELIVERED, id="200"),
        pytest.param(answers("204 No Content"), Outcome.DELIVERED, id="204"),
        pytest.param(answers("301 Moved\r\nlocation: /"), Outcome.REDIRECT_REFUSED, id="301"),
        pytest.param(answers("307 Moved\r\nlocation: /"), Outcome.REDIRECT_REFUSED, id="307"),
        pytest.param(answers("400 Bad"), Outcome.CLIENT_ERROR, id="400"),
        pytest.param(answers("410 Gone"), Outcome.GONE, id="410"),
        pytest.param(answers("429 Slow down"), Outcome.CLIENT_ERROR, id="429"),
        pytest.param(answers("500 Oh"), Outcome.SERVER_ERROR, id="500"),
        pytest.param(waits_for_the_end, Outcome.TIMEOUT, id="never answers"),
        pytest.param(drips(b"", b"H"), Outcome.TIMEOUT, id="drips the status line"),
        pytest.param(
            drips(b"HTTP/1.1 200 OK\r\nx-drip: ", b"y"), Outcome.TIMEOUT, id="drips a header"
        ),
        pytest.param(
            drips(b"HTTP/1.1 200 OK\r\n\r\n", b"z"), Outcome.DELIVERED, id="drips the body"
        ),
        pytest.param(
            drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), Outcome.TIMEOUT, id="continues for ever"
        ),
        pytest.param(floods, Outcome.DELIVERED, id="an endless body"),
        pytest.param(
            answers("200 OK\r\nx: " + "h" * 70_000), Outcome.INVALID_ANSWER, id="a huge header"
        ),
        pytest.param(
            answers("200 OK" + "\r\nx: y" * 200), Outcome.INVALID_ANSWER, id="200 headers"
        ),
        pytest.param(resets, Outcome.CONNECTION_FAILED, id="accepts and resets"),
        pytest.param(lambda _: None, Outcome.CONNECTION_FAILED, id="closes without an answer"),
        pytest.param(
            lambda wire: wire.sendall(b"SSH-2.0-OpenSSH\r\n"),
            Outcome.INVALID_ANSWER,
            id="is no web server",
        ),
    ],
)
def test_what_a_receiver_does_and_what_it_counts_as(behaviour: Behaviour, want: Outcome) -> None:
    with receiver(behaviour) as here:
        began = time.monotonic()
        exchange = client().post(here.url, headers={}, body=BODY)
        took = time.monotonic() - began
        assert len(here.requests) == 1, "redirects and retries are not the client's"
    assert exchange.outcome is want
    assert exchange.duration_ms <= took * 1000 + 1


def test_a_port_where_nobody_listens_is_a_failed_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    exchange = client().post(f"http://127.0.0.1:{port}/", headers={}, body=BODY)
    assert (exchange.outcome, exchange.remote_ip) == (Outcome.CONNECTION_FAILED, None)


def test_the_answer_is_read_up_to_a_limit_and_kept_up_to_another() -> None:
    sent = 0

    def behave(wire: socket.socket) -> None:
        nonlocal sent
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        wire.sendall(b"HTTP/1.1 500 Oh\r\n\r\n")
        while True:
            sent += wire.send(b"x" * 4096)

    with receiver(behave) as here:
        exchange = client().post(here.url, headers={}, body=BODY)
    assert exchange.snippet == b"x" * SNIPPET_BYTES
    assert sent < READ_BYTES + 8 * 1024 * 1024, "the rest is what the sockets' buffers took"


def test_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(BOMB_BYTES))
    assert len(bomb) > READ_BYTES
    here_is = answers("400 Bad\r\ncontent-type: application/json\r\ncontent-encoding: gzip", bomb)
    with receiver(here_is) as here:
        tracemalloc.start()
        try:
            exchange = client().post(here.url, headers={}, body=BODY)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert b"accept-encoding" not in here.requests[0].lower()
    assert exchange.outcome is Outcome.CLIENT_ERROR
    assert len(exchange.snippet or b"") <= SNIPPET_BYTES
    assert most < 2 * 1024 * 1024


def test_the_snippet_has_no_secret_of_the_url() -> None:
    echo = b"you asked for /hook?token=hunter2hunter2 with Basic dXNlcjpzM2NyM3Q="
    with receiver(answers("400 Bad", echo)) as here:
        url = f"http://user:s3cr3t@127.0.0.1:{here.port}/hook?token=hunter2hunter2"
        exchange = client().post(url, headers={}, body=BODY)
        assert b"authorization: Basic dXNlcjpzM2NyM3Q=" in here.requests[0]
    assert exchange.snippet is not None
    assert exchange.snippet.startswith(b"you asked for /hook?token=*** with Basic ***")
    assert b"dXNl" not in exchange.snippet


def test_retry_after_is_handed_on_as_it_was_sent() -> None:
    with receiver(answers("503 Busy\r\nRetry-After: 120")) as here:
        assert client().post(here.url, headers={}, body=BODY).retry_after == "120"


# --- Where it may go -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://127.0.0.1:{port}/", id="loopback"),
        pytest.param("http://2130706433:{port}/", id="loopback as one number"),
        pytest.param("http://0x7f.1:{port}/", id="loopback in hexadecimal"),
        pytest.param("http://[::ffff:127.0.0.1]:{port}/", id="loopback mapped to IPv6"),
        pytest.param("http://localhost:{port}/", id="loopback by name"),
        pytest.param("http://user@127.0.0.1:{port}/", id="loopback behind a user"),
        pytest.param("http://169.254.169.254/", id="a cloud's metadata"),
        pytest.param("http://10.0.0.1/", id="a private network"),
        pytest.param("ftp://127.0.0.1:{port}/", id="another scheme"),
    ],
)
def test_a_private_address_is_refused_before_anything_is_dialled(url: str) -> None:
    with receiver(answers("200 OK")) as here:
        exchange = Client(Dialler(), timeout_s=TIMEOUT_S).post(
            url.format(port=here.port), headers={}, body=BODY
        )
        assert here.requests == []
    assert exchange.outcome is Outcome.ADDRESS_NOT_ALLOWED
    assert exchange.remote_ip is None


def test_the_address_that_was_checked_is_the_one_that_is_dialled() -> None:
    """A name that changes its address between check and dial reaches nothing else."""
    lookups: list[str] = []

    def rebinding(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
        lookups.append(host)
        return [(socket.AF_INET, "127.0.0.1" if len(lookups) == 1 else "127.0.0.2")]

    with receiver(answers("200 OK")) as here:
        dialler = Dialler(["127.0.0.1/32"], resolve=rebinding)
        exchange = Client(dialler, timeout_s=TIMEOUT_S).post(
            f"http://rebind.example:{here.port}/", headers={}, body=BODY
        )
        assert f"host: rebind.example:{here.port}".encode() in here.requests[0]
    assert (exchange.outcome, exchange.remote_ip) == (Outcome.DELIVERED, "127.0.0.1")
    assert lookups == ["rebind.example"]


def test_a_resolver_that_hangs_is_a_time_out() -> None:
    release = threading.Event()

    def hangs(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
        release.wait(10)
        return []

    exchange = Client(Dialler(resolve=hangs), timeout_s=TIMEOUT_S).post(
        "http://slow.example/", headers={}, body=BODY
    )
    release.set()
    assert exchange.outcome is Outcome.TIMEOUT


def test_where_only_https_is_allowed_http_is_refused() -> None:
    with receiver(answers("200 OK")) as here:
        exchange = client(https_only=True).post(here.url, headers={}, body=BODY)
        assert here.requests == []
    assert exchange.outcome is Outcome.ADDRESS_NOT_ALLOWED


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver(answers("200 OK")) as here, receiver(answers("500 Oh")) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        assert client().post(here.url, headers={}, body=BODY).outcome is Outcome.DELIVERED


# --- TLS -------------------------------------------------------------------------------------


def contexts(ca: trustme.CA, *, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(server)
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    return server, trusting


def to_loopback(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    return [(socket.AF_INET, "127.0.0.1")]


def post_with_tls(server: ssl.SSLContext, trusting: ssl.SSLContext | None) -> Exchange:
    with receiver(answers("200 OK"), tls=server) as here:
        knocking = Client(Dialler(LOOPBACK, resolve=to_loopback), timeout_s=5, tls=trusting)
        return knocking.post(f"https://hooks.example:{here.port}/", headers={}, body=BODY)


def test_a_good_certificate_is_accepted_from_a_known_authority_only() -> None:
    server, trusting = contexts(trustme.CA(), name="hooks.example")
    assert post_with_tls(server, trusting).outcome is Outcome.DELIVERED
    assert post_with_tls(server, None).outcome is Outcome.TLS_FAILED


@pytest.mark.parametrize(("why", "words"), UNACCEPTABLE.items())
def test_a_certificate_that_does_not_verify_is_refused_with_the_reason(
    why: str, words: str
) -> None:
    authority = trustme.CA()
    _, trusting = contexts(authority, name="hooks.example")
    exchange = post_with_tls(bad_server(why, authority, "hooks.example"), trusting)
    assert (exchange.outcome, exchange.status) == (Outcome.TLS_FAILED, None)
    assert words in (exchange.snippet or b"").decode()


@pytest.mark.parametrize(
    ("url", "host", "target", "host_header"),
    [
        ("https://example.com", "example.com", "/", "example.com"),
        ("http://EXAMPLE.com:80/a?b=c#d", "example.com", "/a?b=c", "example.com"),
        ("https://example.com:8443/ä b", "example.com", "/%C3%A4%20b", "example.com:8443"),
        ("https://bücher.example/", "xn--bcher-kva.example", "/", "xn--bcher-kva.example"),
        ("http://[2001:db8::1]:81/", "2001:db8::1", "/", "[2001:db8::1]:81"),
    ],
)
def test_read_target(url: str, host: str, target: str, host_header: str) -> None:
    read = read_target(url)
    assert (read.host, read.request_target, read.host_header) == (host, target, host_header)
