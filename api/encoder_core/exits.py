"""Exit codes of the worker: documented, stable, and enough to know the outcome without a report."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Exit(IntEnum):
    SUCCEEDED = 0  #: Every output is uploaded.
    SOURCE = 20  #: The source failed for good.
    SOURCE_TRANSIENT = 21  #: The source failed; another attempt may do better.
    REQUEST = 30  #: The outputs cannot be made as asked.
    WATERMARK = 31  #: A watermark's image could not be fetched; another attempt may do better.
    MEDIA = 40  #: ffmpeg failed, or an output did not verify.
    MEMORY = 41  #: Out of memory.
    DISK = 42  #: Out of scratch space.
    STALLED = 43  #: ffmpeg made no progress.
    DEADLINE = 44  #: Out of time.
    DESTINATION = 50  #: A destination failed for good.
    DESTINATION_TRANSIENT = 51  #: A destination failed; another attempt may do better.
    INTERRUPTED = 60  #: SIGTERM: whoever runs the machine wants it back.
    CANCELED = 61  #: The job was canceled.
    FENCED = 62  #: The attempt is not current any more, or its parent is gone.
    INTERNAL = 70  #: A mistake of ours.
    SANDBOX = 71  #: This machine cannot lock ffmpeg in, and the installation insists on it.


EXIT_FAILURES: Final = {
    Exit.SOURCE: "source_invalid",
    Exit.SOURCE_TRANSIENT: "source_unreachable",
    Exit.REQUEST: "request_impossible",
    Exit.WATERMARK: "watermark_unavailable",
    Exit.MEDIA: "encode_failed",
    Exit.MEMORY: "capacity_memory",
    Exit.DISK: "capacity_disk",
    Exit.STALLED: "encode_stalled",
    Exit.DEADLINE: "deadline_exceeded",
    Exit.DESTINATION: "destination_rejected",
    Exit.DESTINATION_TRANSIENT: "destination_unreachable",
    Exit.INTERRUPTED: "worker_interrupted",
    Exit.CANCELED: "canceled",
    Exit.FENCED: "worker_lost",
    Exit.INTERNAL: "worker_failed",
    Exit.SANDBOX: "sandbox_incomplete",
}
"""What an exit code says when no final report was stored: the general failure of its kind."""

_BY_CODE: Final = {
    "request_impossible": Exit.REQUEST,
    "address_not_allowed": Exit.REQUEST,
    "file_not_allowed": Exit.REQUEST,
    "credentials_required": Exit.REQUEST,
    "credentials_missing": Exit.REQUEST,
    "watermark_invalid": Exit.REQUEST,
    "watermark_unavailable": Exit.WATERMARK,
    "capacity_memory": Exit.MEMORY,
    "capacity_disk": Exit.DISK,
    "encode_stalled": Exit.STALLED,
    "deadline_exceeded": Exit.DEADLINE,
    "worker_interrupted": Exit.INTERRUPTED,
    "canceled": Exit.CANCELED,
    "worker_lost": Exit.FENCED,
    "sandbox_incomplete": Exit.SANDBOX,
}


def exit_for(code: str, *, retryable: bool) -> Exit:
    """The exit code with which a worker ends when its attempt failed with this failure."""
    if code in _BY_CODE:
        return _BY_CODE[code]
    if code.startswith("source_"):
        return Exit.SOURCE_TRANSIENT if retryable else Exit.SOURCE
    if code.startswith("destination_"):
        return Exit.DESTINATION_TRANSIENT if retryable else Exit.DESTINATION
    if code.startswith(("encode_", "output_")):
        return Exit.MEDIA
    return Exit.INTERNAL
