"""
A Kubernetes as long as a `with` block.

    with Cluster() as cluster: ...            # etcd and the API server: CRDs, CEL, RBAC, admission
    with Cluster(nodes=2) as cluster: ...     # and nodes that run Pods

The first needs no root and starts in seconds. The second needs root, and Pods reach the machine at
`cluster.machine`, where tests start the servers that their Pods talk to.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.harness import binaries, kwok, network
from tests.harness.addresses import CLUSTERS, Addresses
from tests.harness.commands import run
from tests.harness.control_plane import ApiServer, Flags, start_api_server, start_controllers
from tests.harness.images import Image, base_image, sandbox_image
from tests.harness.node import Node, make_group
from tests.harness.processes import Process, Processes
from tests.harness.template import images_in_place
from tests.harness.traces import Traces
from tests.servers.cache import cache_root
from tests.servers.process import ServerFailed, free_port

LOOPBACK = IPv4Address("127.0.0.1")
NO_SERVICES = IPv4Network("10.249.0.0/24")  # addresses that a cluster without nodes gives away
API_PORT = 6443
LEFT = "left-running"
DEFAULT_NAMESPACE = "/api/v1/namespaces/default"
COREFILE = """
.:53 {{
  bind {address}
  kubernetes cluster.local {{
    kubeconfig {kubeconfig}
  }}
}}
"""


class Cluster:
    """
    Starts on entry and is gone without a trace on exit, also when this process is killed.

    `images` are those that Pods may use, besides `debian:bookworm-slim`. NetworkPolicies are
    enforced where that is asked for: looking after them costs every test some CPU.
    """

    def __init__(
        self,
        *,
        nodes: int = 0,
        images: Sequence[Image] = (),
        flags: Flags | None = None,
        enforce_policies: bool = False,
    ) -> None:
        self.nodes: list[Node] = []
        self._enforce_policies = enforce_policies
        self._wanted = nodes
        self._images = images
        self._flags: Flags = flags or {}
        self._addresses: Addresses | None = None
        self._api: ApiServer
        self._processes: Processes
        self._lock: int | None = None
        self._stack = ExitStack()

    # --- What tests use --------------------------------------------------------------------

    @property
    def kubeconfig(self) -> Path:
        return self._api.admin

    @property
    def url(self) -> str:
        return self._api.url

    @property
    def authority(self) -> Path:
        """The certificate authority that vouches for the API server."""
        return self._api.certificates.authority

    @property
    def machine(self) -> IPv4Address:
        """The machine's address as Pods see it."""
        return self._with_nodes().machine

    @property
    def elsewhere(self) -> IPv4Address:
        """Another of its addresses, at which nothing of the cluster is."""
        return self._with_nodes().elsewhere

    @property
    def number(self) -> int:
        """Which of the clusters of this machine it is."""
        return self._with_nodes().number

    @property
    def api_server(self) -> Process:
        return self._api.process

    def kubectl(self, *arguments: str | Path, text: str | None = None) -> str:
        """What kubectl printed; `text` is its standard input, for `apply -f -`."""
        env = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        return run(binaries.kubernetes() / "kubectl", *arguments, text=text, env=env)

    def get(self, path: str) -> Any:
        """An object by its path on the API server. Raises OSError when there is none."""
        return self._api.client.get(path)

    def watch(self, path: str) -> Iterator[Any]:
        """What the API server tells of the objects at a path: the path asks for a watch."""
        return self._api.client.watch(path)

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
    ) -> tuple[int, Any]:
        """Status and answer of any call, as an administrator."""
        return self._api.client.send(method, path, body, content_type=content_type)

    def kubeconfig_for(self, user: str, group: str = "encoder-tests") -> Path:
        """A kubeconfig of somebody who may do what RBAC grants them."""
        return self._api.certificates.kubeconfig(self.url, user, group)

    def add_node(self) -> Node:
        new = self._prepare_nodes(1)
        self._join(new)
        return new[0]

    def play_nodes(self, *, run_s: float) -> None:
        """
        Have Pods scheduled, run on paper for `run_s` (negative: for ever) and collected, in a
        cluster without nodes.
        """
        kwok.play_nodes(self._folder, self._processes, self._api, run_s=run_s)

    def make_namespace(self, name: str) -> None:
        """A namespace in which Pods may start: it has the account that they run as."""
        self.kubectl("create", "namespace", name)
        self._wait_for_account(name)

    def describe(self) -> str:
        """What an engineer would ask first when something did not work."""
        pods = self.kubectl("get", "pods", "--all-namespaces", "--output=wide")
        events = self.kubectl("get", "events", "--all-namespaces", "--sort-by=.lastTimestamp")
        return f"{pods}\n{events}"

    def traces(self) -> list[str]:
        """What of this cluster is on the machine, in words."""
        return self._traces.find()

    def leave(self) -> None:
        """Let it run on after this process; `remove_left` removes it."""
        (self._folder / LEFT).touch()
        self._processes.leave()

    # --- Start and stop --------------------------------------------------------------------

    def __enter__(self) -> Cluster:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _start(self, stack: ExitStack) -> None:
        root = clusters_folder()
        if self._wanted == 0:
            folder = Path(tempfile.mkdtemp(prefix="api-", dir=root))
            self._begin(stack, folder)
            self._api = start_api_server(
                folder,
                self._processes,
                address=LOOPBACK,
                port=free_port(),
                services=NO_SERVICES,
                flags=self._flags,
            )
            self._api.wait_ready()
            self._api.process.wait_until(lambda: bool(self.get(DEFAULT_NAMESPACE)))
            return
        self._addresses, self._lock = _take_number(root)
        stack.callback(os.close, self._lock)
        folder = root / self._addresses.name
        folder.mkdir()
        self._begin(stack, folder)
        self._start_with_nodes(folder, self._addresses)

    def _begin(self, stack: ExitStack, folder: Path) -> None:
        self._folder = folder
        self._traces = Traces(folder, self._addresses)
        self._processes = Processes(folder, self._addresses, self._lock)
        stack.callback(self._processes.close)

    def _start_with_nodes(self, folder: Path, addresses: Addresses) -> None:
        network.make_bridge(addresses)
        group = make_group(addresses, "machine")
        self._api = start_api_server(
            folder,
            self._processes,
            address=addresses.machine,
            port=API_PORT,
            services=addresses.services,
            flags=self._flags,
            group=group,
        )
        new = self._prepare_nodes(self._wanted)
        self._api.wait_ready()
        start_controllers(
            self._processes,
            self._api,
            address=addresses.machine,
            flags=self._flags,
            group=group,
        )
        corefile = folder / "Corefile"
        corefile.write_text(COREFILE.format(address=addresses.machine, kubeconfig=self.kubeconfig))
        self._processes.start("coredns", binaries.coredns(), "-conf", corefile, group=group)
        self._join(new)
        self._wait_for_account("default")

    def _prepare_nodes(self, count: int) -> list[Node]:
        """Nodes up to the point where they need the API server."""
        addresses = self._with_nodes()
        first = len(self.nodes) + 1
        new = [
            Node(
                self._folder / f"node{number}",
                self._processes,
                addresses,
                addresses.node(number),
            )
            for number in range(first, first + count)
        ]
        with images_in_place([base_image(), sandbox_image(), *self._images]) as images:
            for node in new:
                node.start_containerd(images)
        return new

    def _join(self, new: Sequence[Node]) -> None:
        addresses = self._with_nodes()
        for node in new:
            node.start_kubelet(self._api, addresses.machine, self._flags)
            for other in self.nodes:
                node.introduce(other)
                other.introduce(node)
            self.nodes.append(node)
        network.route_services(addresses, self.nodes[0].addresses)
        for node in new:
            node.wait_ready(self._api)
        if self._enforce_policies:
            self._enforce()

    def _enforce(self) -> None:
        """Start the enforcer with the first nodes; it reads which there are."""
        nodes = self._folder / "enforced-nodes.json"
        started = nodes.exists()
        fresh = nodes.with_suffix(".new")
        fresh.write_text(json.dumps([node.holder.pid for node in self.nodes]))
        fresh.rename(nodes)
        if not started:
            admin = self._api.admin
            self._processes.start(
                "enforcer",
                *(sys.executable, "-m", "tests.harness.enforcer"),
                *(self.url, self.authority, admin.with_suffix(".crt"), admin.with_suffix(".key")),
                nodes,
            )

    def _wait_for_account(self, namespace: str) -> None:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
        self._api.process.wait_until(lambda: bool(self.get(path)))

    def _with_nodes(self) -> Addresses:
        if self._addresses is None:
            raise ValueError("this cluster was started without nodes")
        return self._addresses


def clusters_folder() -> Path:
    folder = cache_root() / "clusters"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def left_running() -> Path | None:
    """The administrator's kubeconfig of a cluster that was left running, if there is one."""
    for marker in clusters_folder().glob(f"*/{LEFT}"):
        return marker.parent / "certificates" / "admin.conf"
    return None


def remove_left() -> list[str]:
    """Remove clusters that were left running, and what killed ones forgot; returns their names."""
    root = clusters_folder()
    removed = []
    for addresses, _ in network.unlocked():
        traces = Traces(root / addresses.name, addresses)
        if traces.find():
            traces.remove()
            removed.append(addresses.name)
    return removed


def _take_number(root: Path) -> tuple[Addresses, int]:
    """Addresses that are free, cleared of what a killed cluster left, and the lock on them."""
    for addresses, lock in network.unlocked():
        folder = root / addresses.name
        if (folder / LEFT).exists():
            continue
        # First, or what is left of a killed cluster would look like somebody's network.
        Traces(folder, addresses).remove()
        if not network.collides(addresses):
            return addresses, os.dup(lock)
    raise ServerFailed(
        f"all of {CLUSTERS} clusters run, or the machine has networks in their place"
    )
