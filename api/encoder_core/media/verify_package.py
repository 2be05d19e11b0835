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

from encoder_core.media.manifests import Stream, Text
from encoder_core.media.naming import TrackName
from encoder_core.media.planned import AudioPlan, OutputPlan, RenditionPlan
from encoder_core.media.sound import MAX_DELAY_S
from encoder_core.media.verify import Finding, invalid, missing_frames, short, truncated
from encoder_core.media.walk import BadManifest, Listed, walk_dash, walk_hls

ROUNDING_S: Final = Fraction(1, 100_000)  # playlists have six decimals
ROUNDING_MPD_S: Final = Fraction(1, 1000)  # the length of the whole has three
DRIFT_S: Final = Fraction(1, 2)  # sound is cut between its own frames, near where pictures are


def compare_package(plan: OutputPlan, streams: Sequence[Stream]) -> list[Finding]:
    """Everything that is wrong with the streams, which are in the plan's order, sounds last."""
    assert plan.package is not None
    findings: list[Finding] = []
    videos = [stream for stream in streams if stream.track.is_video]
    sounds = [stream for stream in streams if not stream.track.is_video]
    if len(videos) != len(plan.package.renditions):
        message = f"There are {len(videos)} of {len(plan.package.renditions)} renditions."
        return [truncated(message)]
    if len(sounds) != len(plan.sounds):
        message = f"There are {len(sounds)} of {len(plan.sounds)} sounds."
        return [(truncated if len(sounds) < len(plan.sounds) else invalid)(message)]
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
    for stream, sound in zip(sounds, plan.sounds, strict=True):
        findings += _compare_sound(stream, sound, plan.package.segment_s)
    return findings


def _compare_timeline(stream: Stream) -> list[Finding]:
    """Segments follow one another without a gap, in the order of their numbers."""
    findings = []
    tick = Fraction(1, stream.track.timescale)
    if abs(stream.segments[0].start * tick) > DRIFT_S or stream.track.delay_s > MAX_DELAY_S:
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


def _compare_sound(stream: Stream, wanted: AudioPlan, segment_s: Fraction) -> list[Finding]:
    """Cut where the pictures are, or would be: all sounds change at the same segments."""
    findings: list[Finding] = []
    track, name = stream.track, stream.name
    if track.family != wanted.family:
        findings.append(invalid(f"{name} is {track.family}, not {wanted.family}."))
    if track.channels and wanted.encoder is not None and track.channels != wanted.channels:
        findings.append(invalid(f"{name} has {track.channels}, not {wanted.channels} channels."))
    if wanted.duration_s is not None:
        findings += short(wanted.duration_s, float(stream.duration_s), name)
    if any(abs(cut - n * segment_s) > DRIFT_S for n, cut in enumerate(_cuts(stream))):
        findings.append(invalid(f"{name} is cut elsewhere than the pictures."))
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
    texts: Sequence[Text] = (),
    *,
    master: str | None,
    mpd: str | None,
    playlists: Mapping[str, str],
    sizes: Mapping[str, int],
) -> list[Finding]:
    """
    What is wrong with the manifests as they were written.

    `playlists` has the media playlists by name, `sizes` every file of the package that exists.
    """
    findings: list[Finding] = []
    try:
        if master is not None:
            listed = walk_hls(master, playlists)
            found = _compare_texts({text.playlist: text for text in texts}, listed, sizes)
            found += _compare_listed({s.playlist: s for s in streams}, listed, sizes)
            findings += found or _compare_hls_choices(streams, texts, listed)
        if mpd is not None:
            listed = walk_dash(mpd)
            found = _compare_texts({text.name: text for text in texts}, listed, sizes)
            found += _compare_listed({s.name: s for s in streams}, listed, sizes)
            findings += found or _compare_dash_choices(streams, texts, listed)
    except (BadManifest, KeyError, ValueError) as error:
        findings.append(invalid(f"A manifest cannot be followed: {error}."))
    return findings


def _compare_texts(
    texts: Mapping[str, Text], listed: Mapping[str, Listed], sizes: Mapping[str, int]
) -> list[Finding]:
    """Each is one file, which is there and as long as the package."""
    findings: list[Finding] = []
    for name, text in texts.items():
        entry = listed.get(name)
        if entry is None or [file for file, _ in entry.segments] != [text.file]:
            findings.append(invalid(f"A manifest does not list {text.file}."))
        elif sizes.get(text.file) != text.size_bytes:
            findings.append(invalid(f"{name} lists {text.file}, which is not there as measured."))
        elif abs(entry.duration_s - text.duration_s) > ROUNDING_MPD_S:
            findings.append(invalid(f"{name} says {float(entry.duration_s):.3f} s of {text.file}."))
    return findings


def _compare_listed(
    streams: Mapping[str, Stream], listed: Mapping[str, Listed], sizes: Mapping[str, int]
) -> list[Finding]:
    if not set(streams) <= set(listed):
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


def _compare_hls_choices(
    streams: Sequence[Stream], texts: Sequence[Text], listed: Mapping[str, Listed]
) -> list[Finding]:
    """What a player chooses by has to be so: size, codecs, language, and sufficient bandwidth."""
    findings: list[Finding] = []
    if len(listed) != len(streams) + len(texts):
        findings.append(invalid("The master playlist lists what is not in the package."))
    sounds = [stream for stream in streams if stream.sound is not None]
    codecs = {sound.track.codecs for sound in sounds}
    # A single sound alone is no choice, so there is no group.
    choices = sounds if len(streams) > 1 else []
    played = 0
    for stream in streams:
        name, said = stream.playlist, listed[stream.playlist].attributes
        if "BANDWIDTH" in said:
            played += 1
            if not codecs | {stream.track.codecs} <= set(said.get("CODECS", "").split(",")):
                findings.append(invalid(f"{name} is not listed with all of its codecs."))
            if int(said["BANDWIDTH"]) < stream.peak_rate:
                findings.append(invalid(f"{name} needs more than its listed bandwidth."))
            if (bool(choices), bool(texts)) != ("AUDIO" in said, "SUBTITLES" in said):
                findings.append(invalid(f"{name} is not listed with the choices of the package."))
        size = f"{stream.track.width}x{stream.track.height}" if stream.track.is_video else None
        if said.get("RESOLUTION") != size:
            findings.append(invalid(f"{name} is not listed as {size}."))
    if played != (len(streams) - len(sounds) or 1):
        findings.append(invalid("The master playlist lists too few renditions, or too many."))
    for group in (choices, texts):
        findings += _compare_group(group, listed)
    if len({listed[stream.playlist].target_s for stream in streams}) > 1:
        findings.append(invalid("The playlists do not have one target duration."))
    return findings


def _compare_group(tracks: Sequence[Stream | Text], listed: Mapping[str, Listed]) -> list[Finding]:
    """All in one group and told apart by their names; of sounds the first is the default."""
    findings: list[Finding] = []
    said = [listed[track.playlist].attributes for track in tracks]
    for track, what in zip(tracks, said, strict=True):
        named = _name_of(track)
        if what.get("LANGUAGE") != named.language:
            findings.append(invalid(f"{track.playlist} is not listed as {named.language}."))
        if (what.get("FORCED") == "YES") != named.forced:
            findings.append(invalid(f"{track.playlist} is forced, or is not, and is not said so."))
        if (what["DEFAULT"] == "YES") != (isinstance(track, Stream) and named.number == 0):
            findings.append(invalid(f"{track.playlist} is the default, or should be."))
    names = {(what["GROUP-ID"], what["NAME"]) for what in said}
    if len(names) < len(tracks) or len({group for group, _ in names}) > 1:
        findings.append(invalid("The choices are not one group of different names."))
    return findings


def _name_of(track: Stream | Text) -> TrackName:
    named = track.words if isinstance(track, Text) else track.sound
    assert named is not None
    return named


def _compare_dash_choices(
    streams: Sequence[Stream], texts: Sequence[Text], listed: Mapping[str, Listed]
) -> list[Finding]:
    findings: list[Finding] = []
    if len(listed) != len(streams) + len(texts):
        findings.append(invalid("The MPD lists what is not in the package."))
    for stream in streams:
        name, said = stream.name, listed[stream.name].attributes
        if said.get("codecs") != stream.track.codecs:
            findings.append(invalid(f"{name} is not listed as {stream.track.codecs}."))
        if int(said["bandwidth"]) < stream.peak_rate:
            findings.append(invalid(f"{name} needs more than its listed bandwidth."))
    sounds = [stream for stream in streams if stream.sound is not None]
    choices: list[Stream | Text] = [*sounds, *texts]
    for track in choices:
        named, said = _name_of(track), listed[track.name].attributes
        if said.get("lang") != named.language:
            findings.append(invalid(f"{track.name} is not listed as {named.language}."))
        if (said.get("role") == "main") != (isinstance(track, Stream) and named.number == 0):
            findings.append(invalid(f"{track.name} is the main one, or should be."))
    for text in texts:
        said = listed[text.name].attributes
        role = "forced-subtitle" if text.words.forced else "subtitle"
        if (said.get("mimeType"), said.get("role")) != ("text/vtt", role):
            findings.append(invalid(f"{text.name} is not listed as {role}s in WebVTT."))
    return findings
