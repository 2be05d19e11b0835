"""Take encoded files to their destinations and say what was delivered."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Final

from encoder_core.media.containers import CONTAINERS
from encoder_core.media.languages import standard_tag
from encoder_core.media.planned import OutputPlan
from encoder_core.media.probe import Probe
from encoder_core.parallel import each
from encoder_core.reports import MadeSound, MadeSubtitles, OutputFile, OutputResult
from encoder_core.specs import Container, OutputSpec
from encoder_core.storage import open_destination
from encoder_core.storage.base import Access, Upload
from encoder_worker.following import Following
from encoder_worker.made import Made
from encoder_worker.manifest import Encoded, EncodedFile, hash_file, hash_spec

LISTS: Final = frozenset(
    {CONTAINERS[Container.HLS].content_type, CONTAINERS[Container.DASH].content_type, "text/vtt"}
)
"""Files that name other files: a player which sees one asks for those."""


def describe(made: Made, spec: OutputSpec, following: Following | None = None) -> Encoded:
    """What the manifest keeps of an output: its files with their checksums, and its facts."""
    files = [
        EncodedFile(
            path=str(file.path),
            name=file.name,
            size_bytes=file.path.stat().st_size,
            sha256=following.hash() if following else hash_file(file.path),
            content_type=file.content_type,
        )
        for file in made.files
    ]
    return Encoded(
        path=files[0].path,
        spec_hash=hash_spec(spec),
        files=files,
        measured=_facts(made.plan, made.measured, sum(file.size_bytes for file in files)),
        warnings=list(made.plan.warnings),
    )


def _facts(plan: OutputPlan, measured: Probe, size: int) -> OutputResult:
    video, audio = measured.video, measured.main_audio
    rate = (video.average_fps or video.nominal_fps) if video else None
    moving = plan.duration_s is not None
    return OutputResult(
        files=[],
        size_bytes=size,
        duration_s=round(measured.duration_s, 3) if moving and measured.duration_s else None,
        container=plan.container.value,
        video_codec=video.codec if video else None,
        width=video.width if video else None,
        height=video.height if video else None,
        frame_rate=round(float(rate), 3) if rate and moving else None,
        frames=(video.frames if moving else len(plan.pictures)) if video else None,
        video_bitrate=video.bit_rate if video else None,
        audio_codec=audio.codec if audio else None,
        audio_channels=audio.channels if audio else None,
        audio_sample_rate=audio.sample_rate if audio else None,
        audio_tracks=_sounds(plan, measured),
        subtitles=_subtitles(plan, measured),
    )


def _sounds(plan: OutputPlan, measured: Probe) -> list[MadeSound]:
    named = plan.package.sounds if plan.package is not None else ()
    return [
        MadeSound(
            name=name.name if name else None,
            language=standard_tag(sound.language),
            codec=sound.codec,
            channels=sound.channels,
            duration_s=None if sound.duration_s is None else round(sound.duration_s, 3),
        )
        for sound, name in zip_longest(measured.audio, named)
    ]


def _subtitles(plan: OutputPlan, measured: Probe) -> list[MadeSubtitles]:
    named = plan.package.subtitles if plan.package is not None else ()
    return [
        MadeSubtitles(
            name=name.name if name else None,
            language=standard_tag(words.language),
            codec=words.codec,
            forced=words.forced,
        )
        for words, name in zip_longest(measured.subtitles, named)
    ]


def deliver(
    encoded: Encoded, spec: OutputSpec, access: Access, following: Following | None = None
) -> OutputResult:
    """
    Deliver an output, whose first parts may be sent, and return what the record will keep.

    Raises JobError `destination_…`. When it returns, the destination has confirmed every file.
    """
    connector = open_destination(spec.destination, access)

    def put(file: EncodedFile) -> OutputFile:
        upload = Upload(
            path=Path(file.path),
            size_bytes=file.size_bytes,
            sha256=file.sha256,
            content_type=file.content_type,
            name=file.name,
        )
        delivered = following.finish() if following else None
        return OutputFile(
            url=(delivered or connector.put(upload)).url,
            size_bytes=file.size_bytes,
            sha256=file.sha256,
            content_type=file.content_type,
        )

    # What lists other files is published when they are, and what lists lists last.
    lists = [file for file in encoded.files if file.content_type in LISTS]
    others = [file for file in encoded.files if file.content_type not in LISTS]
    done = each(put, others, at_once=connector.at_once)
    delivered = {file.path: result for file, result in zip(others, done, strict=True)}
    for file in reversed(lists):
        delivered[file.path] = put(file)
    files = [delivered[file.path] for file in encoded.files]
    return encoded.measured.model_copy(update={"files": files})
