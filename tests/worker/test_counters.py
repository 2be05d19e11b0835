"""What a job costs in things that can be counted: processes, decodes, threads, requests, bytes."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from encoder_core.exits import Exit
from encoder_worker.fetch import CONNECTIONS, PIECE_BYTES
from tests.servers.clips import ffmpeg
from tests.servers.http import Fault, HttpServer
from tests.worker.driver import ACCEPTED, Worker, last_of_output, make_order, to_file

CLIP = "h264_320x180_25p_2s_stereo.mp4"
RAW = ("-c:v", "rawvideo", "-pix_fmt", "uyvy422")
RUNNING_AHEAD = CONNECTIONS + 1  # one more after the first that went well
# The work, the reports, the parent's answers, the gateway, ffmpeg's connection to it and one that
# ffmpeg has just left.
MOST_THREADS = 6 + RUNNING_AHEAD
Clip = Callable[[str], Path]

# Inside the sandbox it can write to the run's own folder alone, which TMPDIR names.
NOTING = """#!/bin/sh
{{ printf '%s\\0' "$@"; printf '\\0'; }} >> "$TMPDIR/calls"
exec {ffmpeg} "$@"
"""


@pytest.fixture
def ladder(
    tmp_path: Path, clip: Clip, http_server: HttpServer
) -> tuple[list[list[str]], HttpServer, dict[str, Any]]:
    """A job of two outputs over HTTP on one core of the machine: ffmpeg's calls, and its report."""
    tools = tmp_path / "tools"
    tools.mkdir()
    noting = tools / "ffmpeg"
    noting.write_text(NOTING.format(ffmpeg=shutil.which("ffmpeg")))
    noting.chmod(0o755)
    source = {"kind": "http", "url": http_server.serve("/in.mp4", clip(CLIP).read_bytes())}
    outputs = [
        {"container": "mp4", "width": width, "videoBitrate": "200k",
         "destination": {"kind": "http", "url": f"{http_server.url}/{width}.mp4"}}
        for width in (160, 128)
    ]  # fmt: skip
    core = {min(os.sched_getaffinity(0))}

    def take_cores_away(pid: int) -> None:
        os.sched_setaffinity(pid, core)

    order = make_order(tmp_path, source, *outputs)
    with Worker(order, tools=tools, before_order=take_cores_away) as worker:
        code, reports = worker.finish()
    assert code == Exit.SUCCEEDED, reports[-1]
    [noted] = tmp_path.rglob("calls")
    calls = [call.split("\0") for call in noted.read_text().rstrip("\0").split("\0\0")]
    return calls, http_server, last_of_output(reports, 0)


def test_two_renditions_over_http(
    ladder: tuple[list[list[str]], HttpServer, dict[str, Any]], clip: Clip
) -> None:
    calls, server, report = ladder
    [call] = calls  # one process
    assert call.count("-i") == 1  # one decode
    bounds = ("-threads", "-filter_threads", "-filter_complex_threads")
    threads = [call[at + 1] for at, word in enumerate(call) if word in bounds]
    assert len(threads) >= 5  # filters twice, the decoder, two encoders
    assert set(threads) == {"1"}
    reads = [request for request in server.requests if request.method == "GET"]
    assert [request.sent for request in reads] == [clip(CLIP).stat().st_size]  # one, and all of it
    writes = [request.path for request in server.requests if request.method == "PUT"]
    assert writes == ["/160.mp4", "/128.mp4"]
    assert len(server.requests) == len(reads) + len(writes)
    assert report["result"]["frames"] == 50
    assert report["result"]["sizeBytes"] == len(server.stored("/160.mp4"))


def test_a_large_source_over_http_takes_one_answer_until_its_encode_and_few_threads(
    tmp_path: Path, http_server: HttpServer
) -> None:
    """Six parts, of which the first alone gets an answer: with the index and three seconds."""
    large = tmp_path / "large.mov"
    picture = ("-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25:duration=15")
    ffmpeg("-v", "error", *picture, *RAW, "-movflags", "+faststart", str(large))
    data, let_go = large.read_bytes(), threading.Event()
    assert len(data) > 5 * PIECE_BYTES
    url = http_server.serve("/in.mov", data)
    http_server.misbehave("/in.mov", Fault(hold_beyond=PIECE_BYTES, until=let_go))
    output = to_file("o.mp4", container="mp4", preset="ultrafast", width=160)
    with Worker(make_order(tmp_path, {"kind": "http", "url": url}, output)) as worker:
        worker.next_report(lambda report: (report.get("frame") or 0) > 0)
        threads = len([*Path(f"/proc/{worker.process.pid}/task").iterdir()])
        requests = http_server.requests
        worker.say(ACCEPTED)
        let_go.set()
        code, reports = worker.finish()
    assert (code, last_of_output(reports, 0)["result"]["frames"]) == (Exit.SUCCEEDED, 375)
    assert len([request for request in requests if request.sent]) == 1
    assert len(requests) <= 1 + RUNNING_AHEAD
    assert threads <= MOST_THREADS
    assert sum(request.sent for request in http_server.requests) == len(data)
