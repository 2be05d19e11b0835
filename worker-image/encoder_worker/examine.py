"""Ask ffprobe what a file is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from encoder_core.errors import JobError
from encoder_core.media.bounds import find_excess
from encoder_core.media.command import build_measure_command, build_probe_command
from encoder_core.media.probe import (
    RESTARTING_FORMATS,
    Probe,
    apply_measurements,
    measure_packets,
    missing_seconds,
    parse_probe,
)
from encoder_worker.source import Source
from encoder_worker.tools import Tools, run_probe, stream_probe

FORGIVEN_S: Final = 1.0  # a header's duration is rounded, and the last packet may have no length
FORGIVEN_SHARE: Final = 0.02
FORGIVEN_AT_MOST_S: Final = 2.0  # however long it is


def examine_source(
    tools: Tools, source: Source, folder: Path, *, early: bool = False
) -> tuple[Probe, dict[str, Any]]:
    """
    The source's probe and ffprobe's own document.

    One that still arrives is waited for, unless it is one whose index in the header declares every
    sample, as that of MP4 and MOV does: then what is missing at the end is known without. With
    `early` one that is read forward is not waited for either: its probe `needs_measuring`, with
    `measure_source` before anything that was made by it is believed.

    Raises JobError: `source_invalid` when it is no media file, or claims more than bounds.py
    allows; `source_truncated` when its packets end before its header says.
    """
    document = _probe(tools, source, folder, count=False)
    probe = parse_probe(document)
    _refuse_excess(probe, streams=len(document.get("streams", [])))
    if probe.video is None and not probe.audio:
        raise JobError("source_invalid", "The source has neither picture nor sound.")
    if probe.needs_measuring and not (early and source.arriving and probe.reads_forward):
        probe = measure_source(tools, source, folder, probe)
    if probe.still:
        source.settle()  # too small to be worth more
    return probe, document


def measure_source(tools: Tools, source: Source, folder: Path, probe: Probe) -> Probe:
    """
    The probe by the packets that are really there, all of which are waited for.

    Raises what `examine_source` does.
    """
    source.settle()
    measured = _measure(tools, source, folder, probe, refuse_short=True)
    _refuse_excess(measured)
    if measured.video is None and not measured.audio:
        raise JobError("source_invalid", "The source has not one frame and no sound.")
    return measured


def _refuse_excess(probe: Probe, *, streams: int = 0) -> None:
    excess = find_excess(probe, streams=streams)
    if excess is not None:
        raise JobError("source_invalid", excess)


def examine_output(tools: Tools, path: Path, folder: Path) -> Probe:
    """What was made, with its packets counted."""
    made = Source(path)
    probe = parse_probe(_probe(tools, made, folder, count=True))
    return _measure(tools, made, folder, probe) if probe.needs_measuring else probe


def _probe(tools: Tools, source: Source, folder: Path, *, count: bool) -> dict[str, Any]:
    with source.opened() as opened:
        arguments = build_probe_command(opened.name, count_packets=count)
        printed = run_probe(tools, arguments, opened.box, folder, is_held=opened.is_held)
    document: dict[str, Any] = json.loads(printed)
    return document


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")


def _measure(
    tools: Tools, source: Source, folder: Path, probe: Probe, *, refuse_short: bool = False
) -> Probe:
    may_restart = not RESTARTING_FORMATS.isdisjoint(probe.formats)
    with source.opened() as opened:
        output = stream_probe(tools, build_measure_command(opened.name), opened.box, folder)
        spans = measure_packets(_lines(output), may_restart=may_restart)
    missing = missing_seconds(probe, spans)
    share = min((probe.duration_s or 0) * FORGIVEN_SHARE, FORGIVEN_AT_MOST_S)
    if refuse_short and missing > max(FORGIVEN_S, share):
        raise JobError(
            "source_truncated",
            f"The source's header says {probe.duration_s:.1f} s, and the last {missing:.1f} s "
            "are not there.",
        )
    return apply_measurements(probe, spans)
