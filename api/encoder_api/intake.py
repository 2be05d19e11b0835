"""The checks of a request that its model cannot make: between fields, and against the settings."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from encoder_core.errors import FieldProblem, InvalidRequest
from encoder_core.media.check import check_request
from encoder_core.specs import FileDestination, FileSource, InlineSource, JobSpec

NO_FILES: Final = (
    "is not offered: this service has no folder for files (ENCODER_FILES_ROOT is not set); use "
    "another kind"
)


def check_job(spec: JobSpec, *, files_root: Path | None) -> None:
    """Raises InvalidRequest with every problem that was found."""
    problems = [*file_problems(spec, files_root=files_root), *check_request(spec)]
    if problems:
        raise InvalidRequest(problems)


def file_problems(spec: JobSpec, *, files_root: Path | None) -> Iterator[FieldProblem]:
    """`kind: file` reads and writes the service's own disk, so it has to be allowed."""
    if files_root is not None:
        return
    if isinstance(spec.source, FileSource):
        yield FieldProblem("/source/kind", "not_allowed", NO_FILES)
    for index, output in enumerate(spec.outputs):
        if isinstance(output.destination, FileDestination):
            pointer = f"/outputs/{index}/destination/kind"
            yield FieldProblem(pointer, "not_allowed", NO_FILES)


def inline_bytes(spec: JobSpec) -> bytes | None:
    """The bytes of an inline source, decoded before the transaction that stores them."""
    if not isinstance(spec.source, InlineSource):
        return None
    return base64.b64decode(spec.source.data or "")
