"""Where attempts keep their files, for as long as a later attempt may deliver them as they are."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any, Final
from uuid import UUID

MANIFEST: Final = "encoded.json"  # what the worker writes about the files it has verified


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

    def encoded_earlier(self, job: UUID, attempt: int) -> dict[int, Path]:
        """Files that earlier attempts encoded, by output. The worker checks that they are whole."""
        found: dict[int, Path] = {}
        for earlier in range(attempt - 1, 0, -1):
            for index, paths in self._encoded(job, earlier).items():
                found.setdefault(index, paths[0])
        return found

    def keep_encoded(self, job: UUID, attempt: int) -> None:
        """Drop whatever of an ended attempt no later one can use: its source above all."""
        folder = self._root / str(job) / f"a{attempt}"
        kept = {path for paths in self._encoded(job, attempt).values() for path in paths}
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
            return
        for path in folder.rglob("*"):
            if path.is_file() and path not in kept and path.name != MANIFEST:
                path.unlink(missing_ok=True)

    def _encoded(self, job: UUID, attempt: int) -> dict[int, list[Path]]:
        """The worker's manifest of an attempt: paths by output, the main file first."""
        try:
            text = (self._root / str(job) / f"a{attempt}" / MANIFEST).read_text()
            entries: dict[str, dict[str, Any]] = json.loads(text)
            return {
                int(index): [Path(entry["path"]), *(Path(file["path"]) for file in entry["files"])]
                for index, entry in entries.items()
            }
        except (OSError, ValueError, KeyError):
            return {}
