"""
Nodes that exist on paper: kwok says what kubelets would say, and no container runs.

With it, what a cluster does between a Pod and its node: the scheduler and the garbage collector.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

from tests.harness import binaries
from tests.harness.control_plane import ApiServer, Flags, start_controllers
from tests.harness.processes import Processes
from tests.servers.process import free_port

LOOPBACK = IPv4Address("127.0.0.1")
NODE = "kwok-0"
MERGE = "application/merge-patch+json"
QUICK: Flags = {
    # Alone of some thirty controllers; the others would only take CPU of the same machine.
    "kube-controller-manager": [
        "--controllers=garbage-collector-controller",
        "--secure-port=0",
        "--kube-api-qps=500",
        "--kube-api-burst=500",
    ],
    # At its usual 50 requests a second it is what one measures.
    "kube-scheduler": ["--secure-port=0", "--kube-api-qps=500", "--kube-api-burst=500"],
}
MANY = {"cpu": "1000000", "memory": "4000Ti", "ephemeral-storage": "4000Ti", "pods": "20000"}

CONFIGURATION = """
apiVersion: config.kwok.x-k8s.io/v1alpha1
kind: KwokConfiguration
options:
  podPlayStageParallelism: 32
"""

RUN = """
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-run}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: '.metadata.deletionTimestamp', operator: DoesNotExist}
    - {key: '.status.phase', operator: In, values: [Pending]}
  next:
    statusTemplate: |
      phase: Running
      startTime: {{ Now | Quote }}
      containerStatuses:
      {{ range .spec.containers }}
      - {name: {{ .name | Quote }}, image: {{ .image | Quote }}, imageID: "", ready: true,
         restartCount: 0, state: {running: {startedAt: {{ Now | Quote }}}}}
      {{ end }}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-delete}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: '.metadata.deletionTimestamp', operator: Exists}
  next: {delete: true}
"""

END = """
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-end}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: '.metadata.deletionTimestamp', operator: DoesNotExist}
    - {key: '.status.phase', operator: In, values: [Running]}
  delay: {durationMilliseconds: MILLISECONDS}
  next:
    statusTemplate: |
      {{ $root := . }}
      phase: Succeeded
      containerStatuses:
      {{ range $i, $container := .spec.containers }}
      {{ $was := index $root.status.containerStatuses $i }}
      - {name: {{ $container.name | Quote }}, image: {{ $container.image | Quote }}, imageID: "",
         ready: false, restartCount: 0, state: {terminated: {exitCode: 0, reason: Completed,
         startedAt: {{ $was.state.running.startedAt | Quote }}, finishedAt: {{ Now | Quote }}}}}
      {{ end }}
"""


def play_nodes(folder: Path, processes: Processes, api: ApiServer, *, run_s: float) -> None:
    """
    Start the scheduler, the garbage collector, and one node for thousands of Pods, which succeed
    after `run_s` (negative: never).
    """
    start_controllers(processes, api, address=LOOPBACK, flags=QUICK)
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE},
        "status": {"allocatable": MANY, "capacity": MANY},
    }
    status, said = api.client.send("POST", "/api/v1/nodes", node)
    assert status == 201, said
    # The API server gives a new node a taint, which a controller takes away that does not run here.
    untainted = {"spec": {"taints": None}}
    path = f"/api/v1/nodes/{NODE}"
    status, said = api.client.send("PATCH", path, untainted, content_type=MERGE)
    assert status == 200, said
    ends = END.replace("MILLISECONDS", str(int(run_s * 1000))) if run_s >= 0 else ""
    configuration = folder / "kwok.yaml"
    configuration.write_text(CONFIGURATION + RUN + ends)
    processes.start(
        "kwok",
        binaries.kwok(),
        f"--kubeconfig={api.admin}",
        f"--config={configuration}",
        "--manage-all-nodes",
        f"--server-address=127.0.0.1:{free_port()}",
    )
