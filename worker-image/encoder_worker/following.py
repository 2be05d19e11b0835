"""
Send files to their destinations while they are written, in parts that nobody sees.

A thread for each file reads behind its encoder. It sends what stands fast: the second part and what
follows, for encoders go back to the beginning and to nothing else. When the encode has ended and
the file is what it will be, the rest is sent, the first part last. Whether anybody gets to see it
is decided elsewhere, once it is verified: then every part is compared with the file, one that is
another is sent again, and the last word makes an object of them.

Nothing here can fail or slow an encode. A destination that does not answer is asked again later.
One that refuses gets the file in the ordinary way, and says there what it has against it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from encoder_core.clock import Clock
from encoder_core.errors import JobError
from encoder_core.media.planned import OutputPlan
from encoder_core.media.probe import Probe
from encoder_core.media.resources import likely_size
from encoder_core.parallel import each
from encoder_core.specs import Destination, S3Destination
from encoder_core.storage import TAKE_PARTS
from encoder_core.storage.failing import is_transient

if TYPE_CHECKING:
    from encoder_core.storage.base import Delivered, PartsUpload

log = logging.getLogger("encoder_worker")

MIN_BYTES: Final = 16 * 1024**2  # below, one request does it when all is done
# The least that S3 takes. What is held back at the beginning, and what is left at the end, is what
# the encode is over before, so it is kept small.
PART_BYTES: Final = 5 * 1024**2
MAX_FOLLOWED: Final = 9_000  # S3 takes 10,000; what is left when all is written gets the rest
MAX_LEFT: Final = 900
AT_ONCE: Final = 4  # of all files together; each is held in memory while it is sent
LOOK_S: Final = 0.2  # how often it is looked how far an encoder has got
PAUSE_S: Final = 15.0  # after a destination did not answer, with all its retries
PATIENCE_S: Final = 3.0  # for a part on its way when an upload is given up
PIECE_BYTES: Final = 1024**2

# It refuses a file whose parts are not of one size, the last excepted, and an index that comes in
# front later makes the first part longer.
EQUAL_PARTS_HOST: Final = ".r2.cloudflarestorage.com"


def can_follow(plan: OutputPlan, destination: Destination, probe: Probe) -> bool:
    """Whether an output is worth it, and its container and destination allow it."""
    if destination.kind not in TAKE_PARTS or not plan.kind.grows:
        return False
    if plan.kind.index_in_front and _wants_equal_parts(destination):
        return False
    size = likely_size(plan, probe)
    return size is None or size >= MIN_BYTES


def _wants_equal_parts(destination: Destination) -> bool:
    if not isinstance(destination, S3Destination) or destination.endpoint is None:
        return False
    host = destination.endpoint.get_secret_value().partition("://")[2].partition("/")[0]
    return host.partition(":")[0].lower().endswith(EQUAL_PARTS_HOST)


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes of a file that are one part, `end` excluded."""

    begin: int
    end: int


def lay_out(size: int, *, moved: int, part: int, most: int = MAX_FOLLOWED) -> list[Span]:
    """
    The parts of a file whose data was moved by the index that is now in front of it.

    Part N has what was the Nth part of the file before that; the first one has the index too.
    """
    ends = list(range(moved + part, size, part)[:most])
    last = ends[-1] if ends else 0
    step = max(part, -(-(size - last) // MAX_LEFT))
    ends += range(last + step, size, step)
    return [Span(begin, end) for begin, end in pairwise([0, *ends, size])]


class Following:
    """One file, from its first bytes to the last word about it."""

    def __init__(
        self,
        path: Path,
        begin: Callable[[], PartsUpload],
        *,
        slots: threading.Semaphore,
        clock: Clock,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self._path = path
        self._begin = begin
        self._slots = slots
        self._clock = clock
        self._part_bytes = part_bytes
        self._turn = threading.Condition()
        self._spans: list[Span] | None = None  # None: it is still being written
        self._wanted: list[str] = []
        self._sent: dict[int, str] = {}
        self._sending: int | None = None
        self._upload: PartsUpload | None = None
        self._not_before = clock.monotonic()
        self._over = False
        self._given_up = False
        self._thread = threading.Thread(target=self._run, name=f"follow-{path.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def settle(self, finish: Callable[[], int]) -> None:
        """
        The encoder has ended. `finish` makes the file what it will be, while nothing reads it, and
        says by how much its data has moved.
        """
        with self._turn:
            moved = finish()
            size = self._path.stat().st_size
            self._spans = lay_out(size, moved=moved, part=self._part_bytes)
            # What had the file's last bytes had the index that was there.
            self._sent = {n: was for n, was in self._sent.items() if n < len(self._spans)}
            self._turn.notify_all()

    def hash(self) -> str:
        """The sha256 of the file that is settled, and what each of its parts has to be."""
        assert self._spans is not None
        whole, parts = hash_spans(self._path, self._spans)
        self._wanted = parts
        return whole

    def finish(self) -> Delivered | None:
        """
        Send what is missing and say the last word, once the file is verified and hashed.

        None: nothing came of it, for a reason that sending it in the ordinary way will show. Raises
        JobError `destination_unreachable` as that would.
        """
        with self._turn:
            self._over = True
            self._turn.notify_all()
        if self._upload is None:
            self._await_its_part()
        if self._upload is None or self._given_up:
            return None
        try:
            return self._complete(self._upload)
        except BaseException as error:
            self.give_up()
            self.wait()
            if isinstance(error, JobError) and not is_transient(error):
                log.info("following_refused", extra={"file": self._path.name, "why": error.code})
                return None
            raise

    def give_up(self) -> None:
        """Let nothing be left of it. Returns at once; `wait` does when that is done."""
        with self._turn:
            self._over = self._given_up = True
            self._turn.notify_all()

    def wait(self, patience_s: float = PATIENCE_S) -> None:
        """
        Return when what was given up is tidied away, or cannot be in time.

        The thread does that after its last part; one that hangs on a part is not waited for.
        """
        self._thread.join(patience_s)
        if not self._thread.is_alive():
            self._abort()
        elif self._upload is not None:
            tidying = threading.Thread(target=self._upload.abort, daemon=True)
            tidying.start()
            tidying.join(patience_s)

    # --- In its own thread -------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._await_part():
                with self._slots:
                    self._send_next()
        except Exception as error:  # whatever it is, the ordinary way is still open
            why = error.code if isinstance(error, JobError) else type(error).__name__
            log.info("following_ended", extra={"file": self._path.name, "why": why})
        finally:
            if self._given_up:
                self._abort()

    def _await_part(self) -> bool:
        """Whether there is a part to send; False when that is not for this thread any more."""
        with self._turn:
            while not self._over:
                if self._clock.monotonic() >= self._not_before:
                    if self._find_next() is not None:
                        return True
                    if self._spans is not None:
                        return False  # all is sent, or so little that it never began
                self._turn.wait(LOOK_S)
        return False

    def _find_next(self) -> tuple[int, Span] | None:
        if self._spans is None:
            number = len(self._sent) + 2
            span = Span((number - 1) * self._part_bytes, number * self._part_bytes)
            is_there = number <= MAX_FOLLOWED and span.end <= _size_of(self._path)
            return (number, span) if is_there else None
        if self._upload is None and self._spans[-1].end < MIN_BYTES:
            return None
        missing = [number for number in self._numbers() if number not in self._sent]
        return (missing[-1], self._spans[missing[-1] - 1]) if missing else None

    def _numbers(self) -> range:
        assert self._spans is not None
        return range(1, len(self._spans) + 1)

    def _send_next(self) -> None:
        with self._turn:
            found = None if self._over else self._find_next()
            if found is None:
                return
            number, span = found
            data = _read(self._path, span)
            self._sending = number
        try:
            self._send(number, data)
        except JobError as error:
            if not is_transient(error):
                raise
            log.info("following_waits", extra={"file": self._path.name, "why": error.code})
            self._not_before = self._clock.monotonic() + PAUSE_S
        finally:
            with self._turn:
                self._sending = None
                self._turn.notify_all()

    def _send(self, number: int, data: bytes) -> None:
        if self._upload is None:
            self._upload = self._begin()
        self._upload.send(number, data)
        self._sent[number] = hashlib.sha256(data).hexdigest()

    def _abort(self) -> None:
        with self._turn:
            upload, self._upload = self._upload, None
        if upload is not None:
            upload.abort()

    # --- In the worker's own -----------------------------------------------------------------

    def _complete(self, upload: PartsUpload) -> Delivered:
        assert self._spans is not None
        spans = self._spans
        early = sum(self._is_right(number) for number in self._numbers())

        def send(number: int) -> None:
            self._send(number, _read(self._path, spans[number - 1]))

        def missing() -> list[int]:
            return [number for number in self._numbers() if not self._is_right(number)]

        on_its_way = self._sending
        each(send, [number for number in missing() if number != on_its_way], at_once=AT_ONCE)
        self._await_its_part()
        each(send, missing(), at_once=AT_ONCE)
        delivered = upload.complete(len(spans), spans[-1].end)
        self._upload = None
        fields = {"file": self._path.name, "parts": len(spans), "before_verified": early}
        log.info("followed", extra=fields)
        return delivered

    def _is_right(self, number: int) -> bool:
        return self._sent.get(number) == self._wanted[number - 1]

    def _await_its_part(self) -> None:
        """Return when the thread, which is to begin no other, has sent the part that it is at."""
        with self._turn:
            while self._sending is not None:
                self._turn.wait(LOOK_S)


class Followings:
    """Those of one attempt, by output. Left in any way, it leaves nothing behind."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._slots = threading.Semaphore(AT_ONCE)
        self._begins: dict[int, Callable[[], PartsUpload]] = {}
        self._running: dict[int, Following] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.drop(*self._running)

    def allow(self, index: int, begin: Callable[[], PartsUpload]) -> None:
        """Have an output followed. `begin` contacts its destination, from another thread."""
        self._begins[index] = begin

    def start(self, plan: OutputPlan, path: Path) -> None:
        """Its encoder is about to write to `path`, which is not there."""
        if plan.followed:
            self._running[plan.index] = following = Following(
                path, self._begins[plan.index], slots=self._slots, clock=self._clock
            )
            following.start()

    def get(self, index: int) -> Following | None:
        return self._running.get(index)

    def drop(self, *indexes: int) -> None:
        """Those that are finished have nothing left to drop."""
        dropped = [self._running.pop(index) for index in indexes if index in self._running]
        for following in dropped:
            following.give_up()
        until = self._clock.monotonic() + PATIENCE_S
        for following in dropped:
            following.wait(max(0.1, until - self._clock.monotonic()))


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _read(path: Path, span: Span) -> bytes:
    with path.open("rb") as file:
        return os.pread(file.fileno(), span.end - span.begin, span.begin)


def hash_spans(path: Path, spans: Sequence[Span]) -> tuple[str, list[str]]:
    """The sha256 of a file and of each of its parts, which follow one another; read once."""
    whole, parts = hashlib.sha256(), []
    with path.open("rb") as file:
        for span in spans:
            part, left = hashlib.sha256(), span.end - span.begin
            while left and (piece := file.read(min(left, PIECE_BYTES))):
                whole.update(piece)
                part.update(piece)
                left -= len(piece)
            parts.append(part.hexdigest())
    return whole.hexdigest(), parts
