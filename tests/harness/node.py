"""
One node: containerd, kubelet and kube-proxy in a network and mount namespace of their own.

A process that sleeps holds the namespaces; the servers enter them. In there `/run`, `/var/log` and
what is written to `/var/lib` are the node's own, so what the servers put at fixed places (sockets,
links to logs, caches) vanishes with the node, and paths of sockets stay under the 107 characters
that they may have.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import yaml

from tests.harness import binaries, network
from tests.harness.addresses import Addresses, NodeAddresses
from tests.harness.commands import CommandFailed, run
from tests.harness.control_plane import ApiServer, Flags
from tests.harness.policies import TABLE
from tests.harness.processes import Process, Processes
from tests.harness.traces import cgroup_roots, tracking_root

INSIDE = Path("/run/node")
CONTAINERD_SOCKET = INSIDE / "containerd.sock"
CNI_PLUGINS = "/usr/lib/cni"  # where Debian puts them
SANDBOX_IMAGE = "localhost/sandbox:1"
METADATA = "169.254.169.254"

HOLD = """
mount -t tmpfs tmpfs /run
mkdir /run/node /run/lock
mount --bind "$0" /run/node
mount --bind "$0/log" /var/log
mount -t overlay overlay -o "lowerdir=/var/lib,upperdir=$0/lib,workdir=$0/lib-work" /var/lib
touch "$0/held"
exec sleep infinity
"""

CONTAINERD = f"""
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{SANDBOX_IMAGE}"
  # Without CAP_SYS_RESOURCE runc may not lower a score, and ends with an EOF from its pipe.
  restrict_oom_score_adj = true
  stats_collect_period = 2
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{CNI_PLUGINS}"
  conf_dir = "{INSIDE}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"""


class Node:
    """Its processes are open to tests, which kill them and start them again."""

    holder: Process
    containerd: Process
    kubelet: Process
    kube_proxy: Process

    def __init__(
        self, folder: Path, processes: Processes, cluster: Addresses, addresses: NodeAddresses
    ) -> None:
        self.folder = folder
        self.addresses = addresses
        self.name = addresses.name
        self._cluster = cluster
        self._processes = processes
        self._group = make_group(cluster, self.name)

    def start_containerd(self, images: Path) -> None:
        """The first half: namespaces, cable, and containerd over a copy of `images`."""
        for name in ("log", "lib", "lib-work", "cni"):
            (self.folder / name).mkdir(parents=True)
        self.holder = self._processes.start(
            f"{self.name}-holder",
            *("unshare", "--mount", "--net", "--propagation=private"),
            *("sh", "-ec", HOLD, self.folder),
            group=self._group,
        )
        self.holder.wait_until((self.folder / "held").exists)
        network.connect(self._cluster, self.addresses, self.holder.pid)
        run(*self._enter(), "sysctl", "-qw", "net.ipv4.ip_forward=1")
        copy_images(images, self.folder / "containerd")
        (self.folder / "containerd.toml").write_text(CONTAINERD)
        (self.folder / "cni" / "10-bridge.conflist").write_text(json.dumps(self._cni()))
        self.containerd = self._start(
            "containerd",
            *("containerd", "--config", INSIDE / "containerd.toml", "--log-level=warn"),
            *("--root", INSIDE / "containerd", "--state", INSIDE / "containerd-state"),
            *("--address", CONTAINERD_SOCKET),
        )

    def start_kubelet(self, api: ApiServer, dns: IPv4Address, flags: Flags) -> None:
        """The second half: what needs the API server."""
        self.containerd.wait_until(lambda: bool(self.ctr("version")))
        certificates = api.certificates
        identity = certificates.kubeconfig(api.url, f"system:node:{self.name}", "system:nodes")
        proxy = certificates.kubeconfig(api.url, "system:kube-proxy", "encoder-tests")
        kubelet_config = self.folder / "kubelet.yaml"
        kubelet_config.write_text(yaml.safe_dump(self._kubelet(certificates.authority, dns)))
        proxy_config = self.folder / "kube-proxy.yaml"
        proxy_config.write_text(yaml.safe_dump(self._kube_proxy(proxy)))
        programs = binaries.kubernetes()
        self.kubelet = self._start(
            "kubelet",
            programs / "kubelet",
            f"--config={kubelet_config}",
            f"--kubeconfig={identity}",
            f"--root-dir={INSIDE / 'kubelet'}",
            f"--cert-dir={INSIDE / 'kubelet-certificates'}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.addresses.address}",
            *flags.get("kubelet", ()),
        )
        self.kube_proxy = self._start(
            "kube-proxy",
            programs / "kube-proxy",
            f"--config={proxy_config}",
            f"--hostname-override={self.name}",
        )

    def wait_ready(self, api: ApiServer) -> None:
        self.kubelet.wait_until(lambda: _ready(api.client.get(f"/api/v1/nodes/{self.name}")))

    def introduce(self, other: Node) -> None:
        network.introduce(self.addresses, self.holder.pid, other.addresses)

    def ctr(self, *arguments: str) -> str:
        """Ask this node's containerd about what Kubernetes has in it."""
        try:
            return run(
                *self._enter(), "ctr", "--address", CONTAINERD_SOCKET, "-n", "k8s.io", *arguments
            )
        except CommandFailed as error:
            raise OSError(str(error)) from error  # "not yet" to those who wait

    def filters(self, address: str) -> bool:
        """Whether the enforcer of NetworkPolicies knows the Pod with this address here."""
        chain = f"egress_{address.replace('.', '_')}"
        try:
            run(*self._enter(), "nft", "list", "chain", "inet", TABLE, chain)
        except CommandFailed:
            return False
        return True

    def serve_metadata(self) -> Process:
        """Stand in for what gives the node's credentials to whoever asks, as clouds have it."""
        run(*self._enter(), "ip", "address", "replace", f"{METADATA}/32", "dev", "lo")
        listens = ("-m", "http.server", "80", "--bind", METADATA, "--directory", INSIDE / "cni")
        return self._start("metadata", sys.executable, *listens)

    @contextmanager
    def kubelet_with(self, **settings: object) -> Iterator[None]:
        """Its kubelet started again with other settings, as long as the block."""
        config = self.folder / "kubelet.yaml"
        before = config.read_text()
        try:
            self._restart_kubelet(yaml.safe_dump({**yaml.safe_load(before), **settings}))
            yield
        finally:
            self._restart_kubelet(before)

    def _restart_kubelet(self, config: str) -> None:
        self.kubelet.kill()
        (self.folder / "kubelet.yaml").write_text(config)
        self.kubelet.start()

    def cut_off(self) -> None:
        """Pull the cable: the node's containers go on, and nobody hears of them."""
        run("ip", "link", "set", self.addresses.cable, "down")

    def reconnect(self) -> None:
        run("ip", "link", "set", self.addresses.cable, "up")

    def _start(self, program: str, *argv: str | Path) -> Process:
        return self._processes.start(
            f"{self.name}-{program}", *self._enter(), *argv, group=self._group
        )

    def _enter(self) -> tuple[str, ...]:
        return ("nsenter", f"--target={self.holder.pid}", "--mount", "--net", "--")

    def _cni(self) -> dict[str, object]:
        addresses = {
            "type": "host-local",
            "dataDir": f"{INSIDE}/addresses",
            "ranges": [[{"subnet": str(self.addresses.pods)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        # No masquerading: whoever is reachable knows the way back, and sees the Pod's address.
        bridge = {"type": "bridge", "bridge": "pods", "isGateway": True, "hairpinMode": True}
        return {
            "cniVersion": "0.4.0",
            "name": self.name,
            "plugins": [
                {**bridge, "ipam": addresses},
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }

    def _kubelet(self, authority: Path, dns: IPv4Address) -> dict[str, object]:
        resolver = self.folder / "resolv.conf"
        resolver.write_text("")  # that of the machine may be a link into the hidden /run
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(authority)},
            },
            "authorization": {"mode": "Webhook"},
            "readOnlyPort": 0,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._cluster.name}/{self.name}",
            "failSwapOn": False,
            "failCgroupV1": False,
            "enforceNodeAllocatable": [],
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "resolvConf": str(resolver),
            "podLogsDir": f"{INSIDE}/pod-logs",
            "volumePluginDir": f"{INSIDE}/volume-plugins",
            "clusterDomain": "cluster.local",
            "clusterDNS": [str(dns)],
            "imageGCHighThresholdPercent": 100,  # images are put there once, and nobody can pull
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "1%",
                "imagefs.available": "1%",
            },
            "evictionPressureTransitionPeriod": "2s",  # for five minutes nothing would start there
            "volumeStatsAggPeriod": "2s",  # full disks are noticed in 14 s instead of 38
            "nodeStatusUpdateFrequency": "2s",
            "nodeStatusReportFrequency": "10s",
            "nodeLeaseDurationSeconds": 8,
            "shutdownGracePeriod": "0s",
        }

    def _kube_proxy(self, kubeconfig: Path) -> dict[str, object]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clusterCIDR": str(self._cluster.pods),
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "conntrack": {"maxPerCore": 0},  # a namespace may not change the machine's limit
        }


def make_group(cluster: Addresses, name: str) -> Path:
    """
    Control groups of one node, or of the servers of the machine; returns the one that tracks.

    With version 1 every hierarchy gets one, as the kubelet expects them all below its root.
    """
    for root in cgroup_roots():
        for group in (root / cluster.name, root / cluster.name / name):
            group.mkdir(exist_ok=True)
            _inherit(group)
    group = tracking_root() / cluster.name / name / "servers"
    group.mkdir()
    return group


def _inherit(group: Path) -> None:
    """Give a new group what its parent has: version 2 delegates, cpuset of version 1 is copied."""
    if (group / "cgroup.subtree_control").exists():
        for parent in (group.parent, group):
            available = (parent / "cgroup.controllers").read_text().split()
            wanted = " ".join(f"+{controller}" for controller in available)
            (parent / "cgroup.subtree_control").write_text(wanted)
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (group / name).exists() and not (group / "cgroup.controllers").exists():
            (group / name).write_text((group.parent / name).read_text())


def copy_images(source: Path, target: Path) -> None:
    """
    Copy containerd's folder in no time: contents are linked, databases copied.

    Contents and unpacked layers are never written again, the databases always.
    """
    run("cp", "--archive", "--link", source, target)
    for database in _databases(target):
        copy = database.with_suffix(".copy")
        shutil.copy2(database, copy)
        copy.rename(database)


def _databases(folder: Path) -> Iterator[Path]:
    # Only where containerd keeps its own: a layer may hold files of this name too.
    return (path for path in folder.glob("*/*.db") if path.is_file())


def _ready(node: dict[str, object]) -> bool:
    status = node["status"]
    assert isinstance(status, dict)
    conditions = {one["type"]: one["status"] for one in status.get("conditions", [])}
    return conditions.get("Ready") == "True"
