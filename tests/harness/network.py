"""Make the addresses real: choose a number that is free, a bridge, and a cable to each node."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

from tests.harness.addresses import CLUSTERS, Addresses, NodeAddresses
from tests.harness.commands import run

# Machine-wide, not per user: bridges and control groups are too.
LOCKS = Path("/run/lock")


def unlocked() -> Iterator[tuple[Addresses, int]]:
    """
    The addresses of clusters that nobody runs, each with the open lock that keeps others off.

    The lock is closed when the next is asked for; who wants to keep it duplicates it.
    """
    for number in range(CLUSTERS):
        addresses = Addresses(number)
        lock = os.open(LOCKS / f"{addresses.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield addresses, lock
        except BlockingIOError:
            continue
        finally:
            os.close(lock)


def wait_until_unlocked(number: int) -> None:
    """Return when nobody runs the cluster with this number any more."""
    with (LOCKS / f"{Addresses(number).name}.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)


def collides(addresses: Addresses) -> bool:
    """Whether the machine has a network of its own where the cluster's would be."""
    mine = (addresses.hosts, addresses.services, addresses.pods)
    routes = json.loads(run("ip", "-4", "-json", "route", "show"))
    others = [
        IPv4Network(route["dst"])
        for route in routes
        if route["dst"] != "default" and route.get("dev") != addresses.name
    ]
    return any(other.subnet_of(one) for other in others for one in mine)


def make_bridge(addresses: Addresses) -> None:
    """
    The bridge, with the machine's addresses on it.

    Routes to addresses that no Pod has end on the bridge, where nobody answers: without them the
    machine's default route would carry such packets away.
    """
    name = addresses.name
    _ip(
        f"link add {name} type bridge",
        f"address add {addresses.machine}/{addresses.hosts.prefixlen} dev {name}",
        f"address add {addresses.elsewhere}/{addresses.hosts.prefixlen} dev {name}",
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
