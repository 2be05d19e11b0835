"""
The only way out to hosts that a user named: resolve, check every address, dial the checked one.

A name is never checked and then dialled by name: between the two it may change its address.
"""

from __future__ import annotations

import ipaddress
import logging
import queue
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

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

INNER_NAMES: Final = ("internal", "local", "localhost", "svc")
"""What names end with that no public server has: of clusters, clouds, and the machine itself."""

MOST_TRIED: Final = 4  # addresses of one host: each that does not answer costs a time-out
BLOCK_BYTES: Final = 128 * 1024
"""
What an upload is sent by. Each block has the time of one read to be taken: so a server that lets it
in drop by drop, slower than a block in that time, is given up like one that takes nothing.
"""
RESOLVE_S: Final = 10.0  # a resolver tries each of its servers for seconds, one after the other

LOGGER: Final = "encoder.egress"
"""Says what was refused and why: for admins. Keep it from what callers get to see."""
log = logging.getLogger(LOGGER)


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


def is_inner_name(host: str) -> bool:
    """
    Whether a host is one that only a resolver of the inside knows.

    Such a name is not even looked up for a caller: that it has an address tells what runs here.
    """
    if _ip_of(host) is not None:
        return False
    labels = host.lower().rstrip(".").split(".")
    return len(labels) == 1 or labels[0] == "metadata" or labels[-1] in INNER_NAMES


class Dialler:
    """
    Connects to user-given hosts.

    `allowed` lists private networks that the admin opened, `denied` those that are closed whatever
    else is said of them, such as a cluster's own ranges of public addresses.
    """

    def __init__(
        self,
        allowed: Iterable[str] = (),
        denied: Iterable[str] = (),
        *,
        resolve: Resolve = resolve_with_system,
    ) -> None:
        self._allowed = tuple(ipaddress.ip_network(cidr, strict=False) for cidr in allowed)
        self._denied = tuple(ipaddress.ip_network(cidr, strict=False) for cidr in denied)
        self._resolve = resolve
        self._counting = threading.Lock()
        self.refused = 0
        """How often a host was refused. The log says why."""

    def is_allowed(self, address: str) -> bool:
        """Whether an IP address in text may be dialled. One with a zone id is refused."""
        return self._objection(address) is None

    def check(self, host: str, port: int, *, timeout_s: float = RESOLVE_S) -> list[Endpoint]:
        """
        The addresses of a host to be tried, all of whose addresses passed.

        One denied address refuses the host: a mixed answer is how rebinding looks. A name of the
        inside has to be in a network that the admin opened. Raises JobError `address_not_allowed`,
        which tells nothing about the network, or OSError when the name cannot be resolved in time.
        """
        host = host.strip("[]")
        inner = is_inner_name(host)
        if inner and not self._allowed:
            self._refuse(host, port, "a name of the inside, and no network is allowed")
        answers = self._look_up(host, port, timeout_s=timeout_s)
        if not answers:
            raise OSError(f"{host} has no address")
        for _, address in answers:
            why = self._objection(address, opened=inner)
            if why is not None:
                self._refuse(host, port, why)
        candidates = list(dict.fromkeys(answers))[:MOST_TRIED]
        return [Endpoint(family, address, port) for family, address in candidates]

    def _objection(self, address: str, *, opened: bool = False) -> str | None:
        """Why an address may not be dialled. `opened`: it has to be in an allowed network."""
        ip = _ip_of(address)
        if ip is None:
            return f"{address} is no address"
        if (network := _network_of(ip, self._denied)) is not None:
            return f"{address} is in {network}, which is denied by setting"
        if _network_of(ip, self._allowed) is not None:
            return None
        if opened:
            return f"a name of the inside, and {address} is in no allowed network"
        if (network := _network_of(ip, DENIED)) is not None:
            return f"{address} is in {network}"
        return None if ip.is_global else f"{address} is not public"

    def _look_up(
        self, host: str, port: int, *, timeout_s: float
    ) -> list[tuple[socket.AddressFamily, str]]:
        """
        Every address of a host.

        Resolvers know no time-out, so the wait is for a thread that may be left behind; it ends
        when the resolver gives up.
        """
        answers: queue.SimpleQueue[list[tuple[socket.AddressFamily, str]] | Exception]
        answers = queue.SimpleQueue()

        def ask() -> None:
            try:
                answers.put(list(self._resolve(host, port)))
            except (OSError, ValueError) as error:
                answers.put(error)

        threading.Thread(target=ask, name="resolve", daemon=True).start()
        try:
            answer = answers.get(timeout=max(0.001, timeout_s))
        except queue.Empty:
            raise TimeoutError(f"{host} was not resolved in time") from None
        if isinstance(answer, ValueError):
            raise OSError(f"{host} is not a host name") from answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    def connect(self, host: str, port: int, *, timeout_s: float) -> socket.socket:
        """A TCP connection to the first address that answers. Raises JobError or OSError."""
        last: OSError | None = None
        for endpoint in self.check(host, port, timeout_s=timeout_s):
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

    def _refuse(self, host: str, port: int, why: str) -> NoReturn:
        with self._counting:
            self.refused += 1
        log.warning("address_refused", extra={"host": host, "port": port, "why": why})
        raise JobError("address_not_allowed", "The address is not allowed.")


def _ip_of(address: str) -> IPAddress | None:
    """An address in text, as what it is dialled as. None for anything else."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address) and ip.scope_id is not None:
        return None
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return mapped or ip


def _network_of(ip: IPAddress, networks: Iterable[IPNetwork]) -> IPNetwork | None:
    return next((net for net in networks if net.version == ip.version and ip in net), None)
