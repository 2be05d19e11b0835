"""The checks of a request that its model cannot make: between fields, and against the settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from encoder_core.errors import FieldProblem, InvalidRequest
from encoder_core.media.check import check_request
from encoder_core.specs import FileDestination, FileSource, InlineSource, JobSpec, Source

NO_FILES: Final = (
    "is not offered: this service has no folder for files (ENCODER_FILES_ROOT is not set); use "
    "another kind"
)


def check_job(spec: JobSpec, *, files_root: Path | None) -> None:
    """Raises InvalidRequest with every problem that was found."""
    problems = [
        *file_problems(spec, files_root=files_root),
        *inline_problems(spec),
        *check_request(spec),
    ]
    if problems:
        raise InvalidRequest(problems)


def file_problems(spec: JobSpec, *, files_root: Path | None) -> Iterator[FieldProblem]:
    """`kind: file` reads and writes the service's own disk, so it has to be allowed."""
    if files_root is not None:
        return
    destinations = [
        (f"/outputs/{index}/destination", output.destination)
        for index, output in enumerate(spec.outputs)
    ]
    for pointer, place in [("/source", spec.source), *destinations, *list_images(spec)]:
        if isinstance(place, FileSource | FileDestination):
            yield FieldProblem(f"{pointer}/kind", "not_allowed", NO_FILES)


def inline_problems(spec: JobSpec) -> Iterator[FieldProblem]:
    """The bytes of an image come with the request; what stays of them is the service's to say."""
    for pointer, place in list_images(spec):
        if not isinstance(place, InlineSource):
            continue
        if place.data is None:
            yield FieldProblem(f"{pointer}/data", "missing", "an inline source needs data")
        if place.size_bytes is not None:
            yield FieldProblem(f"{pointer}/sizeBytes", "not_allowed", "is set by the service")


def list_images(spec: JobSpec) -> list[tuple[str, Source]]:
    """Where the images of watermarks are, each with its pointer into the request."""
    return [
        (f"/outputs/{index}/watermark/source", output.watermark.source)
        for index, output in enumerate(spec.outputs)
        if output.watermark is not None
    ]
