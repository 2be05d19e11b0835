"""Drive a real worker process over its pipes, as the local engine does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

TOKEN = "token-of-the-attempt"
GIVE_UP_S = 120.0  # a hung worker must not hang the run; an ordinary one ends in seconds
ACCEPTED = {"accepted": True, "publishLeaseS": 120}

Answers = Callable[[dict[str, Any]], dict[str, Any]]


def make_order(
    folder: Path, source: dict[str, Any], *outputs: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """An order whose files are under `folder`/files, and whose scratch is `folder`/scratch."""
    (folder / "files").mkdir(exist_ok=True)
    (folder / "scratch").mkdir(exist_ok=True)
    return {
        "jobId": 1,
        "jobUuid": "01890000-0000-7000-8000-000000000001",
        "attempt": 1,
        "token": TOKEN,
        "source": source,
        "outputs": [{"index": index, "spec": spec} for index, spec in enumerate(outputs)],
        "scratchDir": str(folder / "scratch"),
        "filesRoot": str(folder / "files"),
        "allowedCidrs": ["127.0.0.0/8"],
        **more,
    }


def to_file(path: str, **spec: Any) -> dict[str, Any]:
    return {**spec, "destination": {"kind": "file", "path": path}}


class Worker:
    """A worker from its start to the end of the block, which kills it if it still runs."""

    def __init__(
        self,
        order: dict[str, Any],
        *arguments: str,
        tools: Path | None = None,
        before_order: Callable[[int], None] = lambda _: None,
        within: Sequence[str] = (),
        give_up_s: float = GIVE_UP_S,
    ) -> None:
        """
        `tools` is a folder of programs that come before the machine's own. `before_order` is called
        with the worker's number while it waits for its order. `within` is a command that runs it.
        """
        self._order = order
        self._arguments = arguments
        self._path = os.pathsep.join([*([str(tools)] if tools else []), os.environ["PATH"]])
        self._before_order = before_order
        self._within = within
        self._give_up_s = give_up_s

    def __enter__(self) -> Self:
        self._said = tempfile.TemporaryFile()  # a pipe that nobody reads would fill, and stop it
        self.process = subprocess.Popen(
            [*self._within, sys.executable, "-m", "encoder_worker", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, "PATH": self._path},
        )
        self._timer = threading.Timer(self._give_up_s, self.process.kill)
        self._timer.start()
        self._before_order(self.process.pid)
        self.say(self._order)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        self.process.kill()
        self.process.wait()
        self._said.close()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()

    def say(self, document: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(document).encode() + b"\n")
        self.process.stdin.flush()

    def hang_up(self) -> None:
        """What a worker sees of a parent that was killed."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def envelopes(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield json.loads(line)

    def next_report(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Answer reports until one is wanted; that one is left without an answer."""
        for envelope in self.envelopes():
            report: dict[str, Any] = envelope["report"]
            if wanted(report):
                return report
            self.say(ACCEPTED)
        raise AssertionError("the worker ended first")

    def finish(self, answers: Answers = lambda _: ACCEPTED) -> tuple[int, list[dict[str, Any]]]:
        """Answer everything to the end; the exit code and the reports."""
        reports = []
        for envelope in self.envelopes():
            reports.append(envelope["report"])
            try:
                self.say(answers(envelope["report"]))
            except BrokenPipeError:
                continue
        return self.process.wait(GIVE_UP_S), reports

    @property
    def log(self) -> str:
        """What it has said on standard error so far."""
        size = os.fstat(self._said.fileno()).st_size
        # Without moving the place at which the worker, which shares it, goes on writing.
        return os.pread(self._said.fileno(), size, 0).decode()


def on_a_disk_of(size: str, folder: Path) -> list[str]:
    """What runs a worker that alone sees this folder as a disk of its own, gone when it ends."""
    mount = f'mount -t tmpfs -o size={size} none "$0" && exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(folder)]


def run_worker(
    order: dict[str, Any],
    answers: Answers = lambda _: ACCEPTED,
    *arguments: str,
    tools: Path | None = None,
) -> tuple[int, list[dict[str, Any]]]:
    with Worker(order, *arguments, tools=tools) as worker:
        return worker.finish(answers)


def of_type(reports: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [report for report in reports if report["type"] == kind]


def last_of_output(reports: list[dict[str, Any]], index: int) -> dict[str, Any]:
    return [r for r in of_type(reports, "output") if r["index"] == index][-1]


def probe(path: Path) -> dict[str, Any]:
    """Facts of a file as ffprobe counts them, by another way than the worker's own."""
    found = subprocess.run(
        [
            *("ffprobe", "-v", "error", "-count_frames", "-show_format", "-show_streams"),
            *("-of", "json", f"file:{path}"),
        ],
        check=True,
        capture_output=True,
    )
    document: dict[str, Any] = json.loads(found.stdout)
    return document


def descendants_named(name: str, session_of: set[int]) -> list[int]:
    """Processes of that name whose parent is one of these, or gone."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")
            parent = int(fields[2].split()[1])
            if f"({name}" in fields[0] and parent in session_of:
                found.append(int(folder.name))
        except (OSError, ValueError):
            continue
    return found
