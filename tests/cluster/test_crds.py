"""What the API server itself refuses of our resources, and what it lets pass."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.harness.cluster import Cluster
from tests.harness.commands import CommandFailed

SOURCE = {"kind": "https", "url": "https://media.example/clip.mov"}
DESTINATION = {"kind": "s3", "bucket": "out", "path": "clip.mp4"}
OUTPUT = {
    "container": "mp4",
    "videoCodec": "libx264",
    "height": 720,
    "destination": DESTINATION,
}
BASE = "/apis/encoder.dev/v1alpha1/namespaces/default"
MERGE = "application/merge-patch+json"
UUID = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
JOB = {"source": SOURCE, "outputs": [OUTPUT]}
POOL = {"maxConcurrency": 4}


def resource(kind: str, name: str, spec: dict[str, Any]) -> str:
    return json.dumps(
        {
            "apiVersion": "encoder.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "namespace": "default"},
            "spec": spec,
        }
    )


def try_job(api: Cluster, spec: dict[str, Any], *, name: str = "tried") -> None:
    api.kubectl("create", "--dry-run=server", "-f", "-", text=resource("TranscodeJob", name, spec))


def make(api: Cluster, kind: str, name: str, spec: dict[str, Any]) -> None:
    api.kubectl("apply", "-f", "-", text=resource(kind, name, spec))


def test_a_job_as_the_documentation_shows_it_is_accepted(api: Cluster) -> None:
    try_job(api, JOB)


def test_an_object_may_be_stored_with_all_that_s3_knows(api: Cluster) -> None:
    stored = {
        "cacheControl": "public, max-age=60",
        "storageClass": "STANDARD_IA",
        "serverSideEncryption": "aws:kms",
        "kmsKeyId": "alias/video",
        "metadata": {"film": "one"},
    }
    try_job(api, {**JOB, "outputs": [{**OUTPUT, "destination": {**DESTINATION, **stored}}]})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(
            {"source": {"kind": "s3", "bucket": "in"}},
            "s3 needs bucket and path",
            id="an s3 source without a path",
        ),
        pytest.param(
            {"source": {"kind": "https", "url": "https://x.example/a?X-Amz-Signature=abc"}},
            "a signed URL is a secret",
            id="a signed URL",
        ),
        pytest.param(
            {"source": {"kind": "s3", "bucket": "in", "path": "a/../b"}},
            "must not contain '..'",
            id="a path that climbs",
        ),
        pytest.param(
            {"source": {"kind": "inline", "sizeBytes": 10}},
            "needs outputs and a source that is not inline",
            id="an inline source by hand",
        ),
        pytest.param(
            {"outputs": [{**OUTPUT, "crf": 20, "videoBitrate": "2M"}]},
            "give crf or videoBitrate, not both",
            id="two ways to say the quality",
        ),
        pytest.param(
            {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}},
            "the request for memory must not be above its limit",
            id="a request above its limit",
        ),
        pytest.param(
            {"source": {**SOURCE, "access_key_secret": "x"}},
            'unknown field "spec.source.access_key_secret"',
            id="a credential",
        ),
    ],
)
def test_a_job_is_refused(api: Cluster, change: dict[str, Any], why: str) -> None:
    with pytest.raises(CommandFailed, match=re.escape(why)):
        try_job(api, {**JOB, **change})


def test_names_of_the_api_are_refused_by_hand(api: Cluster) -> None:
    with pytest.raises(CommandFailed, match="names that begin with tj- belong to jobs of the API"):
        try_job(api, JOB, name="tj-mine")


def test_a_job_never_changes_but_can_be_canceled_once(api: Cluster) -> None:
    make(api, "TranscodeJob", "changing", JOB)
    source = {"kind": "https", "url": "https://media.example/other.mov"}
    with pytest.raises(CommandFailed, match="the source cannot be changed"):
        make(api, "TranscodeJob", "changing", {**JOB, "source": source})
    make(api, "TranscodeJob", "changing", {**JOB, "desiredState": "Cancel"})
    with pytest.raises(CommandFailed, match="a canceled job stays canceled"):
        make(api, "TranscodeJob", "changing", {**JOB, "desiredState": "Run"})


def test_a_pool_is_scaled_like_a_deployment(api: Cluster) -> None:
    make(api, "TranscodePool", "scaled", POOL)
    api.kubectl("scale", "tp/scaled", "--replicas=7")
    pool = api.get(f"{BASE}/transcodepools/scaled")
    assert pool["spec"]["maxConcurrency"] == 7


def test_a_scale_tells_an_autoscaler_limit_number_and_pods(api: Cluster) -> None:
    make(api, "TranscodePool", "measured", POOL)
    set_status(api, "transcodepools", "measured", {"active": 3, "selector": "encoder.dev/pool=x"})
    told = json.loads(api.kubectl("get", "tp/measured", "--subresource=scale", "--output=json"))
    assert (told["kind"], told["spec"]) == ("Scale", {"replicas": 4})
    assert told["status"] == {"replicas": 3, "selector": "encoder.dev/pool=x"}


def test_a_pool_that_was_scaled_meanwhile_is_not_scaled_by_who_expects_another_number(
    api: Cluster,
) -> None:
    make(api, "TranscodePool", "expected", POOL)
    with pytest.raises(CommandFailed, match="Expected replicas to be 5, was 4"):
        api.kubectl("scale", "tp/expected", "--current-replicas=5", "--replicas=9")
    negative = ("--type=merge", '--patch={"spec":{"replicas":-1}}')
    with pytest.raises(CommandFailed, match="greater than or equal to 0"):
        api.kubectl("patch", "tp/expected", "--subresource=scale", *negative)


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("spec.poolRef.name=hd", ["in-hd"]),
        ("spec.poolRef.name!=hd", ["mine", f"tj-{UUID}"]),
        (f"spec.jobUID={UUID}", [f"tj-{UUID}"]),
        ("spec.externalId=film-7", ["mine"]),
        ("status.nodeName=node-1", ["in-hd"]),
        ("status.owner=film", ["in-hd"]),
        ("status.nodeName=node-1,spec.poolRef.name=default", []),
    ],
)
def test_jobs_are_found_by(
    api: Cluster, selected: tuple[str, ...], selector: str, found: list[str]
) -> None:
    names = api.kubectl("-n", "selected", "get", "tj", f"--field-selector={selector}", "-o", "name")
    assert sorted(names.split()) == sorted(f"transcodejob.encoder.dev/{name}" for name in found)
    assert set(found) <= set(selected)


@pytest.fixture(scope="module")
def selected(api: Cluster) -> tuple[str, ...]:
    """Jobs that differ in what a field selector may ask for."""
    api.kubectl("create", "namespace", "selected")
    jobs: dict[str, dict[str, Any]] = {
        "in-hd": {"poolRef": {"name": "hd"}},
        "mine": {"externalId": "film-7"},
        f"tj-{UUID}": {"jobUID": UUID},
    }
    for name, more in jobs.items():
        body = json.loads(resource("TranscodeJob", name, {**JOB, **more}))
        body["metadata"]["namespace"] = "selected"
        api.kubectl("create", "-f", "-", text=json.dumps(body))
    set_status(
        api, "transcodejobs", "in-hd", {"nodeName": "node-1", "owner": "film"}, namespace="selected"
    )
    return tuple(jobs)


def test_pools_are_found_by_how_they_are_stopped(api: Cluster) -> None:
    make(api, "TranscodePool", "stopped", {**POOL, "stopPolicy": "Drain"})
    names = api.kubectl("get", "tp", "--field-selector=spec.stopPolicy=Drain", "--output=name")
    assert names.split() == ["transcodepool.encoder.dev/stopped"]


@pytest.mark.parametrize(
    ("status", "waits_for"),
    [("True", "condition=Succeeded"), ("False", "condition=Succeeded=False")],
    ids=["went well", "failed"],
)
def test_a_script_waits_for_a_job_that(api: Cluster, status: str, waits_for: str) -> None:
    name = f"waited-{status.lower()}"
    make(api, "TranscodeJob", name, JOB)
    set_status(api, "transcodejobs", name, {"conditions": [succeeded("Unknown")]})
    with pytest.raises(CommandFailed, match="timed out waiting"):
        api.kubectl("wait", f"tj/{name}", f"--for={waits_for}", "--timeout=1s")
    set_status(api, "transcodejobs", name, {"conditions": [succeeded(status)]})
    api.kubectl("wait", f"tj/{name}", f"--for={waits_for}", "--timeout=60s")


def succeeded(status: str) -> dict[str, str]:
    return {
        "type": "Succeeded",
        "status": status,
        "reason": "AsItIs",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


def set_status(
    api: Cluster, plural: str, name: str, status: dict[str, Any], *, namespace: str = "default"
) -> None:
    path = f"{BASE.replace('/default', '/' + namespace)}/{plural}/{name}/status"
    code, said = api.send("PATCH", path, {"status": status}, content_type=MERGE)
    assert code == 200, said


def test_the_columns_say_how_a_job_is(api: Cluster) -> None:
    make(api, "TranscodeJob", "shown", JOB)
    header = api.kubectl("get", "tj", "shown").splitlines()[0].split()
    assert header == ["NAME", "SUCCEEDED", "REASON", "POOL", "PROGRESS", "ATTEMPT", "AGE"]
