"""The worker as a Pod runs it: the order is a file, reports are posted, nobody holds its pipes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from encoder_core.exits import Exit
from tests.servers.loopback import LoopbackHttp, QuietHandler
from tests.worker.driver import ACCEPTED, TOKEN, make_order, of_type, to_file

Clip = Callable[[str], Path]


@dataclass
class Record:
    """What the API was told, and what it answers."""

    envelopes: list[dict[str, Any]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    """Used up one by one before the ordinary answers."""
    refuse: bool = False


class ReportServer(LoopbackHttp):
    def __init__(self) -> None:
        super().__init__()
        self.record = Record()

    def handler(self) -> type[QuietHandler]:
        record = self.record

        class Handler(QuietHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = record.statuses.pop(0) if record.statuses else 200
                answer = b""
                if status == 200:
                    record.envelopes.append(json.loads(body))
                    answer = json.dumps({"accepted": False} if record.refuse else ACCEPTED).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        return Handler


@pytest.fixture
def reports() -> Iterator[ReportServer]:
    with ReportServer() as server:
        yield server


def run_pod(folder: Path, clip: Clip, reports: ReportServer) -> int:
    (folder / "files").mkdir()
    source = clip("h264_320x180_25p_2s_stereo.mp4")
    (folder / "files" / "in.mp4").write_bytes(source.read_bytes())
    order = make_order(
        folder,
        {"kind": "file", "path": "in.mp4"},
        to_file("o.mp3", container="mp3"),
        reportUrl=f"{reports.url}/reports",
    )
    path = folder / "order.json"
    path.write_text(json.dumps(order))
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "encoder_worker", "--order", path),
            *("--termination-log", folder / "last-word"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
    )
    assert ended.stdout == b""
    return ended.returncode


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
