"""Where attempts keep their files, for as long as a later attempt may deliver them as they are."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID


class Scratch:
    """
    One folder a job, one folder an attempt in it.

    An attempt never writes into another's folder: the worker of a killed parent may still be
    ending when its successor starts.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def make(self, job: UUID, attempt: int) -> Path:
        folder = self._root / str(job) / f"a{attempt}"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    def jobs(self) -> list[UUID]:
        """The jobs that have files here."""
        if not self._root.is_dir():
            return []
        found = []
        for folder in self._root.iterdir():
            try:
                found.append(UUID(folder.name))
            except ValueError:
                continue
        return found

    def age_s(self, job: UUID) -> float:
        try:
            return time.time() - (self._root / str(job)).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def remove(self, job: UUID) -> None:
        shutil.rmtree(self._root / str(job), ignore_errors=True)

    def remove_all_but(self, job: UUID, attempts: Iterable[int]) -> None:
        """Drop the folders of other attempts."""
        kept = {f"a{attempt}" for attempt in attempts}
        folder = self._root / str(job)
        if folder.is_dir():
            for child in folder.iterdir():
                if child.name not in kept:
                    shutil.rmtree(child, ignore_errors=True)
