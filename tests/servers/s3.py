"""
S3: versitygw over a folder, with root credentials and a second user that owns nothing.

It accepts the ACL of an object and ignores it (a bucket's ACL counts). That a client sends one is
seen in the request log of `tests.servers.http` instead.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from tests.servers.go import go_tool
from tests.servers.process import ServerProcess, free_port, listening

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PACKAGE = "github.com/versity/versitygw/cmd/versitygw"
REGION = "us-east-1"

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Credentials:
    access_key: str
    secret_key: str


ROOT = Credentials("encoder-root", "root-secret-only-for-tests")
STRANGER = Credentials("encoder-stranger", "stranger-secret-only-for-tests")


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running gateway. Plain values: test processes pass it to one another."""

    endpoint: str
    version: str
    region: str = REGION
    root: Credentials = ROOT
    #: Valid credentials that are allowed nothing in the buckets of root.
    stranger: Credentials = STRANGER

    def client(self, credentials: Credentials = ROOT) -> S3Client:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=credentials.access_key,
            aws_secret_access_key=credentials.secret_key,
            # The default of presigning is the older signature, which this server refuses.
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )

    def make_bucket(self) -> S3Bucket:
        """A new bucket that honours ACLs."""
        name = f"test-{os.getpid()}-{next(_numbers)}"
        client = self.client()
        client.create_bucket(Bucket=name, ObjectOwnership="BucketOwnerPreferred")
        return S3Bucket(self, name, client)


@dataclass(frozen=True, slots=True)
class S3Bucket:
    """One empty bucket, and the request fields that name a place in it."""

    server: S3Server
    name: str
    client: S3Client

    def fields(self, path: str, **more: Any) -> dict[str, Any]:
        """A source or destination of the contract."""
        return {
            "kind": "s3",
            "endpoint": self.server.endpoint,
            "force_path_style": True,
            "region": self.server.region,
            "access_key_id": self.server.root.access_key,
            "access_key_secret": self.server.root.secret_key,
            "bucket": self.name,
            "path": path,
            **more,
        }

    def put(self, path: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=path, Body=data)

    def get(self, path: str) -> bytes:
        return self.client.get_object(Bucket=self.name, Key=path)["Body"].read()

    def keys(self) -> list[str]:
        listed = self.client.list_objects_v2(Bucket=self.name)
        return [found["Key"] for found in listed.get("Contents", [])]

    def make_public(self) -> None:
        """Let anybody read what is in it."""
        self.client.put_bucket_acl(Bucket=self.name, ACL="public-read")

    def unfinished_uploads(self) -> list[str]:
        """Keys of multipart uploads that were neither completed nor aborted: they cost money."""
        listed = self.client.list_multipart_uploads(Bucket=self.name)
        return [upload["Key"] for upload in listed.get("Uploads", [])]


@contextmanager
def s3_server(folder: Path, *, host: str = "127.0.0.1") -> Iterator[S3Server]:
    """Run a gateway over `folder` (new or empty) as long as the block."""
    program = gateway()
    buckets, users = folder / "buckets", folder / "users"
    buckets.mkdir()
    users.mkdir()
    port = free_port()
    argv: list[str | Path] = [
        *(program, "--port", f"{host}:{port}", "--region", REGION),
        *("--iam-dir", users.resolve(), "posix", buckets),
    ]
    env = {"ROOT_ACCESS_KEY": ROOT.access_key, "ROOT_SECRET_KEY": ROOT.secret_key}
    with ServerProcess(argv, log=folder / "versitygw.log", env=env) as process:
        process.wait_until(lambda: listening(port, host))
        server = S3Server(f"http://{host}:{port}", f"versitygw {_pinned_version()}")
        _add_user(program, server, STRANGER)
        yield server


def gateway() -> Path:
    """The program, built once per machine."""
    return go_tool("s3", PACKAGE)


def _add_user(program: Path, server: S3Server, user: Credentials) -> None:
    argv: list[str | Path] = [
        *(program, "admin", "--endpoint-url", server.endpoint),
        *("--access", ROOT.access_key, "--secret", ROOT.secret_key, "create-user"),
        *("--access", user.access_key, "--secret", user.secret_key, "--role", "user"),
    ]
    subprocess.run(argv, check=True, capture_output=True)


def _pinned_version() -> str:
    lines = (Path(__file__).parent / "gomod" / "s3" / "go.mod").read_text().splitlines()
    [version] = [line.split()[1] for line in lines if "versity/versitygw v" in line]
    return version
