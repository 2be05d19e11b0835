"""What the kernel's books say of this process's memory: whether it killed something for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from encoder_worker.cpu import CGROUP_ROOT, ancestors, read_membership

UNLIMITED: Final = 1 << 60  # version 1 says "no limit" with a number near 2 ** 63


@dataclass(frozen=True, slots=True)
class MemoryBooks:
    """The control groups that this process's memory is charged to, the nearest first."""

    folders: tuple[Path, ...]
    version: int

    def count_kills(self) -> int | None:
        """How often the kernel killed something in our group for memory. None: it does not say."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        return next(
            (kills for folder in self.folders if (kills := _read_field(folder / name)) is not None),
            None,
        )

    def read_limit(self) -> int | None:
        """The tightest limit in bytes; None: no limit but the machine's memory."""
        name = "memory.max" if self.version == 2 else "memory.limit_in_bytes"
        limits = [limit for folder in self.folders if (limit := _read_limit(folder / name))]
        return min(limits, default=None)


def find_memory_books(root: Path = CGROUP_ROOT, membership: Path | None = None) -> MemoryBooks:
    """Of this process, in cgroup v2 or v1; without folders where there is neither."""
    groups = list(read_membership(membership))
    # Where both are mounted, the memory controller belongs to one of them: v1's line names it.
    for controllers, path in groups:
        if "memory" in controllers.split(","):
            bases = (root / "memory", root / controllers)
            return MemoryBooks(tuple(_existing(bases, path)), version=1)
    for controllers, path in groups:
        if controllers == "":
            return MemoryBooks(tuple(_existing((root, root / "unified"), path)), version=2)
    return MemoryBooks((), version=2)


def _existing(bases: tuple[Path, ...], path: str) -> Iterator[Path]:
    for base in bases:
        yield from (folder for folder in ancestors(base, path) if folder.is_dir())


def _read_field(path: Path) -> int | None:
    try:
        lines = path.read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
    except (OSError, ValueError, IndexError):
        return None


def _read_limit(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
        limit = None if text == "max" else int(text)
    except (OSError, ValueError):
        return None
    return None if limit is None or limit >= UNLIMITED else limit
