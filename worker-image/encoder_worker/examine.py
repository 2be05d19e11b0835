"""Ask ffprobe what a file is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from encoder_core.errors import JobError
from encoder_core.media.command import build_measure_command, build_probe_command
from encoder_core.media.probe import (
    RESTARTING_FORMATS,
    Probe,
    apply_measurements,
    measure_packets,
    missing_seconds,
    parse_probe,
)
from encoder_worker.tools import Box, Tools, run_probe, stream_probe

FORGIVEN_S: Final = 1.0  # a header's duration is rounded, and the last packet may have no length
FORGIVEN_SHARE: Final = 0.02


def examine_source(tools: Tools, source: Path, folder: Path) -> tuple[Probe, dict[str, Any]]:
    """
    The source's probe and ffprobe's own document.

    Raises JobError: `source_invalid` when it is no media file, `source_truncated` when its packets
    end before its header says.
    """
    document = _probe(tools, source, folder, count=False)
    probe = parse_probe(document)
    if probe.video is None and not probe.audio:
        raise JobError("source_invalid", "The source has neither picture nor sound.")
    if probe.needs_measuring:
        probe = _measure(tools, source, folder, probe, refuse_short=True)
    if probe.video is None and not probe.audio:
        raise JobError("source_invalid", "The source has not one frame and no sound.")
    return probe, document


def examine_output(tools: Tools, path: Path, folder: Path) -> Probe:
    """What was made, with its packets counted."""
    probe = parse_probe(_probe(tools, path, folder, count=True))
    return _measure(tools, path, folder, probe) if probe.needs_measuring else probe


def _probe(tools: Tools, path: Path, folder: Path, *, count: bool) -> dict[str, Any]:
    box = Box(read=(path,), write=())
    arguments = build_probe_command(str(path), count_packets=count)
    document: dict[str, Any] = json.loads(run_probe(tools, arguments, box, folder))
    return document


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")


def _measure(
    tools: Tools, path: Path, folder: Path, probe: Probe, *, refuse_short: bool = False
) -> Probe:
    box = Box(read=(path,), write=())
    output = stream_probe(tools, build_measure_command(str(path)), box, folder)
    may_restart = not RESTARTING_FORMATS.isdisjoint(probe.formats)
    spans = measure_packets(_lines(output), may_restart=may_restart)
    missing = missing_seconds(probe, spans)
    if refuse_short and missing > max(FORGIVEN_S, (probe.duration_s or 0) * FORGIVEN_SHARE):
        raise JobError(
            "source_truncated",
            f"The source's header says {probe.duration_s:.1f} s, and the last {missing:.1f} s "
            "are not there.",
        )
    return apply_measurements(probe, spans)
