"""Run a command to its end, and say what it said when it failed."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path


class CommandFailed(Exception):
    """A command ended with something other than 0. Carries the end of what it wrote."""


def run(*argv: str | Path, text: str | None = None, env: Mapping[str, str] | None = None) -> str:
    """The command's standard output; `text` is its standard input."""
    done = subprocess.run(
        [str(argument) for argument in argv],
        input=text or "",
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-4000:]
        raise CommandFailed(f"{argv[0]} {argv[1]} … ended with {done.returncode}: {said}")
    return done.stdout
