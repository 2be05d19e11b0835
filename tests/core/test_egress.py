"""The checked dialler: which addresses are dialled, and that the checked one is."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence

import pytest
from urllib3.exceptions import HTTPError

from encoder_core.egress import BLOCK_BYTES, DENIED, LOGGER, Dialler, Endpoint
from encoder_core.egress_http import CheckedHttp, host_of, origin_of
from encoder_core.errors import JobError
from encoder_core.logs import fields_of

V4, V6 = socket.AddressFamily.AF_INET, socket.AddressFamily.AF_INET6
PUBLIC = "93.184.216.34"


def resolving(*addresses: str) -> Dialler:
    """A dialler to which every name has these addresses."""
    answers = [(V6 if ":" in address else V4, address) for address in addresses]
    return Dialler(resolve=lambda _host, _port: answers)


@pytest.mark.parametrize("network", DENIED, ids=str)
def test_both_ends_of_every_denied_network_are_refused(network: Sequence[object]) -> None:
    assert not Dialler().is_allowed(str(network[0]))
    assert not Dialler().is_allowed(str(network[-1]))


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("::ffff:127.0.0.1", id="loopback mapped into IPv6"),
        pytest.param("::ffff:169.254.169.254", id="metadata mapped into IPv6"),
        pytest.param("64:ff9b::a00:1", id="NAT64 of 10.0.0.1"),
        pytest.param("2002:a00:1::", id="6to4 of 10.0.0.1"),
        pytest.param("168.63.129.16", id="Azure's service in the machine"),
        pytest.param("192.0.0.192", id="Oracle's metadata"),
        pytest.param("fe80::1%eth0", id="a zone"),
        pytest.param("not an address", id="no address"),
    ],
)
def test_disguises_are_refused(address: str) -> None:
    assert not Dialler().is_allowed(address)


@pytest.mark.parametrize("address", [PUBLIC, "2606:2800:220:1:248:1893:25c8:1946", "1.1.1.1"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert Dialler().is_allowed(address)


def test_what_the_admin_opened_is_allowed_and_nothing_beside_it() -> None:
    dialler = Dialler(["10.1.0.0/16", "fd00::/8"])
    assert dialler.is_allowed("10.1.2.3")
    assert dialler.is_allowed("fd12::1")
    assert dialler.is_allowed("::ffff:10.1.2.3")
    assert not dialler.is_allowed("10.2.0.1")


def test_what_the_admin_denied_is_refused_though_it_be_public_or_allowed() -> None:
    dialler = Dialler(["10.0.0.0/8"], ["10.96.0.0/12", f"{PUBLIC}/32"])
    assert dialler.is_allowed("10.1.2.3")
    assert not dialler.is_allowed("10.96.0.1")
    assert not dialler.is_allowed("::ffff:10.96.0.1")
    assert not dialler.is_allowed(PUBLIC)


INNER = ["minio", "LOCALHOST", "a.localhost", "db.shop.svc", "db.shop.svc.cluster.local.",
         "printer.local", "metadata.google.internal", "metadata.cloud.example"]  # fmt: skip


class TestNamesOfTheInside:
    @pytest.mark.parametrize("host", INNER)
    def test_are_refused_without_being_looked_up(self, host: str) -> None:
        asked: list[str] = []

        def resolve(host: str, _port: int) -> list[tuple[socket.AddressFamily, str]]:
            asked.append(host)
            return [(V4, PUBLIC)]

        with pytest.raises(JobError) as caught:
            Dialler(resolve=resolve).check(host, 80)
        assert (caught.value.code, asked) == ("address_not_allowed", [])

    @pytest.mark.parametrize("host", INNER)
    def test_are_reached_in_the_networks_that_the_admin_opened_alone(self, host: str) -> None:
        def dialler(address: str) -> Dialler:
            return Dialler(["10.1.0.0/16"], resolve=lambda _host, _port: [(V4, address)])

        assert dialler("10.1.2.3").check(host, 80) == [Endpoint(V4, "10.1.2.3", 80)]
        with pytest.raises(JobError):
            dialler(PUBLIC).check(host, 80)

    @pytest.mark.parametrize("host", ["a.svc.example", "internal.example", "local.example.com"])
    def test_are_told_by_their_end(self, host: str) -> None:
        assert resolving(PUBLIC).check(host, 80)

    @pytest.mark.parametrize("host", ["93.184.216.34", "[2606:2800:220:1:248:1893:25c8:1946]"])
    def test_are_not_addresses(self, host: str) -> None:
        assert Dialler().check(host, 80)


class TestLookUps:
    def test_that_hang_are_given_up(self) -> None:
        release = threading.Event()

        def hangs(_host: str, _port: int) -> list[tuple[socket.AddressFamily, str]]:
            release.wait()
            return []

        with pytest.raises(TimeoutError, match="not resolved in time"):
            Dialler(resolve=hangs).connect("slow.example", 80, timeout_s=0.05)
        release.set()

    def test_of_what_cannot_be_a_name_find_nothing(self) -> None:
        with pytest.raises(OSError, match="is not a host name"):
            Dialler().check(f"{'a' * 64}.example", 80)


@pytest.mark.parametrize(
    ("host", "address", "why"),
    [
        pytest.param("a.example", "10.0.0.1", "10.0.0.1 is in 10.0.0.0/8", id="an address"),
        pytest.param("db.svc", "10.0.0.1", "a name of the inside", id="a name"),
    ],
)
def test_a_refusal_is_logged_for_the_admin_and_tells_the_caller_nothing(
    host: str, address: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    dialler = resolving(address)
    with pytest.raises(JobError) as caught:
        dialler.check(host, 443)
    assert dialler.refused == 1
    [line] = caplog.records
    fields = fields_of(line)
    assert (line.name, line.getMessage()) == (LOGGER, "address_refused")
    assert (fields["host"], fields["port"]) == (host, 443)
    assert fields["why"].startswith(why)
    assert str(caught.value) == "The address is not allowed."


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "localhost", "[::1]"]
)
def test_other_ways_to_write_loopback_are_refused(host: str) -> None:
    with pytest.raises(JobError) as caught:
        Dialler().check(host, 80)
    assert caught.value.code == "address_not_allowed"


def test_one_denied_address_refuses_the_host() -> None:
    with pytest.raises(JobError) as caught:
        resolving(PUBLIC, "10.0.0.1").check("rebinding.example", 80)
    assert str(caught.value) == "The address is not allowed."


def test_all_checked_addresses_are_candidates_each_once() -> None:
    assert resolving(PUBLIC, PUBLIC, "1.1.1.1").check("a.example", 443) == [
        Endpoint(V4, PUBLIC, 443),
        Endpoint(V4, "1.1.1.1", 443),
    ]


def test_of_very_many_addresses_few_are_tried_and_all_are_checked() -> None:
    many = [f"1.1.1.{number}" for number in range(200)]
    assert len(resolving(*many).check("a.example", 443)) == 4
    with pytest.raises(JobError):
        resolving(*many, "10.0.0.1").check("a.example", 443)


def test_a_name_without_an_address_is_no_refusal() -> None:
    with pytest.raises(OSError, match="has no address"):
        resolving().check("nobody.example", 80)


class TestConnections:
    @pytest.fixture
    def port(self) -> Iterator[int]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield server.getsockname()[1]

    def test_the_name_is_asked_once_and_its_answer_dialled(self, port: int) -> None:
        """A name that answers otherwise the second time is how a check is slipped past."""
        asked = []

        def resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
            asked.append((host, port))
            return [(V4, "127.0.0.1")]

        dialler = Dialler(["127.0.0.0/8"], resolve=resolve)
        with dialler.connect("a.example", port, timeout_s=5) as connection:
            assert connection.getpeername() == ("127.0.0.1", port)
        assert asked == [("a.example", port)]

    def test_the_next_address_is_tried(self, port: int) -> None:
        answers = [(V4, "127.0.0.2"), (V4, "127.0.0.1")]
        dialler = Dialler(["127.0.0.0/8"], resolve=lambda _host, _port: answers)
        with dialler.connect("a.example", port, timeout_s=5) as connection:
            assert connection.getpeername()[0] == "127.0.0.1"

    def test_http_asks_the_dialler(self) -> None:
        client = CheckedHttp(resolving("169.254.169.254"))
        with pytest.raises(JobError) as caught:
            client.send("GET", "http://metadata.example/latest", headers={})
        client.close()
        assert caught.value.code == "address_not_allowed"

    def test_https_asks_the_dialler(self) -> None:
        client = CheckedHttp(resolving("10.0.0.1"))
        with pytest.raises(JobError) as caught:
            client.send("GET", "https://inside.example/", headers={})
        client.close()
        assert caught.value.code == "address_not_allowed"

    def test_proxies_of_the_environment_are_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        client = CheckedHttp(resolving("10.0.0.1"))
        with pytest.raises(JobError):
            client.send("GET", "http://inside.example/", headers={})
        client.close()


class TestUploads:
    """To a server that takes only so much of a body, and all or half of it slowly."""

    BODY = bytes(12 * 1024**2)  # more than the buffers of both ends together hold
    IDLE_S = 0.4
    STEP_BYTES = 64 * 1024
    PAUSE_S = 0.01  # so that half takes several times as long as a block may

    def send(
        self, *, takes: int, slow: float = 0.5, step: int = STEP_BYTES, pause_s: float = PAUSE_S
    ) -> int:
        ended = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                taken = 0
                while taken < takes and (data := connection.recv(step)):
                    taken += len(data)
                    if taken < len(self.BODY) * slow:
                        ended.wait(pause_s)
                if taken > len(self.BODY):
                    connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
                ended.wait()

        dialler = Dialler(["127.0.0.0/8"])
        client = CheckedHttp(dialler, connect_timeout_s=self.IDLE_S, read_timeout_s=self.IDLE_S)
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.STEP_BYTES)
            server.bind(("127.0.0.1", 0))
            server.listen(1)
            at_work = threading.Thread(target=serve)
            at_work.start()
            try:
                url = f"http://127.0.0.1:{server.getsockname()[1]}/"
                return client.send("PUT", url, headers={}, body=self.BODY).status
            finally:
                ended.set()
                at_work.join()
                client.close()

    def test_a_body_that_moves_may_take_longer_than_a_block(self) -> None:
        assert self.send(takes=len(self.BODY) + 1) == 204

    def test_a_body_that_nobody_takes_any_more_is_given_up(self) -> None:
        with pytest.raises(HTTPError):
            self.send(takes=1024**2)

    def test_a_body_that_is_taken_drop_by_drop_is_given_up(self) -> None:
        drops_in_time = self.IDLE_S / self.PAUSE_S
        drop = 2048
        assert drops_in_time * drop < BLOCK_BYTES
        with pytest.raises(HTTPError):
            self.send(takes=len(self.BODY) + 1, slow=1, step=drop, pause_s=self.PAUSE_S)


def test_what_a_message_may_name_of_a_url() -> None:
    assert host_of("https://me:secret@host.example:8443/path?sig=x") == "host.example"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param("http://a.example/x", "http://a.example:80/y", True, id="the default port"),
        pytest.param("http://a.example/", "https://a.example/", False, id="another scheme"),
        pytest.param("http://a.example/", "http://b.example/", False, id="another host"),
        pytest.param("http://a.example/", "http://a.example:81/", False, id="another port"),
    ],
)
def test_origins(one: str, other: str, same: bool) -> None:
    assert (origin_of(one) == origin_of(other)) is same
