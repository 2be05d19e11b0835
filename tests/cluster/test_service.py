"""The main job on a real Kubernetes, seen by a REST client and by somebody at a terminal."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.deployment import PATIENCE_S, RETENTION_S, Deployment, condition, fresh
from tests.harness.processes import REPOSITORY
from tests.servers.http import Fault
from tests.servers.s3 import S3Bucket

CLIP = "h264_320x180_25p_2s_stereo.mp4"
LONG_CLIP = "h264_640x360_25p_20s_stereo.mp4"
ENDED = {"completed", "failed", "canceled"}
SLOW: dict[str, Any] = {"width": 1280, "height": 720, "upscale": True, "preset": "veryslow"}
"""Of the long clip it is longer under way than a test or a kubelet takes to notice anything."""

Clip = Callable[[str], Path]


@pytest.fixture
def bucket(service: Deployment) -> S3Bucket:
    return service.s3.make_bucket()


def an_output(destination: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "container": "mp4",
        "videoCodec": "libx264",
        "videoBitrate": "300k",
        "audioCodec": "aac",
        "width": 160,
        "height": 90,
        "preset": "ultrafast",
        "destination": destination,
        **changes,
    }


def a_long_spec(service: Deployment, clip: Clip, path: str, **output: Any) -> dict[str, Any]:
    """From HTTP to HTTP, with a middle to do something in; SLOW for what is never to be done."""
    source = service.http.serve("/long.mp4", clip(LONG_CLIP).read_bytes())
    slow = an_output(
        {"kind": "http", "url": f"{service.http.url}{path}"},
        **{"width": 640, "height": 360, "preset": "slower", **output},
    )
    return {"source": {"kind": "http", "url": source}, "outputs": [slow]}


def drip(service: Deployment, path: str, data: bytes, *, lasts_s: float = 200) -> str:
    """
    The URL of a source that comes that slowly, until `hurry`: its job encodes all the while.

    Unlike a slow encode it lasts as long on every machine, and takes nobody's CPU.
    """
    service.http.serve(path, data)
    return service.http.misbehave(path, Fault(bytes_per_s=int(len(data) / lasts_s)))


def hurry(service: Deployment, path: str) -> None:
    service.http.misbehave(path)


def size_of(data: bytes) -> tuple[int, int]:
    answer = subprocess.run(
        [
            *("ffprobe", "-v", "error", "-select_streams", "v:0"),
            *("-show_entries", "stream=width,height", "-of", "json", "-i", "pipe:0"),
        ],
        input=data,
        capture_output=True,
        check=True,
    )
    [stream] = json.loads(answer.stdout)["streams"]
    return stream["width"], stream["height"]


def test_a_job_of_the_api_runs_in_a_pod_and_leaves_nothing_behind(
    service: Deployment, clip: Clip, bucket: S3Bucket
) -> None:
    bucket.put("in.mp4", clip(CLIP).read_bytes())
    accepted = service.submit(
        {
            "source": bucket.fields("in.mp4"),
            "outputs": [
                an_output(bucket.fields("out/small.mp4")),
                an_output(service.ftp.fields("out/wide.mp4"), width=320, height=180),
            ],
            "notificationUrl": f"{service.webhooks.url}/hook",
        }
    )
    name = f"tj-{accepted['uuid']}"

    seen: list[tuple[str, str] | None] = []
    pod: dict[str, Any] = {}

    def succeeded() -> bool:
        state = condition(service.resource(name), "Succeeded")
        if state is not None and state not in seen:
            seen.append(state)
        pod.update(service.pod(f"{name}-a1") or {})
        return state is not None and state[0] != "Unknown"

    service.wait_for("the resource ends", succeeded)
    # First of all: both go with their retention.
    columns = service.kubectl("get", "transcodejobs", name, "--no-headers").split()
    resource = service.kubectl("get", "transcodejob", name, "-o", "json")
    assert seen[-1] == ("True", "Completed")
    assert seen[0] is not None
    assert seen[0][0] == "Unknown"
    assert columns[:6] == [name, "True", "Completed", "default", "100%", "1"]

    security = pod["spec"]["containers"][0]["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["automountServiceAccountToken"] is False

    assert size_of(bucket.get("out/small.mp4")) == (160, 90)
    assert size_of((service.ftp.folder / "out/wide.mp4").read_bytes()) == (320, 180)
    job = service.job(accepted["id"])
    assert (job["status"], [o["status"] for o in job["outputs"]]) == ("completed", ["uploaded"] * 2)
    assert job["attempts"][0]["worker"] == f"{name}-a1"

    deliveries = service.webhooks.wait_for(
        lambda seen: any(delivery.body["type"] == "job.completed" for delivery in seen),
        timeout_s=PATIENCE_S,
    )
    assert {delivery.refused for delivery in deliveries} == {""}

    def timeline() -> list[str]:
        return [entry["step"] for entry in service.job(accepted["id"])["timeline"]]

    service.wait_for("its receiver's answer is noted", lambda: timeline()[-1] == "notified")
    assert timeline() == [
        *("accepted", "queued", "admitted", "scheduled", "pulled", "started"),
        *("fetched", "encoded", "verified", "uploaded", "ended", "notified"),
    ]
    assert job["attempts"][0]["node"] == pod["spec"]["nodeName"]

    assert bucket.server.root.secret_key not in resource
    service.wait_for(
        "resource, Pod and Secret go after their retention",
        lambda: (
            not (
                service.resource(name)
                or service.pod(f"{name}-a1")
                or service.maybe(f"/api/v1/namespaces/encoder/secrets/encoder-order-{name}-a1")
            )
        ),
        timeout_s=RETENTION_S + PATIENCE_S,
    )
    assert service.job(accepted["id"])["status"] == "completed"


def test_a_resource_applied_with_kubectl_is_a_job_like_any_other(
    service: Deployment, clip: Clip
) -> None:
    source = service.http.serve("/in.mp4", clip(CLIP).read_bytes())
    upload = {"kind": "http", "url": f"{service.http.url}/by-hand.mp4"}
    spec = {"source": {"kind": "http", "url": source}, "outputs": [an_output(upload)]}
    name = fresh("by-hand")
    service.apply(name, spec)
    service.kubectl("wait", "--for=condition=Succeeded", f"tj/{name}", "--timeout=240s")
    resource = service.resource(name)
    assert resource is not None
    assert size_of(service.http.stored("/by-hand.mp4")) == (160, 90)
    job = service.job(resource["status"]["jobID"])
    assert (job["status"], job["owner"]) == ("completed", "kubernetes")


def test_deleting_a_resource_cancels_its_job_and_stops_its_pod(
    service: Deployment, clip: Clip
) -> None:
    spec = a_long_spec(service, clip, "/of-a-deleted-resource.mp4")
    spec["source"]["url"] = drip(service, "/dripping.mp4", clip(LONG_CLIP).read_bytes())
    accepted = service.submit(spec)
    name = f"tj-{accepted['uuid']}"
    service.wait_for("it runs", lambda: service.job(accepted["id"])["status"] == "running")
    service.kubectl("delete", "tj", name)
    service.wait_for("canceled", lambda: service.job(accepted["id"])["status"] in ENDED)
    assert service.job(accepted["id"])["status"] == "canceled"
    service.wait_for("the Pod is gone", lambda: service.pod(f"{name}-a1") is None)
    assert not service.http.has("/of-a-deleted-resource.mp4")


def test_canceling_a_job_stops_its_pod(service: Deployment, clip: Clip) -> None:
    accepted = service.submit(a_long_spec(service, clip, "/canceled.mp4", **SLOW))
    name = f"tj-{accepted['uuid']}"
    service.wait_for("it runs", lambda: service.job(accepted["id"])["status"] == "running")
    assert service.request("POST", f"/jobs/{accepted['id']}/cancel").ok
    service.wait_for("it ends", lambda: service.job(accepted["id"])["status"] in ENDED)
    assert service.job(accepted["id"])["status"] == "canceled"
    service.wait_for(
        "its resource says so",
        lambda: condition(service.resource(name), "Succeeded") == ("False", "Canceled"),
    )


def test_scaling_a_pool_to_zero_holds_new_work_and_scaling_it_up_lets_it_go(
    service: Deployment, clip: Clip
) -> None:
    service.kubectl("scale", "tp/default", "--replicas=0")
    try:
        service.wait_for(
            "the pool is mirrored", lambda: service.pools()["default"]["maxConcurrency"] == 0
        )
        source = service.http.serve("/in.mp4", clip(CLIP).read_bytes())
        upload = {"kind": "http", "url": f"{service.http.url}/held.mp4"}
        accepted = service.submit(
            {"source": {"kind": "http", "url": source}, "outputs": [an_output(upload)]}
        )
        queued = ("get", "tp", "default", "-o", "jsonpath={.status.queued}")
        service.wait_for("the pool says that a job waits", lambda: service.kubectl(*queued) == "1")
        assert service.job(accepted["id"])["status"] == "queued"
        assert service.resource(f"tj-{accepted['uuid']}") is None
    finally:
        service.kubectl("scale", "tp/default", "--replicas=2")
    service.wait_for("it ends", lambda: service.job(accepted["id"])["status"] in ENDED)
    assert service.job(accepted["id"])["status"] == "completed"


def test_a_killed_operator_picks_everything_up_again(service: Deployment, clip: Clip) -> None:
    accepted = service.submit(a_long_spec(service, clip, "/survives.mp4"))
    service.wait_for("it runs", lambda: service.job(accepted["id"])["status"] == "running")
    service.kubectl(
        *("delete", "pod", "-l", "app.kubernetes.io/name=encoder-operator"),
        *("--grace-period=0", "--force"),
    )
    service.wait_for("it ends", lambda: service.job(accepted["id"])["status"] in ENDED)
    job = service.job(accepted["id"])
    assert (job["status"], len(job["attempts"])) == ("completed", 1)


# --- Rights --------------------------------------------------------------------------------------


def use_every_right(service: Deployment, clip: Clip) -> None:
    """One job that is canceled and then goes with its time, one whose resource somebody deletes."""
    canceled, deleted = (
        service.submit(a_long_spec(service, clip, f"/right-{number}.mp4", **SLOW))
        for number in (1, 2)
    )
    for job in (canceled, deleted):
        service.wait_for("it runs", lambda job=job: service.job(job["id"])["status"] == "running")  # type: ignore[misc]  # mypy infers no type for a lambda's default
    service.kubectl("delete", "tj", f"tj-{deleted['uuid']}")
    assert service.request("POST", f"/jobs/{canceled['id']}/cancel").ok
    for job in (canceled, deleted):
        name = f"tj-{job['uuid']}"
        service.wait_for(
            "nothing is left of it",
            lambda name=name: not (service.resource(name) or service.pod(f"{name}-a1")),  # type: ignore[misc]  # as above
            timeout_s=RETENTION_S + PATIENCE_S,
        )
        assert service.job(job["id"])["status"] == "canceled"


def test_the_parts_use_their_rights_and_ask_for_no_others(service: Deployment, clip: Clip) -> None:
    """Also of all that other tests have done before, if any have; none has to."""
    use_every_right(service, clip)
    [role] = [
        document
        for document in yaml.safe_load_all((REPOSITORY / "k8s" / "rbac.yaml").read_text())
        if (document["kind"], document["metadata"]["name"]) == ("Role", "encoder-operator")
    ]
    granted = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    asked: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
    refused: dict[tuple[str, tuple[str, str, str]], bool] = {}
    for line in service.audit.read_text().splitlines():
        entry = json.loads(line)
        what = entry.get("objectRef")
        if what is None:
            continue  # which APIs there are, not what is in them
        name = "/".join(filter(None, [what["resource"], what.get("subresource")]))
        right = (what.get("apiGroup", ""), name, entry["verb"])
        asked[entry["user"]["username"].rpartition(":")[2]].add(right)
        # An API server that has just started refuses all until it has read the roles: what counts
        # is the last answer.
        code = entry["responseStatus"]["code"]
        forbidden = code == 403 and "forbidden: User" in str(entry)
        refused[what.get("namespace", ""), right] = forbidden
    assert set(asked) == {"encoder-operator"}, "API, sender and workers have nothing to ask"
    assert [asked for asked, was_last in refused.items() if was_last] == []
    assert asked["encoder-operator"] - granted == set()
    after_a_crash = {("", "pods", "get"), ("", "secrets", "delete")}  # what the one before made
    assert granted - asked["encoder-operator"] <= after_a_crash
