"""What everything stands on goes away for a while: what runs goes on, and nothing is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from encoder_core.names import secret_name
from tests.cluster.deployment import FULL, NAMESPACE, RETENTION_S, Deployment, condition, fresh
from tests.cluster.test_service import CLIP, ENDED, LONG_CLIP, an_output, drip
from tests.figures import tell_figure
from tests.servers.http import Fault

Clip = Callable[[str], Path]

API_SERVER_AWAY_S = 5  # half a minute more, and its nodes count as lost
DATABASE_AWAY_S = 60 if FULL else 2 * RETENTION_S


def submit(
    service: Deployment,
    clip: Clip,
    path: str,
    *,
    lasts_s: float = 0,
    until: threading.Event | None = None,
) -> dict[str, Any]:
    """A job whose source takes that long to come, or half of it until something has happened."""
    name = LONG_CLIP if lasts_s or until else CLIP
    data = clip(name).read_bytes()
    source = service.http.serve(f"/outages{path}", data)
    if lasts_s:
        drip(service, f"/outages{path}", data, lasts_s=lasts_s)
    if until is not None:
        held = Fault(hold_beyond=len(data) // 2, until=until)
        service.http.misbehave(f"/outages{path}", held)
    upload = {"kind": "http", "url": service.http.url + path}
    return service.submit(
        {"source": {"kind": "http", "url": source}, "outputs": [an_output(upload)]}
    )


def check_completed(service: Deployment, job: dict[str, Any], path: str) -> None:
    """By one Pod, and published once."""
    service.wait_for("it ends", lambda: service.job(job["id"])["status"] in ENDED)
    found = service.job(job["id"])
    assert found["status"] == "completed"
    begun = [attempt for attempt in found["attempts"] if attempt.get("startedAt")]
    assert [attempt["status"] for attempt in begun] == ["succeeded"]
    assert [output["status"] for output in found["outputs"]] == ["uploaded"]
    uploads = [
        request
        for request in service.http.requests
        if request.method in ("PUT", "POST") and request.path == path and request.status < 300
    ]
    assert len(uploads) == 1


def test_jobs_run_on_while_the_api_server_is_away_and_new_ones_start_when_it_is_back(
    service: Deployment, clip: Clip
) -> None:
    through, meanwhile = f"/{fresh('through')}.mp4", f"/{fresh('meanwhile')}.mp4"
    running = submit(service, clip, through, lasts_s=2 * API_SERVER_AWAY_S)
    service.wait_for("it runs", lambda: service.job(running["id"])["status"] == "running")
    server = service.cluster.api_server
    server.kill()
    waiting = submit(service, clip, meanwhile)
    time.sleep(API_SERVER_AWAY_S)  # the absence itself
    assert service.job(waiting["id"])["status"] == "queued"
    server.start()
    began = time.monotonic()
    label = f"?labelSelector=encoder.dev/job=tj-{waiting['uuid']}"
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods{label}"
    server.wait_until(lambda: bool(service.cluster.get(pods)["items"]))
    took_s = time.monotonic() - began
    check_completed(service, running, through)
    check_completed(service, waiting, meanwhile)
    tell_figure(
        f"API server away for {API_SERVER_AWAY_S} s; next Pod {took_s:.1f} s after its start"
    )


@contextmanager
def without_database(service: Deployment, how: str) -> Iterator[None]:
    server = service.mysqld
    (server.kill if how == "killed" else server.freeze)()
    try:
        yield
    finally:
        (server.start if how == "killed" else server.thaw)()


def is_said_to_be_away(service: Deployment, name: str) -> bool:
    told = condition(service.resource(name), "ResultRecorded") == ("False", "StoreUnavailable")
    return told and "recorded later" in service.message(name, "ResultRecorded")


def answers(service: Deployment) -> bool:
    try:
        return service.request("GET", "/readyz").ok
    except requests.RequestException:
        return False  # none of its Pods is ready, so nobody takes the connection


def of_operator(service: Deployment, what: str) -> list[Any]:
    """A field of its container's status."""
    return [
        container[what]
        for pod in service.pods_of("encoder-operator")
        for container in pod["status"].get("containerStatuses", [])
    ]


def operator_is_ready(service: Deployment) -> bool:
    return of_operator(service, "ready") == [True]


@pytest.mark.parametrize("how", ["killed", pytest.param("frozen", marks=pytest.mark.full)])
def test_a_job_ends_while_the_database_is_away_and_is_recorded_when_it_is_back(
    service: Deployment, clip: Clip, how: str
) -> None:
    path = f"/{fresh(f'database-{how}')}.mp4"
    gone_too = threading.Event()
    running = submit(service, clip, path, until=gone_too)
    name = f"tj-{running['uuid']}"
    service.wait_for("it runs", lambda: service.job(running["id"])["status"] == "running")
    restarts = of_operator(service, "restartCount")
    with without_database(service, how):
        gone = time.monotonic()
        gone_too.set()
        service.wait_for("its output is there", lambda: service.http.has(path))
        published_s = time.monotonic() - gone
        if how == "killed":  # one that does not answer is waited for, for up to a minute
            service.wait_for(
                "its resource says why nothing is recorded",
                lambda: is_said_to_be_away(service, name),
            )
        told_s = time.monotonic() - gone
        time.sleep(max(0.0, DATABASE_AWAY_S - told_s))  # the absence itself
        # Longer than what is recorded would stay.
        assert service.resource(name) is not None
        assert service.pod(f"{name}-a1") is not None
        secrets = f"/api/v1/namespaces/{NAMESPACE}/secrets"
        assert service.maybe(f"{secrets}/{secret_name(name, 1)}") is not None
        service.wait_for("the operator is not ready", lambda: not operator_is_ready(service))
    back = time.monotonic()
    service.wait_for("the operator is ready", lambda: operator_is_ready(service))
    service.wait_for("the API answers", lambda: answers(service))
    assert of_operator(service, "restartCount") == restarts  # which would bring no database back
    check_completed(service, running, path)
    recorded_s = time.monotonic() - back
    service.wait_for(
        "its resource says so",
        lambda: condition(service.resource(name), "Succeeded") in (None, ("True", "Completed")),
    )
    tell_figure(
        f"{how} for {back - gone:.0f} s: published after {published_s:.0f} s, told after "
        f"{told_s:.0f} s, recorded {recorded_s:.0f} s after it was back"
    )


def test_apis_without_a_database_do_not_hold_up_a_drain(service: Deployment) -> None:
    service.wait_for("both are ready", lambda: service.budget()["currentHealthy"] == 2)
    with without_database(service, "killed"):
        service.wait_for("none is ready", lambda: service.budget()["currentHealthy"] == 0)
        pods = [pod["metadata"]["name"] for pod in service.pods_of("encoder-api")]
        assert [service.evict(pod, only_ask=True) for pod in pods] == 2 * [(201, [])]
    service.wait_for("both are ready again", lambda: service.budget()["currentHealthy"] == 2)
    service.wait_for("the operator is ready", lambda: operator_is_ready(service))
