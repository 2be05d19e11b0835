"""Figures of one run: collected in rounds, told as medians with their range, next to their goal."""

from __future__ import annotations

import os
import platform
import re
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

OF_ROUNDS = (statistics.median, min, max)
TOLD = ("encoder", "sqlalchemy", "pymysql", "starlette", "uvicorn", "pydantic")


@dataclass(frozen=True, slots=True)
class Options:
    """How much to do. `quick` shows that a case works; its figures say little."""

    quick: bool = False
    rounds: int | None = None
    only: str | None = None
    """Parts of a case with this in their name."""

    def wants(self, part: str) -> bool:
        return self.only is None or self.only in part

    def rounds_or(self, usual: int) -> int:
        return self.rounds or (1 if self.quick else usual)


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity with a value for each round."""

    name: str
    values: tuple[float, ...]
    unit: str = "x"
    goal: str = ""
    """What docs/benchmarks.md asks of it, shown and not enforced: machines differ."""


@dataclass(slots=True)
class Series:
    """Values by name: those with a goal in its order, the others as they were first measured."""

    goals: dict[str, str] = field(default_factory=dict)
    _values: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float, *, unit: str = "x") -> None:
        """Also said at once: a run that is cut short has not been for nothing."""
        say(f"  {name}: {_short(value)} {unit}".rstrip())
        self._values.setdefault((name, unit), []).append(value)

    def figures(self) -> list[Figure]:
        """What has a goal and no value was not measured, and is told as that."""
        measured = {name: (unit, tuple(values)) for (name, unit), values in self._values.items()}
        return [
            Figure(name, values, unit, self.goals.get(name, ""))
            for name in (*self.goals, *(name for name in measured if name not in self.goals))
            for unit, values in [measured.get(name, ("", ()))]
        ]


def describe_machine() -> Iterator[str]:
    """What a figure means nothing without."""
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    yield f"machine   {_cpu_model()}, {os.cpu_count()} cores, load before {load}"
    yield f"kernel    {platform.system()} {platform.release()}"
    packages = ", ".join(f"{name} {version(name)}" for name in TOLD)
    yield f"versions  Python {platform.python_version()}, {packages}"
    yield f"ffmpeg    {_first_line('ffmpeg', '-version')}"


def format_figures(figures: Iterable[Figure]) -> Iterator[str]:
    rows = [
        (
            figure.name,
            *(_short(of(figure.values)) if figure.values else "-" for of in OF_ROUNDS),
            figure.unit,
            str(len(figure.values)),
            figure.goal,
            judge(figure),
        )
        for figure in figures
    ]
    head = ("", "median", "min", "max", "", "rounds", "goal", "")
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        name, *cells = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        yield f"  {name.strip():<{widths[0]}}  {'  '.join(cells)}".rstrip()


def judge(figure: Figure) -> str:
    """Whether the median is where the goal wants it."""
    if not figure.values:
        return "not measured"
    goal = re.match(r"([≤≥]) ([\d.]+)", figure.goal)
    if goal is None:
        return ""
    median, bar = statistics.median(figure.values), float(goal[2])
    return "reached" if (median <= bar if goal[1] == "≤" else median >= bar) else "missed"


def say(text: str) -> None:
    """To standard error: standard output holds the report alone."""
    print(text, file=sys.stderr, flush=True)


@dataclass(slots=True)
class Load:
    """What others took of the machine meanwhile, in cores. Filled when the block ends."""

    foreign_cores: float = 0.0


@contextmanager
def foreign_load() -> Iterator[Load]:
    """Measure it around work that is done by this process and by children that end in the block."""
    load = Load()
    busy, ours, began = _busy_s(), _ours_s(), _uptime_s()
    yield load
    passed = max(0.01, _uptime_s() - began)
    load.foreign_cores = max(0.0, (_busy_s() - busy - (_ours_s() - ours)) / passed)


def children_cpu_s() -> float:
    """CPU of all children that have ended and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _ours_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime + children_cpu_s()


def _busy_s() -> float:
    """CPU of the whole machine since it started; what the host stole counts as foreign."""
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    ticks = dict(zip(names, map(int, _line("/proc/stat").split()[1:]), strict=False))
    idle = ticks["idle"] + ticks["iowait"]
    return (sum(ticks.values()) - idle) / os.sysconf("SC_CLK_TCK")


def _uptime_s() -> float:
    return float(_line("/proc/uptime").split()[0])


def _line(path: str) -> str:
    with Path(path).open() as file:
        return file.readline()


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0] or "none"


def _short(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
