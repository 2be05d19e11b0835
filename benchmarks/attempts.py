"""One attempt of the worker, or bare ffmpeg doing the same, and what it cost."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import children_cpu_s
from encoder_core.media.command import build_encode_command, build_probe_command
from encoder_core.media.plan import plan_output
from encoder_core.media.planned import OutputPlan
from encoder_core.media.probe import parse_probe
from encoder_core.specs import OutputSpec
from encoder_worker.cpu import count_threads
from tests.worker.driver import Worker, make_order, to_file

LOOK_S = 0.005  # how often the worker is looked at, to see its ffmpeg begin and end
CLOCK_HZ = os.sysconf("SC_CLK_TCK")

Fields = dict[str, Any]

GIVE_UP_S = 900.0  # of a worker that hangs; three minutes of film are no hurry


@dataclass(frozen=True, slots=True)
class Cost:
    cpu_s: float
    wall_s: float
    most_resident_mb: float = float("nan")
    """Of the largest process."""


def work(
    folder: Path,
    source: Fields,
    outputs: Sequence[Fields],
    *,
    on_encode: Callable[[], None] = lambda: None,
) -> tuple[Cost, Watcher]:
    """A whole worker. `on_encode` is called when its ffmpeg begins."""
    order = make_order(folder, source, *outputs)
    began, cpu_s = time.perf_counter(), children_cpu_s()
    with Worker(order, give_up_s=GIVE_UP_S) as worker:
        seen = Watcher(worker.process.pid, on_encode)
        seen.start()
        code, reports = worker.finish()
        log = worker.log if code else ""
    cost = Cost(children_cpu_s() - cpu_s, time.perf_counter() - began)
    seen.join()
    if code != 0:
        raise RuntimeError(f"the worker ended with {code}: {reports[-1]}\n{log}")
    return cost, seen


def work_on_file(folder: Path, source: Path, outputs: Sequence[Fields]) -> tuple[Cost, Watcher]:
    """From a file to files, as bare ffmpeg does it."""
    (folder / "files").mkdir()
    (folder / "files" / "source.mp4").hardlink_to(source)
    places = [to_file(f"{at}.mp4", **fields) for at, fields in enumerate(outputs)]
    return work(folder, {"kind": "file", "path": "source.mp4"}, places)


def run_bare(
    folder: Path,
    source: Path,
    runs: Sequence[Sequence[OutputPlan]],
    *,
    threads: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Cost:
    """The worker's own arguments of ffmpeg without the worker, one run after the other."""
    began, cpu_s, largest_kb = time.perf_counter(), children_cpu_s(), 0
    for plans in runs:
        arguments = build_encode_command(
            plans, source=str(source), folder=str(folder), threads=threads or count_threads()
        )
        process = subprocess.Popen(
            ["ffmpeg", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise RuntimeError(f"ffmpeg ended with {process.returncode}: {arguments}")
        largest_kb = max(largest_kb, used.ru_maxrss)
    wall_s = time.perf_counter() - began
    return Cost(children_cpu_s() - cpu_s, wall_s, largest_kb / 1024)


def plan_outputs(source: Path, outputs: Sequence[Fields]) -> list[OutputPlan]:
    """The plans that the worker will make of the same outputs."""
    found = subprocess.run(
        ["ffprobe", *build_probe_command(str(source))], check=True, capture_output=True
    )
    document: dict[str, Any] = json.loads(found.stdout)
    probe = parse_probe(document)
    return [
        plan_output(index, OutputSpec.model_validate(to_file("out.mp4", **fields)), probe)
        for index, fields in enumerate(outputs)
    ]


class Watcher(threading.Thread):
    """Sees in /proc when a worker's ffmpeg begins and ends, and what had been used by then."""

    def __init__(self, pid: int, on_encode: Callable[[], None]) -> None:
        super().__init__(name="watcher")
        self._pid = pid
        self._on_encode = on_encode
        self.cpu_before_s = float("nan")
        self.wall_after_s = float("nan")
        self.resident_mb = float("nan")
        """The most that it held by the time ffmpeg began, without its children."""

    def run(self) -> None:
        ended_at = time.perf_counter()
        ffmpeg: int | None = None
        # Once the worker has been waited for there is nothing to read: that is the end too.
        with contextlib.suppress(OSError, ValueError):
            while _state(self._pid) != "Z":
                if ffmpeg is None:
                    used_s = _cpu_s(self._pid)
                    ffmpeg = _child_named("ffmpeg", self._pid)
                    if ffmpeg is not None:
                        self._on_encode()
                        # With what the sandbox took in the same process before it became ffmpeg.
                        self.cpu_before_s = used_s + _cpu_s(ffmpeg)
                        self.resident_mb = _most_resident_mb(self._pid)
                if ffmpeg is not None and _is_alive(ffmpeg):
                    ended_at = time.perf_counter()
                time.sleep(LOOK_S)
        if ffmpeg is not None:
            self.wall_after_s = time.perf_counter() - ended_at


def _stat(pid: int) -> tuple[str, list[str]]:
    """A process's name, and what follows it in its stat."""
    before, _, after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    return before.partition("(")[2], after.split()


def _state(pid: int) -> str:
    return _stat(pid)[1][0]


def _is_alive(pid: int) -> bool:
    try:
        return _state(pid) != "Z"
    except OSError:
        return False


def _cpu_s(pid: int) -> float:
    """Of the process and of its children that have ended."""
    return sum(int(ticks) for ticks in _stat(pid)[1][11:15]) / CLOCK_HZ


def _most_resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024


def _child_named(name: str, pid: int) -> int | None:
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            with contextlib.suppress(OSError):
                if _stat(int(child))[0] == name:
                    return int(child)
    return None
