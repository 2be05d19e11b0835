"""The checked dialler: which addresses are dialled, and that the checked one is."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

import pytest

from encoder_core.egress import DENIED, Dialler, Endpoint
from encoder_core.egress_http import CheckedHttp, host_of, origin_of
from encoder_core.errors import JobError

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
