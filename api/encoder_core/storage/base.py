"""What a storage connector promises. One contract-test suite runs over every one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from encoder_core.clock import Clock, SystemClock
from encoder_core.egress import Dialler
from encoder_core.reports import AmbientCredentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What connectors may use: the way out, files they may see, credentials they may borrow."""

    dialler: Dialler
    files_root: Path | None = None
    """None: `kind: file` is refused."""
    inline_path: Path | None = None
    ambient: AmbientCredentials = field(default_factory=AmbientCredentials)
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0
    clock: Clock = field(default_factory=SystemClock)
    before_publish: Callable[[], None] = lambda: None
    """
    Called right before the step that makes a file visible: a PUT, a completed multipart, a rename.
    Returns once this attempt may publish, or raises what ends it.
    """


@dataclass(frozen=True, slots=True)
class SourceStat:
    """What a server says of a source before its bytes."""

    size_bytes: int | None
    """None: the server does not say."""
    validator: str | None
    """A strong ETag or its like: changes when the bytes change. None: the server gives none."""
    ranges: bool
    """Whether it can be read from any byte on."""

    @property
    def resumable(self) -> bool:
        """Whether parts that were read one by one are sure to be parts of the same bytes."""
        return self.ranges and self.validator is not None


@dataclass(frozen=True, slots=True)
class Reading:
    """A request that was answered: what the answer says of the source, and the bytes it brings."""

    stat: SourceStat
    chunks: Iterator[bytes]
    """
    At most 1 MiB each, as they come. They end before what was asked for only by raising, or where
    the server chose to send a shorter part; they go on beyond it where the server sends all.
    """
    close: Callable[[], object] = lambda: None
    """Ends the connection; must be called, also when nothing or all was read. Twice is once."""


class SourceConnector(Protocol):
    """Reads one source. Raises JobError with `source_…` or `address_not_allowed`."""

    local_path: Path | None
    """Where the source already is on this machine; nothing has to be fetched then."""
    parallel: bool
    """Whether several parts may be asked for at the same time."""

    def open(
        self, first: int = 0, end: int | None = None, *, validator: str | None = None
    ) -> Reading:
        """
        Ask once for the bytes from `first` up to, and without, `end`; None is all of them.

        The bytes of the answer begin at `first`, whatever the server did. A connection that closes
        before what it announced is a `source_truncated`. With a validator, a source that changed is
        a `source_changed`. Whether to ask again is for the caller to decide.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One file to deliver."""

    path: Path
    size_bytes: int
    sha256: str
    content_type: str
    name: str | None = None
    """In a set of files: its name beside the destination's own. None: the destination is it."""


@dataclass(frozen=True, slots=True)
class Delivered:
    url: str
    """Where the file is now, without credentials."""


class DestinationConnector(Protocol):
    """Delivers files to one destination. Raises JobError with `destination_…`."""

    at_once: int
    """How many files of a set it takes at the same time."""

    def put(self, upload: Upload) -> Delivered:
        """
        Deliver one file, whole or not at all, and return when the destination confirmed it.

        May be called again for the same upload: the result is the same file.
        """
        ...


class PartsUpload(Protocol):
    """One file on its way in parts, which nobody sees before `complete`. From any thread."""

    def send(self, number: int, data: bytes) -> None:
        """Send a part, the first of which is 1; the same number again replaces it."""
        ...

    def complete(self, parts: int, size_bytes: int) -> Delivered:
        """Make the file of the parts 1 to `parts`, whatever else was sent, once it may be seen."""
        ...

    def abort(self) -> None:
        """Give up what was sent. Says nothing of a server that will not have it."""
        ...


class PartsConnector(DestinationConnector, Protocol):
    """A destination to which a file can be sent while it still grows."""

    def begin(self, content_type: str) -> PartsUpload:
        """Contacts the destination."""
        ...
