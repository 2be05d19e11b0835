"""
One job with four renditions: the whole worker against ffmpeg alone, doing the same.

The bare run has the very arguments that the worker gives its ffmpeg: one decode for all renditions.
The separate runs are one ffmpeg for each rendition. All three read and write files, take turns in
each round, and are compared by their CPU, which a busy machine disturbs least.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import Figure, Options, Series, children_cpu_s, foreign_load, say
from encoder_core.media.command import build_encode_command, build_probe_command
from encoder_core.media.plan import plan_output
from encoder_core.media.planned import OutputPlan
from encoder_core.media.probe import parse_probe
from encoder_core.specs import OutputSpec
from encoder_worker.cpu import count_threads
from tests.servers.cache import built
from tests.worker.driver import Worker, make_order, to_file

ROUNDS = 3
LENGTH_S, QUICK_LENGTH_S = 12, 2  # 12 s are some 30 CPU-s: what a job costs once weighs little
LOOK_S = 0.005  # how often the worker is looked at, to see its ffmpeg begin and end
CLOCK_HZ = os.sysconf("SC_CLK_TCK")

LADDER = [
    {"width": 1920, "height": 1080, "videoBitrate": "5000k"},
    {"width": 1280, "height": 720, "videoBitrate": "2800k"},
    {"width": 854, "height": 480, "videoBitrate": "1400k"},
    {"width": 640, "height": 360, "videoBitrate": "800k"},
]
SHARED = {"videoCodec": "h264", "preset": "veryfast", "audioCodec": "aac", "audioBitrate": "128k"}

WHOLE = "worker ÷ bare ffmpeg, CPU"
SEPARATE = "worker ÷ one ffmpeg for each, CPU"
START = "worker's start to ffmpeg's, CPU"
END = "ffmpeg's end to the worker's"


def run(options: Options, folder: Path) -> Iterable[Figure]:
    series = Series(goals={WHOLE: "≤ 1.05", SEPARATE: "≤ 0.85", START: "≤ 0.35", END: "≤ 0.5"})
    source = make_clip(QUICK_LENGTH_S if options.quick else LENGTH_S)
    plans = plan_ladder(source)
    for number in range(options.rounds_or(ROUNDS)):
        say(f"  round {number + 1}")
        round_ = Round(folder / f"round-{number}", source, plans)
        measures: list[Callable[[], None]] = [round_.worker, round_.bare, round_.separate]
        with foreign_load() as load:
            for measure in measures if number % 2 == 0 else reversed(measures):
                measure()
        round_.tell(series)
        series.add("taken by others meanwhile", load.foreign_cores, unit="cores")
        shutil.rmtree(round_.folder)
    return series.figures()


@dataclass(slots=True)
class Cost:
    cpu_s: float
    wall_s: float


class Round:
    """The same work in three ways."""

    def __init__(self, folder: Path, source: Path, plans: Sequence[OutputPlan]) -> None:
        self.folder = folder
        self._source = source
        self._plans = plans
        self._costs: dict[str, Cost] = {}
        folder.mkdir()

    def worker(self) -> None:
        folder = self._new("worker")
        order = make_order(
            folder,
            {"kind": "file", "path": "source.mp4"},
            *(to_file(f"{at}.mp4", **SHARED, **fields) for at, fields in enumerate(LADDER)),
        )
        shutil.copyfile(self._source, folder / "files" / "source.mp4")
        began, cpu_s = time.perf_counter(), children_cpu_s()
        with Worker(order) as worker:
            self._seen = Watcher(worker.process.pid)
            self._seen.start()
            code, reports = worker.finish()
            log = worker.log if code else ""
        self._costs["worker"] = Cost(children_cpu_s() - cpu_s, time.perf_counter() - began)
        self._seen.join()
        if code != 0:
            raise RuntimeError(f"the worker ended with {code}: {reports[-1]}\n{log}")

    def bare(self) -> None:
        self._measure("bare", [self._plans])

    def separate(self) -> None:
        self._measure("separate", [[plan] for plan in self._plans])

    def _measure(self, name: str, runs: Sequence[Sequence[OutputPlan]]) -> None:
        folder = self._new(name)
        began, cpu_s = time.perf_counter(), children_cpu_s()
        for plans in runs:
            arguments = build_encode_command(
                plans, source=str(self._source), folder=str(folder), threads=count_threads()
            )
            subprocess.run(
                ["ffmpeg", *arguments],
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._costs[name] = Cost(children_cpu_s() - cpu_s, time.perf_counter() - began)

    def tell(self, series: Series) -> None:
        worker, bare, separate = (self._costs[name] for name in ("worker", "bare", "separate"))
        series.add(WHOLE, worker.cpu_s / bare.cpu_s)
        series.add(SEPARATE, worker.cpu_s / separate.cpu_s)
        series.add("worker - bare ffmpeg, CPU", worker.cpu_s - bare.cpu_s, unit="s")
        series.add("bare ffmpeg, CPU", bare.cpu_s, unit="s")
        series.add("worker ÷ bare ffmpeg, wall", worker.wall_s / bare.wall_s)
        series.add(START, self._seen.cpu_before_s, unit="s")
        series.add(END, self._seen.wall_after_s, unit="s")

    def _new(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        return folder


class Watcher(threading.Thread):
    """Sees in /proc when a worker's ffmpeg begins and ends, and what had been used by then."""

    def __init__(self, pid: int) -> None:
        super().__init__(name="watcher")
        self._pid = pid
        self.cpu_before_s = float("nan")
        self.wall_after_s = float("nan")

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
                        # With what the sandbox took in the same process before it became ffmpeg.
                        self.cpu_before_s = used_s + _cpu_s(ffmpeg)
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


def _child_named(name: str, pid: int) -> int | None:
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            with contextlib.suppress(OSError):
                if _stat(int(child))[0] == name:
                    return int(child)
    return None


def plan_ladder(source: Path) -> list[OutputPlan]:
    """The plans that the worker will make of the same outputs."""
    found = subprocess.run(
        ["ffprobe", *build_probe_command(str(source))], check=True, capture_output=True
    )
    document: dict[str, Any] = json.loads(found.stdout)
    probe = parse_probe(document)
    return [
        plan_output(index, OutputSpec.model_validate(to_file("out.mp4", **SHARED, **fields)), probe)
        for index, fields in enumerate(LADDER)
    ]


def make_clip(seconds: int) -> Path:
    """A 1080p film of our own: moving, with grain, so that decoding it is as dear as a film's."""
    name = f"1080p30_{seconds}s.mp4"
    recipe = (
        f"-f lavfi -i testsrc2=size=1920x1080:rate=30:duration={seconds},noise=alls=12:allf=t "
        f"-f lavfi -i sine=frequency=440:sample_rate=48000:duration={seconds} -ac 2 "
        "-c:v libx264 -preset veryfast -b:v 8M -pix_fmt yuv420p -c:a aac -movflags +faststart"
    )

    def build(folder: Path) -> None:
        command = ["ffmpeg", "-v", "error", *recipe.split(), str(folder / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    return built("bench-clip", recipe, build) / name
