"""
Say what a job will become and what it will cost, without running it. Pure.

The same planner that the worker obeys, told as a document: for people who ask before they submit,
and for the engine that sizes a Pod.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import zip_longest
from typing import Any, Final

from pydantic import Field

from encoder_core.errors import InvalidRequest
from encoder_core.failures import Warned
from encoder_core.media.check import check_request
from encoder_core.media.command import build_encode_command, build_loudness_command
from encoder_core.media.languages import standard_tag
from encoder_core.media.loudness import list_meters
from encoder_core.media.naming import TrackName
from encoder_core.media.plan import plan_output
from encoder_core.media.planned import AudioPlan, OutputPlan, VideoPlan
from encoder_core.media.probe import AudioStream, Probe, SubtitleStream, VideoStream
from encoder_core.media.resources import estimate, likely_size
from encoder_core.model import Model
from encoder_core.specs import Container, FileSource, InlineSource, JobSpec, OutputSpec, Source

ASSUMED_SIZE: Final = (1920, 1080)
ASSUMED_FPS: Final = Fraction(30)
THREADS: Final = 2  # what the command shows when nobody says how many the worker will have


class PlannedProblem(Model):
    """A reason why an output cannot be made."""

    pointer: str = Field(description="JSON pointer into the request")
    code: str
    detail: str


class PlannedWatermark(Model):
    """Where an image lies on a picture, in pixels of it."""

    position: str
    max_width: int
    max_height: int
    """It is as large as fits; its shape is known when it is fetched."""
    margin: int
    opacity: float


class PlannedVideo(Model):
    """A picture as it will be."""

    name: str | None = None
    """Of a rendition."""
    codec: str
    encoder: str | None = None
    """Null: the stream is copied."""
    width: int
    height: int
    frame_rate: float | None = None
    frames: int | None = None
    bitrate: int | None = None
    max_bitrate: int | None = None
    crf: float | None = None
    preset: str | None = None
    keyframe_seconds: float | None = None
    watermark: PlannedWatermark | None = None


class PlannedAudio(Model):
    name: str | None = None
    """In a package, where a player chooses: a part of its files' names."""
    language: str | None = None
    codec: str
    encoder: str | None = None
    """Null: the stream is copied."""
    channels: int
    sample_rate: int
    bitrate: int | None = None
    loudness: float | None = None


class PlannedSubtitles(Model):
    name: str | None = None
    """In a package: a part of its file's name."""
    codec: str
    language: str | None = None
    forced: bool = False


class PlannedPackaging(Model):
    manifests: list[str]
    segment_seconds: float


class PlannedSprite(Model):
    columns: int
    rows: int
    tile_width: int
    tile_height: int
    sheets: int


class PlannedOutput(Model):
    """One output: what it will be, or why it cannot be."""

    index: int
    container: str
    problems: list[PlannedProblem] = []
    """Not empty: this output would fail, and the others would be made."""
    video: PlannedVideo | None = None
    renditions: list[PlannedVideo] | None = None
    audio: PlannedAudio | None = None
    other_audio: list[PlannedAudio] = []
    """More sounds beside the first, which players take by default."""
    subtitles: list[PlannedSubtitles] = []
    packaging: PlannedPackaging | None = None
    pictures_at: list[float] | None = None
    """Seconds of the source's timeline."""
    sprite: PlannedSprite | None = None
    duration_s: float | None = None
    size_bytes: int | None = None
    """Predicted, within a factor of two for ordinary material."""
    warnings: list[Warned] = []


class AssumedSource(Model):
    """What is taken for the source when nobody looked at it."""

    width: int
    height: int
    frame_rate: float
    audio_channels: int
    audio_sample_rate: int


class PlannedResources(Model):
    """Estimates, from figures that were measured once."""

    cpu_seconds_per_second: float
    """Of one core, for a second of the source: the weight of the job."""
    cpu_seconds: float | None = None
    memory_bytes: int
    scratch_bytes: int | None = None
    """For the source and all outputs. Null: sizes are not known without a probe."""


class PlanDocument(Model):
    """What a job will become."""

    assumed_source: AssumedSource | None = None
    """Set when there was no probe: sizes and costs are those of such a source."""
    outputs: list[PlannedOutput]
    commands: list[list[str]]
    """
    What ffmpeg is run with. One command decodes the source once for all outputs; one before it
    measures the loudness where that is asked for, and the gain that follows is not known here.
    """
    resources: PlannedResources


def explain_plan(spec: JobSpec, probe: Probe | None, *, threads: int = THREADS) -> PlanDocument:
    """
    The plan of a job.

    Raises InvalidRequest for what no source could make possible, as submitting it would. What only
    this source makes impossible is told by the output that it concerns.
    """
    problems = check_request(spec)
    if problems:
        raise InvalidRequest(problems)
    source = probe or assume_source(spec)
    plans: list[OutputPlan] = []
    outputs: list[PlannedOutput] = []
    for index, output in enumerate(spec.outputs):
        try:
            plan = plan_output(index, output if probe else _of_any_source(output), source)
        except InvalidRequest as error:
            if probe is None:
                raise
            outputs.append(
                PlannedOutput(
                    index=index,
                    container=output.container.value,
                    problems=[
                        PlannedProblem(pointer=p.pointer, code=p.code, detail=p.detail)
                        for p in error.problems
                    ],
                )
            )
            continue
        # What would be warned of an assumed source is not true of the real one.
        plans.append(plan)
        described = _describe(plan, source)
        if probe is None:
            unknown: dict[str, Any] = {"warnings": [], "pictures_at": None, "sprite": None}
            described = described.model_copy(update=unknown)
        outputs.append(described)
    cost = estimate(plans, source, threads=threads, fetched_bytes=_fetched(spec, probe))
    command = build_encode_command(
        plans, source="source", images=_name_images(spec), folder="out", threads=threads
    )
    meters = list_meters(plans)
    measure: list[list[str]] = []
    if meters:
        measure = [["ffmpeg", *build_loudness_command(meters, source="source", threads=threads)]]
    return PlanDocument(
        assumed_source=None if probe else _describe_assumed(source),
        outputs=outputs,
        commands=[*measure, ["ffmpeg", *command]] if plans else [],
        resources=PlannedResources(
            cpu_seconds_per_second=cost.cpu_s_per_second,
            cpu_seconds=cost.cpu_s,
            memory_bytes=cost.memory_bytes,
            scratch_bytes=cost.scratch_bytes,
        ),
    )


def assume_source(spec: JobSpec) -> Probe:
    """A full HD film of unknown length, or one as large as the largest output asks for."""
    width, height = ASSUMED_SIZE
    for output in spec.outputs:
        for asked in (output, *(output.renditions or [])):
            width = max(width, asked.width or 0, (asked.height or 0) * 16 // 9)
            height = max(height, asked.height or 0, (asked.width or 0) * 9 // 16)
    video = VideoStream(
        index=0,
        codec="h264",
        width=width,
        height=height,
        average_fps=ASSUMED_FPS,
        nominal_fps=ASSUMED_FPS,
    )
    audio = AudioStream(index=1, codec="aac", channels=2, sample_rate=48_000)
    words = SubtitleStream(index=2, codec="mov_text")
    as_a_file = any(output.container is Container.VTT for output in spec.outputs)
    return Probe(
        formats=("mov", "mp4"),
        duration_s=None,
        video=video,
        audio=(audio,),
        video_streams=1,
        subtitles=(words,) if as_a_file else (),
    )


def _of_any_source(output: OutputSpec) -> OutputSpec:
    """Without instants that only a source of known length has, or the language of its words."""
    if output.container is Container.VTT:
        return output.model_copy(update={"subtitles": None})
    if output.thumbnails is None:
        return output
    one = {"count": None, "interval_seconds": None, "at": [0.0]}
    return output.model_copy(update={"thumbnails": output.thumbnails.model_copy(update=one)})


def _name_images(spec: JobSpec) -> dict[int, str]:
    """An image that several outputs name has one name."""
    sources: list[Source] = []
    names: dict[int, str] = {}
    for index, output in enumerate(spec.outputs):
        if output.watermark is not None:
            if output.watermark.source not in sources:
                sources.append(output.watermark.source)
            names[index] = f"image-{sources.index(output.watermark.source)}"
    return names


def _fetched(spec: JobSpec, probe: Probe | None) -> int | None:
    """What the source takes of the scratch space; files are read where they are."""
    if isinstance(spec.source, FileSource):
        return 0
    if isinstance(spec.source, InlineSource) and spec.source.size_bytes is not None:
        return spec.source.size_bytes
    return probe.size_bytes if probe else None


def _describe_assumed(source: Probe) -> AssumedSource:
    video, audio = source.video, source.main_audio
    assert video is not None
    assert audio is not None
    return AssumedSource(
        width=video.width,
        height=video.height,
        frame_rate=float(ASSUMED_FPS),
        audio_channels=audio.channels,
        audio_sample_rate=audio.sample_rate,
    )


def _describe(plan: OutputPlan, source: Probe) -> PlannedOutput:
    package, sprite = plan.package, plan.sprite
    named = package.sounds if package else ()
    sounds = [_describe_audio(*pair) for pair in zip_longest(plan.sounds, named)]
    return PlannedOutput(
        index=plan.index,
        container=plan.container.value,
        video=_describe_video(plan.video) if plan.video and not package else None,
        renditions=[_describe_video(one.video, one.name) for one in package.renditions]
        if package
        else None,
        audio=next(iter(sounds), None),
        other_audio=sounds[1:],
        subtitles=[
            PlannedSubtitles(
                name=name.name if name else None,
                codec=words.family,
                language=standard_tag(words.language),
                forced=words.forced,
            )
            for words, name in zip_longest(plan.subtitles, package.subtitles if package else ())
        ],
        packaging=PlannedPackaging(
            manifests=list(package.manifests), segment_seconds=round(float(package.segment_s), 3)
        )
        if package
        else None,
        pictures_at=[round(instant, 3) for instant in plan.pictures] or None,
        sprite=PlannedSprite(
            columns=sprite.columns,
            rows=sprite.rows,
            tile_width=sprite.tile[0],
            tile_height=sprite.tile[1],
            sheets=sprite.sheets,
        )
        if sprite
        else None,
        duration_s=None if plan.duration_s is None else round(plan.duration_s, 3),
        size_bytes=likely_size(plan, source),
        warnings=list(plan.warnings),
    )


def _describe_video(video: VideoPlan, name: str | None = None) -> PlannedVideo:
    distance = video.gop_frames / video.fps if video.gop_frames and video.fps else None
    mark = video.watermark
    return PlannedVideo(
        name=name,
        codec=video.family,
        encoder=video.encoder.name if video.encoder else None,
        width=video.width,
        height=video.height,
        frame_rate=None if video.fps is None else round(float(video.fps), 3),
        frames=video.frames,
        bitrate=video.bitrate,
        max_bitrate=video.max_bitrate,
        crf=video.crf,
        preset=video.preset,
        keyframe_seconds=None if distance is None else round(float(distance), 3),
        watermark=PlannedWatermark(
            position=mark.position.value,
            max_width=mark.box[0],
            max_height=mark.box[1],
            margin=mark.margin,
            opacity=mark.opacity,
        )
        if mark
        else None,
    )


def _describe_audio(audio: AudioPlan, named: TrackName | None) -> PlannedAudio:
    return PlannedAudio(
        name=named.name if named else None,
        language=standard_tag(audio.language),
        codec=audio.family,
        encoder=audio.encoder.name if audio.encoder else None,
        channels=audio.channels,
        sample_rate=audio.sample_rate,
        bitrate=audio.bitrate,
        loudness=audio.loudness,
    )
