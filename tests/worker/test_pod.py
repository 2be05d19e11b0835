"""The worker as a Pod runs it: the order is a file, reports are posted, nobody holds its pipes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from encoder_core.exits import Exit
from tests.servers.clips import ffmpeg
from tests.servers.http import Fault, HttpServer
from tests.worker.driver import TOKEN, make_order, of_type, to_file
from tests.worker.pod import ReportServer, run_order

CLIP = "h264_320x180_25p_2s_stereo.mp4"
Clip = Callable[[str], Path]


@pytest.fixture
def reports() -> Iterator[ReportServer]:
    with ReportServer() as server:
        yield server


def run_pod(folder: Path, clip: Clip, reports: ReportServer) -> int:
    (folder / "files").mkdir()
    (folder / "files" / "in.mp4").write_bytes(clip(CLIP).read_bytes())
    source = {"kind": "file", "path": "in.mp4"}
    order = make_order(folder, source, to_file("o.mp3", container="mp3"))
    return run_order(folder, order, reports).code


def test_reports_are_posted_with_the_attempts_token(
    tmp_path: Path, clip: Clip, reports: ReportServer
) -> None:
    assert run_pod(tmp_path, clip, reports) == Exit.SUCCEEDED
    envelopes = reports.record.envelopes
    assert {(e["attempt"], e["token"]) for e in envelopes} == {(1, TOKEN)}
    said = [e["report"] for e in envelopes]
    assert (said[0]["type"], said[-1]["type"]) == ("started", "final")
    assert of_type(said, "output")[-1]["status"] == "uploaded"
    assert json.loads((tmp_path / "last-word").read_text())["outcome"] == "succeeded"


def test_every_line_of_its_log_names_job_attempt_and_the_request_that_made_it(
    tmp_path: Path, clip: Clip, reports: ReportServer
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "in.mp4").write_bytes(clip(CLIP).read_bytes())
    source = {"kind": "file", "path": "in.mp4"}
    output = to_file("o.mp3", container="mp3")
    ended = run_order(tmp_path, make_order(tmp_path, source, output, requestId="r-1"), reports)
    lines = [json.loads(line) for line in ended.log.splitlines()]
    assert {(line["job"], line["attempt"], line["request"]) for line in lines} == {(1, 1, "r-1")}
    assert len(lines) > 3


def test_an_api_that_restarts_misses_nothing_that_matters(
    tmp_path: Path, clip: Clip, reports: ReportServer
) -> None:
    reports.record.statuses = [503, 502]
    assert run_pod(tmp_path, clip, reports) == Exit.SUCCEEDED
    assert reports.record.envelopes[0]["report"]["type"] == "started"


@pytest.mark.parametrize("status", [None, 401, 404, 409])
def test_an_attempt_that_the_api_does_not_know_ends_without_publishing(
    tmp_path: Path, clip: Clip, reports: ReportServer, status: int | None
) -> None:
    reports.record.refuse = status is None
    reports.record.statuses = [] if status is None else [status] * 50
    assert run_pod(tmp_path, clip, reports) == Exit.FENCED
    assert not (tmp_path / "files" / "o.mp3").exists()


# --- Inline sources --------------------------------------------------------------------------

INLINE = "/internal/jobs/1/inline"
SOURCE = f"{INLINE}/0"


def run_inline(folder: Path, data: bytes, api: HttpServer, reports: ReportServer) -> int:
    """The address is a private one that no user may name: it is the installation's own."""
    api.serve(SOURCE, data, content_type="application/octet-stream")
    source = {"kind": "inline", "sizeBytes": len(data)}
    output = to_file("o.mp3", container="mp3")
    more = {"inlineUrl": f"{api.url}{INLINE}", "allowedCidrs": []}
    return run_order(folder, make_order(folder, source, output, **more), reports).code


def test_an_inline_source_is_fetched_with_the_attempts_token(
    tmp_path: Path, clip: Clip, http_server: HttpServer, reports: ReportServer
) -> None:
    assert run_inline(tmp_path, clip(CLIP).read_bytes(), http_server, reports) == Exit.SUCCEEDED
    [request] = http_server.requests
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert (tmp_path / "files" / "o.mp3").exists()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(status=503, times=2), id="it restarts"),
        pytest.param(Fault(no_length=True, cut_at=0.5, times=1), id="it breaks off"),
    ],
)
def test_an_inline_source_is_asked_for_again_when_the_api(
    fault: Fault, tmp_path: Path, clip: Clip, http_server: HttpServer, reports: ReportServer
) -> None:
    http_server.misbehave(SOURCE, fault)
    assert run_inline(tmp_path, clip(CLIP).read_bytes(), http_server, reports) == Exit.SUCCEEDED


def test_an_inline_source_that_is_gone_is_final(
    tmp_path: Path, clip: Clip, http_server: HttpServer, reports: ReportServer
) -> None:
    http_server.misbehave(SOURCE, Fault(status=404))
    assert run_inline(tmp_path, clip(CLIP).read_bytes(), http_server, reports) == Exit.SOURCE
    assert reports.record.last["failure"]["code"] == "source_not_found"


def test_the_image_of_an_inline_watermark_is_beside_the_source(
    tmp_path: Path, clip: Clip, http_server: HttpServer, reports: ReportServer
) -> None:
    """It has the number after that of its output, whichever outputs are still to be made."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "in.mp4").write_bytes(clip(CLIP).read_bytes())
    image = tmp_path / "logo.png"
    ffmpeg("-v", "error", "-f", "lavfi", "-i", "color=red:s=8x8", "-frames:v", "1", str(image))
    http_server.serve(f"{INLINE}/3", image.read_bytes(), content_type="application/octet-stream")
    mark = {"source": {"kind": "inline", "sizeBytes": image.stat().st_size}}
    spec = to_file("o.jpg", container="jpg", watermark=mark)
    order = make_order(
        tmp_path,
        {"kind": "file", "path": "in.mp4"},
        outputs=[{"index": 2, "spec": spec}],
        inlineUrl=f"{http_server.url}{INLINE}",
        allowedCidrs=[],
    )
    assert run_order(tmp_path, order, reports).code == Exit.SUCCEEDED
    [request] = http_server.requests
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
