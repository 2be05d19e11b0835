"""
Decide where on a picture a watermark lies, and say it in ffmpeg's filters. Pure.

The image's own size is not known before it is fetched, so it is given a box to fit into, and its
place is counted from the edge that it lies at. Everything is a share of the picture, so that all
renditions of a ladder look the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from encoder_core.media.planned import VideoPlan, WatermarkPlan
from encoder_core.media.probe import HD_LINES, VideoStream
from encoder_core.specs import Position, Watermark

SIDE_PERCENT: Final = 20.0  # a badge and a line of text are both legible at it, and leave the film
MARGIN_PERCENT: Final = 4.0  # outside of what television once cut off
SMALLEST_PX: Final = 2  # an image of one line is still an image; ffmpeg makes none of no line

IMAGE_DEMUXERS: Final = ("png_pipe", "jpeg_pipe", "webp_pipe")
"""What an image may be. By its content: the file has a name of ours, without an ending."""
IMAGE_CODECS: Final = frozenset({"png", "mjpeg", "webp"})
MAX_IMAGE_SIDE: Final = 4096
MAX_IMAGE_BYTES: Final = 16 * 1024**2

_BT601: Final = "smpte170m"
_MATRICES: Final = {
    "bt709": "bt709", "bt470bg": "bt470", "smpte170m": _BT601, "fcc": "fcc",
    "smpte240m": "smpte240m", "bt2020nc": "bt2020", "bt2020c": "bt2020",
}  # fmt: skip
"""ffprobe's names of matrices to those of ffmpeg's scaler."""


def plan_watermark(asked: Watermark, video: VideoPlan, source: VideoStream) -> WatermarkPlan:
    margin = _even(min(video.width, video.height) * _or(asked.margin_percent, MARGIN_PERCENT) / 100)
    room = (video.width - 2 * margin, video.height - 2 * margin)
    shares = (asked.width_percent, asked.height_percent)
    if shares == (None, None):
        shares = (SIDE_PERCENT, SIDE_PERCENT)
    sides = [
        left if share is None else min(left, round(whole * share / 100))
        for left, share, whole in zip(room, shares, (video.width, video.height), strict=True)
    ]
    return WatermarkPlan(
        box=(max(SMALLEST_PX, sides[0]), max(SMALLEST_PX, sides[1])),
        margin=margin,
        position=asked.position or Position.BOTTOM_RIGHT,
        opacity=_or(asked.opacity, 1.0),
        matrix=_find_matrix(video, source),
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _even(pixels: float) -> int:
    """So that the image begins where a sample of colour does."""
    return round(pixels / 2) * 2


def _find_matrix(video: VideoPlan, source: VideoStream) -> str:
    """By what a player will take the colours for: the image's are made so that they come out."""
    if video.family == "mjpeg":
        return _BT601  # a JPEG cannot say otherwise
    if video.tone_map or video.from_rgb:
        return "bt709"
    guess = "bt709" if source.height >= HD_LINES else _BT601
    return _MATRICES.get(source.matrix or "", guess)


# --- In ffmpeg's words -------------------------------------------------------------------------

_FORMATS: Final = {
    "yuv420p": ("yuv420", "yuva420p", "tv"),
    "yuvj420p": ("yuv420", "yuva420p", "pc"),
    "yuv422p10le": ("yuv422p10", "yuva422p10le", "tv"),
    "rgb24": ("rgb", "rgba", ""),
    "pal8": ("rgb", "rgba", ""),
}
"""Of the picture, to how they are laid over one another, the image's own, and its range."""


PREPARE_IMAGE: Final = "format=gbrap,premultiply=inplace=1"
"""
Once for each image, at its full size: four renditions would otherwise each make a copy of it.

What is transparent has a colour too, often black. Weighted, it does not bleed into edges.
"""


def image_filters(plan: WatermarkPlan, pixel_format: str) -> str:
    """What becomes of the prepared image before it is laid over a picture of that format."""
    _, own, values = _FORMATS[pixel_format]
    width, height = plan.box
    # Twice max(): a banner of 1000:1 would otherwise shrink to no line at all.
    across = rf"max({SMALLEST_PX}\,round(min({width}\,{height}*a)))"
    down = rf"max({SMALLEST_PX}\,round(min({height}\,{width}/a)))"
    steps = [
        f"scale={across}:{down}:flags=bicubic",
        "unpremultiply=inplace=1",
        *([f"colorchannelmixer=aa={plan.opacity:g}"] if plan.opacity < 1 else []),
        *([f"scale=out_color_matrix={plan.matrix}:out_range={values}"] if values else []),
        f"format={own}",
    ]
    return ",".join(steps)


def overlay_filter(plan: WatermarkPlan, pixel_format: str) -> str:
    """Lays the second input over the first, from its first frame to its last."""
    together = _FORMATS[pixel_format][0]
    x = _place(plan.position, "left", "right", "W-w", plan.margin)
    y = _place(plan.position, "top", "bottom", "H-h", plan.margin)
    return f"overlay={x}:{y}:eval=init:format={together}"


def _place(position: Position, first: str, last: str, room: str, margin: int) -> str:
    words = position.value.split("-")
    if first in words:
        return str(margin)
    return f"{room}-{margin}" if last in words else f"({room})/2"


# --- The image itself --------------------------------------------------------------------------


def find_fault(document: Mapping[str, Any]) -> str | None:
    """What is wrong with an image, by ffprobe's words for it; None: it can be laid over a film."""
    streams = document.get("streams", [])
    if len(streams) != 1 or streams[0].get("codec_name") not in IMAGE_CODECS:
        return "The file is no PNG, JPEG or WebP image."
    width, height = int(streams[0].get("width", 0)), int(streams[0].get("height", 0))
    if max(width, height) > MAX_IMAGE_SIDE:
        return f"The image has {width}x{height} pixels; at most {MAX_IMAGE_SIDE} a side are taken."
    if streams[0].get("nb_read_frames") != "1":
        # Of one with far too many pixels ffprobe does not even say how many.
        return (
            f"The image is damaged, an animation, or has more than {MAX_IMAGE_SIDE} pixels a side."
        )
    return None
