"""Which layers can lock ffmpeg in on this machine, and the command that applies them."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from encoder_core.errors import JobError
from encoder_worker import launcher

PR_GET_SECCOMP: Final = 21
PORT_LIMIT_VERSION: Final = 4
"""From this version of Landlock on a connection can be limited to a port."""

# Imported and not run as a script, so that its byte-code is kept. `-I`: no variable of the
# environment and no folder but these counts; `-S`: no package is looked for.
_LAUNCH: Final = "import sys; sys.path.append(sys.argv.pop(1)); import launcher; launcher.main()"


@dataclass(frozen=True, slots=True)
class Box:
    """What one run may touch."""

    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    port: int | None = None
    """A port of this machine that it may connect to; None: it has no sockets at all."""
    file_bytes: int | None = field(default=None, kw_only=True)
    """The largest file it may write."""
    cpu_s: int | None = field(default=None, kw_only=True)
    """The kernel kills it after so much CPU time, whatever happens to the worker's own clock."""


def active_layers() -> list[str]:
    """What this machine's kernel offers, strongest first, as the launcher will apply it."""
    layers = []
    version = landlock_version()
    if version > 0:
        layers.append(f"landlock:{version}")
    if _has_seccomp():
        layers.append("seccomp")
    return [*layers, "no_new_privs", "rlimits", "clean_environment", "format_whitelist"]


def can_limit_ports(layers: Iterable[str]) -> bool:
    """Whether a run may be given a port: then ffmpeg can read from us while bytes arrive."""
    kept = {name: int(version or 0) for name, _, version in (la.partition(":") for la in layers)}
    return "seccomp" in kept and kept.get("landlock", 0) >= PORT_LIMIT_VERSION


def require_layers(layers: Iterable[str]) -> None:
    """Raises JobError `sandbox_incomplete` when one that keeps files or the network is missing."""
    names = {layer.partition(":")[0] for layer in layers}
    missing = [name for name in ("landlock", "seccomp") if name not in names]
    if missing:
        raise JobError(
            "sandbox_incomplete",
            f"This machine's kernel has no {' and no '.join(missing)}, and "
            "ENCODER_SANDBOX=strict asks for it.",
        )


def launch_arguments(argv: Sequence[str], box: Box, *, layers: Iterable[str]) -> list[str]:
    """The command that runs `argv` locked into the box."""
    settings = [f"parent={os.getpid()}"]
    for layer in layers:
        name, _, version = layer.partition(":")
        if name in ("landlock", "seccomp"):
            settings.append(f"{name}={version}")
    settings += [f"read={os.path.realpath(path)}" for path in box.read]
    settings += [f"write={path}" for path in box.write]
    limits = {"port": box.port, "file_bytes": box.file_bytes, "cpu_s": box.cpu_s}
    settings += [f"{name}={value}" for name, value in limits.items() if value is not None]
    folder = os.path.dirname(launcher.__file__)
    return [sys.executable, "-I", "-S", "-c", _LAUNCH, folder, *settings, "--", *argv]


def clean_environment(folder: str) -> dict[str, str]:
    """All that ffmpeg sees of ours: no credential of the installation is among it."""
    return {"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": folder, "TMPDIR": folder}


def landlock_version() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    version: int = libc.syscall(launcher.LANDLOCK_CREATE_RULESET, None, 0, 1)
    return max(version, 0)


def _has_seccomp() -> bool:
    answer: int = ctypes.CDLL(None).prctl(PR_GET_SECCOMP, 0, 0, 0, 0)
    return os.uname().machine in launcher.MACHINES and answer >= 0
