"""Decide the moving picture of an output: which stream, encoded how, how many frames. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from encoder_core.media.codecs import COPY, NONE, VideoEncoder, find_video_encoder
from encoder_core.media.containers import ContainerKind, Kind
from encoder_core.media.copying import may_copy_video
from encoder_core.media.geometry import plan_size, warn_of_limit
from encoder_core.media.notes import Notes
from encoder_core.media.planned import VideoPlan
from encoder_core.media.probe import Probe, VideoStream
from encoder_core.media.rates import UNKNOWN_RATE, plan_rate
from encoder_core.media.timing import cut
from encoder_core.specs import OutputSpec, VideoSettings, parse_bitrate

GIF_WIDTH: Final = 480
SPRITE_WIDTH: Final = 160  # what players show above their time line
GOP_S: Final = 2.0  # players seek to keyframes; every rendition cuts at the same instants
VBV_RATIO: Final = 1.5  # peaks of one and a half times the average play on every device we know


def plan_video(
    spec: OutputSpec, kind: ContainerKind, probe: Probe, notes: Notes
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
    if probe.still and kind.kind is not Kind.PICTURE:
        notes.warn("still_source", "The source is one picture; the output shows it for one frame.")
    if spec.video_codec == COPY:
        return _copy_video(spec, kind, source, notes)
    plan = encode_video(
        spec,
        kind,
        source,
        notes,
        rotate=spec.rotate or 0,
        default_width=_default_width(spec, kind),
    )
    if plan.limited:
        warn_of_limit(notes)
    if may_copy_video(spec, kind, probe, source, plan):
        notes.warn("video_copied", "The picture is what was asked for already: it is copied.")
        return _copied(source)
    return plan


def encode_video(
    spec: VideoSettings,
    kind: ContainerKind,
    source: VideoStream,
    notes: Notes,
    *,
    rotate: int = 0,
    default_width: int | None = None,
) -> VideoPlan:
    """One picture that is made anew, and no larger than the source unless that was asked for."""
    encoder = find_video_encoder(spec.video_codec or kind.default_video or "")
    assert encoder is not None, "checked by check_output"
    seen = replace(source, rotation=(source.rotation + rotate) % 360)
    geometry = plan_size(spec, encoder, seen, notes, default_width=default_width)
    frame_rate = plan_rate(spec, kind, source, notes)
    fps = frame_rate or source.average_fps or source.nominal_fps
    _warn_of_pixels(encoder, source, notes)
    if geometry.rounded:
        notes.warn(
            "size_rounded",
            f"The source has {source.width}x{source.height}; the codec needs even numbers.",
        )
    bitrate = parse_bitrate(spec.video_bitrate) if spec.video_bitrate else None
    crf = spec.crf if spec.crf is not None else (encoder.default_crf if bitrate is None else None)
    return VideoPlan(
        stream=source.index,
        encoder=encoder,
        family=encoder.family,
        width=(geometry.crop or geometry.size)[0],
        height=(geometry.crop or geometry.size)[1],
        source_size=(int(source.display_size[0]), int(source.display_size[1])),
        scale=geometry.size if geometry.scaled else None,
        crop=geometry.crop,
        limited=geometry.limited,
        frame_rate=frame_rate,
        fps=fps,
        rotate=rotate,
        deinterlace=source.interlaced,
        tone_map=source.hdr,
        from_rgb=source.rgb and kind.kind is Kind.VIDEO,
        presumed_bt709=source.presumed_bt709,
        bitrate=bitrate,
        max_bitrate=_plan_peak(spec, bitrate),
        crf=crf,
        preset=spec.preset or encoder.default_preset,
        profile=spec.profile,
        gop_frames=max(1, round((spec.gop_seconds or GOP_S) * fps)) if fps else None,
    )


def _default_width(spec: OutputSpec, kind: ContainerKind) -> int | None:
    if kind.kind is Kind.ANIMATION:
        return GIF_WIDTH
    return SPRITE_WIDTH if spec.thumbnails and spec.thumbnails.sprite else None


def _plan_peak(spec: VideoSettings, bitrate: int | None) -> int | None:
    if spec.max_bitrate is not None:
        return parse_bitrate(spec.max_bitrate)
    return None if bitrate is None else int(bitrate * VBV_RATIO)


def _copy_video(
    spec: OutputSpec, kind: ContainerKind, source: VideoStream, notes: Notes
) -> VideoPlan:
    if source.codec not in kind.video:
        notes.refuse(
            "video_codec",
            "codec_not_in_container",
            f"the source is {source.codec}, which {spec.container.value} cannot hold; name a codec",
        )
    if spec.clip is not None:
        notes.warn("clip_at_keyframe", "A copied stream can only be cut at a keyframe.", "clip")
    return _copied(source)


def _copied(source: VideoStream) -> VideoPlan:
    return VideoPlan(
        stream=source.index,
        encoder=None,
        family=source.codec,
        width=source.width,
        height=source.height,
        fps=source.average_fps,
    )


def _warn_of_pixels(encoder: VideoEncoder, source: VideoStream, notes: Notes) -> None:
    if source.hdr:
        notes.warn("hdr_to_sdr", "The source is HDR; the output is SDR (BT.709).")
    elif source.bit_depth > 8 and encoder.pixel_format == "yuv420p":
        notes.warn("depth_reduced", f"The source has {source.bit_depth} bits; the output has 8.")
    if source.full_chroma and encoder.pixel_format == "yuv420p":
        notes.warn("chroma_reduced", "The source has more colour samples than the output's 4:2:0.")
    if source.rotation:
        notes.warn(
            "turned_upright", f"The source is turned by {source.rotation}°; the output is upright."
        )
    if source.pixel_aspect != 1:
        notes.warn("pixels_made_square", "The source's pixels are not square; the output's are.")
    if source.interlaced:
        notes.warn("deinterlaced", "The source is interlaced; the output is progressive.")


def with_video_length(
    plan: VideoPlan,
    start: float,
    length: float | None,
    probe: Probe,
    pictures: int | None,
    *,
    from_zero: bool = False,
) -> VideoPlan:
    """With `from_zero` a picture that begins late is shown from the beginning on."""
    if pictures is not None:
        return replace(plan, frames=pictures)
    source = probe.video
    assert source is not None
    duration = source.duration_s or probe.duration_s
    if duration is None and probe.still:
        duration = float(1 / (source.average_fps or UNKNOWN_RATE))
    if duration is not None and from_zero:
        duration += source.late_s
    duration = cut(duration, start, length)
    frames: int | None = None
    if plan.frame_rate is not None and duration is not None:
        frames = max(1, round(duration * plan.frame_rate))
    elif start == 0 and length is None and source.frames is not None:
        frames = source.frames
    elif plan.fps is not None and duration is not None:
        frames = round(duration * plan.fps)
    return replace(plan, duration_s=duration, frames=frames)
