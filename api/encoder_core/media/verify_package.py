"""
Compare a package with its plan: every segment, every manifest. Pure: the worker reads, this judges.

What a player would trip over is a finding: a segment that is missing, swapped, cut off or begins
without a keyframe; renditions that do not cut at the same instants; a manifest that lists what is
not there or says what is not so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Final

from encoder_core.media.manifests import Stream
from encoder_core.media.planned import AudioPlan, OutputPlan, RenditionPlan
from encoder_core.media.verify import Finding, invalid, missing_frames, short, truncated
from encoder_core.media.walk import BadManifest, Listed, walk_dash, walk_hls

ROUNDING_S: Final = Fraction(1, 100_000)  # playlists have six decimals
DRIFT_S: Final = Fraction(1, 2)  # sound is cut between its own frames, near where pictures are


def compare_package(plan: OutputPlan, streams: Sequence[Stream]) -> list[Finding]:
    """Everything that is wrong with the streams, which are in the plan's order, sound last."""
    assert plan.package is not None
    findings: list[Finding] = []
    videos = [stream for stream in streams if stream.track.is_video]
    sounds = [stream for stream in streams if not stream.track.is_video]
    if len(videos) != len(plan.package.renditions):
        message = f"There are {len(videos)} of {len(plan.package.renditions)} renditions."
        return [truncated(message)]
    if len(sounds) != (plan.audio is not None):
        return [truncated("There is no sound.") if plan.audio else invalid("There is sound.")]
    for stream in streams:
        findings += _compare_timeline(stream)
    for stream, rendition in zip(videos, plan.package.renditions, strict=True):
        findings += _compare_rendition(stream, rendition, plan.package.segment_s)
    for stream in videos[1:]:
        if _cuts(stream) != _cuts(videos[0]):
            findings.append(
                invalid(f"{stream.name} is not cut at the same instants as {videos[0].name}.")
            )
        if _keyframes(stream) != _keyframes(videos[0]):
            findings.append(invalid(f"{stream.name} has other keyframes than {videos[0].name}."))
    for stream in sounds:
        assert plan.audio is not None
        findings += _compare_sound(stream, plan.audio, videos)
    return findings


def _compare_timeline(stream: Stream) -> list[Finding]:
    """Segments follow one another without a gap, in the order of their numbers."""
    findings = []
    tick = Fraction(1, stream.track.timescale)
    if abs(stream.segments[0].start * tick) > DRIFT_S:
        findings.append(invalid(f"{stream.name} does not begin at its first segment."))
    for number, (before, after) in enumerate(pairwise(stream.segments), start=2):
        # One tick of rounding may be between them; a frame is hundreds.
        if abs(before.start + before.duration - after.start) > 1:
            findings.append(
                invalid(f"Segment {number} of {stream.name} does not follow the one before it.")
            )
    return findings


def _compare_rendition(
    stream: Stream, rendition: RenditionPlan, segment_s: Fraction
) -> list[Finding]:
    findings: list[Finding] = []
    wanted, track = rendition.video, stream.track
    if track.family != wanted.family:
        findings.append(invalid(f"{stream.name} is {track.family}, not {wanted.family}."))
    if (track.width, track.height) != (wanted.width, wanted.height):
        found = f"{track.width}x{track.height}"
        findings.append(invalid(f"{stream.name} is {found}, not {wanted.width}x{wanted.height}."))
    frames = sum(segment.samples for segment in stream.segments)
    if wanted.frames is not None and missing_frames(wanted.frames, frames):
        findings.append(truncated(f"{stream.name} has {frames} of {wanted.frames} frames."))
    if wanted.frames is not None and missing_frames(frames, wanted.frames):
        findings.append(invalid(f"{stream.name} has {frames} instead of {wanted.frames} frames."))
    if wanted.duration_s is not None:
        findings += short(wanted.duration_s, float(stream.duration_s), stream.name)
    frame_s = 1 / wanted.fps if wanted.fps else Fraction(1, 25)
    for number, segment in enumerate(stream.segments[:-1], start=1):
        if abs(stream.seconds(segment) - segment_s) > frame_s:
            length = float(stream.seconds(segment))
            findings.append(
                invalid(
                    f"Segment {number} of {stream.name} lasts {length:.3f} s instead of "
                    f"{float(segment_s):.3f} s."
                )
            )
    for number, segment in enumerate(stream.segments, start=1):
        # The earliest picture of a segment is its keyframe, or players show nothing until it.
        if not segment.keyframes or abs(segment.keyframes[0] - segment.start) > 1:
            findings.append(
                invalid(f"Segment {number} of {stream.name} does not begin with a keyframe.")
            )
    return findings


def _compare_sound(stream: Stream, wanted: AudioPlan, videos: Sequence[Stream]) -> list[Finding]:
    findings: list[Finding] = []
    track = stream.track
    if track.family != wanted.family:
        findings.append(invalid(f"The sound is {track.family}, not {wanted.family}."))
    if track.channels and wanted.encoder is not None and track.channels != wanted.channels:
        findings.append(invalid(f"The sound has {track.channels}, not {wanted.channels} channels."))
    if wanted.duration_s is not None:
        findings += short(wanted.duration_s, float(stream.duration_s), "sound")
    for sound, cut in zip(_cuts(stream), _cuts(videos[0]) if videos else (), strict=False):
        if abs(sound - cut) > DRIFT_S:
            findings.append(invalid("The sound is cut elsewhere than the pictures."))
            break
    return findings


def _cuts(stream: Stream) -> tuple[Fraction, ...]:
    scale = stream.track.timescale
    return tuple(Fraction(segment.start, scale) for segment in stream.segments)


def _keyframes(stream: Stream) -> tuple[Fraction, ...]:
    scale = stream.track.timescale
    return tuple(Fraction(at, scale) for segment in stream.segments for at in segment.keyframes)


# --- Manifests -------------------------------------------------------------------------------


def compare_manifests(
    streams: Sequence[Stream],
    *,
    master: str | None,
    mpd: str | None,
    texts: Mapping[str, str],
    sizes: Mapping[str, int],
) -> list[Finding]:
    """
    What is wrong with the manifests as they were written.

    `texts` has the media playlists by name, `sizes` every file of the package that exists.
    """
    findings: list[Finding] = []
    try:
        if master is not None:
            listed = walk_hls(master, texts)
            findings += _compare_listed({s.playlist: s for s in streams}, listed, sizes)
            findings += _compare_choices(streams, listed)
        if mpd is not None:
            findings += _compare_listed({s.name: s for s in streams}, walk_dash(mpd), sizes)
    except (BadManifest, KeyError, ValueError) as error:
        findings.append(invalid(f"A manifest cannot be followed: {error}."))
    return findings


def _compare_listed(
    streams: Mapping[str, Stream], listed: Mapping[str, Listed], sizes: Mapping[str, int]
) -> list[Finding]:
    if set(streams) != set(listed):
        return [invalid("A manifest does not list every stream of the package.")]
    findings: list[Finding] = []
    for name, stream in streams.items():
        entry = listed[name]
        wanted = [
            (stream.file(number), stream.seconds(segment), segment.size_bytes)
            for number, segment in enumerate(stream.segments, start=1)
        ]
        if entry.init != stream.init or not sizes.get(entry.init):
            findings.append(invalid(f"The header that {name} names does not exist."))
        if len(entry.segments) != len(wanted):
            findings.append(
                invalid(f"{name} lists {len(entry.segments)} of {len(wanted)} segments.")
            )
            continue
        for (file, length), (own_file, own_length, size) in zip(
            entry.segments, wanted, strict=True
        ):
            if file != own_file or sizes.get(file) != size:
                findings.append(invalid(f"{name} lists {file}, which is not there as measured."))
            elif abs(length - own_length) > ROUNDING_S:
                findings.append(invalid(f"{name} says {float(length):.3f} s of {file}."))
    return findings


def _compare_choices(streams: Sequence[Stream], listed: Mapping[str, Listed]) -> list[Finding]:
    """What a player chooses by has to be so: size, codecs, and a bandwidth that suffices."""
    findings: list[Finding] = []
    for stream in streams:
        said = listed[stream.playlist].attributes
        if not stream.track.is_video:
            continue
        size = f"{stream.track.width}x{stream.track.height}"
        if said.get("RESOLUTION") != size:
            findings.append(invalid(f"{stream.playlist} is not listed as {size}."))
        if stream.track.codecs not in said.get("CODECS", "").split(","):
            findings.append(invalid(f"{stream.playlist} is not listed as {stream.track.codecs}."))
        if int(said["BANDWIDTH"]) < stream.peak_rate:
            findings.append(invalid(f"{stream.playlist} needs more than its listed bandwidth."))
    return findings
