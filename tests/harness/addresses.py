"""Which addresses and names the cluster with number N has. Pure: network.py makes them real."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

CLUSTERS = 16  # a machine has fewer cores than that; each takes a sixteenth of 10.252.0.0/16
NODES = 15
HOSTS = IPv4Network("10.250.0.0/16")
SERVICES = IPv4Network("10.251.0.0/16")
PODS = IPv4Network("10.252.0.0/16")


@dataclass(frozen=True, slots=True)
class NodeAddresses:
    name: str
    #: The end of the node's cable that stays on the machine: at most 15 characters.
    cable: str
    address: IPv4Address
    pods: IPv4Network


@dataclass(frozen=True, slots=True)
class Addresses:
    """One bridge with the machine at one end and a cable to each node; no way out of it."""

    number: int

    @property
    def name(self) -> str:
        """Of the bridge and of the control group."""
        return f"encoder{self.number}"

    @property
    def hosts(self) -> IPv4Network:
        return IPv4Network((HOSTS[256 * self.number], 24))

    @property
    def machine(self) -> IPv4Address:
        """Where Pods reach the API server, the DNS and whatever a test starts."""
        return self.hosts[1]

    @property
    def elsewhere(self) -> IPv4Address:
        """The machine once more, for servers that policies are to tell from its others."""
        return self.hosts[2]

    @property
    def services(self) -> IPv4Network:
        return IPv4Network((SERVICES[256 * self.number], 24))

    @property
    def pods(self) -> IPv4Network:
        return IPv4Network((PODS[4096 * self.number], 20))

    def node(self, number: int) -> NodeAddresses:
        """The address of node `number`, counted from 1, and the range its Pods have."""
        if not 1 <= number <= NODES:
            raise ValueError(f"a cluster has nodes 1 to {NODES}")
        return NodeAddresses(
            name=f"node{number}",
            cable=f"{self.name}-{number}",
            address=self.hosts[10 + number],
            pods=IPv4Network((self.pods[256 * number], 24)),
        )
