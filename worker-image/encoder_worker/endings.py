"""Say why an ffmpeg ended as it did: what the machine lacked, or what it said itself. Pure."""

from __future__ import annotations

import signal
from typing import Final

from encoder_core.errors import JobError
from encoder_worker.tools import Ended

FULL: Final = ("No space left on device", "Disk quota exceeded")
NO_MEMORY: Final = ("Cannot allocate memory",)


def explain_end(ended: Ended) -> JobError | None:
    """
    Of a run whose output is not what was planned.

    None: by its exit code it ended well, which proves nothing.
    """
    if ended.stalled:
        return JobError("encode_stalled", detail=ended.log)
    if ended.code == -signal.SIGKILL:
        return _explain_kill(ended)
    if ended.code == -signal.SIGXFSZ:
        return JobError(
            "encode_failed", "An output grew larger than ENCODER_MAX_OUTPUT_BYTES allows."
        )
    if ended.disk_full or any(words in ended.log for words in FULL):
        return JobError("capacity_disk", "The scratch disk is full.", detail=ended.log)
    if ended.code != 0 and any(words in ended.log for words in NO_MEMORY):
        return JobError("capacity_memory", "ffmpeg got no memory any more.", detail=ended.log)
    if ended.code < 0:
        name = signal.Signals(-ended.code).name
        return JobError("encode_failed", f"ffmpeg ended by {name}.", detail=ended.log)
    if ended.code != 0:
        last = ended.log.splitlines()[-1] if ended.log else f"exit code {ended.code}"
        return JobError("encode_failed", f"ffmpeg failed: {last}", detail=ended.log)
    return None


def _explain_kill(ended: Ended) -> JobError:
    if ended.killed_for_memory is False:
        return JobError("encode_failed", "ffmpeg was killed, and not for memory.", detail=ended.log)
    # Without books: nobody here sends this signal, and the kernel does so for memory.
    if ended.memory_limit is None:
        message = "The kernel ended ffmpeg, for the machine's memory ran out."
    else:
        mib = ended.memory_limit // 1024**2
        message = f"The kernel ended ffmpeg, which with the worker has {mib} MiB of memory."
    return JobError("capacity_memory", message, detail=ended.log)
