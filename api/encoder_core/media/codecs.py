"""The encoders this service knows: their names, what they make and how they are steered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

COPY: Final = "copy"
NONE: Final = "none"

X26X_PRESETS: Final = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower",
    "veryslow", "placebo",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoEncoder:
    """One ffmpeg encoder of pictures."""

    name: str
    family: str
    """The codec as ffprobe names it."""
    pixel_format: str = "yuv420p"
    default_crf: float | None = None
    """Constant quality when the request names no rate. None: the encoder has no such mode."""
    max_crf: float = 63
    presets: tuple[str, ...] = ()
    default_preset: str | None = None
    profiles: tuple[str, ...] = ()
    even: bool = True
    """Whether width and height have to be even (4:2:0)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioEncoder:
    """One ffmpeg encoder of sound."""

    name: str
    family: str
    bitrate_per_channel: int | None = None
    """Bits per second a channel when the request names no rate. None: lossless."""
    max_channels: int = 8
    sample_rates: tuple[int, ...] = ()
    """The only ones it can make. Empty: any."""


def _video(*encoders: VideoEncoder) -> dict[str, VideoEncoder]:
    return {encoder.name: encoder for encoder in encoders}


def _audio(*encoders: AudioEncoder) -> dict[str, AudioEncoder]:
    return {encoder.name: encoder for encoder in encoders}


VIDEO_ENCODERS: Final = _video(
    VideoEncoder(
        name="libx264", family="h264", default_crf=23, max_crf=51, presets=X26X_PRESETS,
        default_preset="medium", profiles=("baseline", "main", "high"),
    ),
    # `medium` of x265 costs some five times x264's; `fast` loses little.
    VideoEncoder(
        name="libx265", family="hevc", default_crf=28, max_crf=51, presets=X26X_PRESETS,
        default_preset="fast", profiles=("main",),
    ),
    VideoEncoder(name="libvpx", family="vp8", default_crf=10, presets=("good", "best", "realtime"),
                 default_preset="good"),
    VideoEncoder(name="libvpx-vp9", family="vp9", default_crf=31,
                 presets=("good", "best", "realtime"), default_preset="good"),
    VideoEncoder(name="libsvtav1", family="av1", default_crf=35,
                 presets=tuple(str(number) for number in range(14)), default_preset="8"),
    VideoEncoder(name="libaom-av1", family="av1", default_crf=32,
                 presets=tuple(str(number) for number in range(9)), default_preset="6"),
    VideoEncoder(name="mpeg4", family="mpeg4"),
    VideoEncoder(name="mpeg2video", family="mpeg2video"),
    VideoEncoder(name="prores_ks", family="prores", pixel_format="yuv422p10le",
                 profiles=("proxy", "lt", "standard", "hq")),
    VideoEncoder(name="gif", family="gif", pixel_format="pal8", even=False),
    VideoEncoder(name="mjpeg", family="mjpeg", pixel_format="yuvj420p", even=False),
    VideoEncoder(name="png", family="png", pixel_format="rgb24", even=False),
)  # fmt: skip

VIDEO_ALIASES: Final = {
    "h264": "libx264", "avc": "libx264", "x264": "libx264",
    "hevc": "libx265", "h265": "libx265", "x265": "libx265",
    "vp8": "libvpx", "vp9": "libvpx-vp9",
    "av1": "libsvtav1", "svtav1": "libsvtav1", "aom": "libaom-av1",
    "mpeg2": "mpeg2video", "prores": "prores_ks", "jpeg": "mjpeg", "jpg": "mjpeg",
}  # fmt: skip

MPEG_RATES: Final = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)

AUDIO_ENCODERS: Final = _audio(
    AudioEncoder(name="aac", family="aac", bitrate_per_channel=64_000,
                 sample_rates=(7_350, *MPEG_RATES, 64_000, 88_200, 96_000)),
    AudioEncoder(name="libmp3lame", family="mp3", bitrate_per_channel=80_000, max_channels=2,
                 sample_rates=MPEG_RATES),
    AudioEncoder(name="libopus", family="opus", bitrate_per_channel=48_000,
                 sample_rates=(8_000, 12_000, 16_000, 24_000, 48_000)),
    AudioEncoder(name="libvorbis", family="vorbis", bitrate_per_channel=64_000),
    AudioEncoder(name="ac3", family="ac3", bitrate_per_channel=96_000, max_channels=6,
                 sample_rates=(32_000, 44_100, 48_000)),
    AudioEncoder(name="eac3", family="eac3", bitrate_per_channel=64_000, max_channels=6,
                 sample_rates=(32_000, 44_100, 48_000)),
    AudioEncoder(name="mp2", family="mp2", bitrate_per_channel=96_000, max_channels=2,
                 sample_rates=(16_000, 22_050, 24_000, 32_000, 44_100, 48_000)),
    AudioEncoder(name="flac", family="flac"),
    AudioEncoder(name="alac", family="alac"),
    AudioEncoder(name="pcm_s16le", family="pcm_s16le"),
    AudioEncoder(name="pcm_s24le", family="pcm_s24le"),
)  # fmt: skip

AUDIO_ALIASES: Final = {
    "mp3": "libmp3lame", "lame": "libmp3lame", "opus": "libopus", "vorbis": "libvorbis",
    "pcm": "pcm_s16le", "wav": "pcm_s16le", "ac_3": "ac3",
}  # fmt: skip


def find_video_encoder(name: str) -> VideoEncoder | None:
    """The encoder of an ffmpeg name or a common one."""
    return VIDEO_ENCODERS.get(VIDEO_ALIASES.get(name, name))


def find_audio_encoder(name: str) -> AudioEncoder | None:
    return AUDIO_ENCODERS.get(AUDIO_ALIASES.get(name, name))
