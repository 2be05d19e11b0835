"""
Decide what one output becomes of one source. Pure: request and probe in, a plan or the wrong fields
out.

This is the order of the decisions; each has a module of its own beside this one. What the request
alone tells is in `check`.
"""

from __future__ import annotations

from dataclasses import replace

from encoder_core.media.check import check_output
from encoder_core.media.containers import CONTAINERS, Kind
from encoder_core.media.ladder import plan_package, with_videos
from encoder_core.media.naming import name_tracks, stem_of
from encoder_core.media.notes import Notes, stop_at_problems
from encoder_core.media.picture import plan_video, with_video_length
from encoder_core.media.planned import OutputPlan, PackagePlan, VideoPlan
from encoder_core.media.probe import Probe
from encoder_core.media.sound import plan_sounds, with_audio_length
from encoder_core.media.stills import plan_choice, plan_pictures, plan_sprite
from encoder_core.media.subtitles import plan_sidecar, plan_subtitles
from encoder_core.media.timing import longest, plan_clip
from encoder_core.media.watermarks import plan_watermark
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
    package: PackagePlan | None = None
    video: VideoPlan | None = None
    if kind.kind is Kind.PACKAGE:
        package = plan_package(spec, kind, probe, notes)
    else:
        video = plan_video(spec, kind, probe, notes)
    sounds = plan_sounds(spec, kind, probe, notes)
    pictures = plan_pictures(spec, kind, probe, start, duration, notes)
    seen = video is not None or bool(package and package.renditions)
    sprite = None
    if video is not None:
        sprite = plan_sprite(spec, (video.width, video.height), len(pictures), notes)
    subtitles = plan_sidecar(spec, probe, notes) if kind.kind is Kind.TEXT else ()
    if kind.kind in (Kind.VIDEO, Kind.PACKAGE) and not notes.problems and not seen and not sounds:
        notes.refuse("container", "no_streams", "nothing that was asked for is in the source")
    stop_at_problems(notes)
    if spec.subtitles and kind.kind is not Kind.TEXT:
        subtitles = plan_subtitles(spec, probe, notes)
    unasked = spec.subtitles is None and kind.kind in (Kind.VIDEO, Kind.PACKAGE)
    if probe.subtitle_streams and unasked:
        notes.warn("subtitles_dropped", "The source's subtitles are not in the output.")
    if probe.has_cover and kind.kind in (Kind.VIDEO, Kind.AUDIO, Kind.PACKAGE):
        notes.warn("cover_dropped", "The file's cover art is not in the output.")
    if probe.clock_jumps:
        notes.warn("clock_jumped", "The source's time stamps begin again; the output goes on.")
    if video is not None:
        video = _with_watermark(video, spec, probe)
        video = with_video_length(video, start, length, probe, len(pictures) or None)
    if package is not None and package.renditions:
        videos = [
            with_video_length(
                _with_watermark(rendition.video, spec, probe),
                *(start, length, probe, None),
                from_zero=True,
            )
            for rendition in package.renditions
        ]
        package = with_videos(package, videos)
        video = max(videos, key=lambda one: one.width * one.height)
    sounds = tuple(
        with_audio_length(sound, start, length, probe, from_zero=package is not None)
        for sound in sounds
    )
    audio = sounds[0] if sounds else None
    if package is not None:
        texts = [words.language for words in subtitles], [words.forced for words in subtitles]
        package = replace(
            package,
            sounds=name_tracks("audio", [sound.language for sound in sounds]),
            subtitles=name_tracks("subtitles", *texts),
        )
    return OutputPlan(
        index=index,
        container=spec.container,
        kind=kind,
        video=video,
        audio=audio,
        other_audio=sounds[1:],
        subtitles=subtitles,
        package=package,
        start_s=start,
        length_s=length,
        duration_s=None if kind.kind is Kind.PICTURE else longest(video, audio) or duration,
        shown_s=duration,
        pictures=pictures,
        sprite=sprite,
        choice=plan_choice(spec, video, probe, pictures) if video is not None else None,
        stem=stem_of(spec.destination),
        is_set=spec.thumbnails is not None,
        metadata=tuple((spec.metadata or {}).items()),
        warnings=tuple(notes.warnings),
    )


def depends_on_length(spec: OutputSpec) -> bool:
    """
    Whether ffmpeg is told something that follows from how long the source really is.

    For all others that is only what is expected of the output.
    """
    return CONTAINERS[spec.container].kind is Kind.PICTURE or spec.loudness is not None


def _with_watermark(video: VideoPlan, spec: OutputSpec, probe: Probe) -> VideoPlan:
    if spec.watermark is None:
        return video
    assert probe.video is not None, "there is a picture of it"
    return replace(video, watermark=plan_watermark(spec.watermark, video, probe.video))
