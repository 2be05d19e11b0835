"""
Bring a sound to the loudness that was asked for: what to measure, and how much to turn it. Pure.

It is turned by one amount from beginning to end, so quiet and loud stay as far apart as they were.
For that it has to be known as a whole first: the one time that a job decodes its source twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from encoder_core.media.notes import Notes
from encoder_core.media.planned import AudioPlan, OutputPlan

TRUE_PEAK_DBTP: Final = -1.0  # EBU R128's limit: decoders of lossy sound make peaks between samples
SILENCE_LUFS: Final = -70.0  # the gate of the meter, below which it counts nothing


@dataclass(frozen=True, slots=True)
class Meter:
    """One sound to measure, mixed and cut as it will be."""

    stream: int
    channels: int
    start_s: float
    length_s: float | None


@dataclass(frozen=True, slots=True)
class Loudness:
    integrated_lufs: float
    true_peak_dbtp: float


def list_meters(plans: Sequence[OutputPlan]) -> list[Meter]:
    """What has to be measured before the plans can be made, each once."""
    wanted = [
        meter_of(plan, sound)
        for plan in plans
        for sound in plan.sounds
        if sound.loudness is not None
    ]
    return list(dict.fromkeys(wanted))


def meter_of(plan: OutputPlan, sound: AudioPlan) -> Meter:
    return Meter(sound.stream, sound.channels, plan.start_s, plan.length_s)


_SUMMARY: Final = re.compile(
    r"ebur128@m(\d+) @ [^]]*\] Summary:.*?\bI:\s+(\S+) LUFS.*?\bPeak:\s+(\S+) dBFS", re.DOTALL
)


def read_loudness(log: str, meters: Sequence[Meter]) -> dict[Meter, Loudness]:
    """What ffmpeg's meters say at the end, in the order of the command's own."""
    return {
        meters[int(number)]: Loudness(float(integrated), float(peak))
        for number, integrated, peak in _SUMMARY.findall(log)
    }


def turn(plan: OutputPlan, measured: Mapping[Meter, Loudness]) -> OutputPlan:
    """The plan with each sound's gain. All of its meters were read."""
    notes = Notes(plan.index)
    notes.warnings += plan.warnings
    sounds = [
        sound
        if sound.loudness is None
        else replace(sound, gain_db=_gain(sound.loudness, measured[meter_of(plan, sound)], notes))
        for sound in plan.sounds
    ]
    return replace(
        plan,
        audio=sounds[0] if sounds else None,
        other_audio=tuple(sounds[1:]),
        warnings=tuple(notes.warnings),
    )


def _gain(target_lufs: float, found: Loudness, notes: Notes) -> float:
    """In decibels."""
    if not found.integrated_lufs > SILENCE_LUFS:
        notes.warn("silent", "The sound is silent; no gain makes it loud.", "loudness")
        return 0.0
    wanted = target_lufs - found.integrated_lufs
    possible = max(TRUE_PEAK_DBTP - found.true_peak_dbtp, 0.0) if wanted > 0 else wanted
    if wanted > possible + 0.05:  # the meter's own precision
        notes.warn("loudness_limited", f"It stays {wanted - possible:.1f} LU below, so that its"
                   " peaks are not cut off.", "loudness")  # fmt: skip
        return round(possible, 2)
    return round(wanted, 2)
