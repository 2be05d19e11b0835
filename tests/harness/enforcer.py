"""
Enforce the NetworkPolicies of one cluster on all its nodes, as the network of a real one does.

A process of its own, so that a cluster that was left running has them too. As with most real
networks, a Pod is not filtered until its address is known: `Node.filters` says when it is.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from tests.harness.api_client import ApiClient
from tests.harness.commands import CommandFailed, run
from tests.harness.policies import render

POLL_S = 0.4
LISTS = ("/api/v1/pods", "/api/v1/namespaces", "/apis/networking.k8s.io/v1/networkpolicies")


def main(server: str, authority: str, certificate: str, key: str, nodes: str) -> None:
    """`nodes` is a file with the id of a process in each node's network, as JSON."""
    client = ApiClient(server, Path(authority), Path(certificate), Path(key))
    loaded: dict[int, str] = {}
    while True:
        try:
            pods, namespaces, policies = (client.get(path)["items"] for path in LISTS)
            rules = render(pods, namespaces, policies)
            for node in json.loads(Path(nodes).read_text()):
                if loaded.get(node) != rules:
                    run("nsenter", f"--target={node}", "--net", "nft", "-f", "-", text=rules)
                    loaded[node] = rules
        except (OSError, CommandFailed) as error:
            print(error, file=sys.stderr, flush=True)  # the API server starts, or a node goes
        time.sleep(POLL_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
