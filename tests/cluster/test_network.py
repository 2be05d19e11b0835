"""Who reaches whom under the NetworkPolicies, on nodes that enforce them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cluster.deployment import Deployment
from tests.cluster.test_service import a_long_spec

Clip = Callable[[str], Path]

WAIT_S = 2.0
TRY = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3])).close()
except TimeoutError:
    print("no answer")
else:
    print("reached")
"""


def reach(service: Deployment, pod: str, address: str) -> str:
    """Whether a process in that Pod gets a connection; packets that are dropped get no answer."""
    host, _, port = address.rpartition(":")
    python = "/opt/encoder/bin/python"
    command = ("exec", pod, "--", python, "-c", TRY, host, port, str(WAIT_S))
    return service.kubectl(*command).strip()


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


def test_a_worker_reaches_the_api_and_the_network_that_is_opened_to_it(
    service: Deployment, addresses: dict[str, str], clip: Clip
) -> None:
    accepted = service.submit(a_long_spec(service, clip, "/walled.mp4"))
    service.wait_for(
        "it encodes", lambda: (service.job(accepted["id"])["progress"] or {}).get("percent", 0) > 1
    )
    pod = f"tj-{accepted['uuid']}-a1"
    found = {name: reach(service, pod, address) for name, address in addresses.items()}
    reached = {"the API", *MACHINE}
    assert found == {name: "reached" if name in reached else "no answer" for name in addresses}
    assert service.request("POST", f"/jobs/{accepted['id']}/cancel").ok
    service.wait_for("canceled", lambda: service.job(accepted["id"])["status"] == "canceled")
