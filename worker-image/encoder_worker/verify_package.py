"""
Look at a package that ffmpeg made, write the manifests of what is really there, and follow them.

Segments are read by ourselves, so however many there are, no process is needed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from encoder_core.media.cmaf import BadSegment, Segment, parse_init, read_segment
from encoder_core.media.containers import CONTAINERS
from encoder_core.media.cues import Cues
from encoder_core.media.manifests import (
    TIMESTAMP_MAP,
    Stream,
    Text,
    build_master,
    build_mpd,
    build_playlist,
    build_text_playlist,
    target_seconds,
)
from encoder_core.media.planned import OutputPlan
from encoder_core.media.probe import AudioStream, Probe, VideoStream
from encoder_core.media.verify import Finding, truncated
from encoder_core.media.verify_package import compare_manifests, compare_package
from encoder_core.specs import Container
from encoder_worker.made import Made, MadeFile
from encoder_worker.verify_text import as_stream, verify_cues

SEGMENT: Final = re.compile(r"^(\d+)-(\d{5,})\.m4s$")
MAX_INIT_BYTES: Final = 1024**2
HLS_TYPE: Final = CONTAINERS[Container.HLS].content_type
DASH_TYPE: Final = CONTAINERS[Container.DASH].content_type
TEXT_TYPE: Final = CONTAINERS[Container.VTT].content_type


def verify_package(plan: OutputPlan, folder: Path) -> Made | list[Finding]:
    try:
        streams = _read_streams(plan, folder)
    except _Missing as missing:
        return [truncated(str(missing))]
    except BadSegment as error:
        return [truncated(f"{error}.")]
    findings = compare_package(plan, streams) + _compare_texts(plan, folder)
    if findings:
        return findings
    texts = _write_texts(plan, streams, folder)
    files = _write_manifests(plan, streams, texts, folder)
    sizes = {file.name: file.path.stat().st_size for file in files if file.name}
    playlists = {
        file.name: file.path.read_text(encoding="utf-8")
        for file in files
        if file.name and file.content_type == HLS_TYPE
    }
    written = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("manifest.*")}
    findings = compare_manifests(
        streams,
        texts,
        master=written.get("manifest.m3u8"),
        mpd=written.get("manifest.mpd"),
        playlists=playlists,
        sizes=sizes,
    )
    return findings or Made(plan, tuple(files), _measure_package(plan, streams))


class _Missing(Exception):
    """A file of the package is not there."""


def _read_streams(plan: OutputPlan, folder: Path) -> list[Stream]:
    """The streams in ffmpeg's order, which is the plan's: renditions, then sounds."""
    assert plan.package is not None
    names = [rendition.name for rendition in plan.package.renditions]
    names += [sound.name for sound in plan.package.sounds]
    numbers: dict[int, list[int]] = {}
    for path in folder.iterdir():
        match = SEGMENT.match(path.name)
        if match is not None:
            numbers.setdefault(int(match[1]), []).append(int(match[2]))
    return [
        _read_stream(plan, folder, index, name, sorted(numbers.get(index, [])))
        for index, name in enumerate(names)
    ]


def _read_stream(
    plan: OutputPlan, folder: Path, index: int, name: str, numbers: Sequence[int]
) -> Stream:
    assert plan.package is not None
    if not numbers or list(numbers) != list(range(1, len(numbers) + 1)):
        raise _Missing(f"{name} has segments missing.")
    init = folder / f"{index}-init.mp4"
    if not init.is_file():
        raise _Missing(f"{name} has no header.")
    with init.open("rb") as file:
        track = parse_init(file.read(MAX_INIT_BYTES))
    segments: list[Segment] = []
    for number in numbers:
        path = _segment_path(folder, index, number)
        try:
            with path.open("rb") as file:
                segments.append(read_segment(file, path.stat().st_size, track))
        except BadSegment as error:
            raise BadSegment(f"Segment {number} of {name} is damaged: {error}") from None
    stream = Stream(
        name=name,
        track=track,
        segments=tuple(segments),
        prefix=f"{plan.stem}-{plan.container.value}-{name}",
    )
    renditions = plan.package.renditions
    if index < len(renditions):
        return replace(stream, frame_rate=renditions[index].video.fps)
    number = index - len(renditions)
    return replace(stream, channels=plan.sounds[number].channels, sound=plan.package.sounds[number])


def _segment_path(folder: Path, index: int, number: int) -> Path:
    return folder / f"{index}-{number:05d}.m4s"


def _compare_texts(plan: OutputPlan, folder: Path) -> list[Finding]:
    assert plan.package is not None
    findings: list[Finding] = []
    named = zip(plan.subtitles, plan.package.subtitles, strict=True)
    for number, (words, name) in enumerate(named):
        verdict = verify_cues(plan, words, folder.parent / plan.text_name(number))
        if not isinstance(verdict, Cues):
            findings += [Finding(found.code, f"{name.name}: {found.message}") for found in verdict]
    return findings


def _write_texts(plan: OutputPlan, streams: Sequence[Stream], folder: Path) -> list[Text]:
    """Say of each file of subtitles how its clock and that of the segments go together."""
    assert plan.package is not None
    texts = []
    for number, words in enumerate(plan.package.subtitles):
        path = _text_path(folder, number)
        with (folder.parent / plan.text_name(number)).open(encoding="utf-8") as made:
            made.readline()  # WEBVTT
            with path.open("w", encoding="utf-8") as file:
                file.write(f"WEBVTT\n{TIMESTAMP_MAP}\n")
                file.writelines(made)
        text = Text(
            words=words,
            prefix=f"{plan.stem}-{plan.container.value}-{words.name}",
            size_bytes=path.stat().st_size,
            duration_s=max(stream.duration_s for stream in streams),
        )
        texts.append(text)
    return texts


def _text_path(folder: Path, number: int) -> Path:
    return folder / f"subtitles-{number}.vtt"


def _write_manifests(
    plan: OutputPlan, streams: Sequence[Stream], texts: Sequence[Text], folder: Path
) -> list[MadeFile]:
    """Write what lists the segments; every file of the package, the container's manifest first."""
    assert plan.package is not None
    manifests: list[MadeFile] = []
    for kind in plan.package.manifests:
        extension, content_type = ("m3u8", HLS_TYPE) if kind == "hls" else ("mpd", DASH_TYPE)
        build = build_master if kind == "hls" else build_mpd
        path = folder / f"manifest.{extension}"
        path.write_text(build(streams, texts), encoding="utf-8")
        # The first is the destination itself; the other has its name but for the ending.
        name = f"{plan.stem}.{extension}" if manifests else None
        manifests.append(MadeFile(path, content_type, name))
    playlists: list[MadeFile] = []
    if "hls" in plan.package.manifests:
        playlists = _write_playlists(streams, texts, folder)
    media: list[MadeFile] = []
    for index, stream in enumerate(streams):
        kind = "video" if stream.track.is_video else "audio"
        media.append(MadeFile(folder / f"{index}-init.mp4", f"{kind}/mp4", stream.init))
        media += [
            MadeFile(_segment_path(folder, index, number), f"{kind}/mp4", stream.file(number))
            for number in range(1, len(stream.segments) + 1)
        ]
    media += [
        MadeFile(_text_path(folder, number), TEXT_TYPE, text.file)
        for number, text in enumerate(texts)
    ]
    return [*manifests, *playlists, *media]


def _write_playlists(
    streams: Sequence[Stream], texts: Sequence[Text], folder: Path
) -> list[MadeFile]:
    target_s = target_seconds(streams)
    written = [(stream.playlist, build_playlist(stream, target_s)) for stream in streams]
    written += [(text.playlist, build_text_playlist(text)) for text in texts]
    playlists = []
    for index, (name, playlist) in enumerate(written):
        path = folder / f"{index}.m3u8"
        path.write_text(playlist, encoding="utf-8")
        playlists.append(MadeFile(path, HLS_TYPE, name))
    return playlists


def _measure_package(plan: OutputPlan, streams: Sequence[Stream]) -> Probe:
    """The largest rendition and the sounds, as of a single file."""
    videos = [stream for stream in streams if stream.track.is_video]
    sounds = [stream for stream in streams if not stream.track.is_video]
    duration = float(max(stream.duration_s for stream in streams))
    largest = max(videos, key=lambda s: s.track.width * s.track.height, default=None)
    video = None
    if largest is not None:
        video = VideoStream(
            index=0,
            codec=largest.track.family,
            width=largest.track.width,
            height=largest.track.height,
            average_fps=largest.frame_rate,
            nominal_fps=largest.frame_rate,
            duration_s=float(largest.duration_s),
            frames=sum(segment.samples for segment in largest.segments),
            bit_rate=largest.average_rate,
        )
    audio = tuple(
        AudioStream(
            index=index,
            codec=sound.track.family,
            channels=sound.channels,
            sample_rate=sound.track.sample_rate,
            duration_s=float(sound.duration_s),
            language=sound.sound.language if sound.sound else None,
            bit_rate=sound.average_rate,
        )
        for index, sound in enumerate(sounds, start=len(videos))
    )
    return Probe(
        formats=(plan.container.value,),
        duration_s=duration,
        video=video,
        audio=audio,
        video_streams=len(videos),
        subtitle_streams=len(plan.subtitles),
        subtitles=tuple(
            as_stream(words, index) for index, words in enumerate(plan.subtitles, len(streams))
        ),
    )
