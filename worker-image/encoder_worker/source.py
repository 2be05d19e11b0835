"""The source as ffmpeg and ffprobe read it: from the gateway while it arrives, then as a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from encoder_core.errors import JobError
from encoder_worker.fetch import Fetch
from encoder_worker.sandbox import Box

if TYPE_CHECKING:
    from encoder_worker.gateway import Gateway


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Opened:
    """One run's way to the source."""

    name: str
    """What stands behind ffmpeg's `-i`: a path, or the gateway's address."""
    box: Box
    is_held: Callable[[], bool] = _never
    """Whether the run waits for bytes that are still on their way to us."""


class Source:
    """A file of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def arriving(self) -> bool:
        """Whether it is still on its way."""
        return False

    @contextmanager
    def opened(
        self, *, write: tuple[Path, ...] = (), file_bytes: int | None = None
    ) -> Iterator[Opened]:
        """For one run of ffmpeg or ffprobe, which may write to `write`."""
        yield Opened(str(self._path), Box((self._path,), write, file_bytes=file_bytes))

    def settle(self) -> None:
        """Return when it is a file, and a whole one."""


class ArrivingSource(Source):
    """A file that is becoming whole. A run that begins before that reads from the gateway."""

    def __init__(self, path: Path, fetch: Fetch, gateway: Gateway) -> None:
        super().__init__(path)
        self._fetch = fetch
        self._gateway = gateway

    @property
    def arriving(self) -> bool:
        return not self._fetch.complete

    @contextmanager
    def opened(
        self, *, write: tuple[Path, ...] = (), file_bytes: int | None = None
    ) -> Iterator[Opened]:
        """What fails inside because the fetch has failed is that failure, not ffmpeg's."""
        if not self.arriving:
            with super().opened(write=write, file_bytes=file_bytes) as opened:
                yield opened
            return
        gateway = self._gateway
        box = Box((), write, gateway.port, file_bytes=file_bytes)
        try:
            yield Opened(gateway.url, box, lambda: gateway.holds_readers)
        except JobError:
            self._fetch.raise_failure()
            raise
        # A reader that was cut off takes that for the end, and ends well.
        self._fetch.raise_failure()

    def settle(self) -> None:
        """Raises what the fetch fails with."""
        self._fetch.finish()


@contextmanager
def arriving(fetch: Fetch, path: Path, *, can_serve: bool) -> Iterator[Source]:
    """
    The source that `fetch` brings to `path`: readable at once where that is safe, else when whole.

    It is safe where a reader can be limited to the gateway's port (`can_serve`), and where bytes
    that were read stay what they were, however often the server cuts.
    """
    with ExitStack() as exits:
        exits.enter_context(fetch)
        if not can_serve or not fetch.resumable:
            fetch.finish()
        if fetch.complete:
            yield Source(path)
            return
        from encoder_worker.gateway import Gateway  # an HTTP server, which a file never needs

        yield ArrivingSource(path, fetch, exits.enter_context(Gateway(fetch, path)))
