"""Who reaches whom under the NetworkPolicies, on nodes that enforce them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cluster.deployment import NAMESPACE, Deployment
from tests.cluster.test_service import ENDED, SLOW, a_long_spec
from tests.harness.node import METADATA

Clip = Callable[[str], Path]

WAIT_S = 4.0
CLOSED = 9999
"""A port at which nobody listens."""
PYTHON = "/opt/encoder/bin/python"
TRY = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3])).close()
except TimeoutError:
    print("no answer")
except ConnectionRefusedError:
    print("refused")
else:
    print("reached")
"""


def reach(service: Deployment, pod: str, address: str, *, namespace: str = NAMESPACE) -> str:
    """
    Whether a process in that Pod gets a connection.

    Packets that are dropped get no answer; those that arrive where nobody listens are refused.
    """
    host, _, port = address.rpartition(":")
    command = ("exec", pod, "--", PYTHON, "-c", TRY, host, port, str(WAIT_S))
    return service.cluster.kubectl("-n", namespace, *command).strip()


@pytest.fixture(scope="module", autouse=True)
def metadata(service: Deployment) -> Iterator[None]:
    """On each node, where the clouds have what gives out the node's credentials."""
    serving = [node.serve_metadata() for node in service.cluster.nodes]
    yield
    for process in serving:
        process.kill()


@pytest.fixture(scope="module")
def strangers(service: Deployment) -> Iterator[dict[str, str]]:
    """Pods of somebody else, of whom no policy speaks: their names and addresses."""
    cluster, ips = service.cluster, {}
    cluster.make_namespace("strangers")
    for name in ("stranger", "bystander"):
        container = {
            "name": "idle",
            "image": "localhost/encoder-worker:dev",
            "imagePullPolicy": "Never",
            "command": [PYTHON, "-c", "import signal; signal.pause()"],
        }
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "strangers"},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
        }
        cluster.kubectl("create", "-f", "-", text=json.dumps(body))
    for name in ("stranger", "bystander"):
        ready = ("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=240s")
        cluster.kubectl("-n", "strangers", *ready)
        ips[name] = cluster.get(f"/api/v1/namespaces/strangers/pods/{name}")["status"]["podIP"]
    yield ips
    # At once: a node is not drained of Pods that nobody would make again.
    cluster.kubectl("-n", "strangers", "delete", "pods", "--all")
    cluster.kubectl("delete", "namespace", "strangers", "--wait=false")


def address_of(service: Deployment, part: str) -> str:
    address: str = service.pods_of(part)[0]["status"]["podIP"]
    return address


@pytest.fixture
def addresses(service: Deployment) -> dict[str, str]:
    jsonpath = "jsonpath={.spec.clusterIP}"
    api = service.kubectl("get", "service", "encoder-api", "-o", jsonpath)
    api_server = service.cluster.kubectl(
        "get", "service", "kubernetes", "-n", "default", "-o", jsonpath
    )
    node = 'jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}'
    return {
        "the API": f"{api}:80",
        "a node": f"{service.cluster.kubectl('get', 'nodes', '-o', node)}:10250",
        "the API server": f"{api_server}:443",
        "the metadata service": f"{METADATA}:80",
        "the database": service.database,
        "a receiver": urlsplit(service.webhooks.url).netloc,
        "a source": urlsplit(service.http.url).netloc,
    }


# Database, API server, sources and receivers of the tests are all on this machine, at one address,
# which the overlay opens to workers and sender as somebody's private network.
MACHINE = {"the database", "the API server", "a receiver", "a source"}


@pytest.mark.parametrize(
    ("part", "reached"),
    [
        ("encoder-api", {"the database"}),
        ("encoder-operator", {"the database", "the API server"}),
        ("encoder-webhooks", MACHINE),
    ],
)
def test_a_part_reaches_what_it_needs_and_no_more(
    service: Deployment, addresses: dict[str, str], part: str, reached: set[str]
) -> None:
    found = {
        name: reach(service, f"deployment/{part}", address) for name, address in addresses.items()
    }
    assert found == {name: "reached" if name in reached else "no answer" for name in addresses}


def test_a_worker_reaches_the_api_and_the_network_that_is_opened_to_it_and_nobody_reaches_it(
    service: Deployment, addresses: dict[str, str], strangers: dict[str, str], clip: Clip
) -> None:
    accepted = service.submit(a_long_spec(service, clip, "/walled.mp4", **SLOW))
    service.wait_for(
        "it encodes", lambda: (service.job(accepted["id"])["progress"] or {}).get("percent", 0) > 1
    )
    pod = f"tj-{accepted['uuid']}-a1"
    worker = service.kubectl("get", "pod", pod, "-o", "jsonpath={.status.podIP}")
    service.wait_for(
        "its policies count", lambda: any(node.filters(worker) for node in service.cluster.nodes)
    )
    found = {name: reach(service, pod, address) for name, address in addresses.items()}
    reached = {"the API", *MACHINE}
    assert found == {name: "reached" if name in reached else "no answer" for name in addresses}
    told = reach(service, "stranger", f"{worker}:{CLOSED}", namespace="strangers")
    assert told == "no answer"
    assert service.request("POST", f"/jobs/{accepted['id']}/cancel").ok
    service.wait_for("it ends", lambda: service.job(accepted["id"])["status"] in ENDED)
    assert service.job(accepted["id"])["status"] == "canceled"  # so it ran all the while


def test_strangers_reach_the_api_and_what_prometheus_reads_and_no_more(
    service: Deployment, addresses: dict[str, str], strangers: dict[str, str]
) -> None:
    """What no policy speaks of they do reach: so a packet that is lost was dropped by one."""
    api, operator, sender = (
        address_of(service, part)
        for part in ("encoder-api", "encoder-operator", "encoder-webhooks")
    )
    wanted = {
        addresses["the API"]: "reached",
        f"{api}:{CLOSED}": "no answer",
        f"{operator}:8081": "reached",
        f"{operator}:{CLOSED}": "no answer",
        f"{sender}:{CLOSED}": "no answer",
        f"{strangers['bystander']}:{CLOSED}": "refused",
        addresses["the metadata service"]: "reached",
    }
    found = {one: reach(service, "stranger", one, namespace="strangers") for one in wanted}
    assert found == wanted
