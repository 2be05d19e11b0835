"""Make the addresses real: choose a number that is free, a bridge, and a cable to each node."""

from __future__ import annotations

import fcntl
import json
import os
from ipaddress import IPv4Network
from pathlib import Path

from tests.harness.addresses import CLUSTERS, Addresses, NodeAddresses
from tests.harness.commands import run

# Machine-wide, not per user: bridges and control groups are too.
LOCKS = Path("/run/lock")


class NoFreeNumber(Exception):
    """Every number is taken by a cluster that runs or by a network that the machine has."""


def take_number() -> tuple[Addresses, int]:
    """
    The addresses of a cluster that nobody runs now, and the open lock that says so.

    A number is taken while any process holds its lock open.
    """
    taken = _networks()
    for number in range(CLUSTERS):
        addresses = Addresses(number)
        wanted = (addresses.hosts, addresses.services, addresses.pods)
        lock = os.open(LOCKS / f"{addresses.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        mine = [network for network, link in taken if not link.startswith(addresses.name)]
        if any(network.subnet_of(one) for network in mine for one in wanted):
            os.close(lock)
            continue
        return addresses, lock
    raise NoFreeNumber(f"numbers 0 to {CLUSTERS - 1} are taken")


def _networks() -> list[tuple[IPv4Network, str]]:
    """What the machine routes, and over which link."""
    routes = json.loads(run("ip", "-4", "-json", "route", "show"))
    return [
        (IPv4Network(route["dst"]), route.get("dev", ""))
        for route in routes
        if route["dst"] != "default"
    ]


def make_bridge(addresses: Addresses) -> None:
    """
    The bridge, with the machine's address on it.

    Routes to addresses that no Pod has end on the bridge, where nobody answers: without them the
    machine's default route would carry such packets away.
    """
    name = addresses.name
    _ip(
        f"link add {name} type bridge",
        f"address add {addresses.machine}/{addresses.hosts.prefixlen} dev {name}",
        f"link set {name} up",
        f"route add {addresses.pods} dev {name}",
    )


def connect(addresses: Addresses, node: NodeAddresses, namespace_of: int) -> None:
    """
    Lay the cable of a node into the network namespace of a process, and route its Pods to it.

    The node gets no default route: nothing in it reaches further than the machine.
    """
    _ip(
        f"link add {node.cable} type veth peer name eth0 netns {namespace_of}",
        f"link set {node.cable} master {addresses.name} up",
        f"route add {node.pods} via {node.address}",
    )
    _ip(
        "link set lo up",
        f"address add {node.address}/{addresses.hosts.prefixlen} dev eth0",
        "link set eth0 up",
        # Service addresses are rewritten by kube-proxy before they leave; a route must exist for
        # the kernel to try at all.
        f"route add {addresses.services} via {addresses.machine}",
        inside=namespace_of,
    )


def route_services(addresses: Addresses, node: NodeAddresses) -> None:
    """Let the machine reach Services through this node."""
    _ip(f"route replace {addresses.services} via {node.address}")


def introduce(node: NodeAddresses, namespace_of: int, to: NodeAddresses) -> None:
    """Tell a node the way to the Pods of another."""
    _ip(f"route replace {to.pods} via {to.address}", inside=namespace_of)


def _ip(*commands: str, inside: int | None = None) -> None:
    wrapper = [] if inside is None else ["nsenter", f"--target={inside}", "--net"]
    run(*wrapper, "ip", "-batch", "-", text="\n".join(commands) + "\n")
