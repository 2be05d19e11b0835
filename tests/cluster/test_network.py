"""Who reaches whom under the NetworkPolicies, on nodes that enforce them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
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
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def reach(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=float(sys.argv[1])).close()
    except TimeoutError:
        return "no answer"
    except ConnectionRefusedError:
        return "refused"
    return "reached"

addresses = sys.argv[2:]
with ThreadPoolExecutor(len(addresses)) as threads:
    print(json.dumps(list(threads.map(reach, addresses))))
"""


def reach(
    service: Deployment, pod: str, addresses: Mapping[str, str], *, namespace: str = NAMESPACE
) -> dict[str, str]:
    """
    Whether a process in that Pod gets a connection to each.

    Packets that are dropped get no answer; those that arrive where nobody listens are refused.
    """
    command = ("exec", pod, "--", PYTHON, "-c", TRY, str(WAIT_S), *addresses.values())
    found = json.loads(service.cluster.kubectl("-n", namespace, *command))
    return dict(zip(addresses, found, strict=True))


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
        "the API server, past its Service": urlsplit(service.cluster.url).netloc,
        "the DNS": f"{service.cluster.machine}:53",
        "the metadata service": f"{METADATA}:80",
        "the database": service.database,
        "a receiver": urlsplit(service.webhooks.url).netloc,
        "a source": urlsplit(service.http.url).netloc,
    }


API_SERVER = {"the API server", "the API server, past its Service"}
# In a private network, which the overlay opens to workers and sender. Database and API server are
# in one that it does not open.
OPENED = {"a source", "a receiver"}


@pytest.mark.parametrize(
    ("part", "reached"),
    [
        ("encoder-api", {"the database"}),
        ("encoder-operator", {"the database", *API_SERVER}),
        ("encoder-webhooks", {"the database", *OPENED}),
    ],
)
def test_a_part_reaches_what_it_needs_and_no_more(
    service: Deployment, addresses: dict[str, str], part: str, reached: set[str]
) -> None:
    found = reach(service, f"deployment/{part}", addresses)
    assert found == only({"the DNS", *reached}, addresses)


def only(reached: set[str], addresses: Mapping[str, str]) -> dict[str, str]:
    return {name: "reached" if name in reached else "no answer" for name in addresses}


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
        "its policies count", lambda: all(node.filters(worker) for node in service.cluster.nodes)
    )
    found = reach(service, pod, addresses)
    assert found == only({"the DNS", "the API", *OPENED}, addresses)
    closed = {"the worker": f"{worker}:{CLOSED}"}
    assert reach(service, "stranger", closed, namespace="strangers") == only(set(), closed)
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
    parts = {
        "the operator's health": f"{operator}:8081",
        "another port of the API": f"{api}:{CLOSED}",
        "another port of the operator": f"{operator}:{CLOSED}",
        "a port of the sender": f"{sender}:{CLOSED}",
        "a port of a bystander": f"{strangers['bystander']}:{CLOSED}",
    }
    found = reach(service, "stranger", addresses | parts, namespace="strangers")
    assert found == {
        **dict.fromkeys(addresses, "reached"),
        "the operator's health": "reached",
        "another port of the API": "no answer",
        "another port of the operator": "no answer",
        "a port of the sender": "no answer",
        "a port of a bystander": "refused",
    }
