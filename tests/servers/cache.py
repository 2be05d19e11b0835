"""What takes long to make, kept outside the work tree and keyed by the hash of its recipe."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_root() -> Path:
    """The folder of ENCODER_TEST_CACHE, or `encoder-tests` in the user's cache folder."""
    chosen = os.environ.get("ENCODER_TEST_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "encoder-tests"


def built(name: str, recipe: str, build: Callable[[Path], None]) -> Path:
    """
    Return the folder that `build` filled for this recipe, calling it only the first time.

    `recipe` is whatever must change when the result must: arguments, versions, file contents.
    Processes that ask at the same time wait for the one that builds. A failed build leaves nothing.
    """
    key = hashlib.sha256(f"{platform.machine()}\n{recipe}".encode()).hexdigest()[:12]
    root = cache_root()
    folder = root / f"{name}-{key}"
    if folder.exists():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with (root / f"{name}-{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder
        unfinished = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
        try:
            build(unfinished)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder
