"""What ffprobe says of a file, as values. Pure: the worker runs ffprobe, this reads its JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

HDR_TRANSFERS: Final = frozenset({"smpte2084", "arib-std-b67"})  # PQ and HLG
HD_LINES: Final = 720  # from here on players take what says nothing for BT.709
VFR_TOLERANCE: Final = 0.02  # a constant rate's average differs by a frame or two on short clips
STILL_FORMATS: Final = frozenset({"image2", "png_pipe", "jpeg_pipe", "webp_pipe", "bmp_pipe",
                                  "tiff_pipe"})  # fmt: skip
RESTARTING_FORMATS: Final = frozenset({"mpegts", "mpeg"})
"""Broadcast formats, whose clock may begin again within a file; ffmpeg then goes on counting."""
JUMP_BACK_S: Final = 0.1  # what ffmpeg takes for a new beginning, of the decoding times
DECLARING_FORMATS: Final = frozenset({"mov", "matroska", "wav", "w64", "flac"})
"""Formats whose header has the real duration: a file that ends before it was cut off."""


_RGB: Final = ("rgb", "bgr", "argb", "abgr", "0rgb", "0bgr", "gbr", "pal8")


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoStream:
    index: int
    codec: str
    width: int
    height: int
    rotation: int = 0
    """Degrees clockwise that a player turns the picture: 0, 90, 180 or 270."""
    pixel_aspect: Fraction = Fraction(1)
    average_fps: Fraction | None = None
    nominal_fps: Fraction | None = None
    """The lowest rate that all time stamps fit, as ffprobe's `r_frame_rate`."""
    pixel_format: str | None = None
    bit_depth: int = 8
    transfer: str | None = None
    primaries: str | None = None
    matrix: str | None = None
    """How red, green and blue became its samples, as ffprobe's `color_space`."""
    interlaced: bool = False
    duration_s: float | None = None
    frames: int | None = None
    """Frames by the header; packets when they were counted."""
    bit_rate: int | None = None
    late_s: float = 0.0
    """How long after the first of all streams it begins."""

    @property
    def hdr(self) -> bool:
        return self.transfer in HDR_TRANSFERS

    @property
    def rgb(self) -> bool:
        """Whether it is red, green and blue, which says nothing of how to make YUV of it."""
        return (self.pixel_format or "").startswith(_RGB)

    @property
    def presumed_bt709(self) -> bool:
        """Whether it says nothing of its colours, and has a size that players take for BT.709."""
        said = {self.matrix, self.primaries, self.transfer} - {None, "unknown"}
        return not said and not self.rgb and self.height >= HD_LINES

    @property
    def full_chroma(self) -> bool:
        """Whether it has more samples of colour than 4:2:0."""
        return any(ratio in (self.pixel_format or "") for ratio in ("444", "422", "440"))

    @property
    def variable_rate(self) -> bool:
        if self.average_fps is None or self.nominal_fps is None or self.interlaced:
            return False
        return abs(self.average_fps / self.nominal_fps - 1) > VFR_TOLERANCE

    @property
    def display_size(self) -> tuple[float, float]:
        """Width and height in square pixels as a viewer sees them: turned and stretched."""
        width, height = float(self.width * self.pixel_aspect), float(self.height)
        return (height, width) if self.rotation in (90, 270) else (width, height)


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioStream:
    index: int
    codec: str
    channels: int
    sample_rate: int
    layout: str | None = None
    language: str | None = None
    default: bool = False
    duration_s: float | None = None
    packets: int | None = None
    bit_rate: int | None = None
    late_s: float = 0.0
    """How long after the first of all streams it begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubtitleStream:
    index: int
    codec: str
    language: str | None = None
    forced: bool = False
    """For everybody: what is said in a foreign tongue, or written on a sign."""
    packets: int | None = None
    """One a cue, as most codecs have it. None: nobody counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A media file. Cover art is not video; what is neither video nor audio is only counted."""

    formats: tuple[str, ...]
    """ffprobe's names of the container, such as ("mov", "mp4", …)."""
    duration_s: float | None
    size_bytes: int | None = None
    video: VideoStream | None = None
    audio: tuple[AudioStream, ...] = ()
    video_streams: int = 0
    subtitle_streams: int = 0
    subtitles: tuple[SubtitleStream, ...] = ()
    """Those of them that ffmpeg can name."""
    has_cover: bool = False
    clock_jumps: int = 0
    """How often its clock begins again, once measured."""
    measured: bool = False
    """Whether its durations are those of its packets, and not what its header says."""

    @property
    def container(self) -> str:
        return self.formats[0] if self.formats else "unknown"

    @property
    def still(self) -> bool:
        """Whether the file is one picture."""
        return self.container in STILL_FORMATS

    @property
    def main_audio(self) -> AudioStream | None:
        """The stream that its author marked as the default, or else the first."""
        return next((a for a in self.audio if a.default), self.audio[0] if self.audio else None)

    @property
    def declares_duration(self) -> bool:
        return not DECLARING_FORMATS.isdisjoint(self.formats)

    @property
    def needs_measuring(self) -> bool:
        """Whether what the header says of durations is not enough to check an output by."""
        if self.measured:
            return False
        known = all(stream.duration_s for stream in self.audio)
        if self.video is not None:
            known = known and self.video.duration_s is not None
        return not self.still and not ("mov" in self.formats and known)

    @property
    def reads_forward(self) -> bool:
        """
        Whether its header tells enough for a command, and its bytes are read in their order.

        What an output is checked by still has to be measured, once all of it is here.
        """
        return "matroska" in self.formats and self.duration_s is not None


def parse_probe(document: Mapping[str, Any]) -> Probe:
    """Read the output of `ffprobe -show_format -show_streams -of json`."""
    container = document.get("format", {})
    streams: Sequence[Mapping[str, Any]] = document.get("streams", [])
    videos = [s for s in streams if s.get("codec_type") == "video" and _is_usable(s)]
    moving = [s for s in videos if not s.get("disposition", {}).get("attached_pic")]
    audio = [s for s in streams if s.get("codec_type") == "audio" and _is_usable(s)]
    first_s = min((_start(stream) for stream in (*moving, *audio)), default=0.0)
    return Probe(
        formats=tuple(str(container.get("format_name", "")).split(",")),
        duration_s=_positive(container.get("duration")),
        size_bytes=_whole(container.get("size")),
        video=_parse_video(_best(moving), first_s) if moving else None,
        audio=tuple(_parse_audio(stream, first_s) for stream in audio),
        video_streams=len(moving),
        subtitle_streams=sum(s.get("codec_type") == "subtitle" for s in streams),
        subtitles=tuple(
            SubtitleStream(
                index=int(stream["index"]),
                codec=str(stream["codec_name"]),
                language=stream.get("tags", {}).get("language"),
                forced=bool(stream.get("disposition", {}).get("forced")),
            )
            for stream in streams
            if stream.get("codec_type") == "subtitle"
            and stream.get("codec_name") not in (None, "none", "unknown")
        ),
        has_cover=len(moving) < len(videos),
    )


def _is_usable(stream: Mapping[str, Any]) -> bool:
    """Phones write streams that ffmpeg cannot name; they are left out, never fatal."""
    if stream.get("codec_name") in (None, "none", "unknown"):
        return False
    if stream["codec_type"] == "video":
        return bool(stream.get("width") and stream.get("height") and stream.get("nb_frames") != "0")
    return bool(stream.get("channels") and _whole(stream.get("sample_rate")))


def _best(videos: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    default = [s for s in videos if s.get("disposition", {}).get("default")]
    return (default or videos)[0]


def _start(stream: Mapping[str, Any]) -> float:
    seconds = _number(str(stream.get("start_time", "")))
    return seconds if seconds is not None and math.isfinite(seconds) else 0.0


def _parse_video(stream: Mapping[str, Any], first_s: float) -> VideoStream:
    pixel_format = stream.get("pix_fmt")
    return VideoStream(
        index=int(stream["index"]),
        codec=str(stream["codec_name"]),
        width=int(stream["width"]),
        height=int(stream["height"]),
        rotation=_rotation(stream),
        pixel_aspect=_ratio(stream.get("sample_aspect_ratio"), ":") or Fraction(1),
        average_fps=_ratio(stream.get("avg_frame_rate"), "/"),
        nominal_fps=_ratio(stream.get("r_frame_rate"), "/"),
        pixel_format=pixel_format,
        bit_depth=_bit_depth(stream, pixel_format),
        transfer=stream.get("color_transfer"),
        primaries=stream.get("color_primaries"),
        matrix=stream.get("color_space"),
        interlaced=stream.get("field_order") in ("tt", "bb", "tb", "bt"),
        duration_s=_positive(stream.get("duration")),
        frames=_whole(stream.get("nb_read_packets")) or _shown_frames(stream),
        bit_rate=_whole(stream.get("bit_rate")),
        late_s=_start(stream) - first_s,
    )


def _shown_frames(stream: Mapping[str, Any]) -> int | None:
    """
    The header's number of frames, less those that an edit list of MP4 leaves out.

    The number counts what is stored, the duration what is shown: a file that was cut without
    encoding it anew begins with a keyframe long before its first picture.
    """
    stored = _whole(stream.get("nb_frames"))
    fps, shown_s = _ratio(stream.get("avg_frame_rate"), "/"), _positive(stream.get("duration"))
    if stored is None or fps is None or shown_s is None:
        return stored
    shown = round(shown_s * float(fps))
    return shown if stored > shown + 1 else stored


def _parse_audio(stream: Mapping[str, Any], first_s: float) -> AudioStream:
    return AudioStream(
        index=int(stream["index"]),
        codec=str(stream["codec_name"]),
        channels=int(stream["channels"]),
        sample_rate=int(stream["sample_rate"]),
        layout=stream.get("channel_layout"),
        language=stream.get("tags", {}).get("language"),
        default=bool(stream.get("disposition", {}).get("default")),
        duration_s=_positive(stream.get("duration")),
        packets=_whole(stream.get("nb_read_packets")),
        bit_rate=_whole(stream.get("bit_rate")),
        late_s=_start(stream) - first_s,
    )


def _rotation(stream: Mapping[str, Any]) -> int:
    """From the display matrix, which turns counter-clockwise, or from the older tag."""
    for data in stream.get("side_data_list", []):
        if "rotation" in data:
            return round(-float(data["rotation"]) / 90) * 90 % 360
    tag = stream.get("tags", {}).get("rotate")
    return round(float(tag) / 90) * 90 % 360 if tag else 0


def _bit_depth(stream: Mapping[str, Any], pixel_format: str | None) -> int:
    raw = _whole(stream.get("bits_per_raw_sample"))
    if raw:
        return raw
    for depth in (16, 14, 12, 10, 9):
        if pixel_format and pixel_format.removesuffix("le").removesuffix("be").endswith(
            (f"p{depth}", f"p0{depth}")
        ):
            return depth
    return 8


def _ratio(text: Any, separator: str) -> Fraction | None:
    above, _, below = str(text or "").partition(separator)
    try:
        value = Fraction(int(above), int(below or "1"))
    except (ValueError, ZeroDivisionError):
        return None
    return value if value > 0 else None


def _positive(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if value > 0 and math.isfinite(value) else None


def _whole(text: Any) -> int | None:
    try:
        return int(text)
    except (TypeError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Span:
    """What the packets of one stream cover, in seconds of a clock that never goes back."""

    start_s: float
    end_s: float
    packets: int
    jumps: int = 0
    """How often the stream's own clock went back."""


def measure_packets(lines: Iterable[str], *, may_restart: bool = False) -> dict[int, Span]:
    """
    Read what ffprobe prints for `build_measure_command`: stream, times and duration a line.

    Packets without a time stamp count and cover nothing. With `may_restart` a clock that goes back
    begins anew at the end of what was before, as ffmpeg reads it.
    """
    meters: dict[int, _Meter] = {}
    for line in lines:
        stream, *times = line.strip().split(",")
        if not stream.isdigit():
            continue
        shown, decoded, length = (_number(text) for text in (*times, "", "", "")[:3])
        meter = meters.setdefault(int(stream), _Meter(may_restart))
        meter.add(shown, decoded, length or 0.0)
    return {index: meter.span for index, meter in meters.items()}


class _Meter:
    """Adds up the packets of one stream."""

    def __init__(self, may_restart: bool) -> None:
        self._may_restart = may_restart
        self._shift = 0.0
        self._last: float | None = None
        self._start: float | None = None
        self._end = 0.0
        self._packets = self._jumps = 0

    def add(self, shown: float | None, decoded: float | None, length: float) -> None:
        self._packets += 1
        if shown is None:
            return
        if self._may_restart and decoded is not None:
            if self._last is not None and decoded < self._last - JUMP_BACK_S:
                self._jumps += 1
                self._shift = self._end - shown
            self._last = decoded
        start = shown + self._shift
        self._start = start if self._start is None else min(self._start, start)
        self._end = max(self._end, start + length)

    @property
    def span(self) -> Span:
        return Span(self._start or 0.0, self._end, self._packets, self._jumps)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def apply_measurements(probe: Probe, spans: Mapping[int, Span]) -> Probe:
    """
    The probe with the durations that its packets really cover, without streams that have none.

    The container's own duration stays where its format declares one, so that a file that was cut
    off is seen: its packets end before it.
    """
    video = probe.video
    if video is not None:
        shown = spans.get(video.index)
        video = (
            None
            if shown is None
            else replace(video, duration_s=shown.end_s - shown.start_s, frames=shown.packets)
        )
    audio = tuple(
        replace(stream, duration_s=span.end_s - span.start_s, packets=span.packets)
        for stream in probe.audio
        if (span := spans.get(stream.index)) is not None
    )
    subtitles = tuple(
        replace(stream, packets=spans[stream.index].packets if stream.index in spans else 0)
        for stream in probe.subtitles
    )
    begin = min((span.start_s for span in spans.values()), default=0.0)
    end = max((span.end_s for span in spans.values()), default=0.0)
    declared = probe.duration_s if probe.declares_duration else None
    return replace(
        probe,
        video=video,
        audio=audio,
        subtitles=subtitles,
        duration_s=declared or (end - begin) or None,
        measured=True,
        clock_jumps=max((span.jumps for span in spans.values()), default=0),
    )


def missing_seconds(probe: Probe, spans: Mapping[int, Span]) -> float:
    """How much earlier the packets end than the container declares; 0 where nothing is declared."""
    if not probe.declares_duration or probe.duration_s is None or not spans:
        return 0.0
    begin = min(0.0, *(span.start_s for span in spans.values()))
    end = max(span.end_s for span in spans.values())
    return max(0.0, probe.duration_s - (end - begin))
