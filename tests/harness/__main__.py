"""What `make cluster-up`, `cluster-down`, `images` and `test-cluster` call."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.harness import binaries
from tests.harness.cluster import Cluster, left_running, remove_left
from tests.harness.images import base_image, sandbox_image
from tests.harness.project_images import TRIAL, build_for_cluster, build_for_people
from tests.harness.template import images_in_place


def build() -> None:
    """Make whatever the cluster ring needs and the cache does not hold yet."""
    steps: dict[str, Callable[[], object]] = {
        "Kubernetes and etcd": binaries.kubernetes,
        "CoreDNS": binaries.coredns,
        "images for nodes": _prepare_images,
    }
    for name, make in steps.items():
        started = time.monotonic()
        print(f"setup:   {name}", end="", flush=True)
        make()
        print(f" ({time.monotonic() - started:.1f} s)")


def _prepare_images() -> None:
    with images_in_place([base_image(), sandbox_image()]):
        pass


def up() -> None:
    """
    Leave a cluster of one node running; print on standard output what a shell has to know.

    Once is enough: when one runs already, it is that one.
    """
    kubeconfig = left_running() or _start()
    print(f"export KUBECONFIG={kubeconfig}")
    print(f'export PATH="{binaries.kubernetes()}:$PATH"')


def _start() -> Path:
    started = time.monotonic()
    images = build_for_cluster(TRIAL)
    _say(f"images: {', '.join(image.tag for image in images) or 'none'}", started)
    started = time.monotonic()
    with Cluster(nodes=1, images=images, enforce_policies=True) as cluster:
        cluster.leave()
    _say("a cluster of one node runs", started)
    return cluster.kubeconfig


def _say(what: str, started: float) -> None:
    # Standard output is for a shell to evaluate.
    print(f"{what} ({time.monotonic() - started:.0f} s)", file=sys.stderr, flush=True)


def down() -> None:
    """Remove every cluster that `up` left, and what killed test runs forgot."""
    for name in remove_left():
        print(f"removed {name}", file=sys.stderr)


def images() -> None:
    """Build the image of every Dockerfile of the project."""
    for line in build_for_people():
        print(line)


COMMANDS = {command.__name__: command for command in (build, up, down, images)}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]]()
