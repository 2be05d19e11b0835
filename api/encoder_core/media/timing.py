"""Decide which part of the source an output shows, and how long that makes it. Pure."""

from __future__ import annotations

from encoder_core.media.notes import Notes
from encoder_core.media.planned import AudioPlan, VideoPlan
from encoder_core.media.probe import Probe
from encoder_core.specs import OutputSpec


def plan_clip(
    spec: OutputSpec, probe: Probe, notes: Notes
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


def cut(duration: float | None, start: float, length: float | None) -> float | None:
    if duration is None:
        return None
    left = max(0.0, duration - start)
    return left if length is None else min(left, length)


def longest(video: VideoPlan | None, audio: AudioPlan | None) -> float | None:
    known = [plan.duration_s for plan in (video, audio) if plan and plan.duration_s is not None]
    return max(known, default=None)
