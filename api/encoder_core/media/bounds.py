"""What a source may be at most, whatever its header claims. Pure; `docs/media.md` has the table."""

from __future__ import annotations

from typing import Final

from encoder_core.media.probe import Probe

MAX_SOURCE_S: Final = 7 * 86_400.0  # a few bytes of a header can claim centuries of frames to make
MAX_STREAMS: Final = 100  # a disc has some forty; each costs ffmpeg a parser, a decoder, a queue
MAX_PIXELS: Final = 16384 * 8704  # above 16K; a 62 kB file can claim more and take 433 MB a frame


def find_excess(probe: Probe, *, streams: int) -> str | None:
    """The sentence that refuses the source; None: it keeps every limit."""
    if streams > MAX_STREAMS:
        return f"The source has {streams} streams; at most {MAX_STREAMS} are read."
    if probe.duration_s is not None and probe.duration_s > MAX_SOURCE_S:
        return (
            f"The source is {probe.duration_s:.0f} s long; at most {MAX_SOURCE_S:.0f} s are read."
        )
    video = probe.video
    if video is not None and video.width * video.height > MAX_PIXELS:
        return (
            f"The source's picture is {video.width}x{video.height}; "
            f"at most {MAX_PIXELS} pixels are read."
        )
    return None
