"""The same job through every kind of source and destination, and ffmpeg in trouble."""

from __future__ import annotations

import base64
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from encoder_core.exits import Exit
from tests.servers.ftp import FtpServer
from tests.servers.http import HttpServer
from tests.servers.s3 import S3Bucket
from tests.worker.driver import (
    ACCEPTED,
    Worker,
    descendants_named,
    last_of_output,
    make_order,
    run_worker,
    to_file,
)

CLIP = "h264_320x180_25p_2s_stereo.mp4"
Clip = Callable[[str], Path]


def encode_to_mp3(
    folder: Path, source: dict[str, Any], destination: dict[str, Any], **more: Any
) -> dict[str, Any]:
    spec = {"container": "mp3", "destination": destination}
    code, reports = run_worker(make_order(folder, source, spec, **more))
    last = last_of_output(reports, 0)
    assert (code, last["status"]) == (Exit.SUCCEEDED, "uploaded"), last
    result: dict[str, Any] = last["result"]
    return result


def test_http_to_http(tmp_path: Path, clip: Clip, http_server: HttpServer) -> None:
    source = {"kind": "http", "url": http_server.serve("/in.mp4", clip(CLIP).read_bytes())}
    target = {"kind": "http", "url": f"{http_server.url}/out.mp3", "method": "POST"}
    result = encode_to_mp3(tmp_path, source, target)
    assert len(http_server.stored("/out.mp3")) == result["sizeBytes"]
    assert result["files"][0]["url"] == f"{http_server.url}/out.mp3"


def test_s3_to_s3(tmp_path: Path, clip: Clip, s3_bucket: S3Bucket) -> None:
    s3_bucket.put("in.mp4", clip(CLIP).read_bytes())
    result = encode_to_mp3(tmp_path, s3_bucket.fields("in.mp4"), s3_bucket.fields("a/out.mp3"))
    assert len(s3_bucket.get("a/out.mp3")) == result["sizeBytes"]
    head = s3_bucket.client.head_object(Bucket=s3_bucket.name, Key="a/out.mp3")
    assert head["ContentType"] == "audio/mpeg"


def test_ftp_to_ftp(tmp_path: Path, clip: Clip, ftp_server: FtpServer) -> None:
    (ftp_server.folder / "in.mp4").write_bytes(clip(CLIP).read_bytes())
    result = encode_to_mp3(tmp_path, ftp_server.fields("in.mp4"), ftp_server.fields("a/out.mp3"))
    assert (ftp_server.folder / "a" / "out.mp3").stat().st_size == result["sizeBytes"]


def test_inline_to_file(tmp_path: Path, clip: Clip) -> None:
    data = clip("mp3_stereo_2s.mp3").read_bytes()
    (tmp_path / "inline").write_bytes(base64.b64decode(base64.b64encode(data)))
    source = {"kind": "inline", "sizeBytes": len(data)}
    target = {"kind": "file", "path": "out.mp3"}
    result = encode_to_mp3(tmp_path, source, target, inlinePath=str(tmp_path / "inline"))
    assert result["durationS"] == pytest.approx(2.0, abs=0.2)


def test_a_private_address_is_refused_before_anything_is_sent(
    tmp_path: Path, http_server: HttpServer
) -> None:
    order = make_order(
        tmp_path,
        {"kind": "http", "url": f"{http_server.url}/in.mp4"},
        to_file("o.mp3", container="mp3"),
        allowedCidrs=[],
    )
    code, reports = run_worker(order)
    assert (code, reports[-1]["failure"]["code"]) == (Exit.REQUEST, "address_not_allowed")
    assert http_server.requests == []


def test_only_the_admin_reads_why_an_address_is_refused(
    tmp_path: Path, http_server: HttpServer
) -> None:
    order = make_order(
        tmp_path,
        {"kind": "http", "url": f"{http_server.url}/in.mp4"},
        to_file("o.mp3", container="mp3"),
        deniedCidrs=["127.0.0.0/30"],
    )
    with Worker(order) as worker:
        code, reports = worker.finish()
        said = worker.log
    assert (code, reports[-1]["failure"]["code"]) == (Exit.REQUEST, "address_not_allowed")
    assert "127.0.0.1 is in 127.0.0.0/30" in said
    assert "attempt_started" in next(r for r in reports if r["type"] == "log")["tail"]
    assert "127.0.0.0/30" not in str(reports)


def test_a_worker_counts_the_addresses_that_were_refused_to_it(
    tmp_path: Path, clip: Callable[[str], Path]
) -> None:
    (tmp_path / "files").mkdir()
    shutil.copy(clip("pcm_stereo_2s.wav"), tmp_path / "files" / "in.wav")
    to_private = [
        {"container": "wav", "audioCodec": "copy",
         "destination": {"kind": "http", "url": f"http://10.0.0.{host}/o.wav"}}
        for host in (1, 2)
    ]  # fmt: skip
    order = make_order(tmp_path, {"kind": "file", "path": "in.wav"}, *to_private, allowedCidrs=[])
    with Worker(order) as worker:
        code, reports = worker.finish()
        [ended] = [line for line in worker.log.splitlines() if "attempt_ended" in line]
    assert (code, reports[-1]["failure"]["code"]) == (Exit.REQUEST, "address_not_allowed")
    assert "addresses_refused=2" in ended


@pytest.mark.parametrize(
    ("number", "code", "failure"),
    [
        pytest.param(signal.SIGSTOP, Exit.STALLED, "encode_stalled", id="it hangs"),
        pytest.param(signal.SIGKILL, Exit.MEDIA, "encode_failed", id="somebody kills it"),
    ],
)
def test_ffmpeg_in_trouble(
    number: signal.Signals, code: Exit, failure: str, tmp_path: Path, clip: Clip
) -> None:
    (tmp_path / "files").mkdir()
    source = clip("h264_640x360_25p_20s_stereo.mp4")
    (tmp_path / "files" / "in.mp4").write_bytes(source.read_bytes())
    order = make_order(
        tmp_path,
        {"kind": "file", "path": "in.mp4"},
        to_file("slow.mp4", container="mp4", preset="veryslow", width=1920, upscale=True),
        limits={"stallS": 2.0},
    )
    with Worker(order) as worker:
        worker.next_report(lambda report: report.get("phase") == "encoding")
        worker.say(ACCEPTED)
        [ffmpeg] = descendants_named("ffmpeg", {worker.process.pid})
        os.kill(ffmpeg, number)
        ended, reports = worker.finish()
    assert (ended, reports[-1]["failure"]["code"]) == (code, failure)
    assert not (tmp_path / "files" / "slow.mp4").exists()
