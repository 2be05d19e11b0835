"""
Estimate what a plan costs: processor time, memory, scratch space and the size of its outputs. Pure.

The figures were measured once (docs/media.md says how) and are right within a factor of two for
common material: good enough to size a Pod or to warn of a day's work. Nothing is judged by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from encoder_core.media.codecs import VideoEncoder
from encoder_core.media.containers import Kind
from encoder_core.media.planned import AudioPlan, OutputPlan, VideoPlan
from encoder_core.media.probe import Probe

MIB: Final = 1024**2
WORKER_BYTES: Final = 96 * MIB  # the worker's own process and what ffmpeg needs before any frame
HEADROOM: Final = 1.25  # lookahead fills up with the material; a killed encode costs all of it
UNKNOWN_FPS: Final = Fraction(25)

DECODE_CPU_S: Final = 0.015  # a megapixel, H.264; others are within half and double of it
DECODE_BYTES: Final = 40  # a pixel: some 24 frames in 4:2:0 between decoder and filters
AUDIO_CPU_S: Final = 0.01  # a second of sound
SUBTITLES_BYTES: Final = 256 * 1024  # text of a long film, all of it; the whole is some 100 kB
SURE_RATE: Final = 1.15  # what a bit rate may be missed by, container included
UNKNOWN_VIDEO_RATE: Final = 5_000_000  # of copies, where neither stream nor file tell
UNKNOWN_AUDIO_RATE: Final = 256_000
UNSURE_SIZE: Final = 4.0  # by how much noisy material passes the size that constant quality has


@dataclass(frozen=True, slots=True)
class _Cost:
    """What one encoder costs at its default preset."""

    cpu_s: float
    """Seconds of one core a megapixel."""
    bytes_px: int
    """Memory a pixel of the frame, with two threads."""
    bits_px: float
    """Bits a pixel at the default quality, ordinary film."""


_COSTS: Final = {
    "libx264": _Cost(0.11, 190, 0.08),
    "libx265": _Cost(0.18, 260, 0.045),
    "libvpx": _Cost(0.28, 60, 0.1),
    "libvpx-vp9": _Cost(0.33, 220, 0.05),
    "libsvtav1": _Cost(0.32, 420, 0.035),
    "libaom-av1": _Cost(0.6, 420, 0.035),
    "mpeg4": _Cost(0.02, 30, 0.3),
    "mpeg2video": _Cost(0.02, 30, 0.4),
    "prores_ks": _Cost(0.1, 60, 3.5),
    "gif": _Cost(0.05, 40, 3.0),
    "mjpeg": _Cost(0.01, 20, 1.2),
    "png": _Cost(0.1, 20, 12.0),
}
_THREAD_BYTES_PX: Final = 12  # a frame and its tables for each thread beyond two

# Against `medium` at the same quality setting.
_X26X: Final = {
    "ultrafast": 0.32, "superfast": 0.45, "veryfast": 0.55, "faster": 0.83, "fast": 0.97,
    "medium": 1.0, "slow": 1.45, "slower": 2.6, "veryslow": 4.5, "placebo": 12.0,
}  # fmt: skip

_X264_LOOKAHEAD: Final = {
    "ultrafast": 0, "superfast": 0, "veryfast": 10, "faster": 20, "fast": 30, "medium": 40,
    "slow": 50, "slower": 60, "veryslow": 60, "placebo": 60,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a job will need."""

    cpu_s_per_second: float
    """Seconds of one core for a second of the source: the weight of the job."""
    cpu_s: float | None
    """None: the source's duration is not known."""
    memory_bytes: int
    scratch_bytes: int | None
    """For the source and all outputs. None: a size or a duration is not known."""


def estimate(
    plans: Sequence[OutputPlan], probe: Probe, *, threads: int, fetched_bytes: int | None
) -> Estimate:
    """`fetched_bytes` is what the source takes of the scratch space; None when that is unknown."""
    videos = [video for plan in plans for video in encoded_videos(plan)]
    sounds = [sound for plan in plans for sound in plan.sounds if sound.encoder]
    source_px = probe.video.width * probe.video.height if probe.video else 0
    source_fps = float((probe.video.average_fps if probe.video else None) or UNKNOWN_FPS)
    decode = source_px * source_fps / 1e6 * DECODE_CPU_S if videos else 0.0
    moving = sum(
        _encode_cpu(video) for plan in plans if not plan.pictures for video in encoded_videos(plan)
    )
    cpu = decode + moving + len(sounds) * AUDIO_CPU_S
    memory = WORKER_BYTES + (source_px * DECODE_BYTES if videos else 0)
    memory += sum(_memory(plan, video, threads) for plan in plans for video in encoded_videos(plan))
    sizes = [largest_size(plan, probe) for plan in plans]
    known = [size for size in sizes if size is not None]
    scratch = None
    if fetched_bytes is not None and len(known) == len(sizes):
        scratch = fetched_bytes + sum(known) + 16 * MIB
    return Estimate(
        cpu_s_per_second=round(cpu, 2),
        cpu_s=None if probe.duration_s is None else round(cpu * probe.duration_s, 1),
        memory_bytes=int(memory * HEADROOM),
        scratch_bytes=scratch,
    )


def encoded_videos(plan: OutputPlan) -> list[VideoPlan]:
    """Every picture of an output that is made anew: one, or each rendition of a package."""
    if plan.package is not None:
        return [rendition.video for rendition in plan.package.renditions]
    return [plan.video] if plan.video is not None and plan.video.encoder is not None else []


def _cost(encoder: VideoEncoder | None) -> _Cost:
    return _COSTS.get(encoder.name if encoder else "", _COSTS["libx264"])


def _speed(video: VideoPlan) -> float:
    """How much longer the preset takes than the encoder's default."""
    encoder, preset = video.encoder, video.preset
    if encoder is None or preset is None or encoder.default_preset is None:
        return 1.0
    if encoder.name in ("libx264", "libx265"):
        return _X26X[preset] / _X26X[encoder.default_preset]
    if preset.isdigit():
        step = 1.4 if encoder.name == "libsvtav1" else 1.6
        return float(step ** (int(encoder.default_preset) - int(preset)))
    return 1.0


def _encode_cpu(video: VideoPlan) -> float:
    pixels_a_second = video.width * video.height * float(video.fps or UNKNOWN_FPS)
    return pixels_a_second / 1e6 * _cost(video.encoder).cpu_s * _speed(video)


def _bytes_px(video: VideoPlan) -> float:
    """x264 keeps as many frames as its preset looks ahead."""
    cost = _cost(video.encoder)
    if video.encoder is not None and video.encoder.name == "libx264" and video.preset:
        return 66 + 3.3 * _X264_LOOKAHEAD[video.preset]
    return cost.bytes_px


def _memory(plan: OutputPlan, video: VideoPlan, threads: int) -> int:
    pixels = video.width * video.height
    if plan.sprite is not None:
        pixels = plan.sprite.columns * plan.sprite.rows * pixels
    return int(pixels * (_bytes_px(video) + _THREAD_BYTES_PX * max(0, threads - 2)))


# --- Sizes -----------------------------------------------------------------------------------


def likely_size(plan: OutputPlan, probe: Probe) -> int | None:
    """Bytes that an output will have, about. None: its duration is not known."""
    return _size(plan, probe, unsure=1.0, sure=1.0)


def largest_size(plan: OutputPlan, probe: Probe) -> int | None:
    """Bytes to keep free for an output."""
    return _size(plan, probe, unsure=UNSURE_SIZE, sure=SURE_RATE)


def _size(plan: OutputPlan, probe: Probe, *, unsure: float, sure: float) -> int | None:
    if plan.kind.kind is Kind.PICTURE:
        assert plan.video is not None
        pixels = plan.video.width * plan.video.height * max(1, len(plan.pictures))
        return int(pixels * _cost(plan.video.encoder).bits_px / 8 * unsure)
    if plan.kind.kind is Kind.TEXT:
        return SUBTITLES_BYTES
    if plan.duration_s is None:
        return None
    bits = 0.0
    videos = encoded_videos(plan)
    for video in videos:
        bits += _video_rate(video, unsure=unsure, sure=sure)
    for sound in plan.sounds:
        bits += _audio_rate(sound) * sure if sound.encoder is not None else 0.0
    bits += _copied_rate(plan, probe, with_video=not videos) * sure
    return int(bits / 8 * plan.duration_s) + SUBTITLES_BYTES * len(plan.subtitles)


def _video_rate(video: VideoPlan, *, unsure: float, sure: float) -> float:
    if video.bitrate is not None:
        return video.bitrate * sure
    cost, encoder = _cost(video.encoder), video.encoder
    pixels_a_second = video.width * video.height * float(video.fps or UNKNOWN_FPS)
    rate = pixels_a_second * cost.bits_px
    if encoder is not None and encoder.default_crf is not None and video.crf is not None:
        # Six steps of a crf halve or double the size, with every encoder that has one.
        rate *= 2 ** ((encoder.default_crf - video.crf) / 6)
    rate *= unsure
    return min(rate, video.max_bitrate * sure) if video.max_bitrate is not None else rate


def _audio_rate(audio: AudioPlan) -> float:
    if audio.bitrate is not None:
        return audio.bitrate
    depth = 24 if audio.family in ("pcm_s24le", "flac", "alac") else 16
    return audio.sample_rate * audio.channels * depth


def _copied_rate(plan: OutputPlan, probe: Probe, *, with_video: bool) -> float:
    """
    Of the streams that stay as they are, where their headers tell.

    The rate of one that does not tell is that of the whole file, which all of them together never
    pass.
    """
    whole = None
    if probe.size_bytes and probe.duration_s:
        whole = probe.size_bytes * 8 / probe.duration_s
    bits = 0.0
    if with_video and plan.video is not None:
        known = probe.video.bit_rate if probe.video else None
        bits += known or whole or UNKNOWN_VIDEO_RATE
    copied = {sound.stream for sound in plan.sounds if sound.encoder is None}
    for stream in probe.audio:
        if stream.index in copied:
            bits += stream.bit_rate or whole or UNKNOWN_AUDIO_RATE
    return bits if whole is None else min(bits, whole)
