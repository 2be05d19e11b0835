"""A certificate authority of one cluster, and the kubeconfig files that it vouches for."""

from __future__ import annotations

import base64
from pathlib import Path

import trustme
import yaml

# The bootstrap policy of Kubernetes binds these names; `system:masters` may do everything.
ADMIN = ("admin", "system:masters")
API_SERVER_NAMES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
    "127.0.0.1",
)


class Certificates:
    """Keeps what servers need as files in `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._authority = trustme.CA()
        self.authority = folder / "ca.crt"
        self._authority.cert_pem.write_to_path(self.authority)

    def server(self, *addresses: str) -> tuple[Path, Path]:
        """Certificate and key of the API server at these addresses, besides its usual names."""
        return self._write("api", self._authority.issue_cert(*API_SERVER_NAMES, *addresses))

    def client(self, user: str, group: str) -> tuple[Path, Path]:
        """Certificate and key of somebody: Kubernetes reads CN as the user and O as the group."""
        leaf = self._authority.issue_cert(
            "client.invalid", common_name=user, organization_name=group
        )
        return self._write(user.replace(":", "-"), leaf)

    def kubeconfig(self, server: str, user: str, group: str) -> Path:
        """A kubeconfig with everything in it, so that it may be copied anywhere."""
        certificate, key = self.client(user, group)
        path = certificate.with_suffix(".conf")
        cluster = {"server": server, "certificate-authority-data": _base64(self.authority)}
        person = {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)}
        context = {"cluster": "encoder-tests", "user": user}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "encoder-tests", "cluster": cluster}],
            "users": [{"name": user, "user": person}],
            "contexts": [{"name": "encoder-tests", "context": context}],
            "current-context": "encoder-tests",
        }
        path.write_text(yaml.safe_dump(config))
        path.chmod(0o600)
        return path

    def _write(self, name: str, leaf: trustme.LeafCert) -> tuple[Path, Path]:
        certificate, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        leaf.cert_chain_pems[0].write_to_path(certificate)
        leaf.private_key_pem.write_to_path(key)
        key.chmod(0o600)
        return certificate, key


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
