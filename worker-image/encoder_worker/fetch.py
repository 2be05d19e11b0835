"""
Bring the source to this machine's disk, whole or not at all.

The seam of the source gateway: whoever wants to serve bytes while they arrive replaces this step.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from encoder_core.clock import Clock
from encoder_core.errors import JobError
from encoder_core.reports import WorkerLimits
from encoder_core.storage.base import SourceConnector, SourceStat

CUTS_FORGIVEN: Final = 5  # in a row without a byte of progress between them
TRIES_FROM_THE_START: Final = 2  # the same bytes again cost as much as the whole source
RESUMABLE: Final = frozenset({"source_truncated", "source_unreachable"})


def fetch_source(
    connector: SourceConnector,
    target: Path,
    *,
    limits: WorkerLimits,
    clock: Clock,
    on_progress: Callable[[float], None],
) -> SourceStat:
    """
    Copy the source to `target`; after a cut go on where it stopped, if the server can.

    Raises JobError: what the connector says, `source_too_large`, `source_slow` or `capacity_disk`.
    """
    stat = connector.stat()
    if stat.size_bytes is not None and stat.size_bytes > limits.source_bytes:
        raise _too_large(limits)
    try:
        with target.open("wb") as file:
            _copy_all(connector, stat, file, limits=limits, clock=clock, on_progress=on_progress)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise JobError("capacity_disk", "The source does not fit the scratch disk.") from error
        raise
    size = target.stat().st_size
    if stat.size_bytes is not None and size != stat.size_bytes:
        raise JobError("source_truncated", f"{size} of {stat.size_bytes} bytes came.")
    if size == 0:
        raise JobError("source_invalid", "The source is empty.")
    return stat


def _copy_all(
    connector: SourceConnector,
    stat: SourceStat,
    file: BinaryIO,
    *,
    limits: WorkerLimits,
    clock: Clock,
    on_progress: Callable[[float], None],
) -> None:
    done, cuts = 0, 0
    # Without a validator the rest may belong to other bytes: begin again then.
    can_resume = stat.ranges and stat.validator is not None
    while True:
        before = done
        try:
            rate = _Rate(limits, clock)
            if done and not can_resume:
                done = before = 0
                file.seek(0)
                file.truncate()
            for chunk in connector.read(offset=done, validator=stat.validator):
                file.write(chunk)
                done += len(chunk)
                if done > limits.source_bytes:
                    raise _too_large(limits)
                rate.check(len(chunk))
                if stat.size_bytes:
                    on_progress(done / stat.size_bytes)
        except JobError as error:
            # What has to begin again got nowhere, however much of it came.
            cuts = 1 if can_resume and done > before else cuts + 1
            if error.code not in RESUMABLE:
                raise
            if cuts >= (CUTS_FORGIVEN if can_resume else TRIES_FROM_THE_START):
                raise
            continue
        file.flush()
        os.fsync(file.fileno())
        return


def _too_large(limits: WorkerLimits) -> JobError:
    return JobError(
        "source_too_large", f"The source has more than the allowed {limits.source_bytes} bytes."
    )


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
