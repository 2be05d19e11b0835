"""
Decide whether a stream can stay as it is. Pure.

A stream is copied when the request leaves nothing to change: the codec is the one that would be
made, so are size, rate and layout, and no field says how to encode. Copying costs no quality and
almost no time. What would surprise a viewer is not copied: a stream that players refuse, or one
that takes far more bits than it needs.
"""

from __future__ import annotations

from typing import Final

from encoder_core.media.containers import ContainerKind, Kind
from encoder_core.media.planned import AudioPlan, VideoPlan
from encoder_core.media.probe import AudioStream, Probe, VideoStream
from encoder_core.specs import OutputSpec

BITS_PER_PIXEL: Final = 0.2  # of a frame; twice what x264 makes by default, and a camera's is 1
ALWAYS_MODEST: Final = 1_000_000  # tiny pictures take more bits a pixel, and nobody minds
TIMES_THE_SOUND: Final = 2  # what we would make; more is a master, not a copy for delivery

_HOW_TO_ENCODE: Final = (
    "video_bitrate", "max_bitrate", "crf", "preset", "profile", "gop_seconds", "rotate", "clip",
    "watermark",
)  # fmt: skip


def may_copy_video(
    spec: OutputSpec, kind: ContainerKind, probe: Probe, source: VideoStream, plan: VideoPlan
) -> bool:
    """Whether the source's picture is what `plan` would make of it."""
    if kind.kind is not Kind.VIDEO or plan.family != source.codec or probe.still:
        return False
    if any(getattr(spec, field) is not None for field in _HOW_TO_ENCODE):
        return False
    changes = (
        *(plan.scale, plan.crop, plan.deinterlace, plan.tone_map, plan.from_rgb),
        *(source.rotation, source.variable_rate, probe.clock_jumps),
    )
    if any(changes) or plan.encoder is None or source.pixel_format != plan.encoder.pixel_format:
        return False
    if plan.frame_rate is not None and plan.frame_rate != source.average_fps:
        return False
    return _is_modest(probe, source)


def _is_modest(probe: Probe, source: VideoStream) -> bool:
    rate = source.bit_rate
    if rate is None and probe.size_bytes and probe.duration_s:
        rate = int(probe.size_bytes * 8 / probe.duration_s)  # of the whole file, so never too low
    if rate is None or source.average_fps is None:
        return False
    pixels = source.width * source.height * source.average_fps
    return rate <= max(ALWAYS_MODEST, BITS_PER_PIXEL * float(pixels))


def may_copy_audio(
    spec: OutputSpec, kind: ContainerKind, probe: Probe, source: AudioStream, plan: AudioPlan
) -> bool:
    """Whether the source's sound is what `plan` would make of it."""
    if kind.kind not in (Kind.VIDEO, Kind.AUDIO) or plan.family != source.codec:
        return False
    as_asked = (spec.audio_bitrate, spec.clip, spec.loudness) == (None, None, None)
    if not as_asked or probe.clock_jumps:
        return False
    if (plan.channels, plan.sample_rate) != (source.channels, source.sample_rate):
        return False
    if plan.bitrate is None:
        return True  # lossless
    return source.bit_rate is not None and source.bit_rate <= TIMES_THE_SOUND * plan.bitrate
