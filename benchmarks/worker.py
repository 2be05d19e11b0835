"""
The whole worker beside bare ffmpeg doing the same: what it adds, what it saves, what it waits for.

The bare run has the very arguments that the worker gives its ffmpeg. Both take turns in each round,
and are compared by their CPU, which a busy machine disturbs least. What the clock says counts only
when others took little of the machine meanwhile. The names P1 to P14 are those of the goals in
docs/performance.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.attempts import Cost, Fields, Watcher, plan_outputs, run_bare, work, work_on_file
from benchmarks.clips import film_2160p, film_cut, film_repeated, make_clip
from benchmarks.cores import as_on_many_cores
from benchmarks.report import Figure, Options, Series, foreign_load, say
from benchmarks.store import Rate, Store
from encoder_core.storage import SOURCES
from encoder_worker.cpu import usable_threads
from tests.servers.s3 import s3_server
from tests.worker.driver import to_file

ROUNDS = 3
QUIET_CORES = (
    0.15  # above it the side with more threads takes more of the machine, and seems faster
)

SIZES = [(1920, 1080, "5000k"), (1280, 720, "2800k"), (854, 480, "1400k"), (640, 360, "800k")]


def make_ladder(preset: str) -> list[Fields]:
    shared = {"container": "mp4", "videoCodec": "h264", "preset": preset, "audioCodec": "aac",
              "audioBitrate": "128k"}  # fmt: skip
    return [{**shared, "width": w, "height": h, "videoBitrate": rate} for w, h, rate in SIZES]


@dataclass(frozen=True, slots=True)
class Ladder:
    name: str
    source: Callable[[int], Path]
    """Makes one of so many seconds."""
    seconds: int
    outputs: list[Fields]
    separate_goal: str
    whole: bool = False
    """Long enough for what a job costs once to be weighed against it: 30 CPU-s and more."""


make_1080p = partial(make_clip, "1920x1080")
# 12 s of 1080p, or 8 of 2160p, are some 30 CPU-s; `medium` takes as much for 3.
LADDERS = [
    Ladder("1080p, veryfast", make_1080p, 12, make_ladder("veryfast"), "≤ 0.85", whole=True),
    Ladder("2160p, veryfast", film_2160p, 8, make_ladder("veryfast"), "≤ 0.60"),
    Ladder("1080p, medium", make_1080p, 3, make_ladder("medium"), "≤ 0.95"),
]
QUICK_SECONDS = 2

# 150 MB of outputs. The first and the last part of each, some 8 MB, can only be sent when all is
# encoded: of small outputs that would be most of them.
WAITS_S = 180
UPLOAD_SHARE = 0.77
TO_S3: Fields = {"kind": "s3", "bucket": "bench", "access_key_id": "bench",
                 "access_key_secret": "bench", "force_path_style": True}  # fmt: skip

ENCODED: Fields = {"container": "mp4", "videoCodec": "h264", "preset": "veryfast",
                   "videoBitrate": "1500k", "audioCodec": "aac"}  # fmt: skip
COPIED: Fields = {"container": "mp4", "videoCodec": "copy", "audioCodec": "copy"}
SOUND: Fields = {"container": "m4a", "videoCodec": "none", "audioCodec": "copy"}


def separate_name(ladder: Ladder) -> str:
    return f"P2 worker ÷ one ffmpeg for each, CPU ({ladder.name})"


P1 = "P1 worker ÷ bare ffmpeg, CPU"
P3 = "P3 worker ÷ bare ffmpeg, wall"
P3_SEPARATE = "P3 worker ÷ one ffmpeg for each, wall"
P4 = "P4 wall ÷ (download + encode + upload)"
P5 = "P5 wall ÷ the longest of the three"
P6 = {kind: f"P6 start to ffmpeg's, CPU ({kind})" for kind in ("file", "http", "s3")}
P7 = "P7 ffmpeg's end to the worker's"
P8 = "P8 48 cores seen ÷ 2 cores seen, CPU"
P9 = "P9 the same, memory"
P10 = {kind: f"P10 worker alone, resident ({kind})" for kind in P6}
P13 = "P13 a copied rendition ÷ encoding it, CPU"
P14 = "P14 bytes read ÷ size of the source"
P14_REQUESTS = "P14 requests until ffmpeg begins"

GOALS = {
    P1: "≤ 1.05",
    **{separate_name(ladder): ladder.separate_goal for ladder in LADDERS},
    P3: "≤ 1.08",
    P3_SEPARATE: "≤ 1.00",
    P4: "≤ 0.55",
    P5: "≤ 1.25",
    P6["file"]: "",
    P6["http"]: "≤ 0.7",
    P6["s3"]: "≤ 1.2",
    P7: "≤ 0.5",
    P8: "≤ 1.05",
    P9: "≤ 1.10",
    P10["file"]: "≤ 60",
    P10["http"]: "≤ 60",
    P10["s3"]: "",
    P13: "≤ 0.02",
    P14: "≤ 1.05",
    P14_REQUESTS: "",
}


def run(options: Options, folder: Path) -> Iterable[Figure]:
    use_byte_code(folder / "byte-code")
    series = Series(goals=GOALS)
    ladders = LADDERS[:1] if options.quick else LADDERS
    parts: dict[str, Callable[[Round], None]] = {
        **{ladder.name: partial(measure_ladder, ladder=ladder) for ladder in ladders},
        "waits": measure_waits,
        "starts": measure_starts,
        "cores": measure_cores,
        "copies": measure_copy,
        "reads": measure_reads,
    }
    for part in (part for name, part in parts.items() if options.wants(name)):
        for number in range(options.rounds_or(ROUNDS)):
            place = folder / "round"
            place.mkdir()
            part(Round(series, place, quick=options.quick, backwards=number % 2 == 1))
            shutil.rmtree(place)
    return series.figures()


def use_byte_code(folder: Path) -> None:
    """Let workers start from compiled modules, as in an image, whatever this environment says."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)
    modules = ("encoder_worker.main", *(module for module, _ in SOURCES.values()))
    subprocess.run([sys.executable, "-c", f"import {', '.join(modules)}"], check=True)


@dataclass(frozen=True, slots=True)
class Round:
    """One round of one part: where its figures and its files go."""

    series: Series
    folder: Path
    quick: bool
    backwards: bool

    def take_turns(self, what: str, measures: Sequence[Callable[[], None]]) -> bool:
        """Whether it was quiet enough for what the clock says."""
        say(f"  {what}")
        with foreign_load() as load:
            for measure in reversed(measures) if self.backwards else measures:
                measure()
        self.series.add("taken by others meanwhile", load.foreign_cores, unit="cores")
        return load.foreign_cores <= QUIET_CORES

    def new(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        return folder


def measure_ladder(at: Round, *, ladder: Ladder) -> None:
    """P1, P2, P3, P7: all renditions by the worker, by one ffmpeg, by one for each."""
    source = ladder.source(QUICK_SECONDS if at.quick else ladder.seconds)
    plans = plan_outputs(source, ladder.outputs)
    alone = [plan_outputs(source, [output]) for output in ladder.outputs]
    costs: dict[str, Cost] = {}
    seen: list[Watcher] = []

    def whole() -> None:
        costs["worker"], watcher = work_on_file(at.new("worker"), source, ladder.outputs)
        seen.append(watcher)

    def bare() -> None:
        costs["bare"] = run_bare(at.new("bare"), source, [plans])

    def separate() -> None:
        costs["separate"] = run_bare(at.new("separate"), source, alone)

    quiet = at.take_turns(ladder.name, [whole, bare, separate])
    worker, add = costs["worker"], at.series.add
    add(separate_name(ladder), worker.cpu_s / costs["separate"].cpu_s)
    if not ladder.whole:
        return
    add(P1, worker.cpu_s / costs["bare"].cpu_s)
    add("worker - bare ffmpeg, CPU", worker.cpu_s - costs["bare"].cpu_s, unit="s")
    add("bare ffmpeg, CPU", costs["bare"].cpu_s, unit="s")
    if quiet:
        add(P3, worker.wall_s / costs["bare"].wall_s)
        add(P3_SEPARATE, worker.wall_s / costs["separate"].wall_s)
        add(P7, seen[0].wall_after_s, unit="s")


def measure_waits(at: Round) -> None:
    """
    P4, P5: a store whose lines are about as slow as the encode.

    The bare encode of the same round says how slow that is, so the machine's speed does not matter.
    The upload takes a share of it, as in the measurement that the goals are from.
    """
    source = make_clip("1280x720", QUICK_SECONDS) if at.quick else film_cut(WAITS_S)
    outputs = [
        {**ENCODED, "width": width, "videoBitrate": rate}
        for width, rate in ((1280, "5000k"), (640, "1500k"))
    ]
    bare = at.new("bare")
    encode = run_bare(bare, source, [plan_outputs(source, outputs)])
    upload_bytes = sum(path.stat().st_size for path in bare.iterdir())
    legs_s = encode.wall_s
    rates = Rate(source.stat().st_size / legs_s), Rate(upload_bytes / (UPLOAD_SHARE * legs_s))
    took: list[float] = []

    def whole() -> None:
        with Store(source, down=rates[0], up=rates[1]) as store:
            places = [
                {**fields, "destination": {**TO_S3, "endpoint": store.url, "path": f"{number}.mp4"}}
                for number, fields in enumerate(outputs)
            ]
            url = f"{store.url}/source.mp4"
            cost, _ = work(at.new("worker"), {"kind": "http", "url": url}, places)
            took.append(cost.wall_s)

    if at.take_turns("a slow store", [whole]):
        at.series.add(P4, took[0] / ((2 + UPLOAD_SHARE) * legs_s))
        at.series.add(P5, took[0] / legs_s)


def measure_starts(at: Round) -> None:
    """P6, P10: what a worker needs until its ffmpeg begins, for each kind of place."""
    clip = make_clip("1280x720", QUICK_SECONDS)
    seen: dict[str, Watcher] = {}

    def from_file() -> None:
        _, seen["file"] = work_on_file(at.new("file"), clip, [SOUND])

    def over_http() -> None:
        with Store(clip) as store:
            place = {"kind": "http", "url": f"{store.url}/in.mp4"}
            output = {**SOUND, "destination": {"kind": "http", "url": f"{store.url}/out.m4a"}}
            _, seen["http"] = work(at.new("http"), place, [output])

    def over_s3() -> None:
        with s3_server(at.new("gateway")) as server:
            bucket = server.make_bucket()
            bucket.put("in.mp4", clip.read_bytes())
            place = {"kind": "s3", **bucket.fields("in.mp4")}
            output = {**SOUND, "destination": {"kind": "s3", **bucket.fields("out.m4a")}}
            _, seen["s3"] = work(at.new("s3"), place, [output])

    at.take_turns("starts", [from_file, over_http, over_s3])
    for kind, watcher in seen.items():
        at.series.add(P6[kind], watcher.cpu_before_s, unit="s")
        at.series.add(P10[kind], watcher.resident_mb, unit="MB")


def measure_cores(at: Round) -> None:
    """P8, P9: a node of 48 cores on which the Pod may use two."""
    environment = as_on_many_cores(48)
    if environment is None:
        say("  48 cores: not measured, there is no C compiler to make ffmpeg see them")
        return
    source = make_1080p(QUICK_SECONDS if at.quick else 3)
    plans = plan_outputs(source, make_ladder("veryfast"))
    costs: dict[str, Cost] = {}

    def measure(name: str, threads: int, seen: Mapping[str, str]) -> None:
        folder = at.new(name)
        costs[name] = run_bare(folder, source, [plans], threads=threads, environment=seen)

    limited = usable_threads(limit=2.0, affinity=48)
    at.take_turns("48 cores", [
        partial(measure, "two", 2, {}),
        partial(measure, "limited", limited, environment),
        partial(measure, "unbounded", 48, environment),
    ])  # fmt: skip
    two = costs["two"]
    for name, cpu, memory in [
        ("limited", P8, P9),
        ("unbounded", "(48 threads ÷ 2, CPU)", "(48 threads ÷ 2, memory)"),
    ]:
        at.series.add(cpu, costs[name].cpu_s / two.cpu_s)
        at.series.add(memory, costs[name].most_resident_mb / two.most_resident_mb)


def measure_copy(at: Round) -> None:
    """P13: a rendition that the source already is. Long, or starting the worker is all there is."""
    source = make_clip("1280x720", QUICK_SECONDS) if at.quick else film_cut(90)
    costs: dict[str, Cost] = {}

    def measure(name: str, fields: Fields) -> None:
        costs[name], _ = work_on_file(at.new(name), source, [fields])

    encoded = {**ENCODED, "preset": "medium"}
    at.take_turns("copying", [
        partial(measure, "copied", COPIED), partial(measure, "encoded", encoded),
    ])  # fmt: skip
    at.series.add(P13, costs["copied"].cpu_s / costs["encoded"].cpu_s)


def measure_reads(at: Round) -> None:
    """P14: how much of a large source with an index is read, and how it begins."""
    source = make_clip("1280x720", QUICK_SECONDS) if at.quick else film_repeated(3)
    requests: list[int] = []

    def whole() -> None:
        with Store(source) as store:
            place = {"kind": "http", "url": f"{store.url}/source.mp4"}
            outputs = [to_file("sound.m4a", **SOUND)]

            def count() -> None:
                requests.append(store.requests)

            work(at.new("worker"), place, outputs, on_encode=count)
            at.series.add(P14, store.down.taken / source.stat().st_size)

    at.take_turns("reading", [whole])
    at.series.add(P14_REQUESTS, float(requests[0]), unit="")
