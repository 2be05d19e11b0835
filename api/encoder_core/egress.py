"""
The only way out to hosts that a user named: resolve, check every address, dial the checked one.

A name is never checked and then dialled by name: between the two it may change its address.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from encoder_core.errors import JobError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

DENIED: Final[Sequence[IPNetwork]] = tuple(
    ipaddress.ip_network(text)
    for text in (
        # `is_global` alone lets NAT64, 6to4 and some clouds' metadata addresses through.
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32",
        "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
        "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4",
        "240.0.0.0/4", "::/128", "::1/128", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64",
        "2001::/32", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7",
        "fe80::/10", "ff00::/8",
    )
)  # fmt: skip

MOST_TRIED: Final = 4  # addresses of one host: each that does not answer costs a time-out


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that passed the check, with the port to dial."""

    family: socket.AddressFamily
    address: str
    port: int


Resolve = Callable[[str, int], Iterable[tuple[socket.AddressFamily, str]]]


def resolve_with_system(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    """Every address of a host, as the system's resolver gives them. Raises OSError."""
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(socket.AddressFamily(family), str(sockaddr[0])) for family, *_, sockaddr in infos]


class Dialler:
    """Connects to user-given hosts. `allowed` lists private networks that the admin opened."""

    def __init__(
        self, allowed: Iterable[str] = (), *, resolve: Resolve = resolve_with_system
    ) -> None:
        self._allowed = tuple(ipaddress.ip_network(cidr, strict=False) for cidr in allowed)
        self._resolve = resolve

    def is_allowed(self, address: str) -> bool:
        """Whether an IP address in text may be dialled. One with a zone id is refused."""
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        if any(ip.version == network.version and ip in network for network in self._allowed):
            return True
        if any(ip.version == network.version and ip in network for network in DENIED):
            return False
        return ip.is_global

    def check(self, host: str, port: int) -> list[Endpoint]:
        """
        The addresses of a host to be tried, all of whose addresses passed.

        One denied address refuses the host: a mixed answer is how rebinding looks. Raises JobError
        `address_not_allowed`, which tells nothing about the network, or OSError when the name
        cannot be resolved.
        """
        answers = list(self._resolve(host.strip("[]"), port))
        if not answers:
            raise OSError(f"{host} has no address")
        if not all(self.is_allowed(address) for _, address in answers):
            raise JobError("address_not_allowed", "The address is not allowed.")
        candidates = list(dict.fromkeys(answers))[:MOST_TRIED]
        return [Endpoint(family, address, port) for family, address in candidates]

    def connect(self, host: str, port: int, *, timeout_s: float) -> socket.socket:
        """A TCP connection to the first address that answers. Raises JobError or OSError."""
        last: OSError | None = None
        for endpoint in self.check(host, port):
            connection = socket.socket(endpoint.family, socket.SOCK_STREAM)
            try:
                connection.settimeout(timeout_s)
                connection.connect((endpoint.address, endpoint.port))
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                connection.close()
                last = error
                continue
            return connection
        raise last or OSError(f"{host} did not answer")
