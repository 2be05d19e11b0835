"""A worker with a token of its Pod's account takes a role for it, and reads from S3 with that."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from encoder_core.errors import JobError
from encoder_core.reports import AmbientCredentials
from encoder_core.storage import open_source
from tests.contracts.stores import DATA, SOURCE, make_access, read_once
from tests.servers.s3 import Credentials, S3Bucket

ROLE = "arn:aws:iam::123456789012:role/media"
ANSWER = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{0}</AccessKeyId>
<SecretAccessKey>{1}</SecretAccessKey><SessionToken></SessionToken>
<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


class Sts(ThreadingHTTPServer):
    """Gives the keys of an S3 server to whoever shows the right token."""

    daemon_threads = True

    def __init__(self, keys: Credentials, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.keys, self.token = keys, token
        self.asked: list[dict[str, list[str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Sts

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        asked = parse_qs(body)
        self.server.asked.append(asked)
        right = asked["WebIdentityToken"] == [self.server.token]
        answer = ANSWER.format(self.server.keys.access_key, self.server.keys.secret_key)
        denied = "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>"
        self.send_response(200 if right else 403)
        self.end_headers()
        self.wfile.write((answer if right else denied).encode())

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def sts(keys: Credentials, token: str) -> Iterator[Sts]:
    server = Sts(keys, token)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def as_in_a_pod(
    s3_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Sts]:
    token = tmp_path / "token"
    token.write_text("token-of-the-account")
    with sts(s3_bucket.server.root, "token-of-the-account") as server:
        for name, value in {
            "AWS_ROLE_ARN": ROLE,
            "AWS_ROLE_SESSION_NAME": "tj-x-a1",
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL_STS": server.url,
            "AWS_ENDPOINT_URL_S3": s3_bucket.server.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        }.items():
            monkeypatch.setenv(name, value)
        yield server


def read(bucket: S3Bucket, ambient: AmbientCredentials, **more: str) -> bytes:
    bucket.put("clip.mp4", DATA)
    place = {"kind": "s3", "bucket": bucket.name, "path": "clip.mp4", "region": "us-east-1", **more}
    return read_once(open_source(SOURCE.validate_python(place), make_access(ambient=ambient)))


def test_the_token_of_the_account_is_a_role_in_the_cloud(
    s3_bucket: S3Bucket, as_in_a_pod: Sts
) -> None:
    assert read(s3_bucket, AmbientCredentials(use_chain=True)) == DATA
    [asked] = as_in_a_pod.asked
    assert (asked["RoleArn"], asked["RoleSessionName"]) == ([ROLE], ["tj-x-a1"])


@pytest.mark.parametrize(
    "ambient",
    [
        pytest.param(AmbientCredentials(use_chain=False), id="who may not search for any"),
        pytest.param(
            AmbientCredentials(buckets=["another"]), id="a bucket that is not of the list"
        ),
    ],
)
def test_the_role_is_not_for(
    s3_bucket: S3Bucket, as_in_a_pod: Sts, ambient: AmbientCredentials
) -> None:
    with pytest.raises(JobError, match="asked without credentials"):
        read(s3_bucket, ambient)
    assert as_in_a_pod.asked == []


def test_nor_for_an_endpoint_of_the_request(s3_bucket: S3Bucket, as_in_a_pod: Sts) -> None:
    with pytest.raises(JobError, match="asked without credentials"):
        read(s3_bucket, AmbientCredentials(), endpoint=s3_bucket.server.endpoint)
    assert as_in_a_pod.asked == []


def test_a_role_that_is_refused_ends_the_job_with_a_reason(
    s3_bucket: S3Bucket, as_in_a_pod: Sts
) -> None:
    as_in_a_pod.token = "another"
    with pytest.raises(JobError) as caught:
        read(s3_bucket, AmbientCredentials())
    assert caught.value.code == "source_denied"
    assert "token-of-the-account" not in str(caught.value)
