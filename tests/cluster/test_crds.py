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
    pool = api.get("/apis/encoder.dev/v1alpha1/namespaces/default/transcodepools/scaled")
    assert pool["spec"]["maxConcurrency"] == 7


def test_jobs_are_found_by_their_pool(api: Cluster) -> None:
    make(api, "TranscodeJob", "in-hd", {**JOB, "poolRef": {"name": "hd"}})
    make(api, "TranscodeJob", "in-default", JOB)
    found = api.kubectl(
        "get", "tj", "--field-selector=spec.poolRef.name=hd", "--output=name"
    ).split()
    assert found == ["transcodejob.encoder.dev/in-hd"]


def test_the_columns_say_how_a_job_is(api: Cluster) -> None:
    make(api, "TranscodeJob", "shown", JOB)
    header = api.kubectl("get", "tj", "shown").splitlines()[0].split()
    assert header == ["NAME", "SUCCEEDED", "REASON", "POOL", "PROGRESS", "ATTEMPT", "AGE"]
