"""Decide the size of a picture: scaled and cropped, pixels square. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from encoder_core.media.codecs import VideoEncoder
from encoder_core.media.notes import Notes
from encoder_core.media.probe import VideoStream
from encoder_core.specs import VideoSettings


@dataclass(frozen=True, slots=True)
class Geometry:
    size: tuple[int, int]
    crop: tuple[int, int] | None
    scaled: bool
    rounded: bool
    """Whether the source's own size was to be kept, and could not."""
    limited: bool
    """Whether it is smaller than asked, because the source is."""


def plan_size(
    spec: VideoSettings,
    encoder: VideoEncoder,
    source: VideoStream,
    notes: Notes,
    *,
    default_width: int | None = None,
) -> Geometry:
    """
    Scale and crop. Pixels come out square; 4:2:0 needs even sizes.

    Without a size in the request it is the source's, or at most `default_width` wide.
    """
    width, height = source.display_size
    step = 2 if encoder.even else 1
    box_width, box_height = spec.width, spec.height
    if box_width is None and box_height is None and default_width is not None:
        box_width = min(default_width, int(width))
    crop: tuple[int, int] | None = None
    if box_width is None and box_height is None:
        shrink, target = 1.0, (width, height)
    elif box_width is None or box_height is None:
        shrink = _shrink(spec, width / (box_width or width), height / (box_height or height))
        factor = shrink * (box_width / width if box_width else (box_height or 0) / height)
        target = (width * factor, height * factor)
    elif spec.fit == "stretch":
        shrink = _shrink(spec, width / box_width, height / box_height)
        target = (box_width * shrink, box_height * shrink)
    elif spec.fit == "none":
        shrink, target = 1.0, (width, height)
        crop = (_grid(min(width, box_width), step), _grid(min(height, box_height), step))
    elif spec.fit == "cover":
        shrink = _shrink(spec, width / box_width, height / box_height)
        crop = (_grid(box_width * shrink, step), _grid(box_height * shrink, step))
        factor = max(crop[0] / width, crop[1] / height)
        target = (max(width * factor, crop[0]), max(height * factor, crop[1]))
    else:
        factor = min(box_width / width, box_height / height)
        shrink = _shrink(spec, 1 / factor)
        target = (width * factor * shrink, height * factor * shrink)
    size = (_grid(target[0], step), _grid(target[1], step))
    if crop is not None and crop == size:
        crop = None
    if min(size) < 16 and encoder.even:
        notes.refuse("width", "too_small", f"it would be {size[0]}x{size[1]}; give a larger size")
    turned = (source.height, source.width) if source.rotation in (90, 270) else (
        source.width, source.height)  # fmt: skip
    return Geometry(
        size,
        crop,
        scaled=size != turned or source.pixel_aspect != 1,
        rounded=box_width is None and box_height is None and _is_odd(source, step),
        limited=shrink < 0.99,  # a pixel of rounding is not worth a word
    )


def _shrink(spec: VideoSettings, *factors: float) -> float:
    """By how much the asked size is larger than the source can fill, as a factor of at most 1."""
    return 1.0 if spec.upscale else min(1.0, *factors)


def warn_of_limit(notes: Notes) -> None:
    notes.warn(
        "not_upscaled",
        "The output is no larger than the source; set upscale to true for the asked size.",
    )


def _is_odd(source: VideoStream, step: int) -> bool:
    return source.pixel_aspect == 1 and bool(source.width % step or source.height % step)


def _grid(value: float, step: int) -> int:
    """The nearest size that the codec can have. Odd sources lose a line rather than gain one."""
    return max(step, int(value / step + 0.5 - 1e-9) * step)
