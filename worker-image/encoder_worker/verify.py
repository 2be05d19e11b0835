"""
Look at what ffmpeg made: whether each output is what was planned, and which files it is.

Nothing is read twice: a file by one ffprobe, a picture or a segment by ourselves.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from encoder_core.errors import JobError
from encoder_core.media.cmaf import BadSegment, Segment, parse_init, read_segment
from encoder_core.media.containers import CONTAINERS, Kind
from encoder_core.media.cues import compare_cues, read_cues
from encoder_core.media.manifests import (
    Stream,
    build_master,
    build_mpd,
    build_playlist,
    target_seconds,
)
from encoder_core.media.pictures import BadPicture, Picture, parse_picture
from encoder_core.media.planned import OutputPlan
from encoder_core.media.probe import AudioStream, Probe, SubtitleStream, VideoStream
from encoder_core.media.sprites import build_vtt, compare_tiles, compare_vtt, read_tiles
from encoder_core.media.verify import Finding, compare, invalid, truncated
from encoder_core.media.verify_package import compare_manifests, compare_package
from encoder_core.specs import Container
from encoder_worker.examine import examine_output
from encoder_worker.tools import Tools

SEGMENT: Final = re.compile(r"^(\d+)-(\d{5,})\.m4s$")
MAX_INIT_BYTES: Final = 1024**2
HLS_TYPE: Final = CONTAINERS[Container.HLS].content_type
DASH_TYPE: Final = CONTAINERS[Container.DASH].content_type


@dataclass(frozen=True, slots=True)
class MadeFile:
    path: Path
    content_type: str
    name: str | None = None
    """In a set: how it is called beside the destination. None: it is the destination itself."""


@dataclass(frozen=True, slots=True)
class Made:
    """One output that is what was planned."""

    plan: OutputPlan
    files: tuple[MadeFile, ...]
    """The main one first: what lists others comes before them."""
    measured: Probe


def verify_output(tools: Tools, plan: OutputPlan, folder: Path) -> Made | list[Finding]:
    try:
        if plan.package is not None:
            return _verify_package(plan, folder / str(plan.index))
        if plan.kind.kind is Kind.PICTURE:
            return _verify_pictures(plan, folder)
        if plan.kind.kind is Kind.TEXT:
            return _verify_text(plan, folder)
        return _verify_file(tools, plan, folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return [Finding("capacity_disk", "The scratch disk is full.")]
        return [invalid(f"What was made cannot be read: {error.strerror}.")]


def find_files(plan: OutputPlan, folder: Path) -> list[Path]:
    """Everything in the scratch folder that belongs to an output, whole or not."""
    if plan.package is not None:
        return sorted((folder / str(plan.index)).glob("*"))
    found = folder.glob(f"{plan.index}-*") if plan.is_set else folder.glob(f"{plan.index}.*")
    return sorted(found)


def _verify_file(tools: Tools, plan: OutputPlan, folder: Path) -> Made | list[Finding]:
    path = folder / plan.file_name
    if not path.is_file() or path.stat().st_size == 0:
        return [truncated("There is no file, or an empty one.")]
    try:
        measured = examine_output(tools, path, folder)
    except JobError as error:
        return [invalid(error.failure.message)]
    file = MadeFile(path, plan.kind.content_type)
    return compare(plan, measured) or Made(plan, (file,), measured)


def _verify_text(plan: OutputPlan, folder: Path) -> Made | list[Finding]:
    path = folder / plan.file_name
    if not path.is_file():
        return [truncated("There is no file.")]
    try:
        with path.open(encoding="utf-8") as lines:
            cues = read_cues(lines)
    except UnicodeDecodeError:
        return [invalid("The subtitles are not UTF-8.")]
    [words] = plan.subtitles
    measured = Probe(
        formats=("webvtt",),
        duration_s=cues.last_end_s,
        subtitle_streams=1,
        subtitles=(SubtitleStream(index=0, codec=words.family, language=words.language),),
    )
    file = MadeFile(path, plan.kind.content_type)
    return compare_cues(plan, cues) or Made(plan, (file,), measured)


# --- Pictures --------------------------------------------------------------------------------


def _verify_pictures(plan: OutputPlan, folder: Path) -> Made | list[Finding]:
    assert plan.video is not None
    paths = [folder / plan.file_name]
    if plan.is_set:
        paths = sorted(folder.glob(f"{plan.index}-*.{plan.kind.extension}"))
    count = plan.sprite.sheets if plan.sprite else len(plan.pictures) if plan.is_set else 1
    if len(paths) != count:
        return [truncated(f"There are {len(paths)} of {count} files.")]
    width, height = plan.video.width, plan.video.height
    if plan.sprite is not None:
        width, height = plan.sprite.columns * width, plan.sprite.rows * height
    wanted = Picture(plan.video.family, width, height)
    for number, path in enumerate(paths, start=1):
        if not path.is_file():
            return [truncated("There is no file.")]
        try:
            found = parse_picture(path.read_bytes())
        except BadPicture as error:
            return [truncated(f"Picture {number} is not whole: {error}.")]
        if found != wanted:
            size = f"{found.codec} {found.width}x{found.height}"
            return [invalid(f"Picture {number} is {size}, not {width}x{height}.")]
    files = tuple(
        MadeFile(path, plan.kind.content_type, _picture_name(plan, number))
        for number, path in enumerate(paths, start=1)
    )
    video = VideoStream(index=0, codec=wanted.codec, width=width, height=height, frames=count)
    measured = Probe(formats=("image2",), duration_s=None, video=video, video_streams=1)
    if plan.sprite is None:
        return Made(plan, files, measured)
    return _add_vtt(Made(plan, files, measured), folder, (width, height))


def _picture_name(plan: OutputPlan, number: int) -> str | None:
    return f"{plan.stem}-{number:05d}.{plan.kind.extension}" if plan.is_set else None


def _add_vtt(made: Made, folder: Path, size: tuple[int, int]) -> Made | list[Finding]:
    plan = made.plan
    with (folder / plan.tile_list).open(encoding="utf-8") as lines:
        findings = compare_tiles(plan, read_tiles(lines))
    if findings:
        return findings
    names = [file.name or "" for file in made.files]
    end_s = plan.start_s + (plan.shown_s or 0.0)
    path = folder / f"{plan.index}-sprite.vtt"
    path.write_text(build_vtt(plan, names, end_s), encoding="utf-8")
    findings = compare_vtt(plan, path.read_text(encoding="utf-8"), dict.fromkeys(names, size))
    vtt = MadeFile(path, "text/vtt", f"{plan.stem}.vtt")
    return findings or Made(plan, (vtt, *made.files), made.measured)


# --- Packages --------------------------------------------------------------------------------


def _verify_package(plan: OutputPlan, folder: Path) -> Made | list[Finding]:
    try:
        streams = _read_streams(plan, folder)
    except _Missing as missing:
        return [truncated(str(missing))]
    except BadSegment as error:
        return [truncated(f"{error}.")]
    findings = compare_package(plan, streams)
    if findings:
        return findings
    files = _write_manifests(plan, streams, folder)
    sizes = {file.name: file.path.stat().st_size for file in files if file.name}
    texts = {
        file.name: file.path.read_text(encoding="utf-8")
        for file in files
        if file.name and file.content_type == HLS_TYPE
    }
    written = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("manifest.*")}
    findings = compare_manifests(
        streams,
        master=written.get("manifest.m3u8"),
        mpd=written.get("manifest.mpd"),
        texts=texts,
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


def _write_manifests(plan: OutputPlan, streams: Sequence[Stream], folder: Path) -> list[MadeFile]:
    """Write what lists the segments; every file of the package, the container's manifest first."""
    assert plan.package is not None
    manifests: list[MadeFile] = []
    playlists: list[MadeFile] = []
    target_s = target_seconds(streams)
    for kind in plan.package.manifests:
        extension, content_type = ("m3u8", HLS_TYPE) if kind == "hls" else ("mpd", DASH_TYPE)
        text = build_master(streams) if kind == "hls" else build_mpd(streams)
        path = folder / f"manifest.{extension}"
        path.write_text(text, encoding="utf-8")
        # The first is the destination itself; the other has its name but for the ending.
        name = f"{plan.stem}.{extension}" if manifests else None
        manifests.append(MadeFile(path, content_type, name))
        if kind == "hls":
            for index, stream in enumerate(streams):
                path = folder / f"{index}.m3u8"
                path.write_text(build_playlist(stream, target_s), encoding="utf-8")
                playlists.append(MadeFile(path, HLS_TYPE, stream.playlist))
    media: list[MadeFile] = []
    for index, stream in enumerate(streams):
        kind = "video" if stream.track.is_video else "audio"
        media.append(MadeFile(folder / f"{index}-init.mp4", f"{kind}/mp4", stream.init))
        media += [
            MadeFile(_segment_path(folder, index, number), f"{kind}/mp4", stream.file(number))
            for number in range(1, len(stream.segments) + 1)
        ]
    return [*manifests, *playlists, *media]


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
    )
