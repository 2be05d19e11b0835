"""
Decide what one output becomes of one source. Pure: request and probe in, a plan or the wrong fields
out.

This is the order of the decisions; each has a module of its own beside this one. What the request
alone tells is in `check`.
"""

from __future__ import annotations

from encoder_core.media.check import check_output
from encoder_core.media.containers import CONTAINERS, Kind
from encoder_core.media.notes import Notes, stop_at_problems
from encoder_core.media.picture import plan_video, with_video_length
from encoder_core.media.planned import OutputPlan
from encoder_core.media.probe import Probe
from encoder_core.media.sound import plan_audio, with_audio_length
from encoder_core.media.stills import plan_pictures
from encoder_core.media.timing import longest, plan_clip
from encoder_core.specs import OutputSpec


def plan_output(index: int, spec: OutputSpec, probe: Probe) -> OutputPlan:
    """
    Decide one output.

    Raises InvalidRequest, whose problems name the fields, when it cannot be made of this source.
    """
    notes = Notes(index)
    check_output(spec, notes)
    stop_at_problems(notes)
    kind = CONTAINERS[spec.container]
    if probe.video is None and not probe.audio:
        notes.refuse("", "no_streams", "the source has neither picture nor sound")
        stop_at_problems(notes)
    start, length, duration = plan_clip(spec, probe, notes)
    video = plan_video(spec, kind, probe, notes)
    audio = plan_audio(spec, kind, probe, notes)
    pictures = plan_pictures(spec, kind, probe, start, duration, notes)
    if kind.kind is Kind.VIDEO and not notes.problems and video is None and audio is None:
        notes.refuse("container", "no_streams", "nothing that was asked for is in the source")
    stop_at_problems(notes)
    if probe.subtitle_streams and kind.kind is Kind.VIDEO:
        notes.warn("subtitles_dropped", "The source's subtitles are not in the output.")
    if video is not None:
        video = with_video_length(video, start, length, probe, len(pictures) or None)
    if audio is not None:
        audio = with_audio_length(audio, start, length, probe)
    return OutputPlan(
        index=index,
        container=spec.container,
        kind=kind,
        video=video,
        audio=audio,
        start_s=start,
        length_s=length,
        duration_s=None if kind.kind is Kind.PICTURE else longest(video, audio) or duration,
        pictures=pictures,
        is_set=spec.thumbnails is not None,
        warnings=tuple(notes.warnings),
    )
