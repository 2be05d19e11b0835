"""
Decide what each output becomes. Pure: request and probe in, a plan or the wrong fields out.

`check_request` needs no probe and is asked before a job is accepted; `plan_output` is asked by the
worker once the source is known. Both name the field that is wrong by its JSON pointer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from encoder_core.errors import FieldProblem, InvalidRequest
from encoder_core.failures import Warned
from encoder_core.media.codecs import (
    AUDIO_ENCODERS,
    COPY,
    NONE,
    VIDEO_ENCODERS,
    AudioEncoder,
    VideoEncoder,
    find_audio_encoder,
    find_video_encoder,
)
from encoder_core.media.containers import CONTAINERS, ContainerKind, Kind
from encoder_core.media.probe import AudioStream, Probe, VideoStream
from encoder_core.specs import Container, JobSpec, OutputSpec, parse_bitrate

GOP_S: Final = 2.0  # players seek to keyframes; every rendition cuts at the same instants
GIF_FPS: Final = Fraction(12)  # browsers show up to 50; size grows with each frame
GIF_WIDTH: Final = 480
POSTER_AT: Final = 0.1  # the first frames are often black; a tenth in there is something to see
MAX_CFR: Final = Fraction(60)  # phones claim 90,000; a screen recording gains nothing above 60
STANDARD_RATES: Final = tuple(
    Fraction(text)
    for text in ("10", "12", "15", "24000/1001", "24", "25", "30000/1001", "30", "48", "50",
                 "60000/1001", "60")
)  # fmt: skip
MAX_PICTURES: Final = 1000
VBV_RATIO: Final = 1.5  # peaks of one and a half times the average play on every device we know

_PICTURE_FIELDS: Final = (
    "video_codec", "video_bitrate", "max_bitrate", "crf", "width", "height", "frame_rate",
    "profile", "preset", "gop_seconds", "fit", "upscale",
)  # fmt: skip
_SOUND_FIELDS: Final = ("audio_codec", "audio_bitrate", "audio_channels", "audio_sample_rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoPlan:
    stream: int
    encoder: VideoEncoder | None
    """None: the stream is copied."""
    family: str
    width: int
    height: int
    """As stored in the file. A copied stream that is turned keeps its stored size."""
    scale: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    """Cut out of the middle, after scaling."""
    frame_rate: Fraction | None = None
    """A constant rate to make. None: the frames of the source as they come."""
    fps: Fraction | None = None
    """What the rate will be, for the keyframe distance and the check."""
    deinterlace: bool = False
    tone_map: bool = False
    bitrate: int | None = None
    max_bitrate: int | None = None
    crf: float | None = None
    preset: str | None = None
    profile: str | None = None
    gop_frames: int | None = None
    duration_s: float | None = None
    frames: int | None = None
    """How many there will be, when that can be known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioPlan:
    stream: int
    encoder: AudioEncoder | None
    """None: the stream is copied."""
    family: str
    channels: int
    sample_rate: int
    bitrate: int | None = None
    duration_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPlan:
    """One output, decided."""

    index: int
    container: Container
    kind: ContainerKind
    video: VideoPlan | None
    audio: AudioPlan | None
    start_s: float = 0.0
    length_s: float | None = None
    """Cut to so much. None: to the end."""
    duration_s: float | None = None
    """How long it will be, when that can be known."""
    pictures: tuple[float, ...] = ()
    """Instants of which a picture is taken, each within the clip."""
    is_set: bool = False
    """Whether it is a set of numbered files rather than one file."""
    warnings: tuple[Warned, ...] = ()

    @property
    def file_name(self) -> str:
        """How the encoder names it in the scratch folder; a pattern for a set of pictures."""
        number = "-%05d" if self.is_set else ""
        return f"{self.index}{number}.{self.kind.extension}"


class _Notes:
    """What there is to say of one output while it is being planned."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.problems: list[FieldProblem] = []
        self.warnings: list[Warned] = []

    def refuse(self, field: str, code: str, detail: str) -> None:
        self.problems.append(FieldProblem(f"/outputs/{self.index}{_pointer(field)}", code, detail))

    def warn(self, code: str, message: str, field: str | None = None) -> None:
        pointer = None if field is None else f"/outputs/{self.index}{_pointer(field)}"
        self.warnings.append(Warned(code=code, message=message, output=self.index, pointer=pointer))


def _pointer(field: str) -> str:
    """`video_codec` and `clip/start` as they are written on the wire."""
    steps = []
    for step in field.split("/"):
        first, *rest = step.split("_")
        steps.append(first + "".join(word.title() for word in rest))
    return "".join(f"/{step}" for step in steps if step)


# --- What the request alone tells ------------------------------------------------------------


def check_request(spec: JobSpec) -> list[FieldProblem]:
    """What no source could make possible, found before a job is accepted."""
    problems: list[FieldProblem] = []
    for index, output in enumerate(spec.outputs):
        notes = _Notes(index)
        _check_output(output, notes)
        problems += notes.problems
    return problems


def _check_output(spec: OutputSpec, notes: _Notes) -> None:
    kind = CONTAINERS.get(spec.container)
    if kind is None:
        made = ", ".join(container.value for container in CONTAINERS)
        notes.refuse(
            "container",
            "not_available",
            f"{spec.container.value} is not available in this version; choose one of {made}",
        )
        return
    if kind.kind is Kind.AUDIO:
        _refuse_fields(spec, _PICTURE_FIELDS, f"{spec.container.value} holds no picture", notes)
    if kind.kind in (Kind.PICTURE, Kind.ANIMATION):
        _refuse_fields(spec, _SOUND_FIELDS, f"{spec.container.value} holds no sound", notes)
        _refuse_fields(
            spec,
            ("video_bitrate", "max_bitrate", "crf", "profile", "preset", "gop_seconds"),
            f"{spec.container.value} has no such setting",
            notes,
        )
    _check_video(spec, kind, notes)
    _check_audio(spec, kind, notes)
    if kind.kind is Kind.VIDEO and spec.video_codec == NONE and spec.audio_codec == NONE:
        notes.refuse(
            "audio_codec", "nothing_left", "with neither picture nor sound nothing is left"
        )


def _refuse_fields(spec: OutputSpec, fields: Sequence[str], why: str, notes: _Notes) -> None:
    for field in fields:
        value = getattr(spec, field)
        if value is not None and value is not False and value != NONE:
            notes.refuse(field, "not_applicable", f"{why}; leave it out")


def _check_video(spec: OutputSpec, kind: ContainerKind, notes: _Notes) -> None:
    if not kind.video or spec.video_codec == NONE:
        if kind.kind in (Kind.PICTURE, Kind.ANIMATION):
            notes.refuse("video_codec", "nothing_left", "without a picture nothing is left")
        return
    name = spec.video_codec or kind.default_video or ""
    if name == COPY:
        _refuse_fields(
            spec,
            [field for field in _PICTURE_FIELDS if field != "video_codec"],
            "a copied stream stays as it is",
            notes,
        )
        if kind.kind in (Kind.PICTURE, Kind.ANIMATION):
            notes.refuse("video_codec", "not_applicable", "pictures are always encoded")
        return
    encoder = find_video_encoder(name)
    if encoder is None:
        known = ", ".join(n for n, e in VIDEO_ENCODERS.items() if e.family in kind.video)
        notes.refuse("video_codec", "unknown_codec", f"is not known here; choose one of {known}")
        return
    if encoder.family not in kind.video:
        notes.refuse(
            "video_codec",
            "codec_not_in_container",
            f"{spec.container.value} cannot hold {encoder.family}; it holds {_list(kind.video)}",
        )
    if spec.crf is not None and (encoder.default_crf is None or spec.crf > encoder.max_crf):
        detail = (
            f"{encoder.name} has no constant quality; give videoBitrate"
            if encoder.default_crf is None
            else f"{encoder.name} takes 0 to {encoder.max_crf:g}"
        )
        notes.refuse("crf", "out_of_range", detail)
    _check_choice(spec.preset, encoder.presets, "preset", encoder.name, notes)
    _check_choice(spec.profile, encoder.profiles, "profile", encoder.name, notes)
    peak, average = spec.max_bitrate, spec.video_bitrate
    if peak and average and parse_bitrate(peak) < parse_bitrate(average):
        notes.refuse("max_bitrate", "out_of_range", "must not be below videoBitrate")


def _check_choice(
    value: str | None, choices: Sequence[str], field: str, encoder: str, notes: _Notes
) -> None:
    if value is None or value in choices:
        return
    detail = f"{encoder} takes {_list(choices)}" if choices else f"{encoder} has none"
    notes.refuse(field, "unknown_choice", detail)


def _check_audio(spec: OutputSpec, kind: ContainerKind, notes: _Notes) -> None:
    if not kind.audio:
        return
    if spec.audio_codec == NONE:
        if kind.kind is Kind.AUDIO:
            notes.refuse("audio_codec", "nothing_left", "without sound nothing is left")
        return
    name = spec.audio_codec or kind.default_audio or ""
    if name == COPY:
        _refuse_fields(
            spec,
            [field for field in _SOUND_FIELDS if field != "audio_codec"],
            "a copied stream stays as it is",
            notes,
        )
        return
    encoder = find_audio_encoder(name)
    if encoder is None:
        known = ", ".join(n for n, e in AUDIO_ENCODERS.items() if e.family in kind.audio)
        notes.refuse("audio_codec", "unknown_codec", f"is not known here; choose one of {known}")
        return
    if encoder.family not in kind.audio:
        notes.refuse(
            "audio_codec",
            "codec_not_in_container",
            f"{spec.container.value} cannot hold {encoder.family}; it holds {_list(kind.audio)}",
        )
    if spec.audio_channels is not None and spec.audio_channels > encoder.max_channels:
        notes.refuse(
            "audio_channels",
            "out_of_range",
            f"{encoder.name} makes at most {encoder.max_channels} channels",
        )
    rates = encoder.sample_rates
    if spec.audio_sample_rate is not None and rates and spec.audio_sample_rate not in rates:
        notes.refuse("audio_sample_rate", "unknown_choice", f"{encoder.name} takes {_list(rates)}")


def _list(values: Sequence[object]) -> str:
    return ", ".join(str(value) for value in values)


# --- What request and source tell together ---------------------------------------------------


def plan_output(index: int, spec: OutputSpec, probe: Probe) -> OutputPlan:
    """
    Decide one output.

    Raises InvalidRequest, whose problems name the fields, when it cannot be made of this source.
    """
    notes = _Notes(index)
    _check_output(spec, notes)
    _stop_at_problems(notes)
    kind = CONTAINERS[spec.container]
    if probe.video is None and not probe.audio:
        notes.refuse("", "no_streams", "the source has neither picture nor sound")
        _stop_at_problems(notes)
    start, length, duration = _plan_clip(spec, probe, notes)
    video = _plan_video(spec, kind, probe, notes)
    audio = _plan_audio(spec, kind, probe, notes)
    pictures = _plan_pictures(spec, kind, probe, start, duration, notes)
    if kind.kind is Kind.VIDEO and not notes.problems and video is None and audio is None:
        notes.refuse("container", "no_streams", "nothing that was asked for is in the source")
    _stop_at_problems(notes)
    if probe.subtitle_streams and kind.kind is Kind.VIDEO:
        notes.warn("subtitles_dropped", "The source's subtitles are not in the output.")
    if video is not None:
        video = _with_length(video, start, length, probe, len(pictures) or None)
    if audio is not None:
        audio = _with_audio_length(audio, start, length, probe)
    return OutputPlan(
        index=index,
        container=spec.container,
        kind=kind,
        video=video,
        audio=audio,
        start_s=start,
        length_s=length,
        duration_s=None if kind.kind is Kind.PICTURE else _longest(video, audio) or duration,
        pictures=pictures,
        is_set=spec.thumbnails is not None,
        warnings=tuple(notes.warnings),
    )


def _stop_at_problems(notes: _Notes) -> None:
    if notes.problems:
        raise InvalidRequest(notes.problems)


def _plan_clip(
    spec: OutputSpec, probe: Probe, notes: _Notes
) -> tuple[float, float | None, float | None]:
    """Where it starts, what it is cut to, and how long that makes it."""
    if spec.clip is None:
        return 0.0, None, probe.duration_s
    start, length = spec.clip.start, spec.clip.duration
    if probe.duration_s is None:
        return start, length, length
    left = probe.duration_s - start
    if left <= 0:
        notes.refuse("clip/start", "beyond_end", f"the source ends after {probe.duration_s:.3f} s")
        return start, length, None
    if length is not None and length > left + 0.5:
        notes.warn("clip_shortened", f"The clip ends with the source after {left:.3f} s.",
                   "clip/duration")  # fmt: skip
    return start, length, left if length is None else min(length, left)


def _plan_video(
    spec: OutputSpec, kind: ContainerKind, probe: Probe, notes: _Notes
) -> VideoPlan | None:
    if not kind.video or spec.video_codec == NONE:
        return None
    source = probe.video
    if source is None:
        if kind.kind is not Kind.VIDEO:
            notes.refuse("container", "no_video", "the source has no picture")
        else:
            notes.warn("no_video", "The source has no picture; the output has sound only.")
        return None
    if probe.video_streams > 1:
        notes.warn("video_stream_chosen", f"Of {probe.video_streams} video streams one is used.")
    if spec.video_codec == COPY:
        return _copy_video(spec, kind, source, notes)
    encoder = find_video_encoder(spec.video_codec or kind.default_video or "")
    assert encoder is not None, "checked by _check_output"
    geometry = _plan_size(spec, kind, encoder, source, notes)
    frame_rate = _plan_rate(spec, kind, source, notes)
    fps = frame_rate or source.average_fps or source.nominal_fps
    _warn_of_colours(encoder, source, notes)
    bitrate = parse_bitrate(spec.video_bitrate) if spec.video_bitrate else None
    crf = spec.crf if spec.crf is not None else (encoder.default_crf if bitrate is None else None)
    return VideoPlan(
        stream=source.index,
        encoder=encoder,
        family=encoder.family,
        width=(geometry.crop or geometry.size)[0],
        height=(geometry.crop or geometry.size)[1],
        scale=geometry.size if geometry.scaled else None,
        crop=geometry.crop,
        frame_rate=frame_rate,
        fps=fps,
        deinterlace=source.interlaced,
        tone_map=source.hdr,
        bitrate=bitrate,
        max_bitrate=_plan_peak(spec, bitrate),
        crf=crf,
        preset=spec.preset or encoder.default_preset,
        profile=spec.profile,
        gop_frames=max(1, round((spec.gop_seconds or GOP_S) * fps)) if fps else None,
    )


def _plan_peak(spec: OutputSpec, bitrate: int | None) -> int | None:
    if spec.max_bitrate is not None:
        return parse_bitrate(spec.max_bitrate)
    return None if bitrate is None else int(bitrate * VBV_RATIO)


def _copy_video(
    spec: OutputSpec, kind: ContainerKind, source: VideoStream, notes: _Notes
) -> VideoPlan:
    if source.codec not in kind.video:
        notes.refuse(
            "video_codec",
            "codec_not_in_container",
            f"the source is {source.codec}, which {spec.container.value} cannot hold; name a codec",
        )
    if spec.clip is not None:
        notes.warn("clip_at_keyframe", "A copied stream can only be cut at a keyframe.", "clip")
    return VideoPlan(
        stream=source.index,
        encoder=None,
        family=source.codec,
        width=source.width,
        height=source.height,
        fps=source.average_fps,
    )


@dataclass(frozen=True, slots=True)
class _Geometry:
    size: tuple[int, int]
    crop: tuple[int, int] | None
    scaled: bool


def _plan_size(
    spec: OutputSpec,
    kind: ContainerKind,
    encoder: VideoEncoder,
    source: VideoStream,
    notes: _Notes,
) -> _Geometry:
    """Scale and crop. Pixels come out square; 4:2:0 needs even sizes."""
    width, height = source.display_size
    step = 2 if encoder.even else 1
    box_width, box_height = spec.width, spec.height
    if box_width is None and box_height is None and kind.kind is Kind.ANIMATION:
        box_width = min(GIF_WIDTH, int(width))
    crop: tuple[int, int] | None = None
    if box_width is None and box_height is None:
        target = (width, height)
    elif box_width is None or box_height is None:
        factor = box_width / width if box_width else (box_height or 0) / height
        target = _scaled(width, height, factor, spec, notes)
    elif spec.fit == "stretch":
        factor = min(1.0, width / box_width, height / box_height) if not spec.upscale else 1.0
        _warn_of_upscale(factor, notes)
        target = (box_width * factor, box_height * factor)
    elif spec.fit == "none":
        target = (width, height)
        crop = (_grid(min(width, box_width), step), _grid(min(height, box_height), step))
    elif spec.fit == "cover":
        shrink = min(1.0, width / box_width, height / box_height) if not spec.upscale else 1.0
        _warn_of_upscale(shrink, notes)
        crop = (_grid(box_width * shrink, step), _grid(box_height * shrink, step))
        factor = max(crop[0] / width, crop[1] / height)
        target = (max(width * factor, crop[0]), max(height * factor, crop[1]))
    else:
        target = _scaled(width, height, min(box_width / width, box_height / height), spec, notes)
    size = (_grid(target[0], step), _grid(target[1], step))
    if crop is not None and crop == size:
        crop = None
    if min(size) < 16 and encoder.even:
        notes.refuse("width", "too_small", f"it would be {size[0]}x{size[1]}; give a larger size")
    turned = (source.height, source.width) if source.rotation in (90, 270) else (
        source.width, source.height)  # fmt: skip
    return _Geometry(size, crop, scaled=size != turned or source.pixel_aspect != 1)


def _scaled(
    width: float, height: float, factor: float, spec: OutputSpec, notes: _Notes
) -> tuple[float, float]:
    if factor > 1 and not spec.upscale:
        _warn_of_upscale(1 / factor, notes)
        factor = 1.0
    return width * factor, height * factor


def _warn_of_upscale(shrink: float, notes: _Notes) -> None:
    # A pixel of rounding is not worth a word.
    if shrink < 0.99:
        notes.warn(
            "not_upscaled",
            "The output is no larger than the source; set upscale to true for the asked size.",
        )


def _grid(value: float, step: int) -> int:
    """The nearest size that the codec can have. Odd sources lose a line rather than gain one."""
    return max(step, int(value / step + 0.5 - 1e-9) * step)


def _plan_rate(
    spec: OutputSpec, kind: ContainerKind, source: VideoStream, notes: _Notes
) -> Fraction | None:
    if kind.kind is Kind.PICTURE:
        return None
    own = source.average_fps or source.nominal_fps
    if spec.frame_rate is not None:
        return _nearest_rate(spec.frame_rate)
    if kind.kind is Kind.ANIMATION:
        return min(GIF_FPS, own) if own else GIF_FPS
    if not source.variable_rate or own is None:
        return None
    rate = _constant_rate(source)
    notes.warn(
        "frame_rate_made_constant",
        f"The source's frame rate varies; the output has {float(rate):g} frames a second.",
    )
    return rate


def _nearest_rate(rate: float) -> Fraction:
    """29.97 means 30000/1001."""
    for standard in STANDARD_RATES:
        if abs(float(standard) - rate) < 0.005:
            return standard
    return Fraction(rate).limit_denominator(1001)


def _constant_rate(source: VideoStream) -> Fraction:
    """The rate that keeps all frames where that is sane, else the next standard one above."""
    average, nominal = source.average_fps, source.nominal_fps
    assert average is not None
    if nominal is not None and average <= nominal <= min(MAX_CFR, 2 * average):
        return nominal
    return next((rate for rate in STANDARD_RATES if rate >= average * Fraction(99, 100)), MAX_CFR)


def _warn_of_colours(encoder: VideoEncoder, source: VideoStream, notes: _Notes) -> None:
    if source.hdr:
        notes.warn("hdr_to_sdr", "The source is HDR; the output is SDR (BT.709).")
    elif source.bit_depth > 8 and encoder.pixel_format == "yuv420p":
        notes.warn("depth_reduced", f"The source has {source.bit_depth} bits; the output has 8.")
    if source.interlaced:
        notes.warn("deinterlaced", "The source is interlaced; the output is progressive.")


def _plan_audio(
    spec: OutputSpec, kind: ContainerKind, probe: Probe, notes: _Notes
) -> AudioPlan | None:
    if not kind.audio or spec.audio_codec == NONE:
        return None
    source = probe.main_audio
    if source is None:
        if kind.kind is Kind.AUDIO:
            notes.refuse("container", "no_audio", "the source has no sound")
        else:
            notes.warn("no_audio", "The source has no sound; neither has the output.")
        return None
    if len(probe.audio) > 1:
        language = f" ({source.language})" if source.language else ""
        notes.warn(
            "audio_stream_chosen", f"Of {len(probe.audio)} audio streams one is used{language}."
        )
    if spec.audio_codec == COPY:
        return _copy_audio(spec, kind, source, notes)
    encoder = find_audio_encoder(spec.audio_codec or kind.default_audio or "")
    assert encoder is not None, "checked by _check_output"
    channels = _plan_channels(spec, encoder, source, notes)
    bitrate = parse_bitrate(spec.audio_bitrate) if spec.audio_bitrate else None
    if bitrate is not None and encoder.bitrate_per_channel is None:
        notes.warn("bitrate_ignored", f"{encoder.name} is lossless.", "audio_bitrate")
        bitrate = None
    elif bitrate is None and encoder.bitrate_per_channel is not None:
        bitrate = encoder.bitrate_per_channel * channels
    return AudioPlan(
        stream=source.index,
        encoder=encoder,
        family=encoder.family,
        channels=channels,
        sample_rate=_plan_sample_rate(spec, encoder, source),
        bitrate=bitrate,
    )


def _copy_audio(
    spec: OutputSpec, kind: ContainerKind, source: AudioStream, notes: _Notes
) -> AudioPlan:
    if source.codec not in kind.audio:
        notes.refuse(
            "audio_codec",
            "codec_not_in_container",
            f"the source is {source.codec}, which {spec.container.value} cannot hold; name a codec",
        )
    return AudioPlan(
        stream=source.index,
        encoder=None,
        family=source.codec,
        channels=source.channels,
        sample_rate=source.sample_rate,
    )


def _plan_channels(
    spec: OutputSpec, encoder: AudioEncoder, source: AudioStream, notes: _Notes
) -> int:
    """Stereo at most unless more is asked for: that is what plays everywhere."""
    if spec.audio_channels is None:
        channels = min(source.channels, 2, encoder.max_channels)
        if channels < source.channels:
            notes.warn(
                "downmixed",
                f"{source.channels} channels become {channels}; audioChannels keeps more.",
            )
        return channels
    # Mono to stereo is a copy of the channel; anything wider would be invented.
    possible = max(source.channels, 2)
    if spec.audio_channels > possible:
        notes.warn("channels_not_raised", f"The source has only {source.channels} channels.",
                   "audio_channels")  # fmt: skip
    return min(spec.audio_channels, possible)


def _plan_sample_rate(spec: OutputSpec, encoder: AudioEncoder, source: AudioStream) -> int:
    wanted = spec.audio_sample_rate or source.sample_rate
    if not encoder.sample_rates or wanted in encoder.sample_rates:
        return wanted
    higher = [rate for rate in encoder.sample_rates if rate >= wanted]
    return min(higher) if higher else max(encoder.sample_rates)


def _plan_pictures(
    spec: OutputSpec,
    kind: ContainerKind,
    probe: Probe,
    start: float,
    duration: float | None,
    notes: _Notes,
) -> tuple[float, ...]:
    """The instants of the source of which pictures are taken."""
    if kind.kind is not Kind.PICTURE or notes.problems:
        return ()
    if probe.still or duration is None:
        if spec.thumbnails is not None and (probe.still or spec.thumbnails.at is None):
            notes.refuse(
                "thumbnails", "no_duration", "the source has no duration to take them from"
            )
        return (start,)
    # The picture has its own length: a longer sound track has no pictures to show.
    shown = probe.video.duration_s if probe.video and probe.video.duration_s else probe.duration_s
    end = min(start + duration, shown or start + duration)
    span = max(end - start, 0.0)
    if spec.thumbnails is None:
        return (start + POSTER_AT * span,)
    if spec.thumbnails.count is not None:
        count = spec.thumbnails.count
        return tuple(start + span * (number + 0.5) / count for number in range(count))
    if spec.thumbnails.interval_seconds is not None:
        interval = spec.thumbnails.interval_seconds
        count = max(1, math.ceil(span / interval - 1e-6))
        if count > MAX_PICTURES:
            notes.refuse(
                "thumbnails/interval_seconds",
                "too_many",
                f"that makes {count} pictures; at most {MAX_PICTURES} are made",
            )
        return tuple(start + number * interval for number in range(min(count, MAX_PICTURES)))
    instants = sorted(set(spec.thumbnails.at or ()))
    if instants and instants[-1] >= end:
        notes.refuse("thumbnails/at", "beyond_end", f"the source ends after {end:.3f} s")
    return tuple(instants)


def _with_length(
    plan: VideoPlan, start: float, length: float | None, probe: Probe, pictures: int | None
) -> VideoPlan:
    if pictures is not None:
        return replace(plan, frames=pictures)
    source = probe.video
    assert source is not None
    duration = _cut(source.duration_s or probe.duration_s, start, length)
    frames: int | None = None
    if plan.frame_rate is not None and duration is not None:
        frames = round(duration * plan.frame_rate)
    elif start == 0 and length is None and source.frames is not None:
        frames = source.frames
    elif plan.fps is not None and duration is not None:
        frames = round(duration * plan.fps)
    return replace(plan, duration_s=duration, frames=frames)


def _with_audio_length(
    plan: AudioPlan, start: float, length: float | None, probe: Probe
) -> AudioPlan:
    source = next(stream for stream in probe.audio if stream.index == plan.stream)
    return replace(plan, duration_s=_cut(source.duration_s or probe.duration_s, start, length))


def _cut(duration: float | None, start: float, length: float | None) -> float | None:
    if duration is None:
        return None
    left = max(0.0, duration - start)
    return left if length is None else min(left, length)


def _longest(video: VideoPlan | None, audio: AudioPlan | None) -> float | None:
    known = [plan.duration_s for plan in (video, audio) if plan and plan.duration_s is not None]
    return max(known, default=None)
