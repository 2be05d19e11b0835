"""
Everything that a cluster leaves on the machine while it runs: found, and removed.

Nothing here needs the objects that made it, so a killed test run is cleaned up like any other.
Mounts and Pod networks are not in the list: they live in the namespaces of the nodes, and the
kernel drops those with their last process.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.harness.addresses import Addresses
from tests.harness.commands import CommandFailed, run

CGROUPS = Path("/sys/fs/cgroup")
LINKS = Path("/sys/class/net")
MOUNTS = Path("/proc/self/mounts")
GONE_S = 20.0  # a container in the middle of a write to a busy disk; usually 50 ms
POLL_S = 0.01  # the kernel sends no message when a control group becomes empty


@dataclass(frozen=True, slots=True)
class Traces:
    folder: Path
    """The cluster's own files."""

    addresses: Addresses | None
    """None for a cluster without nodes: it has two processes, a folder and nothing else."""

    def find(self) -> list[str]:
        """What there is, in words. Empty when nothing is left."""
        return [
            *(f"process {process}" for process in self._processes()),
            *(f"mount {mount}" for mount in self._mounts()),
            *(f"link {link}" for link in self._links()),
            *(f"control group {group}" for group in self._groups()),
            *([f"folder {self.folder}"] if self.folder.exists() else []),
        ]

    def remove(self) -> None:
        """Kill and remove all of it. Raises when something resists."""
        self._kill()
        for link in self._links():
            _delete_link(link)
        for group in self._groups():
            _until_idle(group.rmdir)
        # A dying overlay may still be writing when its last process is gone.
        if self.folder.exists():
            _until_idle(lambda: shutil.rmtree(self.folder))

    def _kill(self) -> None:
        deadline = time.monotonic() + GONE_S
        while processes := list(self._processes()):
            for process in processes:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes survive SIGKILL: {processes}")
            time.sleep(POLL_S)

    def _processes(self) -> Iterator[int]:
        seen = set()
        for group in self._groups():
            for process in (group / "cgroup.procs").read_text().split():
                seen.add(int(process))
        return iter(sorted(seen))

    def _groups(self) -> list[Path]:
        """Deepest first, as they have to be removed."""
        if self.addresses is None:
            return []
        tops = [root / self.addresses.name for root in cgroup_roots()]
        found = [Path(path) for top in tops for path, _, _ in os.walk(top)]
        return sorted(found, key=lambda path: len(path.parts), reverse=True)

    def _links(self) -> list[str]:
        if self.addresses is None:
            return []
        mine = self.addresses.name
        names = [link.name for link in LINKS.iterdir()]
        return sorted(name for name in names if name == mine or name.startswith(f"{mine}-"))

    def _mounts(self) -> list[str]:
        targets = [line.split()[1] for line in MOUNTS.read_text().splitlines()]
        return [target for target in targets if Path(target).is_relative_to(self.folder)]


def cgroup_roots() -> list[Path]:
    """One folder with cgroup v2; with v1 one per hierarchy."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return sorted(path for path in CGROUPS.iterdir() if (path / "cgroup.procs").exists())


def tracking_root() -> Path:
    """The hierarchy whose groups say which processes belong to a cluster."""
    unified = (CGROUPS / "cgroup.controllers").exists()
    return CGROUPS if unified else CGROUPS / "pids"


def _delete_link(link: str) -> None:
    try:
        run("ip", "link", "delete", link)
    except CommandFailed:
        # A cable goes with the namespace at its other end, which the kernel drops in its own time.
        if (LINKS / link).exists():
            raise


def _until_idle(remove: Callable[[], object]) -> None:
    deadline = time.monotonic() + GONE_S
    while True:
        try:
            remove()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)
        else:
            return
