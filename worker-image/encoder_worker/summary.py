"""What is said of the source and, at the very end, of the whole, in few bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from encoder_core.media.probe import Probe
from encoder_core.reports import FinalReport, SourceInfo
from encoder_core.specs import LANGUAGE_PATTERN

MAX_STREAMS: Final = 32
MAX_TERMINATION_BYTES: Final = 4096
"""What Kubernetes keeps of a termination message."""

_KEPT: Final = (
    "index", "codec_type", "codec_name", "profile", "width", "height", "pix_fmt", "sample_rate",
    "channels", "channel_layout", "avg_frame_rate", "bit_rate", "duration", "start_time",
    "color_transfer",
)  # fmt: skip


def describe_source(document: Mapping[str, Any], probe: Probe) -> SourceInfo:
    """The facts that people ask for; of the file's tags, which may hold anything, the languages."""
    streams = [_describe_stream(stream) for stream in document.get("streams", [])[:MAX_STREAMS]]
    return SourceInfo(
        size_bytes=probe.size_bytes,
        duration_s=probe.duration_s,
        container=",".join(probe.formats) or None,
        streams=streams,
    )


def _describe_stream(stream: Mapping[str, Any]) -> dict[str, Any]:
    """In ffprobe's words, so that a plan takes it back: what tells the tracks apart, too."""
    known = {key: stream[key] for key in _KEPT if key in stream}
    language = str(stream.get("tags", {}).get("language", ""))
    if re.fullmatch(LANGUAGE_PATTERN, language):
        known["tags"] = {"language": language}
    flags = stream.get("disposition", {})
    marked = {flag: 1 for flag in ("default", "forced") if flags.get(flag)}
    return {**known, "disposition": marked} if marked else known


def write_termination(path: str, final: FinalReport) -> None:
    """The last word where the kubelet finds it, shortened until it fits."""
    for shorten in (_as_it_is, _without_details, _statuses_only):
        data = json.dumps(shorten(final), separators=(",", ":")).encode()
        if len(data) <= MAX_TERMINATION_BYTES:
            break
    with open(path, "wb") as file:
        file.write(data[:MAX_TERMINATION_BYTES])


def _as_it_is(final: FinalReport) -> dict[str, Any]:
    return final.to_json()


def _without_details(final: FinalReport) -> dict[str, Any]:
    def short(failure: Any) -> Any:
        return failure and failure.model_copy(update={"detail": None, "hint": ""})

    outputs = [
        output.model_copy(update={"warnings": [], "result": None, "failure": short(output.failure)})
        for output in final.outputs
    ]
    update = {"failure": short(final.failure), "outputs": outputs}
    return final.model_copy(update=update).to_json()


def _statuses_only(final: FinalReport) -> dict[str, Any]:
    document: dict[str, Any] = {"type": "final", "outcome": final.outcome.value, "outputs": []}
    if final.failure is not None:
        short = final.failure.model_copy(update={"detail": None, "message": final.failure.code})
        document["failure"] = short.to_json()
    document["outputs"] = [
        {"type": "output", "index": output.index, "status": output.status.value}
        for output in final.outputs
    ]
    return document
