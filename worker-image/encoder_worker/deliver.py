"""Take encoded files to their destinations and say what was delivered."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from encoder_core.media.planned import OutputPlan
from encoder_core.media.probe import Probe
from encoder_core.reports import OutputFile, OutputResult
from encoder_core.specs import Destination, OutputSpec
from encoder_core.storage import open_destination
from encoder_core.storage.base import Access, Upload
from encoder_worker.encode import Made
from encoder_worker.manifest import Encoded, EncodedFile, hash_file, hash_spec


def describe(made: Made, spec: OutputSpec) -> Encoded:
    """What the manifest keeps of an output: its files with their checksums, and its facts."""
    stem = _stem(spec.destination)
    files = [
        EncodedFile(
            path=str(path),
            name=_name_in_set(stem, path, made.plan) if made.plan.is_set else None,
            size_bytes=path.stat().st_size,
            sha256=hash_file(path),
            content_type=made.plan.kind.content_type,
        )
        for path in made.paths
    ]
    return Encoded(
        path=str(made.paths[0]),
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
    )


def _stem(destination: Destination) -> str:
    """The name that the files of a set begin with: the destination's own, without its ending."""
    url = getattr(destination, "url", None)
    path = urlsplit(url.get_secret_value()).path if url else getattr(destination, "path", "")
    name = path.rpartition("/")[2]
    return name.rpartition(".")[0] or name or "picture"


def _name_in_set(stem: str, path: Path, plan: OutputPlan) -> str:
    number = path.stem.rpartition("-")[2]
    return f"{stem}-{number}.{plan.kind.extension}"


def deliver(encoded: Encoded, spec: OutputSpec, access: Access) -> OutputResult:
    """
    Deliver an output and return what the record will keep.

    Raises JobError `destination_…`. When it returns, the destination has confirmed every file.
    """
    connector = open_destination(spec.destination, access)
    files = []
    for file in encoded.files:
        upload = Upload(
            path=Path(file.path),
            size_bytes=file.size_bytes,
            sha256=file.sha256,
            content_type=file.content_type,
            name=file.name,
        )
        delivered = connector.put(upload)
        files.append(
            OutputFile(
                url=delivered.url,
                size_bytes=file.size_bytes,
                sha256=file.sha256,
                content_type=file.content_type,
            )
        )
    return encoded.measured.model_copy(update={"files": files})
