"""The retry of a finished job makes only what is missing, of what is there already if it can."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.s3 import S3Bucket
from tests.system.service import FINAL, Service, encoder_up
from tests.system.test_contract import CLIP, a_request, an_output

Clip = Callable[[str], Path]

# What ffmpeg says goes to the log of its attempt: so does that it was started, and for which files.
NOTING = """#!/bin/sh
for word; do case "$word" in */out/*) made="$made ${{word##*/}}";; esac; done
echo "noted:$made" >&2
exec {ffmpeg} "$@"
"""


@pytest.fixture
def service(sqlite_url: str, tmp_path: Path) -> Iterator[Service]:
    """Its ffmpeg tells each time that it is started."""
    tools = tmp_path / "tools"
    tools.mkdir()
    noting = tools / "ffmpeg"
    noting.write_text(NOTING.format(ffmpeg=shutil.which("ffmpeg")))
    noting.chmod(0o755)
    with encoder_up(sqlite_url, tmp_path, PATH=f"{tools}{os.pathsep}{os.environ['PATH']}") as up:
        yield up


def half_done(service: Service, clip: Clip, bucket: S3Bucket) -> dict[str, Any]:
    """A job of two outputs that failed: one is uploaded, the other's bucket refused its key."""
    refused = bucket.fields("out.mp4") | {"access_key_secret": "not-the-secret-of-that-key"}
    outputs = [an_output({"kind": "file", "path": "out.mp4"}), an_output(refused)]
    job = service.run(a_request(service, clip(CLIP), outputs=outputs))
    assert job["failure"]["code"] == "destination_denied", job
    assert [output["status"] for output in job["outputs"]] == ["uploaded", "failed"]
    assert encoded(service, job, attempt=1) == [["0.mp4", "1.mp4"]]
    return job


def retried(service: Service, job: dict[str, Any], bucket: S3Bucket) -> dict[str, Any]:
    """The same job after its retry with the right key."""
    secret = bucket.server.root.secret_key
    given = {"credentials": {"/outputs/1/destination/access_key_secret": secret}}
    assert service.post(f"/jobs/{job['id']}/retry", given).status_code == 202
    return service.wait_for(job["id"], lambda seen: seen["status"] in FINAL)


def encoded(service: Service, job: dict[str, Any], *, attempt: int) -> list[list[str]]:
    """For each ffmpeg that an attempt started, which outputs it made."""
    log = service.get(f"/jobs/{job['id']}/logs?attempt={attempt}").json()
    noted = [re.search(r"noted:([^\"]*)", line) for line in log["lines"]]
    return [found[1].split() for found in noted if found is not None]


def test_a_retry_with_new_credentials_delivers_what_was_encoded_and_encodes_nothing(
    service: Service, clip: Clip, s3_bucket: S3Bucket
) -> None:
    job = half_done(service, clip, s3_bucket)
    delivered = service.files / "out.mp4"
    before = delivered.stat()
    (service.files / "in.mp4").unlink()  # nor is the source looked at again
    again = retried(service, job, s3_bucket)
    assert again["status"] == "completed", again
    assert encoded(service, again, attempt=2) == []
    assert delivered.stat().st_mtime_ns == before.st_mtime_ns, "what is uploaded stays as it is"
    assert again["outputs"][0] == job["outputs"][0]
    made = s3_bucket.get("out.mp4")
    assert len(made) == again["outputs"][1]["result"]["sizeBytes"] == before.st_size
    assert [attempt["status"] for attempt in again["attempts"]] == ["failed", "succeeded"]


def test_where_the_encoded_file_is_gone_the_missing_output_alone_is_made_again(
    service: Service, clip: Clip, s3_bucket: S3Bucket
) -> None:
    job = half_done(service, clip, s3_bucket)
    delivered = service.files / "out.mp4"
    before = delivered.stat()
    shutil.rmtree(service.folder / "data" / "scratch")
    again = retried(service, job, s3_bucket)
    assert again["status"] == "completed", again
    assert encoded(service, again, attempt=2) == [["1.mp4"]]
    assert delivered.stat().st_mtime_ns == before.st_mtime_ns
    assert s3_bucket.keys() == ["out.mp4"]
