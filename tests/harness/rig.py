"""The operator as a process, with a real API server and a real MySQL, and a stand-in for nodes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from encoder_core.sealing import KeyRing
from encoder_core.specs import JobSpec
from encoder_db.intake import create_job
from encoder_db.migrations import migrate
from encoder_db.store import Store
from tests.harness.cluster import Cluster
from tests.harness.processes import REPOSITORY
from tests.servers.database import Database
from tests.servers.mysql import mysql_server
from tests.servers.process import free_port

NAMESPACE = "work"
KEY = b"k" * 32
SECRET_KEY = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="
CORE = f"/api/v1/namespaces/{NAMESPACE}"
GROUP = f"/apis/encoder.dev/v1alpha1/namespaces/{NAMESPACE}"
MERGE = "application/merge-patch+json"
WAIT_S = 240.0  # most of it is over in 2 s; what fails may take its time
CRDS = REPOSITORY / "crds"


def apply_crds(cluster: Cluster) -> None:
    """And wait until they are served: a kind that is established is not at once."""
    cluster.kubectl("apply", "-f", CRDS)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=240s", "-f", CRDS)
    for plural in ("transcodejobs", "transcodepools"):
        listed = f"{GROUP.partition('/namespaces')[0]}/{plural}"
        cluster.api_server.wait_until(lambda path=listed: "items" in cluster.get(path))  # type: ignore[misc]  # mypy infers no type for a lambda's default


@dataclass
class Operator:
    """One running operator."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as got:
                return got.status, got.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def wait_ready(self, *, timeout_s: float = WAIT_S) -> float:
        """The seconds since it was asked."""
        began = time.monotonic()
        while self.get("/readyz")[0] != 200:
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            assert time.monotonic() - began < timeout_s, self.log.read_text()[-4000:]
            time.sleep(0.02)
        return time.monotonic() - began

    def metrics(self) -> dict[str, float]:
        """Samples by name and labels, as they stand in the text."""
        _, text = self.get("/metrics")
        rows = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in rows}

    def writes(self) -> dict[str, float]:
        """Calls to the API server that write, by verb and kind."""
        return {
            name: value
            for name, value in self.metrics().items()
            if name.startswith("transcode_api_requests_total{")
            and any(f'verb="{verb}"' in name for verb in ("create", "patch", "delete"))
        }

    def rss_mb(self, field_: str = "VmRSS") -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{field_}:"):
                return int(line.split()[1]) / 1024
        raise AssertionError(field_)

    def stop(self, *, kill: bool = False) -> int:
        if self.process.poll() is None:
            (self.process.kill if kill else self.process.terminate)()
        return self.process.wait(timeout=WAIT_S)


@dataclass
class Rig:
    cluster: Cluster
    database: Database
    store: Store
    folder: Path
    kubeconfig: Path
    stack: ExitStack
    operators: list[Operator] = field(default_factory=list)
    _standin_log: Path | None = None

    # --- Processes -------------------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith(("ENCODER_", "MYSQL_"))},
            **self.database.environment,
            "ENCODER_SECRET_KEY": SECRET_KEY,
            "QUEUE_POLL_INTERVAL_MS": "200",
        }

    def start_operator(
        self, *, kubeconfig: Path | None = None, name: str = "operator", **settings: Any
    ) -> Operator:
        port = free_port()
        ours = {
            "namespace": NAMESPACE,
            "worker_image": "worker",
            "health_port": port,
            "retention_s": 1,
            "worker_service_account": "default",
            **settings,
        }
        env = {
            **self.environment,
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            **{f"ENCODER_OPERATOR_{key.upper()}": str(value) for key, value in ours.items()},
        }
        log = self.folder / f"{name}-{port}.log"
        process = self._start([sys.executable, "-m", "encoder_operator"], env, log)
        self.operators.append(Operator(process, port, log))
        return self.operators[-1]

    def start_nodes(self, *, run_s: float) -> subprocess.Popen[bytes]:
        """One process that plays nodes, workers and the garbage collector."""
        return self._start_standin("nodes", run_s=run_s)

    def start_workers(self, *, run_s: float) -> subprocess.Popen[bytes]:
        """One process that reports for the workers of Pods which somebody else runs."""
        return self._start_standin("workers", run_s=run_s)

    def _start_standin(self, plays: str, *, run_s: float) -> subprocess.Popen[bytes]:
        admin = self.cluster.kubeconfig.parent
        arguments = [
            *(plays, self.cluster.url, self.cluster.authority),
            *(admin / "admin.crt", admin / "admin.key", NAMESPACE, run_s),
        ]
        log = self.folder / f"standin-{time.monotonic_ns()}.log"
        self._standin_log = log
        command = [sys.executable, "-m", "tests.harness.standin", *map(str, arguments)]
        return self._start(command, self.environment, log)

    def _start(
        self, command: Sequence[str], env: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, env=dict(env), stdout=file, stderr=subprocess.STDOUT, cwd=REPOSITORY
            )
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        return process

    def seen(self) -> dict[tuple[str, str], float]:
        """When the stand-in first saw what: (`pod` or `gone`, name) → seconds of the epoch."""
        assert self._standin_log is not None
        whole, _, _being_written = self._standin_log.read_text().rpartition("\n")
        rows = (line.split() for line in whole.splitlines())
        return {(row[0], row[1]): float(row[2]) for row in rows if row[:1] in (["pod"], ["gone"])}

    # --- What people do --------------------------------------------------------------------------

    def make_pool(self, name: str, *, places: int, **spec: Any) -> None:
        body = {
            "apiVersion": "encoder.dev/v1alpha1",
            "kind": "TranscodePool",
            "metadata": {"name": name},
            "spec": {"maxConcurrency": places, **spec},
        }
        status, said = self.cluster.send("POST", f"{GROUP}/transcodepools", body)
        assert status == 201, said

    def scale(self, pool: str, places: int) -> None:
        status, said = self.cluster.send(
            "PATCH",
            f"{GROUP}/transcodepools/{pool}/scale",
            {"spec": {"replicas": places}},
            content_type=MERGE,
        )
        assert status == 200, said

    def submit(self, count: int = 1, *, pool: str = "default") -> list[tuple[str, float]]:
        """Jobs as the API would accept them: their resources' names, and when."""
        spec = JobSpec.model_validate(
            {
                "source": {"kind": "https", "url": "https://media.example/in.mov"},
                "outputs": [{"destination": {"kind": "s3", "bucket": "clips", "path": "out.mp4"}}],
                "pool": pool,
            }
        )
        made = []
        for first in range(0, count, 50):
            some = min(50, count - first)

            def work(tx: Any, some: int = some) -> list[Any]:
                return [
                    create_job(tx, spec=spec, owner="default", keys=self.store.keys)
                    for _ in range(some)
                ]

            made += [(f"tj-{job.uuid}", time.time()) for job in self.store.run(work)]
        return made

    def statuses(self) -> dict[str, int]:
        with self.store.read() as tx:
            rows = tx.exec_driver_sql("SELECT status, COUNT(*) FROM jobs GROUP BY status")
            return {str(status): int(count) for status, count in rows}

    def wait_for(
        self, what: str, condition: Callable[[], Any], *, timeout_s: float = WAIT_S
    ) -> Any:
        """What `condition` returns, as soon as that is something. An OSError of it is not."""
        deadline = time.monotonic() + timeout_s
        trouble: OSError | None = None
        while True:
            try:
                if found := condition():
                    return found
            except OSError as error:
                trouble = error
            late = f"not in {timeout_s} s: {what} ({trouble})"
            assert time.monotonic() < deadline, f"{late}\n{self.describe()}"
            time.sleep(0.05)

    def describe(self) -> str:
        tails = [f"== {log.name}\n{log.read_text()[-3000:]}" for log in self.folder.glob("*.log")]
        return "\n".join([str(self.statuses()), *tails])

    def condition(self, pool: str, type_: str) -> str:
        found = self.cluster.get(f"{GROUP}/transcodepools/{pool}")
        conditions = found.get("status", {}).get("conditions", [])
        return next((str(c["status"]) for c in conditions if c["type"] == type_), "")

    def count(self, plural: str) -> int:
        base = CORE if plural in ("pods", "secrets", "events") else GROUP
        return len(self.cluster.get(f"{base}/{plural}")["items"])


@contextmanager
def rig(folder: Path) -> Iterator[Rig]:
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster())
        apply_crds(cluster)
        cluster.kubectl("create", "namespace", NAMESPACE)
        cluster.kubectl("-n", NAMESPACE, "create", "serviceaccount", "default")
        rbac = REPOSITORY / "k8s" / "rbac.yaml"
        cluster.kubectl("-n", NAMESPACE, "apply", "-f", rbac)
        cluster.kubectl(
            *("-n", NAMESPACE, "create", "rolebinding", "operator"),
            *("--role=encoder-operator", "--user=operator"),
        )
        (folder / "mysql").mkdir()
        mysql = stack.enter_context(mysql_server(folder / "mysql"))
        database = stack.enter_context(mysql.fresh_database())
        store = stack.enter_context(Store.open(database.url, keys=KeyRing([KEY])))
        migrate(store)
        yield Rig(
            cluster=cluster,
            database=database,
            store=store,
            folder=folder,
            kubeconfig=cluster.kubeconfig_for("operator"),
            stack=stack.enter_context(ExitStack()),
        )
