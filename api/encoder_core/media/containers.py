"""What each container can hold, what it holds by default, and how it is called on the outside."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from encoder_core.specs import Container


class Kind(StrEnum):
    """What a container is for."""

    VIDEO = "video"  #: Pictures and sound.
    AUDIO = "audio"  #: Sound alone.
    PICTURE = "picture"  #: One still picture, or a set of them.
    ANIMATION = "animation"  #: Moving pictures without sound.
    PACKAGE = "package"  #: Segments of a ladder and manifests that list them.
    TEXT = "text"  #: Subtitles as a file of their own.


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerKind:
    kind: Kind
    muxer: str
    extension: str
    content_type: str
    video: tuple[str, ...] = ()
    """Families of codecs it may hold; the first is made by default."""
    audio: tuple[str, ...] = ()
    default_video: str | None = None
    default_audio: str | None = None
    options: tuple[str, ...] = ()
    """Muxer options that every file of this kind gets."""
    grows: bool = False
    """
    Whether ffmpeg, without those options, only appends to it and goes back to its first MiB alone.
    """

    @property
    def index_in_front(self) -> bool:
        return self.options == FASTSTART


# The index in front, so that a player needs one request to start.
FASTSTART: Final = ("-movflags", "+faststart")
_CMAF_AUDIO: Final = ("aac", "ac3", "eac3", "opus")
_PCM: Final = ("pcm_s16le", "pcm_s24le")

CONTAINERS: Final = {
    Container.MP4: ContainerKind(
        kind=Kind.VIDEO, muxer="mp4", extension="mp4", content_type="video/mp4",
        video=("h264", "hevc", "av1", "vp9", "mpeg4"),
        audio=("aac", "mp3", "opus", "flac", "alac", "ac3", "eac3"),
        default_video="libx264", default_audio="aac", options=FASTSTART, grows=True,
    ),
    Container.MOV: ContainerKind(
        kind=Kind.VIDEO, muxer="mov", extension="mov", content_type="video/quicktime",
        video=("h264", "hevc", "prores", "mpeg4", "mjpeg"),
        audio=("aac", "alac", "mp3", "ac3", "eac3", *_PCM),
        default_video="libx264", default_audio="aac", options=FASTSTART, grows=True,
    ),
    Container.MKV: ContainerKind(
        kind=Kind.VIDEO, muxer="matroska", extension="mkv", content_type="video/x-matroska",
        video=("h264", "hevc", "av1", "vp9", "vp8", "mpeg4", "mpeg2video", "prores", "mjpeg"),
        audio=("aac", "mp3", "opus", "vorbis", "flac", "alac", "ac3", "eac3", "mp2", *_PCM),
        default_video="libx264", default_audio="aac", grows=True,
    ),
    Container.WEBM: ContainerKind(
        kind=Kind.VIDEO, muxer="webm", extension="webm", content_type="video/webm",
        video=("vp9", "vp8", "av1"), audio=("opus", "vorbis"),
        default_video="libvpx-vp9", default_audio="libopus", grows=True,
    ),
    Container.TS: ContainerKind(
        kind=Kind.VIDEO, muxer="mpegts", extension="ts", content_type="video/mp2t",
        video=("h264", "hevc", "mpeg2video"), audio=("aac", "mp3", "ac3", "eac3", "mp2"),
        default_video="libx264", default_audio="aac", grows=True,
    ),
    Container.HLS: ContainerKind(
        kind=Kind.PACKAGE, muxer="dash", extension="m3u8",
        content_type="application/vnd.apple.mpegurl",
        video=("h264", "hevc", "av1"), audio=_CMAF_AUDIO,
        default_video="libx264", default_audio="aac",
    ),
    Container.DASH: ContainerKind(
        kind=Kind.PACKAGE, muxer="dash", extension="mpd", content_type="application/dash+xml",
        video=("h264", "hevc", "av1", "vp9"), audio=_CMAF_AUDIO,
        default_video="libx264", default_audio="aac",
    ),
    Container.MP3: ContainerKind(
        kind=Kind.AUDIO, muxer="mp3", extension="mp3", content_type="audio/mpeg",
        audio=("mp3",), default_audio="libmp3lame",
    ),
    Container.M4A: ContainerKind(
        kind=Kind.AUDIO, muxer="ipod", extension="m4a", content_type="audio/mp4",
        audio=("aac", "alac"), default_audio="aac", options=FASTSTART, grows=True,
    ),
    Container.OGG: ContainerKind(
        kind=Kind.AUDIO, muxer="ogg", extension="ogg", content_type="audio/ogg",
        audio=("vorbis", "opus", "flac"), default_audio="libvorbis",
    ),
    Container.OPUS: ContainerKind(
        kind=Kind.AUDIO, muxer="opus", extension="opus", content_type="audio/ogg",
        audio=("opus",), default_audio="libopus",
    ),
    Container.FLAC: ContainerKind(
        kind=Kind.AUDIO, muxer="flac", extension="flac", content_type="audio/flac",
        audio=("flac",), default_audio="flac",
    ),
    Container.WAV: ContainerKind(
        kind=Kind.AUDIO, muxer="wav", extension="wav", content_type="audio/wav",
        audio=_PCM, default_audio="pcm_s16le",
    ),
    Container.GIF: ContainerKind(
        kind=Kind.ANIMATION, muxer="gif", extension="gif", content_type="image/gif",
        video=("gif",), default_video="gif",
    ),
    Container.JPG: ContainerKind(
        kind=Kind.PICTURE, muxer="image2", extension="jpg", content_type="image/jpeg",
        video=("mjpeg",), default_video="mjpeg",
    ),
    Container.PNG: ContainerKind(
        kind=Kind.PICTURE, muxer="image2", extension="png", content_type="image/png",
        video=("png",), default_video="png",
    ),
    Container.VTT: ContainerKind(
        kind=Kind.TEXT, muxer="webvtt", extension="vtt", content_type="text/vtt",
    ),
}  # fmt: skip
SOURCE_DEMUXERS: Final = (
    "mov", "matroska", "mpegts", "mpeg", "avi", "flv", "mxf", "ogg", "wav", "w64", "mp3",
    "aac", "ac3", "eac3", "flac", "asf", "gif", "aiff", "caf", "amr", "rm", "dv", "ivf", "nut",
    "image2", "png_pipe", "jpeg_pipe", "webp_pipe", "bmp_pipe", "tiff_pipe", "mpegvideo", "h264",
    "hevc", "obu", "y4m", "yuv4mpegpipe", "apng", "au", "tta", "wv", "ape", "dts", "truehd",
)  # fmt: skip
"""
What ffmpeg may read as a source. Playlists and project files are left out on purpose: an HLS or
concat list that poses as mp4 would make ffmpeg open the files and addresses that it names.
"""
