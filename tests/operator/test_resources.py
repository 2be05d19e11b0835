"""A job as a TranscodeJob and back: nothing is lost but the secrets."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from pydantic import ValidationError

from encoder_core.redaction import split_secrets
from encoder_core.specs import JobSpec, Priority
from encoder_core.states import JobStatus
from encoder_db.rows import JobRow
from encoder_operator.resources import build_resource, read_spec
from tests.core.test_redaction import CANARY, REQUESTS
from tests.operator.builders import JOB, NAME, NOW

S3 = {"kind": "s3", "bucket": "bucket-1", "path": "a/b.mp4", "region": "eu-west-1"}
HTTP = {"kind": "https", "url": "https://media.example/in.mp4"}
FTP = {"kind": "ftp", "host": "ftp.example", "port": 2121, "path": "in.mp4", "tls": True}
INLINE = {"kind": "inline", "sizeBytes": 3}


def a_row(spec: JobSpec) -> tuple[JobRow, list[dict[str, Any]]]:
    """A job as the record keeps it, and its outputs."""
    public, secrets = split_secrets(spec)
    source, outputs = public.pop("source"), public.pop("outputs")
    row = JobRow(
        id=7,
        uuid=JOB,
        owner="default",
        pool=spec.pool,
        priority=Priority(spec.priority),
        status=JobStatus.QUEUED,
        attempt=0,
        attempts_forgiven=0,
        version=1,
        source=source,
        request=public,
        secret_fields=sorted(secrets),
        source_info=None,
        warnings=None,
        failure=None,
        external_id=spec.external_id,
        resource_name=None,
        resource_uid=None,
        created_at=NOW,
        updated_at=NOW,
        started_at=None,
        finished_at=None,
        deleted_at=None,
    )
    return row, outputs


def resource_of(document: dict[str, Any]) -> dict[str, Any]:
    return build_resource(*a_row(JobSpec.model_validate(document)))


def there_and_back(document: dict[str, Any]) -> JobSpec:
    spec = resource_of(document)["spec"]
    return read_spec(json.loads(json.dumps(spec)), pool=spec["poolRef"]["name"])


@pytest.mark.parametrize("source", [S3, HTTP, FTP, INLINE], ids=lambda place: place["kind"])
@pytest.mark.parametrize("destination", [S3, HTTP, FTP], ids=lambda place: place["kind"])
def test_every_kind_of_place(source: dict[str, Any], destination: dict[str, Any]) -> None:
    document = {"source": source, "outputs": [{"destination": destination}]}
    assert there_and_back(document) == JobSpec.model_validate(document)


def test_every_field() -> None:
    document = {
        "source": HTTP,
        "outputs": [
            {
                "container": "hls",
                "videoCodec": "h264",
                "videoBitrate": 2_500_000,
                "maxBitrate": "3M",
                "audioCodec": "aac",
                "audioChannels": 2,
                "frameRate": 25.5,
                "fit": "cover",
                "clip": {"start": 1.5, "duration": 2},
                "renditions": [{"height": 720}, {"height": 360, "crf": 23}],
                "destination": {
                    **S3,
                    "acl": "public-read",
                    "contentType": "text/plain",
                    "cacheControl": "max-age=60",
                    "storageClass": "STANDARD_IA",
                    "serverSideEncryption": "aws:kms",
                    "kmsKeyId": "alias/video",
                    "metadata": {"film": "one"},
                },
            },
            {"container": "jpg", "thumbnails": {"at": [0, 1.5]}, "destination": FTP},
        ],
        "notificationUrl": "https://example.com/webhook",
        "pool": "hd",
        "priority": "high",
        "externalId": "mine-1",
        "metadata": {"headers": "a name like any other", "team": "video"},
    }
    assert there_and_back(document) == JobSpec.model_validate(document)


def test_its_names_say_which_job_it_is() -> None:
    resource = resource_of({"source": HTTP, "outputs": [], "pool": "hd"})
    assert (resource["apiVersion"], resource["kind"]) == ("encoder.dev/v1alpha1", "TranscodeJob")
    assert resource["metadata"] == {
        "name": NAME,
        "labels": {"encoder.dev/job": NAME, "encoder.dev/pool": "hd"},
    }
    assert UUID(resource["spec"]["jobUID"]) == JOB


def test_headers_leave_nothing_behind() -> None:
    source = {**HTTP, "headers": {"Authorization": "s3cret"}}
    assert resource_of({"source": source, "outputs": []})["spec"]["source"] == HTTP


@given(REQUESTS)
def test_no_secret_gets_into_a_resource_and_no_mark_of_one(request: dict[str, Any]) -> None:
    text = json.dumps(resource_of(request))
    assert CANARY not in text
    assert '{"set": true}' not in text


@pytest.mark.parametrize(
    "more",
    [
        {"desiredState": "Run"},
        {"credentialsSecretRef": {"name": "encoder-creds-x"}},
        {"activeDeadlineSeconds": 60, "startDeadlineSeconds": 60},
        {"resources": {"requests": {"cpu": "2"}}},
    ],
    ids=lambda more: next(iter(more)),
)
def test_what_concerns_kubernetes_alone_is_no_part_of_the_job(more: dict[str, Any]) -> None:
    plain = {"source": HTTP, "outputs": [{"destination": S3}]}
    assert read_spec({**plain, **more}, pool="hd") == JobSpec.model_validate(
        {**plain, "pool": "hd"}
    )


def test_what_the_models_refuse_is_refused_here_too() -> None:
    with pytest.raises(ValidationError):
        read_spec({"source": HTTP, "outputs": [], "surprise": 1}, pool="default")
