"""
Bring the images of watermarks to the scratch folder: each once, and looked at before it is used.

An image that cannot be had costs the outputs that name it, and no other. It is decoded here first:
where an image gives no frame, ffmpeg passes the film on without it and says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from encoder_core.clock import Clock
from encoder_core.errors import JobError
from encoder_core.media.command import build_image_probe_command
from encoder_core.media.watermarks import MAX_IMAGE_BYTES, find_fault
from encoder_core.reports import OrderedOutput, WorkerLimits
from encoder_core.specs import InlineSource, Source
from encoder_core.storage.base import SourceConnector
from encoder_worker.fetch import Fetch
from encoder_worker.manifest import hash_file
from encoder_worker.sandbox import Box
from encoder_worker.tools import Tools, run_probe


class Images:
    """Those of one attempt, in a folder of their own."""

    def __init__(
        self,
        tools: Tools,
        folder: Path,
        *,
        limits: WorkerLimits,
        clock: Clock,
        connect: Callable[[OrderedOutput], SourceConnector],
    ) -> None:
        self._tools = tools
        self._folder = folder
        self._limits = limits.model_copy(update={"source_bytes": MAX_IMAGE_BYTES})
        self._clock = clock
        self._connect = connect
        self._asked: list[tuple[Source, Path | JobError]] = []
        self._files: dict[str, Path] = {}

    def bring(
        self, outputs: Sequence[OrderedOutput], *, failed: Callable[[int, JobError], None]
    ) -> dict[int, Path]:
        """
        The image of each output that has a watermark, by index; the same image is the same file.

        `failed` is called for each that cannot be had, with a failure that names its field.
        """
        images = {}
        for output in outputs:
            if output.spec.watermark is None:
                continue
            found = self._find(output, output.spec.watermark.source)
            if isinstance(found, JobError):
                failed(output.index, _as_of_field(found, output.index))
            else:
                images[output.index] = found
        return images

    def _find(self, output: OrderedOutput, source: Source) -> Path | JobError:
        for asked, found in self._asked:
            # Bytes of the request have no name to tell them apart by.
            if asked == source and not isinstance(source, InlineSource):
                return found
        try:
            found = self._fetch(output)
        except JobError as error:
            found = error
        self._asked.append((source, found))
        return found

    def _fetch(self, output: OrderedOutput) -> Path:
        self._folder.mkdir(exist_ok=True)
        path = self._folder / str(output.index)
        with Fetch(self._connect(output), path, limits=self._limits, clock=self._clock) as fetch:
            fetch.finish()
        digest = hash_file(path)
        if digest not in self._files:
            self._look_at(path)
            self._files[digest] = path
        return self._files[digest]

    def _look_at(self, path: Path) -> None:
        try:
            arguments = build_image_probe_command(str(path))
            printed = run_probe(self._tools, arguments, Box((path,)), self._folder)
            document: dict[str, Any] = json.loads(printed)
        except JobError as error:
            if error.code != "source_invalid":
                raise
            document = {}
        fault = find_fault(document)
        if fault is not None:
            raise JobError("source_invalid", fault)


def _as_of_field(error: JobError, index: int) -> JobError:
    """What is said of a source, said of the image; what any address may be is left as it is."""
    code = error.code
    if code.startswith("source_"):
        code = "watermark_unavailable" if error.failure.retryable else "watermark_invalid"
    return JobError(
        code,
        f"/outputs/{index}/watermark/source: {error.failure.message}",
        detail=error.failure.detail,
        retry_after_s=error.retry_after_s,
    )
