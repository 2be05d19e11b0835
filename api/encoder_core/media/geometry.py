"""Decide the size of a picture: scaled and cropped, pixels square. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from encoder_core.media.codecs import VideoEncoder
from encoder_core.media.containers import ContainerKind, Kind
from encoder_core.media.notes import Notes
from encoder_core.media.probe import VideoStream
from encoder_core.specs import VideoSettings

GIF_WIDTH: Final = 480


@dataclass(frozen=True, slots=True)
class Geometry:
    size: tuple[int, int]
    crop: tuple[int, int] | None
    scaled: bool


def plan_size(
    spec: VideoSettings,
    kind: ContainerKind,
    encoder: VideoEncoder,
    source: VideoStream,
    notes: Notes,
) -> Geometry:
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
    return Geometry(size, crop, scaled=size != turned or source.pixel_aspect != 1)


def _scaled(
    width: float, height: float, factor: float, spec: VideoSettings, notes: Notes
) -> tuple[float, float]:
    if factor > 1 and not spec.upscale:
        _warn_of_upscale(1 / factor, notes)
        factor = 1.0
    return width * factor, height * factor


def _warn_of_upscale(shrink: float, notes: Notes) -> None:
    # A pixel of rounding is not worth a word.
    if shrink < 0.99:
        notes.warn(
            "not_upscaled",
            "The output is no larger than the source; set upscale to true for the asked size.",
        )


def _grid(value: float, step: int) -> int:
    """The nearest size that the codec can have. Odd sources lose a line rather than gain one."""
    return max(step, int(value / step + 0.5 - 1e-9) * step)
