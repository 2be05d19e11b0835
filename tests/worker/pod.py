"""Run a worker as a Pod does, and take the reports that it posts."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.servers.loopback import LoopbackHttp, QuietHandler
from tests.worker.driver import ACCEPTED, GIVE_UP_S


@dataclass
class Record:
    """What the API was told, and what it answers."""

    envelopes: list[dict[str, Any]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    """Used up one by one before the ordinary answers."""
    refuse: bool = False

    @property
    def last(self) -> dict[str, Any]:
        report: dict[str, Any] = self.envelopes[-1]["report"]
        return report


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


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    log: str


def run_order(folder: Path, order: dict[str, Any], reports: ReportServer, *more: str) -> Ended:
    """The worker with this order in a file; its last word is in `folder`/last-word."""
    path = folder / "order.json"
    path.write_text(json.dumps({**order, "reportUrl": f"{reports.url}/reports"}))
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "encoder_worker", "--order", str(path)),
            *("--termination-log", str(folder / "last-word"), *more),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=GIVE_UP_S,
    )
    assert ended.stdout == b""
    return Ended(ended.returncode, ended.stderr.decode())
