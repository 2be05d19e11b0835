"""Decide how many frames a second there will be. Pure."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from encoder_core.media.containers import ContainerKind, Kind
from encoder_core.media.notes import Notes
from encoder_core.media.probe import VideoStream
from encoder_core.specs import VideoSettings

GIF_FPS: Final = Fraction(12)  # browsers show up to 50; size grows with each frame
UNKNOWN_RATE: Final = Fraction(25)  # what ffmpeg takes raw streams without a rate for
MAX_CFR: Final = Fraction(60)  # phones claim 90,000; a screen recording gains nothing above 60
STANDARD_RATES: Final = tuple(
    Fraction(text)
    for text in ("10", "12", "15", "24000/1001", "24", "25", "30000/1001", "30", "48", "50",
                 "60000/1001", "60")
)  # fmt: skip


def plan_rate(
    spec: VideoSettings, kind: ContainerKind, source: VideoStream, notes: Notes
) -> Fraction | None:
    if kind.kind is Kind.PICTURE:
        return None
    own = source.average_fps or source.nominal_fps
    if spec.frame_rate is not None:
        return _nearest_rate(spec.frame_rate)
    if kind.kind is Kind.ANIMATION:
        return min(GIF_FPS, own) if own else GIF_FPS
    if not source.variable_rate or own is None:
        return _steady_rate(source) if kind.kind is Kind.PACKAGE else None
    rate = _constant_rate(source)
    notes.warn(
        "frame_rate_made_constant",
        f"The source's frame rate varies; the output has {float(rate):g} frames a second.",
    )
    return rate


def _steady_rate(source: VideoStream) -> Fraction:
    """
    The rate of a source that does not vary, for segments: a frame that it lacks would move every
    keyframe behind it.
    """
    own = source.average_fps if source.interlaced else source.nominal_fps or source.average_fps
    return own or UNKNOWN_RATE


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
