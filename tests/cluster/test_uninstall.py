"""Taken out while no operator is there: nothing hangs, and the record is put right later."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from encoder_core.names import secret_name
from tests.cluster.deployment import NAMESPACE, Deployment
from tests.cluster.test_outages import of_operator
from tests.cluster.test_service import CLIP, LONG_CLIP, an_output
from tests.figures import tell_figure
from tests.harness.rig import CRDS
from tests.servers.http import Fault

Clip = Callable[[str], Path]

# A Pod has a minute to end, and what it cannot tell an API that is gone costs it half of that.
LONGEST_S = 180


def submit(service: Deployment, clip: str, data: bytes, **output: Any) -> dict[str, Any]:
    source = service.http.serve(f"/uninstall/{clip}", data)
    upload = {"kind": "http", "url": f"{service.http.url}/uninstalled-{clip}"}
    outputs = [an_output(upload, **output)]
    return service.submit({"source": {"kind": "http", "url": source}, "outputs": outputs})


def leave_alone(service: Deployment, clip: Clip) -> tuple[dict[str, Any], dict[str, Any]]:
    """A job that runs and one that waits, and no operator."""
    service.http.misbehave(f"/uninstall/{LONG_CLIP}", Fault(bytes_per_s=4_000))
    running = submit(service, LONG_CLIP, clip(LONG_CLIP).read_bytes())
    service.wait_for("it runs", lambda: service.job(running["id"])["status"] == "running")
    service.kubectl("scale", "tp/default", "--replicas=0")
    service.wait_for("its pool holds", lambda: service.pools()["default"]["maxConcurrency"] == 0)
    waiting = submit(service, CLIP, clip(CLIP).read_bytes())
    service.send_operator_away()
    return running, waiting


def check_repaired(service: Deployment, running: dict[str, Any], waiting: dict[str, Any]) -> None:
    """What ran was deleted by somebody, which cancels it; what waited in the record goes on."""
    for job, status in ((running, "canceled"), (waiting, "completed")):
        service.wait_for(
            f"job {job['id']} is {status}",
            lambda job=job, status=status: service.job(job["id"])["status"] == status,  # type: ignore[misc]  # mypy infers no type for a lambda's default
        )
    assert not service.http.has(f"/uninstalled-{LONG_CLIP}")
    checked = service.kubectl("exec", "deployment/encoder-api", "--", "encoder", "fsck", "--json")
    assert json.loads(checked)["findings"] == []


def test_the_namespace_is_deleted_while_the_operator_is_away(
    service: Deployment, clip: Clip
) -> None:
    running, waiting = leave_alone(service, clip)
    began = time.monotonic()
    service.cluster.kubectl("delete", "namespace", NAMESPACE, f"--timeout={LONGEST_S}s")
    took_s = time.monotonic() - began
    service.install()
    check_repaired(service, running, waiting)
    repaired_s = time.monotonic() - began - took_s
    tell_figure(
        f"namespace gone after {took_s:.0f} s; installed and repaired in {repaired_s:.0f} s"
    )


@pytest.mark.full
def test_the_resources_are_deleted_while_the_operator_is_away(
    service: Deployment, clip: Clip
) -> None:
    running, waiting = leave_alone(service, clip)
    began = time.monotonic()
    service.cluster.kubectl("delete", "-f", CRDS, f"--timeout={LONGEST_S}s")
    took_s = time.monotonic() - began
    name = f"tj-{running['uuid']}"
    secret = f"/api/v1/namespaces/{NAMESPACE}/secrets/{secret_name(name, 1)}"
    service.wait_for(
        "its Pod and its Secret are gone",
        lambda: not (service.pod(f"{name}-a1") or service.maybe(secret)),
        timeout_s=LONGEST_S,
    )
    pods_s = time.monotonic() - began
    # Too early: it finds a cluster that does not know its resources, and has to wait for them.
    service.kubectl("scale", "deployment/encoder-operator", "--replicas=1")
    service.wait_for("it is started", lambda: of_operator(service, "started") == [True])
    assert of_operator(service, "ready") == [False]
    service.install()
    check_repaired(service, running, waiting)
    assert of_operator(service, "restartCount") == [0]
    tell_figure(f"resources gone after {took_s:.0f} s, their Pods and Secrets after {pods_s:.0f} s")
