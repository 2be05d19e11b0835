"""Run ffmpeg and ffprobe: locked in, watched, and never left behind."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final

from encoder_core.clock import Clock, SystemClock
from encoder_core.errors import JobError
from encoder_worker import launcher, sandbox
from encoder_worker.memory import find_memory_books
from encoder_worker.sandbox import Box as Box

LOG_LINES: Final = 40  # ffmpeg's last words hold the cause; what comes before repeats itself
LOG_LINE_CHARACTERS: Final = 400
POLL_S: Final = 1.0
PROBE_CPU_S: Final = 1800  # the kernel's own limit, should this process not be there to watch
STALL_S: Final = 60.0
MAX_DOCUMENT_BYTES: Final = 16 * 1024**2  # of format and streams; thousands of streams are a trap
NO_ROOM_BYTES: Final = 64 * 1024  # what a disk that refused a write may still have, in pieces


@dataclass(frozen=True, slots=True)
class Tools:
    """Where ffmpeg and ffprobe are, and which layers lock them in."""

    ffmpeg: str
    ffprobe: str
    layers: tuple[str, ...]
    stall_s: float = STALL_S
    """An ffprobe in which nothing moves for so long is killed."""


def find_tools(*, stall_s: float = STALL_S) -> Tools:
    """Raises JobError `worker_failed` when they are not installed."""
    paths = {}
    for name in ("ffmpeg", "ffprobe"):
        path = shutil.which(name)
        if path is None:
            raise JobError("worker_failed", f"{name} is not installed on this worker.")
        paths[name] = os.path.realpath(path)
    return Tools(paths["ffmpeg"], paths["ffprobe"], tuple(sandbox.active_layers()), stall_s)


@contextlib.contextmanager
def launched(
    tools: Tools, argv: Sequence[str], box: Box, folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A locked-in child as long as the block; killed with all of its session when that is left."""
    command = sandbox.launch_arguments(argv, box, layers=tools.layers)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=sandbox.clean_environment(str(folder)),
        start_new_session=True,
        close_fds=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended."""

    code: int
    """As subprocess gives it: negative is a signal."""
    stalled: bool
    log: str
    """Its last lines."""
    killed_for_memory: bool | None = None
    """None: it was not killed, or the kernel keeps no books of it."""
    memory_limit: int | None = None
    disk_full: bool = False
    """Its folder's disk had no room left when it ended. Some muxers say nothing of that."""


def run_probe(
    tools: Tools,
    arguments: Sequence[str],
    box: Box,
    folder: Path,
    *,
    is_held: Callable[[], bool] = lambda: False,
) -> bytes:
    """What ffprobe prints. Raises JobError `source_invalid` when it fails."""
    output = bytearray()
    for data in stream_probe(tools, arguments, box, folder, is_held=is_held):
        output += data
        if len(output) > MAX_DOCUMENT_BYTES:
            raise JobError("source_invalid", "The file has too many streams to describe.")
    return bytes(output)


def stream_probe(
    tools: Tools,
    arguments: Sequence[str],
    box: Box,
    folder: Path,
    *,
    is_held: Callable[[], bool] = lambda: False,
) -> Iterator[bytes]:
    """
    What ffprobe prints, as it comes: the packets of a day do not fit the memory.

    While `is_held`, it waits for us, and standing still is not its fault.
    """
    log = _Log()
    box = replace(box, file_bytes=0, cpu_s=PROBE_CPU_S)  # it has nothing to write
    with launched(tools, [tools.ffprobe, *arguments], box, folder) as process:
        movement = _Movement(process.pid, SystemClock(), tools.stall_s, is_held)
        for stream, data in _read_both(process):
            if stream is process.stdout and data:
                movement.note()
                yield data
            elif stream is not None:
                log.feed(data)
            elif movement.has_stopped():
                raise JobError("source_invalid", "ffprobe stood still over the file.")
        code = process.wait()
    _check_sandbox(code, log)
    if code != 0:
        raise JobError("source_invalid", "ffprobe cannot read the file.", detail=log.text)


def run_ffmpeg(
    tools: Tools,
    arguments: Sequence[str],
    box: Box,
    folder: Path,
    *,
    clock: Clock,
    stall_s: float,
    on_progress: Callable[[dict[str, str]], None],
    is_held: Callable[[], bool] = lambda: False,
) -> Ended:
    """
    Run ffmpeg to its end, or kill it when nothing moves for `stall_s`, though it is not held.

    What counts as moving is its own progress, or bytes that it reads or writes: rewriting a large
    file for a fast start takes minutes without a frame.
    """
    books = find_memory_books()
    kills = books.count_kills()
    with launched(tools, [tools.ffmpeg, *arguments], box, folder) as process:
        log, progress = _Log(), _ProgressLines(on_progress)
        movement = _Movement(process.pid, clock, stall_s, is_held)
        stalled = False
        for stream, data in _read_both(process):
            if stream is process.stderr:
                log.feed(data)
            elif stream is not None and progress.feed(data):
                movement.note()
            if movement.has_stopped():
                stalled = True
                break
        if stalled:
            process.kill()
        code = process.wait()
    _check_sandbox(code, log)
    if stalled or code != -signal.SIGKILL:
        return Ended(code, stalled, log.text, disk_full=_is_full(folder))
    now = books.count_kills()
    killed_for_memory = None if kills is None or now is None else now > kills
    return Ended(
        code, stalled, log.text, killed_for_memory, books.read_limit(), disk_full=_is_full(folder)
    )


def _is_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < NO_ROOM_BYTES


def _check_sandbox(code: int, log: _Log) -> None:
    if code == launcher.FAILED and "sandbox:" in log.text:
        raise JobError("worker_failed", "The sandbox could not be set up.", detail=log.text)


def _read_both(process: subprocess.Popen[bytes]) -> Iterator[tuple[IO[bytes] | None, bytes]]:
    """What the child writes, as it comes; `(None, b"")` each `POLL_S` without any."""
    assert process.stdout is not None
    assert process.stderr is not None
    with selectors.DefaultSelector() as selector:
        for pipe in (process.stdout, process.stderr):
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(POLL_S)
            if not ready:
                yield None, b""
            for key, _ in ready:
                pipe = process.stdout if key.fileobj is process.stdout else process.stderr
                data = os.read(pipe.fileno(), 65_536)
                if not data:
                    selector.unregister(pipe)
                yield pipe, data


class _Movement:
    """Whether a child still gets somewhere: says something, or reads or writes bytes."""

    def __init__(self, pid: int, clock: Clock, stall_s: float, is_held: Callable[[], bool]) -> None:
        self._pid = pid
        self._clock = clock
        self._stall_s = stall_s
        self._is_held = is_held
        self._bytes = 0
        self._moved_at = self._looked_at = clock.monotonic()

    def note(self) -> None:
        self._moved_at = self._clock.monotonic()

    def has_stopped(self) -> bool:
        now = self._clock.monotonic()
        if now - self._looked_at >= POLL_S:
            self._looked_at = now
            moved = _bytes_moved(self._pid)
            if moved != self._bytes or self._is_held():
                self._bytes, self._moved_at = moved, now
        return now - self._moved_at > self._stall_s


def _bytes_moved(pid: int) -> int:
    """Bytes that a process has read and written; 0 where the kernel does not say."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("rchar", "wchar")))


class _Log:
    """The last lines of what a child says."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self._rest = ""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data.decode(errors="replace")).split("\n")
        self._rest = self._rest[-LOG_LINE_CHARACTERS:]
        self._lines.extend(line[:LOG_LINE_CHARACTERS] for line in lines if line.strip())

    @property
    def text(self) -> str:
        return "\n".join([*self._lines, *([self._rest] if self._rest.strip() else [])])


class _ProgressLines:
    """ffmpeg's `-progress`: key=value lines in blocks that end with `progress=`."""

    def __init__(self, on_block: Callable[[dict[str, str]], None]) -> None:
        self._on_block = on_block
        self._block: dict[str, str] = {}
        self._rest = b""
        self._position = ""

    def feed(self, data: bytes) -> bool:
        """Whether the encode has moved on."""
        before = self._position
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            key, _, value = line.decode(errors="replace").partition("=")
            self._block[key.strip()] = value.strip()
            if key.strip() == "progress":
                self._position = "/".join(
                    self._block.get(name, "") for name in ("frame", "out_time_us", "total_size")
                )
                self._on_block(self._block)
                self._block = {}
        return self._position != before
