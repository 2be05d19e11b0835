"""
Bring a source to a file, in parallel parts where its server proves that they belong together.

A `Fetch` runs in threads of its own. Whoever needs the whole waits with `finish`; the source
gateway waits with `wait_for`, byte by byte, and what it waits for is asked for first. Parts are
asked for with the validator of the first answer, so a file is never made of two: a source that
changes meanwhile is a `source_changed`.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from encoder_core.clock import Clock
from encoder_core.errors import JobError
from encoder_core.reports import WorkerLimits
from encoder_core.storage.base import Reading, SourceConnector, SourceStat
from encoder_core.storage.failing import Retries, with_retries
from encoder_worker.spans import Spans

# A piece is what one connection brings in PIECE_S: long enough that a request's round trip is a
# small part of it, short enough that on a slow line, which all of them share, the next byte of the
# file does not wait for what is needed much later. One that will take longer gives its rest back.
PIECE_S: Final = 1.0
PATIENCE_S: Final = 4 * PIECE_S
JUDGED_S: Final = 1.0  # before, a connection that will be fast may look slow
PIECE_BYTES: Final = 8 * 1024**2  # at most, and at first, while nobody knows how fast the line is
LEAST_BYTES: Final = 64 * 1024
CONNECTIONS: Final = 3  # at first; one more may come for what a reader waits for
MOST_CONNECTIONS: Final = 8
TRIES: Final = 5  # in a row without a byte of progress between them
TRIES_FROM_THE_START: Final = 2  # the same bytes again cost as much as the whole source
RESUMABLE: Final = frozenset({"source_truncated", "source_unreachable"})
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
LOOK_S: Final = 1.0  # how often whoever waits looks whether the source is too slow


@dataclass(slots=True)
class _Piece:
    """A part of the source that one connection brings."""

    first: int
    end: int | None
    """None: as far as it goes, which nobody has said."""
    done: int

    @property
    def complete(self) -> bool:
        return self.end is not None and self.done >= self.end


class _Closed(Exception):
    """Nobody wants the rest any more."""


class Fetch:
    """
    One source on its way to one file. Begins when entered; leaving ends what still runs.

    It fails with a JobError: what the connector says, `source_changed`, `source_truncated`,
    `source_too_large`, `source_slow`, `source_invalid` for an empty one, or `capacity_disk`.
    """

    def __init__(
        self,
        connector: SourceConnector,
        target: Path,
        *,
        limits: WorkerLimits,
        clock: Clock,
        on_progress: Callable[[float], None] = lambda _: None,
        on_complete: Callable[[], None] = lambda: None,
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        self._connector = connector
        self._target = target
        self._limits = limits
        self._clock = clock
        self._on_progress = on_progress
        self._on_complete = on_complete
        self._most_bytes = self._piece_bytes = piece_bytes
        self._in_pieces = False
        self._rate: _Rate
        self._changed = threading.Condition()
        self._here = Spans()
        self._unasked = Spans()
        self._wanted: list[int] = []
        self._working = 0
        self._allowed = CONNECTIONS
        self._complete = False
        self._error: BaseException | None = None
        self.stat: SourceStat
        self.requests = 0
        """Sent to the source's server."""
        self.fetched_bytes = 0
        """Taken from its answers; what had to be taken twice counts twice."""

    def __enter__(self) -> Self:
        """Returns once the server has answered. Raises JobError when it refuses."""
        reading = with_retries(self._ask_first, clock=self._clock)
        try:
            self._begin(reading)
        except BaseException:
            reading.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Threads that wait for the network notice later; they touch nothing any more."""
        self._fail(_Closed())

    # --- For those who wait ------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        return self._complete

    @property
    def resumable(self) -> bool:
        """Whether bytes that are here stay what they are, however often the server cuts."""
        return self.stat.resumable and self.stat.size_bytes is not None

    def finish(self) -> None:
        """Return when every byte is here."""
        with self._changed:
            while not self._complete:
                self._wait()

    def wait_for(self, at: int) -> int:
        """Return when the byte at `at` is here: where the bytes that follow it end."""
        with self._changed:
            while (end := self._here.end_from(at)) == at and not self._complete:
                self._wanted.append(at)
                try:
                    self._start_workers()
                    self._wait()
                finally:
                    self._wanted.remove(at)
            return end

    def raise_failure(self) -> None:
        """Raise what has ended the fetch, if anything has."""
        with self._changed:
            self._raise_error()

    def _wait(self) -> None:
        """Until something changed, or it is time to look again. Holds the lock."""
        self._raise_error()
        if not self._changed.wait(LOOK_S):
            try:
                self._rate.check(0)
            except JobError as error:
                self._fail(error)
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    # --- The first request -------------------------------------------------------------------

    def _ask_first(self) -> Reading:
        """For a first part where parts can be had: its answer says whether they can."""
        if not self._connector.parallel:
            return self._ask(0, None)
        reading = self._ask(0, self._piece_bytes)
        if reading.stat.ranges and not self._is_safe_in_parts(reading.stat):
            # Nothing proves that the next part would be of the same bytes.
            reading.close()
            return self._ask(0, None)
        return reading

    def _ask(self, first: int, end: int | None, validator: str | None = None) -> Reading:
        with self._changed:
            self.requests += 1
        return self._connector.open(first, end, validator=validator)

    @staticmethod
    def _is_safe_in_parts(stat: SourceStat) -> bool:
        return stat.resumable and stat.size_bytes is not None

    def _begin(self, reading: Reading) -> None:
        self.stat = reading.stat
        self._rate = _Rate(self._limits, self._clock)
        size = reading.stat.size_bytes
        if size == 0:
            raise JobError("source_invalid", "The source is empty.")
        if size is not None and size > self._limits.source_bytes:
            raise self._too_large()
        with _disk():
            self._make_room(size)
        end = size
        if size is not None and self._connector.parallel and self._is_safe_in_parts(reading.stat):
            self._in_pieces = True
            end = min(size, self._piece_bytes)
            self._unasked.add(end, size)
        with self._changed:
            self._work_on(_Piece(0, end, 0), reading)
            self._start_workers()

    def _make_room(self, size: int | None) -> None:
        with self._target.open("wb") as file:
            if size is None:
                return
            file.truncate(size)
        disk = os.statvfs(self._target.parent)
        if size > disk.f_bavail * disk.f_frsize:
            raise JobError(
                "capacity_disk",
                f"The source has {size} bytes, and the scratch disk less room.",
            )

    # --- Workers: each brings one piece after the other --------------------------------------

    def _start_workers(self) -> None:
        """As many as are allowed and have something to do. Holds the lock."""
        while self._error is None and (piece := self._next_piece()) is not None:
            self._work_on(piece)

    def _work_on(self, piece: _Piece, reading: Reading | None = None) -> None:
        self._working += 1
        thread = threading.Thread(
            target=self._work, args=(piece, reading), name="fetch", daemon=True
        )
        thread.start()

    def _next_piece(self) -> _Piece | None:
        """What a reader waits for goes before the order of the file. Holds the lock."""
        if not self._unasked:
            return None
        if self._working <= self._allowed:
            for at in self._wanted:
                if (end := self._unasked.end_from(at)) > at:
                    return self._take(at, end)
        if self._working < self._allowed:
            return self._take(*self._unasked.first)
        return None

    def _take(self, first: int, end: int) -> _Piece:
        end = min(end, first + self._piece_bytes)
        self._unasked.remove(first, end)
        return _Piece(first, end, first)

    def _work(self, piece: _Piece | None, reading: Reading | None) -> None:
        try:
            while piece is not None:
                self._bring(piece, reading)
                reading = None
                with self._changed:
                    self._working -= 1
                    self._allowed = min(self._allowed + 1, MOST_CONNECTIONS)
                    piece = self._next_piece()
                    if piece is not None:
                        self._working += 1
                    self._start_workers()
                    if self._working == 0:
                        self._conclude()
        except BaseException as error:
            self._fail(error)

    def _bring(self, piece: _Piece, reading: Reading | None) -> None:
        """All bytes of a piece, over as many answers as it takes, or what comes of it in time."""
        began = self._clock.monotonic()
        tries = TRIES if self.stat.resumable else TRIES_FROM_THE_START
        retries = Retries(self._clock, tries=tries)
        with self._target.open("r+b", buffering=0) as file:
            while True:
                before = piece.done
                try:
                    self._copy(reading or self._ask_again(piece), piece, file.fileno())
                    reading = None
                    if piece.complete or piece.end is None:
                        break
                    if piece.done == before:
                        raise JobError("source_truncated", "The server sends less than it has.")
                except JobError as error:
                    reading = None
                    if error.code not in RESUMABLE:
                        raise
                    got_on = piece.done > before
                    if not self.stat.resumable:
                        self._begin_again(piece, file.fileno())
                        got_on = False
                    with self._changed:
                        self._allowed = max(1, self._allowed // 2)
                    retries.wait(error, got_on=got_on)
        took_s = self._clock.monotonic() - began
        with self._changed:
            brought = piece.done - piece.first
            self._piece_bytes = size_piece(brought, took_s=took_s, most=self._most_bytes)

    def _begin_again(self, piece: _Piece, file: int) -> None:
        """The rest might belong to other bytes, so what is here is worth nothing."""
        with self._changed:
            self._here.remove(piece.first, piece.done)
        piece.done = piece.first
        if piece.end is None:
            os.truncate(file, 0)

    def _ask_again(self, piece: _Piece) -> Reading:
        validator = self.stat.validator if self.stat.resumable else None
        reading = self._ask(piece.done, piece.end, validator)
        if reading.stat.size_bytes != self.stat.size_bytes or (
            validator is not None and reading.stat.validator not in (None, validator)
        ):
            reading.close()
            raise JobError("source_changed", "The source changed while it was read.")
        return reading

    def _copy(self, reading: Reading, piece: _Piece, file: int) -> None:
        since: tuple[int, float] | None = None  # when it began to come, not when it was asked for
        with closing(reading):
            for chunk in reading.chunks:
                data = chunk if piece.end is None else chunk[: piece.end - piece.done]
                with _disk():
                    _write_at(file, data, piece.done)
                self._arrived(piece, len(data), taken=len(chunk))
                if self._in_pieces:
                    now = self._clock.monotonic()
                    first, began = since = since or (piece.done, now)
                    self._give_back_if_late(piece, first=first, took_s=now - began)
                if piece.complete:
                    return

    def _give_back_if_late(self, piece: _Piece, *, first: int, took_s: float) -> None:
        """The rest of a piece, unless that is little: who asks next takes what comes first."""
        assert piece.end is not None
        late = is_late(piece.done - first, of=piece.end - first, took_s=took_s)
        if late and piece.end - piece.done > LEAST_BYTES:
            with self._changed:
                self._unasked.add(piece.done, piece.end)
                piece.end = piece.done

    def _arrived(self, piece: _Piece, length: int, *, taken: int) -> None:
        with self._changed:
            self._raise_error()
            self._here.add(piece.done, piece.done + length)
            piece.done += length
            self.fetched_bytes += taken
            self._rate.check(length)
            here, size = self._here.total, self.stat.size_bytes
            self._changed.notify_all()
        if here > self._limits.source_bytes:
            raise self._too_large()
        if size:
            self._on_progress(here / size)

    def _conclude(self) -> None:
        """The last worker is done. Holds the lock."""
        size, here = self.stat.size_bytes, self._here.total
        if here == 0:
            raise JobError("source_invalid", "The source is empty.")
        if size is not None and here != size:
            raise JobError("source_truncated", f"{here} of {size} bytes came.")
        if self._error is not None:
            return
        self._on_complete()
        self._complete = True
        self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            if self._error is None and not self._complete:
                self._error = error
            self._changed.notify_all()

    def _too_large(self) -> JobError:
        limit = self._limits.source_bytes
        return JobError("source_too_large", f"The source has more than the allowed {limit} bytes.")


def size_piece(brought: int, *, took_s: float, most: int) -> int:
    """How large the next piece is to be, by how long a connection took for one."""
    wanted = most if took_s <= 0 else int(brought / took_s * PIECE_S)
    return min(most, max(LEAST_BYTES, wanted))


def is_late(brought: int, *, of: int, took_s: float) -> bool:
    """Whether a connection that goes on like this needs more than PATIENCE_S for a piece."""
    return took_s >= JUDGED_S and brought * PATIENCE_S < of * took_s


def _write_at(file: int, data: bytes, at: int) -> None:
    while data:
        written = os.pwrite(file, data, at)
        data, at = data[written:], at + written


@contextmanager
def _disk() -> Iterator[None]:
    """Says in our words that a disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        message = "The source does not fit the scratch disk."
        raise JobError("capacity_disk", message) from error


class _Rate:
    """Cuts off a server that drips bytes to keep a place busy."""

    def __init__(self, limits: WorkerLimits, clock: Clock) -> None:
        self._least = limits.source_min_bytes_per_s * limits.stall_s
        self._window_s = limits.stall_s
        self._clock = clock
        self._since = clock.monotonic()
        self._bytes = 0

    def check(self, length: int) -> None:
        self._bytes += length
        now = self._clock.monotonic()
        if now - self._since < self._window_s:
            return
        if self._bytes < self._least:
            raise JobError(
                "source_slow", f"Only {self._bytes} bytes came in {now - self._since:.0f} s."
            )
        self._since, self._bytes = now, 0
