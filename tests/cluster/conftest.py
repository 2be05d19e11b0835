"""
The clusters of a run, and what they have to say about a test that failed.

`api` is an API server with our resources, ready in seconds; `cluster` has two nodes. Both are
shared: a test leaves no object behind that another could stumble over, or works in `namespace`.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster

CRDS = Path(__file__).parents[2] / "crds"

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def api() -> Iterator[Cluster]:
    """etcd and the API server, with the resources of the project."""
    with Cluster() as cluster:
        apply_crds(cluster)
        yield cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes, with the resources of the project."""
    with Cluster(nodes=2) as cluster:
        apply_crds(cluster)
        yield cluster


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """An empty namespace in which Pods may start at once; everything in it goes with the test."""
    name = f"test-{next(_numbers)}"
    cluster.make_namespace(name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def apply_crds(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", CRDS)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", CRDS)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    used = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(used, Cluster):
        report.sections.append(("Pods and events of the cluster", used.describe()))
    return report
