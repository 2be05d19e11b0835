"""How a worker ends: by the codes that are documented, and whatever it hangs in."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from encoder_core.errors import JobError
from encoder_core.exits import EXIT_FAILURES, Exit, exit_for
from encoder_worker.sandbox import Box, can_limit_ports, require_layers
from encoder_worker.tools import find_tools, run_probe
from tests.servers.http import Fault, HttpServer
from tests.worker.driver import ACCEPTED, Worker, make_order, run_worker

DOCS = Path(__file__).parents[2] / "docs" / "worker.md"
Clip = Callable[[str], Path]


def test_the_documentation_lists_every_code_and_no_other() -> None:
    section = DOCS.read_text().partition("## Exit codes")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([\d, ]+) \|", section, re.MULTILINE)
    assert [int(code) for row in rows for code in row.split(",")] == sorted(Exit)


@pytest.mark.parametrize("code", [code for code in Exit if code is not Exit.SUCCEEDED])
def test_what_a_code_stands_for_without_a_report_ends_with_that_code(code: Exit) -> None:
    transient = code in (Exit.SOURCE_TRANSIENT, Exit.DESTINATION_TRANSIENT)
    assert exit_for(EXIT_FAILURES[code], retryable=transient) == code


def test_an_order_that_cannot_be_read_is_a_mistake_of_ours_and_is_not_repeated() -> None:
    with Worker({"token": "canary-token", "source": {"kind": "canary"}}) as worker:
        assert worker.process.wait(60) == Exit.INTERNAL
        assert "order_unreadable" in worker.log
        assert "canary" not in worker.log


def test_sigterm_reaches_an_upload_that_hangs(
    tmp_path: Path, clip: Clip, http_server: HttpServer
) -> None:
    url = http_server.misbehave("/o.wav", Fault(hang=True))
    output = {"container": "wav", "destination": {"kind": "http", "url": url}}
    order = make_order(tmp_path, {"kind": "file", "path": "in.wav"}, output)
    (tmp_path / "files" / "in.wav").write_bytes(clip("pcm_stereo_2s.wav").read_bytes())

    def is_hanging(report: dict[str, object]) -> bool:
        return report.get("phase") == "uploading"

    with Worker(order) as worker:
        worker.next_report(is_hanging)
        worker.say(ACCEPTED)
        http_server.wait_for(lambda requests: bool(requests), timeout_s=60)
        worker.process.send_signal(signal.SIGTERM)
        code, reports = worker.finish()
    assert (code, reports[-1]["failure"]["code"]) == (Exit.INTERRUPTED, "worker_interrupted")
    assert [report.get("status") for report in reports].count("uploaded") == 0


def test_an_ffprobe_that_stands_still_is_ended(tmp_path: Path) -> None:
    silent = tmp_path / "ffprobe"
    silent.write_text("#!/bin/sh\nexec sleep 3600\n")
    silent.chmod(0o755)
    tools = find_tools(stall_s=1.0)
    tools = type(tools)(tools.ffmpeg, str(silent), tools.layers, tools.stall_s)
    with pytest.raises(JobError, match="stood still"):
        run_probe(tools, [], Box(), tmp_path)


def test_a_source_that_stops_coming_is_told_as_slow(
    tmp_path: Path, clip: Clip, http_server: HttpServer
) -> None:
    http_server.serve("/in.wav", clip("pcm_stereo_2s.wav").read_bytes())
    url = http_server.misbehave("/in.wav", Fault(stall_at=0.5))
    output = {"container": "mp3", "destination": {"kind": "file", "path": "o.mp3"}}
    limits = {"stallS": 2.0, "sourceMinBytesPerS": 1000}
    order = make_order(tmp_path, {"kind": "http", "url": url}, output, limits=limits)
    code, reports = run_worker(order)
    assert (code, reports[-1]["failure"]["code"]) == (Exit.SOURCE_TRANSIENT, "source_slow")


@pytest.mark.parametrize(
    ("layers", "missing"),
    [
        pytest.param(["seccomp", "rlimits"], "no landlock", id="without Landlock"),
        pytest.param(["landlock:4", "rlimits"], "no seccomp", id="without seccomp"),
        pytest.param([], "no landlock and no seccomp", id="without both"),
    ],
)
def test_strict_means_that_it_does_not_run(layers: list[str], missing: str) -> None:
    with pytest.raises(JobError, match=missing) as refused:
        require_layers(layers)
    assert exit_for(refused.value.code, retryable=False) == Exit.SANDBOX


@pytest.mark.parametrize(
    ("layers", "can"),
    [
        pytest.param(["landlock:4", "seccomp"], True, id="both"),
        pytest.param(["landlock:3", "seccomp"], False, id="a Landlock that knows no ports"),
        pytest.param(["landlock:7"], False, id="sockets of every kind"),
    ],
)
def test_ffmpeg_gets_a_port_only_where_it_is_held_to_it(layers: list[str], can: bool) -> None:
    assert can_limit_ports(layers) is can


WITHOUT_LANDLOCK = """
import ctypes, os, struct, sys
from encoder_worker.launcher import ALLOW, ANSWER, ENOSYS, LOAD, REFUSE, on, step
from encoder_worker.launcher import LANDLOCK_CREATE_RULESET, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
missing = on(LANDLOCK_CREATE_RULESET, [step(ANSWER, REFUSE | ENOSYS)])
code = ctypes.create_string_buffer(b"".join([step(LOAD, 0), *missing, step(ANSWER, ALLOW)]))
filters = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(code))
libc = ctypes.CDLL(None)
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
assert libc.prctl(PR_SET_SECCOMP, 2, filters, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Becomes the program that follows, on a kernel that seems to have no Landlock."""


class TestStrictThroughAWholeWorker:
    def order(self, folder: Path, clip: Callable[[str], Path]) -> dict[str, Any]:
        (folder / "files").mkdir()
        (folder / "files" / "in.wav").write_bytes(clip("pcm_stereo_2s.wav").read_bytes())
        output = {"container": "mp3", "destination": {"kind": "file", "path": "o.mp3"}}
        source = {"kind": "file", "path": "in.wav"}
        return make_order(folder, source, output, limits={"strictSandbox": True})

    def test_it_works_where_every_layer_is(
        self, tmp_path: Path, clip: Callable[[str], Path]
    ) -> None:
        code, _ = run_worker(self.order(tmp_path, clip))
        assert code == Exit.SUCCEEDED
        assert (tmp_path / "files" / "o.mp3").exists()

    def test_it_makes_nothing_where_one_is_missing(
        self, tmp_path: Path, clip: Callable[[str], Path]
    ) -> None:
        within = [sys.executable, "-c", WITHOUT_LANDLOCK]
        with Worker(self.order(tmp_path, clip), within=within) as worker:
            code, reports = worker.finish()
        failure = reports[-1]["failure"]
        assert (code, failure["code"]) == (Exit.SANDBOX, "sandbox_incomplete")
        assert "no landlock" in failure["message"]
        assert not (tmp_path / "files" / "o.mp3").exists()
