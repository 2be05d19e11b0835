"""The harness itself: what the tests of this ring take for granted."""

from __future__ import annotations

import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness.cluster import Cluster
from tests.harness.commands import run
from tests.harness.control_plane import QUICK_NODE_LOSS
from tests.harness.images import build_image
from tests.harness.network import wait_until_unlocked
from tests.harness.processes import REPOSITORY
from tests.servers.ftp import ftp_server
from tests.servers.mysql import mysql_server
from tests.servers.webhooks import WebhookReceiver

# Where servers of a real node write without being asked.
FIXED_PLACES = [
    Path(name)
    for name in ("/etc/cni", "/run", "/run/netns", "/usr/libexec", "/var/lib", "/var/log")
]
SERVE_HELLO = """
use IO::Socket::INET;
my $server = IO::Socket::INET->new(LocalPort => 8080, Listen => 5, ReuseAddr => 1) or die;
while (my $caller = $server->accept) { print $caller "hello\\n"; close $caller }
"""


def start(
    cluster: Cluster, namespace: str, name: str, *command: str, node: str = "node1", **more: Any
) -> None:
    container = {
        "name": "main",
        "image": more.pop("image", "debian:bookworm-slim"),
        "command": list(command),
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "nodeSelector": {"kubernetes.io/hostname": node},
            "containers": [container],
            **more,
        },
    }
    cluster.kubectl("create", "-f", "-", text=json.dumps(pod))


def wait(cluster: Cluster, namespace: str, name: str, condition: str) -> None:
    cluster.kubectl("wait", "-n", namespace, f"pod/{name}", f"--for={condition}", "--timeout=240s")


def output_of(cluster: Cluster, namespace: str, name: str, *command: str, **more: Any) -> str:
    """Run a command in a Pod to its end, a good one or not; returns what it wrote."""
    start(cluster, namespace, name, *command, **more)
    wait(cluster, namespace, name, "jsonpath={.status.containerStatuses[0].state.terminated}")
    return cluster.kubectl("logs", "-n", namespace, name)


def talk_to(address: str, port: int) -> tuple[str, ...]:
    """A command that prints what a server says first. A Service that is new is known in a while."""
    call = f"{{ exec 3<>/dev/tcp/{address}/{port}; }} 2>/dev/null"
    return ("bash", "-c", f"for i in {{1..300}}; do {call} && break; sleep 0.1; done; cat <&3")


class SayWhoCalls(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(self.client_address[0].encode())


@contextmanager
def server_that_says_who_calls(address: str) -> Iterator[int]:
    """The port of a server that answers with its caller's address."""
    with socketserver.TCPServer((address, 0), SayWhoCalls) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_a_pod_runs_on_each_node_and_its_words_are_kept(cluster: Cluster, namespace: str) -> None:
    for node in cluster.nodes:
        said = output_of(cluster, namespace, f"on-{node.name}", "echo", "hello", node=node.name)
        assert said == "hello\n"


def test_a_pod_is_held_to_its_limits(cluster: Cluster, namespace: str) -> None:
    """The control groups of a node are real: a Pod sees its limit of memory."""
    limit = {"limits": {"memory": "64Mi"}}
    files = "/sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes"
    container = {"name": "main", "image": "debian:bookworm-slim", "resources": limit}
    container["command"] = ["sh", "-c", f"cat {files} 2>/dev/null || true"]
    said = output_of(cluster, namespace, "limited", containers=[container])
    assert said == f"{64 * 2**20}\n"


def test_a_pod_finds_a_service_by_its_name(cluster: Cluster, namespace: str) -> None:
    name = "kubernetes.default.svc.cluster.local"
    said = output_of(cluster, namespace, "asks", "getent", "hosts", name)
    address = cluster.get("/api/v1/namespaces/default/services/kubernetes")["spec"]["clusterIP"]
    assert said.split() == [address, name]


def test_a_pod_reaches_a_server_of_the_test_and_is_seen_as_itself(
    cluster: Cluster, namespace: str
) -> None:
    with server_that_says_who_calls(str(cluster.machine)) as port:
        said = output_of(cluster, namespace, "calls", *talk_to(str(cluster.machine), port))
    pod = cluster.get(f"/api/v1/namespaces/{namespace}/pods/calls")
    assert said == pod["status"]["podIP"]


def test_a_pod_reaches_the_servers_that_other_rings_use(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    host = str(cluster.machine)
    files, database = tmp_path / "files", tmp_path / "database"
    files.mkdir()
    database.mkdir()
    with (
        ftp_server(files, host=host) as ftp,
        WebhookReceiver(host=host) as webhooks,
        mysql_server(database, host=host) as mysql,
    ):
        post = f"POST /hook HTTP/1.1\\r\\nHost: {host}\\r\\nContent-Length: 0\\r\\n\\r\\n"
        script = f"""
            head -n 1 < /dev/tcp/{host}/{ftp.port}
            head -c 20 < /dev/tcp/{host}/{mysql.port} | tr -dc '[:print:]'
            exec 3<>/dev/tcp/{host}/{webhooks.port}; printf '{post}' >&3; head -n 1 <&3
        """
        said = output_of(cluster, namespace, "visits", "bash", "-c", script)
    assert "220 " in said
    assert mysql.version.removeprefix("MySQL ") in said
    assert "HTTP/1.1 200" in said or "HTTP/1.1 204" in said


def test_pods_and_tests_reach_a_service_on_another_node(cluster: Cluster, namespace: str) -> None:
    start(cluster, namespace, "server", "perl", "-e", SERVE_HELLO, node="node2")
    wait(cluster, namespace, "server", "condition=Ready")
    cluster.kubectl("expose", "-n", namespace, "pod/server", "--port=80", "--target-port=8080")
    service = cluster.get(f"/api/v1/namespaces/{namespace}/services/server")
    said = output_of(
        cluster, namespace, "client", *talk_to(f"server.{namespace}.svc.cluster.local", 80)
    )
    assert said == "hello\n"
    assert run(*talk_to(service["spec"]["clusterIP"], 80)) == "hello\n"


def test_nothing_in_a_pod_reaches_further_than_the_machine(
    cluster: Cluster, namespace: str
) -> None:
    said = output_of(
        cluster,
        namespace,
        "escapes",
        *("bash", "-c", "(exec 3<>/dev/tcp/192.0.2.77/80) 2>&1 || true"),
    )
    assert "Network is unreachable" in said or "No route to host" in said


def test_an_image_is_built_and_runs(tmp_path: Path) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM debian:bookworm-slim\nRUN echo built > /made\nUSER 10001\n")
    image = build_image(dockerfile, "localhost/made:1", context=tmp_path)
    with Cluster(nodes=1, images=[image]) as cluster:
        user = "cat /made; id -u"
        said = output_of(cluster, "default", "made", "sh", "-c", user, image="localhost/made:1")
    assert said == "built\n10001\n"


def test_a_node_that_is_cut_off_is_noticed_and_comes_back() -> None:
    with Cluster(nodes=1, flags=QUICK_NODE_LOSS) as cluster:
        node = cluster.add_node()
        node.cut_off()
        wait_for_node = ("wait", f"node/{node.name}", "--timeout=240s")
        cluster.kubectl(*wait_for_node, "--for=condition=Ready=Unknown")
        node.reconnect()
        cluster.kubectl(*wait_for_node, "--for=condition=Ready")


def test_a_kubelet_is_killed_and_started_again(cluster: Cluster, namespace: str) -> None:
    node = cluster.nodes[0]
    node.kubelet.kill()
    start(cluster, namespace, "waits", "true")
    node.kubelet.start()
    wait(cluster, namespace, "waits", "jsonpath={.status.phase}=Succeeded")


def test_an_api_server_without_nodes_leaves_nothing() -> None:
    with Cluster() as cluster:
        processes = [cluster.api_server.pid]
        assert cluster.traces() != []
    assert cluster.traces() == []
    assert [pid for pid in processes if Path(f"/proc/{pid}").exists()] == []


def test_a_cluster_leaves_nothing() -> None:
    before = everything_of_the_machine()
    with Cluster(nodes=1) as cluster:
        start(cluster, "default", "runs", "sleep", "infinity")
        wait(cluster, "default", "runs", "condition=Ready")
        kinds = {trace.split()[0] for trace in cluster.traces()}
        assert kinds == {"process", "link", "control", "folder"}
        shims = [pid for pid, command in processes() if "containerd-shim" in command]
        assert shims != []
    assert cluster.traces() == []
    check_nothing_is_left(before)


OWNER = """
import signal, sys
from tests.harness.cluster import Cluster
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
with Cluster(nodes=1) as cluster:
    print(cluster.number, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_cluster_goes_with_its_owner(ending: signal.Signals) -> None:
    before = everything_of_the_machine()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        number = int(owner.stdout.readline())
        os.kill(owner.pid, ending)
        owner.wait(60)
    wait_until_unlocked(number)
    check_nothing_is_left(before)


def check_nothing_is_left(before: dict[str, Any]) -> None:
    """Containers of the shared cluster may have ended meanwhile, but none may have come."""
    after = everything_of_the_machine()
    assert Counter(after.pop("programs")) <= Counter(before["programs"])
    assert after == {name: what for name, what in before.items() if name != "programs"}


def everything_of_the_machine() -> dict[str, Any]:
    """What a cluster could change of the machine it runs on, besides its own folder."""
    return {
        "mounts": Path("/proc/self/mounts").read_text(),
        "links": sorted(os.listdir("/sys/class/net")),
        "routes": run("ip", "route", "show", "table", "all"),
        "rules": [
            rule for rule in run("iptables-save", "--table=nat").splitlines() if rule[0] == "-"
        ],
        "files": [sorted(os.listdir(place)) for place in FIXED_PLACES if place.exists()],
        "groups": sorted(map(str, Path("/sys/fs/cgroup").glob("*/encoder*/*"))),
        "programs": [command for _, command in processes() if "containerd" in command],
    }


def processes() -> list[tuple[int, str]]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it ended meanwhile
        found.append((int(folder.name), command))
    return found
