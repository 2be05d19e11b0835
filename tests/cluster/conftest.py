"""
The clusters of a run, and what they have to say about a test that failed.

`api` is an API server with our resources, ready in seconds; `cluster` has two nodes; `service` is
another one with the whole service in it. All are shared: a test leaves no object behind that
another could stumble over, or works in `namespace`. `shared` is an API server and a database for
the operators of one module, with somebody who plays nodes and workers. Tests marked `full` wait for
minutes, and run with CLUSTER_RUN=full.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator

import pytest

from tests.cluster.deployment import FULL, Deployment, deployed
from tests.harness.cluster import Cluster
from tests.harness.commands import CommandFailed
from tests.harness.rig import Rig, apply_crds, rig

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


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Two nodes with the Kubernetes-native set-up in them, and servers that its Pods reach."""
    with deployed(tmp_path_factory.mktemp("deployment")) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig(tmp_path_factory.mktemp("rig")) as made:
        made.make_pool("default", places=20)
        made.start_nodes(run_s=0.2)
        yield made


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """An empty namespace in which Pods may start at once; everything in it goes with the test."""
    name = f"test-{next(_numbers)}"
    cluster.make_namespace(name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    long = [] if FULL else [item for item in items if item.get_closest_marker("full")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    arguments = getattr(item, "funcargs", {})
    if report.failed:
        for used in arguments.values():
            if isinstance(used, Deployment):
                tell(report, "Jobs, and what the parts said", used.describe)
                tell(report, "Pods and events of the cluster", used.cluster.describe)
            elif isinstance(used, Cluster) and used.nodes:
                tell(report, "Pods and events of the cluster", used.describe)
    return report


def tell(report: pytest.TestReport, what: str, ask: Callable[[], str]) -> None:
    try:
        said = ask()
    except (OSError, CommandFailed) as error:  # a test may fail with the API server away
        said = repr(error)
    report.sections.append((what, said))
