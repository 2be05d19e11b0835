"""What every cluster has (etcd and the API server), and what makes Pods of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from tests.harness import binaries
from tests.harness.api_client import ApiClient
from tests.harness.certificates import ADMIN, Certificates
from tests.harness.processes import Process, Processes
from tests.servers.process import free_port

Flags = Mapping[str, Sequence[str]]
"""More flags by program: `{"kube-apiserver": ["--feature-gates=…"]}`."""

# A lost node is seen after 6 s instead of 50. An API server that is away for 4 s then looks like
# nodes that are: tests of one and of the other need clusters of their own.
QUICK_NODE_LOSS: Flags = {
    "kube-apiserver": ["--default-unreachable-toleration-seconds=5"],
    "kube-controller-manager": [
        "--node-monitor-period=1s",
        "--node-monitor-grace-period=6s",
        "--node-startup-grace-period=10s",
    ],
}


@dataclass(frozen=True, slots=True)
class ApiServer:
    url: str
    certificates: Certificates
    client: ApiClient
    admin: Path
    """The administrator's kubeconfig."""

    signing_key: Path
    """Signs the tokens of ServiceAccounts."""

    etcd: Process
    process: Process

    def wait_ready(self) -> None:
        self.process.wait_until(lambda: self.client.read("/readyz") == b"ok")


def start_api_server(
    folder: Path,
    processes: Processes,
    *,
    address: IPv4Address,
    port: int,
    services: IPv4Network,
    flags: Flags,
    group: Path | None = None,
) -> ApiServer:
    """Start etcd and kube-apiserver on `address`, without waiting until they are ready."""
    programs = binaries.kubernetes()
    certificates = Certificates(folder / "certificates")
    url = f"https://{address}:{port}"
    admin = certificates.kubeconfig(url, *ADMIN)
    client = ApiClient(
        url, certificates.authority, admin.with_suffix(".crt"), admin.with_suffix(".key")
    )
    certificate, key = certificates.server(str(address), str(services[1]))
    # Without it `kubectl logs` and `exec` are refused by the kubelets.
    kubelet_certificate, kubelet_key = certificates.client(
        "kube-apiserver-kubelet-client", "system:masters"
    )
    _, signing_key = certificates.client("service-accounts", "none")
    # On loopback always: it asks nobody for a password, and Pods reach `address`.
    etcd_url, peer_url = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    etcd = processes.start(
        "etcd",
        *(programs / "server", "--data-dir", folder / "etcd", "--log-level=warn"),
        *("--listen-client-urls", etcd_url, "--advertise-client-urls", etcd_url),
        *("--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url),
        *("--initial-cluster", f"default={peer_url}"),
        "--unsafe-no-fsync",  # nobody wants this data after the machine lost power
        *flags.get("etcd", ()),
        group=group,
    )
    process = processes.start(
        "kube-apiserver",
        programs / "kube-apiserver",
        f"--etcd-servers={etcd_url}",
        f"--bind-address={address}",
        f"--secure-port={port}",
        # A loopback address is nothing that Pods could reach, so it must not be announced to them.
        *(
            ["--endpoint-reconciler-type=none"]
            if address.is_loopback
            else [f"--advertise-address={address}"]
        ),
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
        f"--client-ca-file={certificates.authority}",
        f"--kubelet-client-certificate={kubelet_certificate}",
        f"--kubelet-client-key={kubelet_key}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-key-file={signing_key}",
        f"--service-account-signing-key-file={signing_key}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--service-cluster-ip-range={services}",
        "--allow-privileged=true",
        *flags.get("kube-apiserver", ()),
        group=group,
    )
    return ApiServer(url, certificates, client, admin, signing_key, etcd, process)


def start_controllers(
    processes: Processes,
    api: ApiServer,
    *,
    address: IPv4Address,
    flags: Flags,
    group: Path | None = None,
) -> None:
    """Start the controller manager and the scheduler; they need no waiting for."""
    programs = binaries.kubernetes()
    for name in ("kube-controller-manager", "kube-scheduler"):
        config = api.certificates.kubeconfig(api.url, f"system:{name}", "encoder-tests")
        more = []
        if name == "kube-controller-manager":
            more = [
                # Its default is a folder of the machine, which it makes when it is missing.
                f"--flex-volume-plugin-dir={api.signing_key.parent}",
                f"--root-ca-file={api.certificates.authority}",
                f"--service-account-private-key-file={api.signing_key}",
                "--use-service-account-credentials",
            ]
        processes.start(
            name,
            programs / name,
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            f"--bind-address={address}",
            "--leader-elect=false",
            *more,
            *flags.get(name, ()),
            group=group,
        )
