"""The Kubernetes-native set-up as an admin makes it: a Secret, an overlay, `kubectl apply -k`."""

from __future__ import annotations

import itertools
import json
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import requests
import yaml
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from tests.harness.cluster import Cluster
from tests.harness.commands import CommandFailed
from tests.harness.control_plane import Flags
from tests.harness.images import Image, build_image
from tests.harness.processes import REPOSITORY
from tests.harness.project_images import build_for_cluster
from tests.harness.rig import apply_crds
from tests.servers.ftp import FtpServer, ftp_server
from tests.servers.http import HttpServer
from tests.servers.mysqld import Mysqld
from tests.servers.s3 import S3Server, s3_server
from tests.servers.webhooks import SECRET, WebhookReceiver

NAMESPACE = "encoder"
API_KEY = "enc_firstkey_only-for-the-tests-of-this-project"
RETENTION_S = 15  # long enough for a kubectl on a busy machine, short enough to be waited for
POLL_S = 0.1
PATIENCE_S = 240.0
"""For what comes within 20 s as a rule: a machine at a fraction of that speed is no failure."""
DESCRIBED_JOBS = 6
FULL = os.environ.get("CLUSTER_RUN") == "full"
PARTS = ("encoder-api", "encoder-operator", "encoder-webhooks")
FOREIGN_IMAGE = "localhost/encoder-worker:other-machine"
"""Its worker is a program for a machine that nobody has here."""

EM_VAX = 75  # the machine in the header of an ELF file

# Of the parts' own accounts alone: the clusters' controllers would fill a disk.
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {"level": "Metadata", "userGroups": [f"system:serviceaccounts:{NAMESPACE}"]},
        {"level": "None"},
    ],
}
RECONNECT = Retry(  # for about two minutes
    total=None,
    connect=40,
    read=0,
    redirect=0,
    status=0,
    other=0,
    backoff_factor=0.2,
    backoff_max=3,
)
JOBS = f"/apis/encoder.dev/v1alpha1/namespaces/{NAMESPACE}/transcodejobs"


@dataclass
class Deployment:
    """A cluster with the service in it, and servers that its Pods reach."""

    cluster: Cluster
    s3: S3Server
    ftp: FtpServer
    http: HttpServer
    webhooks: WebhookReceiver
    mysqld: Mysqld
    audit: Path
    """What the parts asked of the API server, a JSON document a line."""
    overlay: Path
    settings: Mapping[str, str]
    """Of the Secret `encoder-env`."""
    url: str = ""

    @property
    def database(self) -> str:
        """Host and port."""
        return f"{self.mysqld.host}:{self.mysqld.port}"

    # --- As an admin ---------------------------------------------------------------------------

    def install(self) -> None:
        """In the order that k8s/kustomization.yaml says; what is there already stays."""
        apply_crds(self.cluster)
        self.cluster.kubectl("apply", "-f", REPOSITORY / "k8s" / "namespace.yaml")
        literals = [f"--from-literal={name}={value}" for name, value in self.settings.items()]
        make = ("create", "secret", "generic", "encoder-env", *literals, "--dry-run=client")
        self.kubectl("apply", "-f", "-", text=self.kubectl(*make, "-o", "yaml"))
        self.cluster.kubectl("apply", "-k", self.overlay)
        self.wait_rolled_out()
        service = self.cluster.get(f"/api/v1/namespaces/{NAMESPACE}/services/encoder-api")
        self.url = f"http://{service['spec']['clusterIP']}"

    def wait_rolled_out(self) -> None:
        for name in PARTS:
            try:
                rollout = ("rollout", "status", f"deployment/{name}")
                self.kubectl(*rollout, f"--timeout={PATIENCE_S:.0f}s")
            except CommandFailed as error:
                said = f"{error}\n{self.cluster.describe()}\n{self.describe()}"
                raise AssertionError(said) from error

    def send_operator_away(self) -> None:
        """Until somebody scales it up, or installs everything again."""
        self.kubectl("scale", "deployment/encoder-operator", "--replicas=0")
        gone = ("--for=delete", "pod", "-l", "app.kubernetes.io/name=encoder-operator")
        self.kubectl("wait", *gone, f"--timeout={PATIENCE_S:.0f}s")

    def evict(self, pod: str, *, only_ask: bool = False) -> tuple[int, list[str]]:
        """As a drain does, or just whether it might: the answer's status, and the causes in it."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod},
            "deleteOptions": {"dryRun": ["All"]} if only_ask else {},
        }
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
        status, said = self.cluster.send("POST", path, body)
        causes = (said.get("details") or {}).get("causes") or []
        return status, [cause["reason"] for cause in causes]

    def budget(self) -> dict[str, Any]:
        """What Kubernetes counts for the PodDisruptionBudget of the API."""
        path = f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets/encoder-api"
        status: dict[str, Any] = self.cluster.get(path)["status"]
        return status

    # --- As a REST client ----------------------------------------------------------------------

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """
        Asked again where nobody took the connection: then nothing was done. An API that moves to
        another node is known at its old address for a moment.
        """
        with requests.Session() as session:
            session.mount("http://", HTTPAdapter(max_retries=RECONNECT))
            return session.request(
                method,
                self.url + path,
                headers={"Authorization": f"Bearer {API_KEY}"},
                timeout=30,
                **options,
            )

    def submit(self, request: Mapping[str, Any]) -> dict[str, Any]:
        response = self.request("POST", "/jobs", json=request)
        assert response.status_code == 202, response.text
        accepted: dict[str, Any] = response.json()
        return accepted

    def job(self, ref: int | str) -> dict[str, Any]:
        return self.read(f"/jobs/{ref}")

    def pools(self) -> dict[str, dict[str, Any]]:
        """By their names."""
        return {pool["name"]: pool for pool in self.read("/pools")["pools"]}

    def read(self, path: str) -> dict[str, Any]:
        response = self.request("GET", path)
        if response.status_code >= requests.codes.server_error:
            response.raise_for_status()  # an OSError: "not yet" to those who wait
        assert response.status_code == 200, response.text
        document: dict[str, Any] = response.json()
        return document

    # --- As somebody at a terminal -------------------------------------------------------------

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        return self.cluster.kubectl("-n", NAMESPACE, *arguments, text=text)

    def resource(self, name: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.maybe(f"{JOBS}/{name}")
        return found

    def pod(self, name: str) -> dict[str, Any] | None:
        return self.maybe(f"/api/v1/namespaces/{NAMESPACE}/pods/{name}")

    def maybe(self, path: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self.cluster.get(path)
        except HTTPError as error:
            if error.code == 404:
                return None
            raise
        return found

    def message(self, name: str, type_: str) -> str:
        """What a condition of a TranscodeJob says to people."""
        path = f"jsonpath={{.status.conditions[?(@.type=='{type_}')].message}}"
        return self.kubectl("get", "tj", name, "-o", path)

    def apply(self, name: str, spec: Mapping[str, Any]) -> None:
        body = {
            "apiVersion": "encoder.dev/v1alpha1",
            "kind": "TranscodeJob",
            "metadata": {"name": name},
            "spec": spec,
        }
        self.kubectl("apply", "-f", "-", text=json.dumps(body))

    def wait_for(
        self, what: str, condition: Callable[[], Any], *, timeout_s: float = PATIENCE_S
    ) -> Any:
        """
        What `condition` returns, as soon as that is something.

        An API that answers nothing just then, or a kubectl that fails, is no answer.
        """
        deadline = time.monotonic() + timeout_s
        trouble: Exception | None = None
        while True:
            try:
                if found := condition():
                    return found
            except (OSError, CommandFailed) as error:
                trouble = error
            late = f"not in {timeout_s} s: {what} ({trouble})"
            assert time.monotonic() < deadline, late
            time.sleep(POLL_S)

    def pods_of(self, part: str) -> list[dict[str, Any]]:
        """Those that stay: one that was replaced is there until its grace is over."""
        selector = f"?labelSelector=app.kubernetes.io/name={part}"
        pods = self.cluster.get(f"/api/v1/namespaces/{NAMESPACE}/pods{selector}")["items"]
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def describe(self) -> str:
        """The last jobs as API and cluster tell them, and what the parts said."""

        def of(ask: Callable[[], str]) -> str:
            try:
                return ask()
            except (OSError, CommandFailed, AssertionError) as error:
                return repr(error)

        def last_jobs() -> str:
            listed = self.read(f"/jobs?limit={DESCRIBED_JOBS}")["jobs"]
            return "\n".join(json.dumps(self.job(job["id"])) for job in listed)

        def conditions() -> str:
            items = self.cluster.get(JOBS)["items"]
            return "\n".join(
                json.dumps({item["metadata"]["name"]: (item.get("status") or {}).get("conditions")})
                for item in items[-DESCRIBED_JOBS:]
            )

        def logs(part: str) -> str:
            return self.kubectl("logs", f"deployment/{part}", "--tail=40", "--all-containers")

        told: dict[str, Callable[[], str]] = {
            "jobs": last_jobs,
            "TranscodeJobs": conditions,
            "TranscodePools": lambda: self.kubectl("get", "tp"),
            **{part: partial(logs, part) for part in ("encoder-operator", "encoder-api")},
        }
        return "\n".join(f"== {what}\n{of(ask)}" for what, ask in told.items())


_runs = itertools.count(1)


def fresh(name: str) -> str:
    """The name with a number: a test that is run once more meets nothing that it left behind."""
    return f"{name}-{next(_runs)}"


def condition(resource: Mapping[str, Any] | None, type_: str) -> tuple[str, str] | None:
    """Status and reason of a condition."""
    conditions = ((resource or {}).get("status") or {}).get("conditions") or []
    return next(((c["status"], c["reason"]) for c in conditions if c["type"] == type_), None)


@contextmanager
def deployed(folder: Path, *, flags: Flags | None = None) -> Iterator[Deployment]:
    """A cluster of two nodes in which the service is ready; `flags` are more of its programs."""
    images = [*build_for_cluster(), build_foreign_image(folder / "foreign")]
    policy, audit = folder / "audit.yaml", folder / "audit.log"
    policy.write_text(yaml.safe_dump(AUDIT))
    told = [f"--audit-policy-file={policy}", f"--audit-log-path={audit}"]
    flags = {**(flags or {})}
    flags["kube-apiserver"] = [*flags.get("kube-apiserver", ()), *told]
    with ExitStack() as stack:
        cluster = stack.enter_context(
            Cluster(nodes=2, images=images, flags=flags, enforce_policies=True)
        )
        # At another address, or the way to them would be one to database and API server.
        host = str(cluster.elsewhere)
        for name in ("mysql", "s3", "ftp"):
            (folder / name).mkdir()
        mysqld = Mysqld(folder / "mysql", host=str(cluster.machine))
        mysqld.start()
        stack.callback(mysqld.stop)
        database = stack.enter_context(mysqld.server.fresh_database())
        deployment = Deployment(
            cluster=cluster,
            s3=stack.enter_context(s3_server(folder / "s3", host=host)),
            ftp=stack.enter_context(ftp_server(folder / "ftp", host=host)),
            http=stack.enter_context(HttpServer(host=host)),
            webhooks=stack.enter_context(WebhookReceiver(host=host)),
            mysqld=mysqld,
            audit=audit,
            overlay=write_overlay(folder / "overlay", host=host, database_port=database.port),
            settings={
                **database.environment,
                "QUEUE_POLL_INTERVAL_MS": "200",
                "ENCODER_API_KEY": API_KEY,
                "ENCODER_WEBHOOK_SECRET": SECRET,
                "ENCODER_EGRESS_ALLOWED_CIDRS": f"{host}/32",
            },
        )
        deployment.install()
        yield deployment


def build_foreign_image(folder: Path) -> Image:
    folder.mkdir()
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 2, EM_VAX, 1)
    (folder / "worker").write_bytes(header.ljust(64, b"\0"))
    (folder / "worker").chmod(0o755)
    recipe = folder / "Dockerfile"
    recipe.write_text('FROM scratch\nCOPY worker /worker\nENTRYPOINT ["/worker"]\n')
    return build_image(recipe, FOREIGN_IMAGE, context=folder)


def write_overlay(folder: Path, *, host: str, database_port: int) -> Path:
    """What an admin keeps beside our base: images, settings, and ways through the network."""
    folder.mkdir()
    variables = {
        "ENCODER_OPERATOR_WORKER_IMAGE": "localhost/encoder-worker:dev",
        "ENCODER_OPERATOR_RETENTION_S": str(RETENTION_S),
        "ENCODER_OPERATOR_PROGRESS_S": "1",
        "ENCODER_OPERATOR_CPU": "200m",
        "ENCODER_OPERATOR_MEMORY": "512Mi",
        "ENCODER_OPERATOR_SCRATCH": "1Gi",
    }
    operator = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "encoder-operator"},
        "spec": {
            "template": {
                "spec": {
                    "containers": [
                        {
                            "name": "operator",
                            "env": [{"name": n, "value": v} for n, v in variables.items()],
                        }
                    ]
                }
            }
        },
    }
    allowed = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "encoder-worker-images"},
        "data": {"prefixes": "localhost/encoder-worker:\n"},
    }
    servers = {"ipBlock": {"cidr": f"{host}/32"}}
    images = [
        {"name": f"your-registry/{name}", "newName": f"localhost/{name}", "newTag": "dev"}
        for name in ("encoder-api", "encoder-operator")
    ]
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(REPOSITORY / "k8s", folder.resolve())],
        "images": images,
        "patches": [
            {"patch": yaml.safe_dump(operator)},
            {"patch": yaml.safe_dump(allowed)},
            change("database", "replace", "/spec/egress/0/ports/0/port", database_port),
            change("worker-internet", "add", "/spec/egress/0/to/-", servers),
            change("webhooks-internet", "add", "/spec/egress/0/to/-", servers),
        ],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    return folder


def change(policy: str, how: str, path: str, value: object) -> dict[str, object]:
    """A patch of one NetworkPolicy."""
    patch = yaml.safe_dump([{"op": how, "path": path, "value": value}])
    return {"target": {"kind": "NetworkPolicy", "name": policy}, "patch": patch}
