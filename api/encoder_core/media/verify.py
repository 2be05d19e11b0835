"""
Compare what was made with what was planned. Pure: the worker measures, this judges.

ffmpeg's exit code proves nothing: a connection that was cut, a full disk and a broken index have
all ended with 0 and a short file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from encoder_core.media.containers import Kind
from encoder_core.media.planned import AudioPlan, OutputPlan, VideoPlan
from encoder_core.media.probe import AudioStream, Probe, VideoStream

FRAME_TOLERANCE: Final = 0.01  # damaged frames at the ends of captures; a cut loses far more
FRAMES_ALWAYS_FORGIVEN: Final = 3  # rounding at start and end, and a last frame without a length
SECONDS_TOLERANCE: Final = 0.01
SECONDS_NEVER_FORGIVEN: Final = 2.0  # however long it is: that is a piece, and no rounding
SECONDS_ALWAYS_FORGIVEN: Final = 0.35  # encoder delay, padding to whole audio frames, edit lists
COPY_START_S: Final = 20.0  # a copied clip starts at the keyframe before; sources have long ones


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which an output is not what was planned."""

    code: str
    """`output_truncated` or `output_invalid`."""
    message: str


def truncated(message: str) -> Finding:
    return Finding("output_truncated", message)


def invalid(message: str) -> Finding:
    return Finding("output_invalid", message)


def missing_frames(wanted: int, found: int) -> bool:
    """Whether more are missing than damaged ends of a source explain."""
    return wanted - found > max(FRAMES_ALWAYS_FORGIVEN, wanted * FRAME_TOLERANCE)


def compare(plan: OutputPlan, measured: Probe) -> list[Finding]:
    """Everything that is wrong with a file. Packets must have been counted."""
    findings: list[Finding] = []
    if plan.video is not None:
        findings += _compare_video(plan, plan.video, measured.video)
    elif measured.video is not None:
        findings.append(Finding("output_invalid", "There is a picture that was not planned."))
    for number, sound in enumerate(plan.sounds):
        found = measured.audio[number] if number < len(measured.audio) else None
        findings += _compare_audio(plan, sound, found, measured)
    if len(measured.audio) > len(plan.sounds):
        findings.append(Finding("output_invalid", "There is sound that was not planned."))
    words = [stream.family for stream in plan.subtitles]
    found_words = [stream.codec for stream in measured.subtitles]
    if found_words != words:
        findings.append(invalid(f"The subtitles are {found_words}, not {words}."))
    if plan.kind.kind is not Kind.PICTURE:
        findings += _compare_duration(plan, measured)
    return findings


def _compare_video(plan: OutputPlan, wanted: VideoPlan, found: VideoStream | None) -> list[Finding]:
    if found is None:
        return [Finding("output_truncated", "There is no picture.")]
    findings = []
    if found.codec != wanted.family:
        findings.append(
            Finding("output_invalid", f"The picture is {found.codec}, not {wanted.family}.")
        )
    if (found.width, found.height) != (wanted.width, wanted.height):
        findings.append(
            Finding(
                "output_invalid",
                f"The picture is {found.width}x{found.height}, not {wanted.width}x{wanted.height}.",
            )
        )
    if plan.kind.kind is Kind.PICTURE:
        return findings
    frames = found.frames or 0
    if frames == 0:
        return [*findings, Finding("output_truncated", "There is not one frame.")]
    countable = wanted.frames is not None and not (wanted.encoder is None and plan.start_s)
    if countable and missing_frames(wanted.frames or 0, frames):
        findings.append(truncated(f"There are {frames} of {wanted.frames} frames."))
    if wanted.duration_s is not None and found.duration_s is not None:
        # The last frames of slow films are shown for long, and not every container says so.
        slack = 2 * found.duration_s / frames + _start_slack(plan)
        findings += short(wanted.duration_s, found.duration_s, "picture", slack)
    return findings


def _compare_audio(
    plan: OutputPlan, wanted: AudioPlan, found: AudioStream | None, measured: Probe
) -> list[Finding]:
    if found is None:
        return [Finding("output_truncated", "There is no sound.")]
    findings = []
    if found.codec != wanted.family:
        findings.append(
            Finding("output_invalid", f"The sound is {found.codec}, not {wanted.family}.")
        )
    if wanted.encoder is not None and found.channels != wanted.channels:
        findings.append(
            Finding(
                "output_invalid", f"The sound has {found.channels}, not {wanted.channels} channels."
            )
        )
    if found.packets == 0:
        findings.append(Finding("output_truncated", "There is not one packet of sound."))
    length = found.duration_s or (measured.duration_s if plan.video is None else None)
    if wanted.duration_s is not None and length is not None:
        findings += short(wanted.duration_s, length, "sound", _start_slack(plan))
    return findings


def _compare_duration(plan: OutputPlan, measured: Probe) -> list[Finding]:
    if plan.duration_s is None:
        return []
    if measured.duration_s is None:
        return [Finding("output_truncated", "The file has no duration.")]
    findings = short(plan.duration_s, measured.duration_s, "file", _start_slack(plan))
    excess = measured.duration_s - plan.duration_s
    tolerance = max(SECONDS_ALWAYS_FORGIVEN, plan.duration_s * SECONDS_TOLERANCE)
    slack = tolerance + _start_slack(plan)
    # Frames that are shown longer than the sound lasts, and a slow last frame.
    # Subtitles may go on when the film is over.
    if excess > max(1.0, 3 * slack) and not plan.subtitles:
        findings.append(
            Finding(
                "output_invalid",
                f"The file lasts {measured.duration_s:.2f} s instead of {plan.duration_s:.2f} s.",
            )
        )
    return findings


def short(wanted_s: float, found_s: float, what: str, slack_s: float = 0.0) -> list[Finding]:
    """A finding when something does not last as long as it should."""
    if wanted_s - found_s <= _forgiven(wanted_s) + slack_s:
        return []
    message = f"The {what} lasts {found_s:.2f} s instead of {wanted_s:.2f} s."
    return [Finding("output_truncated", message)]


def _forgiven(seconds: float) -> float:
    share = min(seconds * SECONDS_TOLERANCE, SECONDS_NEVER_FORGIVEN)
    return max(SECONDS_ALWAYS_FORGIVEN, share)


def _start_slack(plan: OutputPlan) -> float:
    copies = any(
        stream is not None and stream.encoder is None for stream in (plan.video, *plan.sounds)
    )
    return COPY_START_S if copies and (plan.start_s or plan.length_s is not None) else 0.0
