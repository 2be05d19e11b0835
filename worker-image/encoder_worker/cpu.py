"""How many threads this process may really use: the container's limit, not the machine's cores."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
MAX_THREADS: Final = 32  # encoders gain nothing above, and each thread of x264 costs 25 MB


def parse_cpu_max(text: str) -> float | None:
    """Cores of cgroup v2's `cpu.max`, such as `150000 100000`. None: no limit."""
    quota, _, period = text.strip().partition(" ")
    if quota == "max" or not quota:
        return None
    return int(quota) / int(period or 100_000)


def parse_cfs(quota: str, period: str) -> float | None:
    """Cores of cgroup v1's `cpu.cfs_quota_us` and `cpu.cfs_period_us`. None: no limit."""
    microseconds = int(quota)
    return None if microseconds <= 0 else microseconds / int(period)


def read_cpu_limit(root: Path = CGROUP_ROOT, membership: Path | None = None) -> float | None:
    """The tightest limit between this process's group and the root, in cores. None: no limit."""
    limits = []
    for controllers, path in read_membership(membership):
        if controllers == "":
            limits += [_read_v2(folder) for folder in ancestors(root, path)]
        elif "cpu" in controllers.split(","):
            for base in (root / "cpu", root / controllers):
                limits += [_read_v1(folder) for folder in ancestors(base, path)]
    return min((limit for limit in limits if limit is not None), default=None)


def read_membership(path: Path | None = None) -> list[tuple[str, str]]:
    """The control groups of this process: controllers (none: version 2) and the group's path."""
    try:
        lines = (path or Path("/proc/self/cgroup")).read_text().splitlines()
    except OSError:
        return []
    return [(fields[1], fields[2]) for line in lines if len(fields := line.split(":", 2)) == 3]


def ancestors(root: Path, path: str) -> list[Path]:
    """The group's folder and those above it. In a container the group may be the root itself."""
    folder = root / path.strip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]


def _read_v2(folder: Path) -> float | None:
    try:
        return parse_cpu_max((folder / "cpu.max").read_text())
    except (OSError, ValueError):
        return None


def _read_v1(folder: Path) -> float | None:
    try:
        return parse_cfs(
            (folder / "cpu.cfs_quota_us").read_text(), (folder / "cpu.cfs_period_us").read_text()
        )
    except (OSError, ValueError):
        return None


def usable_threads(limit: float | None, affinity: int) -> int:
    """Threads for ffmpeg: the limit rounded up, never more than the cores it may run on."""
    cores = affinity if limit is None else min(affinity, math.ceil(limit))
    return max(1, min(cores, MAX_THREADS))


def count_threads() -> int:
    return usable_threads(read_cpu_limit(), len(os.sched_getaffinity(0)))
