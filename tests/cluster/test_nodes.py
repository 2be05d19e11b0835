"""
What nodes do to their Pods: drained, short of memory, cut off, dead.

Each job goes on elsewhere within the time that docs/failures.md states, is charged nothing, and is
published once, whatever a worker does that nobody can reach any more.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from encoder_core.failures import Budget
from encoder_core.names import pod_name
from encoder_operator.exits import DISRUPTED
from tests.cluster.deployment import PARTS, PATIENCE_S, Deployment, condition, deployed, fresh
from tests.cluster.test_failures import (
    check_time,
    check_told,
    failures_of,
    is_ffmpeg,
    make_pool,
    processes_of,
    seconds_of,
    submit,
)
from tests.cluster.test_service import ENDED, LONG_CLIP, drip, hurry
from tests.cluster.times import MOVED
from tests.figures import tell_figure
from tests.harness.control_plane import QUICK_NODE_LOSS
from tests.harness.node import Node

Clip = Callable[[str], Path]


@pytest.fixture(scope="module")
def lossy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Another installation: where a lost node is seen soon, an outage of the API looks like one."""
    with deployed(tmp_path_factory.mktemp("lossy"), flags=QUICK_NODE_LOSS) as deployment:
        bring_the_parts_home(deployment)
        yield deployment


def bring_the_parts_home(service: Deployment) -> None:
    """To the first node, by which tests reach the API too: the second is to be emptied or lost.

    An operator that goes with the node does not see why the Pod went: `pod_deleted`, no more.
    """
    second = service.cluster.nodes[1].name
    service.kubectl("cordon", second)
    service.kubectl("rollout", "restart", *(f"deployment/{part}" for part in PARTS))
    service.wait_rolled_out()
    service.kubectl("uncordon", second)
    wait_until_well(service, service.cluster.nodes[1])


def begin(service: Deployment, clip: Clip, pool: str, *, lasts_s: float = 200) -> tuple[int, str]:
    """
    A job that encodes on the second node, and the name of its resource.

    Its source comes slowly until the job has moved, or `lasts_s`.
    """
    make_pool(
        service,
        pool,
        retries={"app": 1},
        retention={"completedSeconds": 3600, "failedSeconds": 3600},
    )
    source = drip(service, source_of(pool), clip(LONG_CLIP).read_bytes(), lasts_s=lasts_s)
    first, second = service.cluster.nodes
    # So the scheduler has no choice now, and any afterwards.
    service.kubectl("cordon", first.name)
    try:
        accepted = submit(service, pool, source)
        service.wait_for(
            f"{pool} encodes",
            lambda: (service.job(accepted["id"])["progress"] or {}).get("percent", 0) > 1,
        )
    finally:
        service.kubectl("uncordon", first.name)
    wait_until_well(service, first)
    name = f"tj-{accepted['uuid']}"
    assert (service.pod(pod_name(name, 1)) or {})["spec"]["nodeName"] == second.name
    return accepted["id"], name


def source_of(pool: str) -> str:
    return f"/nodes/{pool}.mp4"


def check_moved(
    service: Deployment, number: int, name: str, pool: str, *, code: str, since: Callable[[], str]
) -> None:
    """Told as a disruption, tried again on the other node in time, not charged, published once."""
    first, second = (node.name for node in service.cluster.nodes)
    reason = DISRUPTED[code]
    service.wait_for(
        f"{pool} says what became of its node",
        lambda: condition(service.resource(name), "Disrupted") == ("True", reason),
        timeout_s=MOVED[code].within_s + PATIENCE_S,
    )
    hurry(service, source_of(pool))
    service.wait_for(
        f"{pool} succeeds",
        lambda: condition(service.resource(name), "Succeeded") == ("True", "Completed"),
    )
    service.wait_rolled_out()
    job = service.job(number)
    assert (job["status"], failures_of(job)) == ("completed", [code, None])
    lost, again = job["attempts"]
    assert lost["budget"] == Budget.INFRA
    assert (lost["node"], again["node"]) == (second, first)
    check_time(MOVED[code], since(), again["startedAt"])
    assert len(uploads(service, pool)) == 1
    check_told(service, name, reason)


def uploads(service: Deployment, pool: str) -> list[str]:
    """Each that its server took, also if it was the same bytes once more."""
    return [
        request.method
        for request in service.http.requests
        if request.method in ("PUT", "POST")
        and request.path == f"/{pool}.mp4"
        and request.status < 300
    ]


def forget(service: Deployment, name: str, pool: str) -> None:
    service.kubectl("delete", "tp", pool, "--wait=false")
    service.kubectl("delete", "tj", name, "--wait=false")


def test_a_drain_moves_a_job_to_another_node_and_waits_for_nothing_else(
    service: Deployment, clip: Clip
) -> None:
    bring_the_parts_home(service)
    pool = fresh("drained-node")
    number, name = begin(service, clip, pool)
    second = service.cluster.nodes[1].name
    began = now()
    try:
        service.kubectl(
            *("drain", second, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=240s")
        )
        tell_figure(f"{second} is empty after {seconds_of(began, now()):.0f} s")
        check_moved(service, number, name, pool, code="node_drained", since=lambda: began)
    finally:
        service.kubectl("uncordon", second)
        wait_until_well(service, service.cluster.nodes[1])
    forget(service, name, pool)


def test_of_two_apis_one_may_be_evicted_and_the_other_once_there_is_a_third(
    service: Deployment,
) -> None:
    """What a drain asks for, Pod by Pod. While no node takes a Pod there is no third."""
    nodes = service.cluster.nodes
    service.wait_for("both are ready", lambda: service.budget()["disruptionsAllowed"] == 1)
    first, second = (pod["metadata"]["name"] for pod in service.pods_of("encoder-api"))
    service.kubectl("cordon", *(node.name for node in nodes))
    try:
        assert service.evict(first) == (201, [])
        assert service.evict(second) == (429, ["DisruptionBudget"])
        service.wait_for("the first is gone", lambda: service.pod(first) is None)
        assert service.evict(second) == (429, ["DisruptionBudget"])
        assert service.request("GET", "/readyz").ok
    finally:
        service.kubectl("uncordon", *(node.name for node in nodes))
    service.wait_for("there is a third", lambda: service.budget()["disruptionsAllowed"] == 1)
    assert service.evict(second) == (201, [])
    service.wait_rolled_out()
    for node in nodes:
        wait_until_well(service, node)


PRESSURE: dict[str, dict[str, Any]] = {
    "pod_evicted": {
        "evictionSoft": {"memory.available": "99%"},
        "evictionSoftGracePeriod": {"memory.available": "1s"},
        "evictionMaxPodGracePeriod": 60,
    },
    # A hard threshold is taken from what Pods may ask for, so the kubelet has no room for ours.
    "pod_rejected": {"evictionHard": {"memory.available": "99%"}},
}
"""Settings of a kubelet with which it does that at once."""


@pytest.mark.full
@pytest.mark.parametrize("code", PRESSURE)
def test_a_node_that_has_no_memory_left_for_a_worker_makes_its_job_go_on_elsewhere(
    lossy: Deployment, clip: Clip, code: str
) -> None:
    pool = fresh(code.replace("_", "-"))
    number, name = begin(lossy, clip, pool)
    node = lossy.cluster.nodes[1]
    began = now()
    with node.kubelet_with(**PRESSURE[code]):
        check_moved(lossy, number, name, pool, code=code, since=lambda: began)
    wait_until_well(lossy, node)
    forget(lossy, name, pool)


@pytest.mark.full
def test_a_job_of_a_dead_node_moves_and_one_whose_worker_only_lost_its_kubelet_is_let_end(
    lossy: Deployment, clip: Clip
) -> None:
    of_dead, of_orphan = fresh("dead"), fresh("orphan")
    dead, name = begin(lossy, clip, of_dead)
    orphan, name_of_orphan = begin(lossy, clip, of_orphan, lasts_s=30)
    pod, node = lossy.pod(pod_name(name, 1)), lossy.cluster.nodes[1]
    began = now()
    node.kubelet.kill()
    tell(pod, signal.SIGKILL)
    check_moved(lossy, dead, name, of_dead, code="node_lost", since=lambda: lost_at(lossy))
    lossy.wait_for("the orphan ends", lambda: lossy.job(orphan)["status"] in ENDED, timeout_s=300)
    job = lossy.job(orphan)
    assert (job["status"], failures_of(job)) == ("completed", [None])
    assert len(uploads(lossy, of_orphan)) == 1
    ended_s = seconds_of(began, job["finishedAt"])
    tell_figure(f"the worker without a kubelet is done: recorded {ended_s:.0f} s after the loss")
    node.kubelet.start()
    wait_until_well(lossy, node)
    forget(lossy, name, of_dead)
    forget(lossy, name_of_orphan, of_orphan)


@pytest.mark.full
def test_a_worker_that_comes_back_with_its_node_when_its_job_is_done_publishes_nothing(
    lossy: Deployment, clip: Clip
) -> None:
    """Cut off and standing still, as with a machine that is suspended; and nobody to end it."""
    pool = fresh("cut-off")
    number, name = begin(lossy, clip, pool)
    node, zombie = lossy.cluster.nodes[1], lossy.pod(pod_name(name, 1))
    node.cut_off()
    tell(zombie, signal.SIGSTOP)
    try:
        check_moved(lossy, number, name, pool, code="node_lost", since=lambda: lost_at(lossy))
        published = lossy.http.stored(f"/{pool}.mp4")
        node.kubelet.kill()
    finally:
        node.reconnect()
        tell(zombie, signal.SIGCONT)
    back = now()
    lossy.wait_for("its worker ends by itself", lambda: not [*worker_of(zombie)], timeout_s=300)
    tell_figure(f"the worker that came back has ended after {seconds_of(back, now()):.0f} s")
    node.kubelet.start()
    lossy.wait_for("its Pod is gone", lambda: lossy.pod(pod_name(name, 1)) is None)
    assert len(uploads(lossy, pool)) == 1
    assert lossy.http.stored(f"/{pool}.mp4") == published
    assert failures_of(lossy.job(number)) == ["node_lost", None]
    wait_until_well(lossy, node)
    forget(lossy, name, pool)


def worker_of(pod: dict[str, Any] | None) -> Iterator[int]:
    """Its processes, without the one that holds the namespaces of a Pod."""
    for words, process in processes_of(pod):
        if is_ffmpeg(words) or "encoder_worker" in " ".join(words):
            yield int(process.name)


def tell(pod: dict[str, Any] | None, what: signal.Signals) -> None:
    found = [*worker_of(pod)]
    assert found, "its worker is there"
    for process in found:
        with suppress(ProcessLookupError):  # it went with its parent
            os.kill(process, what)


def wait_until_well(service: Deployment, node: Node) -> None:
    """Nothing keeps Pods away from it any more."""

    def clear() -> bool:
        return not service.cluster.get(f"/api/v1/nodes/{node.name}")["spec"].get("taints")

    service.wait_for(f"{node.name} takes Pods again", clear)


def lost_at(service: Deployment) -> str:
    """When Kubernetes saw that the second node is lost."""
    node = service.cluster.get(f"/api/v1/nodes/{service.cluster.nodes[1].name}")
    [ready] = [c for c in node["status"]["conditions"] if c["type"] == "Ready"]
    assert ready["status"] == "Unknown"
    return str(ready["lastTransitionTime"])


def now() -> str:
    return datetime.now(UTC).isoformat()
