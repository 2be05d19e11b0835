"""A worker starts light: what is heavy is imported when it is used, and only then."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from encoder_core.exits import Exit
from tests.servers.clips import clip as clip_of
from tests.servers.ftp import FtpServer
from tests.servers.http import HttpServer
from tests.servers.s3 import S3Bucket
from tests.worker.driver import Worker, make_order

CLIP = "pcm_stereo_2s.wav"
Imported = Callable[[dict[str, Any], dict[str, Any]], set[str]]

HEAVY = {
    "boto3": "S3 alone",
    "botocore": "S3 alone",
    "s3transfer": "S3 alone",
    "urllib3": "HTTP, and S3 with it",
    "ftplib": "FTP alone",
    "http.client": "HTTP, and S3 with it",
    "http.server": "a source that is encoded while it arrives",
    "xml.sax": "DASH alone",
    "asyncio": "nobody",
    "multiprocessing": "nobody",
    "sqlalchemy": "nobody",
    "starlette": "nobody",
    "cryptography": "nobody",
}

GATEWAY = {"http.server", "http.client"}
"""It is there or not, by how much of the source has come with the first answer."""


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Imported:
    """Run a whole worker, and say what it has imported of what is heavy."""
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")  # Python itself keeps the list

    def run(source: dict[str, Any], destination: dict[str, Any]) -> set[str]:
        output = {"container": "wav", "audioCodec": "copy", "destination": destination}
        order = make_order(tmp_path, source, output)
        (tmp_path / "files" / "in.wav").write_bytes(clip_of(CLIP).read_bytes())
        with Worker(order) as worker:
            code, reports = worker.finish()
            names = re.findall(r"^import time: .*\| +(\S+)$", worker.log, re.MULTILINE)
        assert code == Exit.SUCCEEDED, reports[-1]
        assert "encoder_worker.main" in names
        return {name for name in names if name in HEAVY}

    return run


def test_from_file_to_file_no_client_is_imported(imported: Imported) -> None:
    here = {"kind": "file", "path": "in.wav"}
    assert imported(here, {"kind": "file", "path": "o.wav"}) == set()


def test_over_http_no_other_client_is(imported: Imported, http_server: HttpServer) -> None:
    data = http_server.serve("/in.wav", clip_of(CLIP).read_bytes())
    found = imported(
        {"kind": "http", "url": data}, {"kind": "http", "url": f"{http_server.url}/o.wav"}
    )
    assert found - GATEWAY == {"urllib3"}


def test_over_ftp_no_other_client_is(imported: Imported, ftp_server: FtpServer) -> None:
    (ftp_server.folder / "in.wav").write_bytes(clip_of(CLIP).read_bytes())
    found = imported(ftp_server.fields("in.wav"), ftp_server.fields("o.wav"))
    assert found - GATEWAY == {"ftplib"}


def test_over_s3_there_is_boto3_and_nothing_that_it_does_not_need(
    imported: Imported, s3_bucket: S3Bucket
) -> None:
    s3_bucket.put("in.wav", clip_of(CLIP).read_bytes())
    found = imported(s3_bucket.fields("in.wav"), s3_bucket.fields("o.wav"))
    assert found & {"boto3", "ftplib", "xml.sax"} == {"boto3"}
