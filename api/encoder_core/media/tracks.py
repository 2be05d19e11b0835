"""Decide which of the source's sounds an output has. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from encoder_core.media.languages import is_same_language
from encoder_core.media.notes import Notes
from encoder_core.media.probe import AudioStream, Probe
from encoder_core.specs import OutputSpec


class _Spoken(Protocol):
    @property
    def language(self) -> str | None: ...


Track = TypeVar("Track", bound=_Spoken)


def choose_tracks(spec: OutputSpec, probe: Probe, notes: Notes) -> Sequence[AudioStream]:
    """At least one, the output's default first. The source has sound."""
    if spec.audio_tracks is None:
        return [_choose_one(spec, probe, notes)]
    chosen: list[AudioStream] = []
    for number, wanted in enumerate(spec.audio_tracks):
        found = find_tracks(wanted, probe.audio)
        if not found:
            field = f"audio_tracks/{number}"
            notes.warn("track_not_found", f"The source has no audio track {wanted!r}.", field)
        chosen += [stream for stream in found if stream not in chosen]
    return chosen or [_main(probe)]


def _choose_one(spec: OutputSpec, probe: Probe, notes: Notes) -> AudioStream:
    if spec.language is not None:
        spoken = find_tracks(spec.language, probe.audio)
        if spoken:
            return next((stream for stream in spoken if stream.default), spoken[0])
        notes.warn("track_not_found", f"The source has no sound in {spec.language!r}.", "language")
    main = _main(probe)
    if len(probe.audio) > 1:
        language = f" ({main.language})" if main.language else ""
        notes.warn(
            "audio_stream_chosen", f"Of {len(probe.audio)} audio streams one is used{language}."
        )
    return main


def _main(probe: Probe) -> AudioStream:
    main = probe.main_audio
    assert main is not None, "asked only of sources with sound"
    return main


def find_tracks(wanted: str, tracks: Sequence[Track]) -> list[Track]:
    """Those of a language, the one of a number from 1, or all."""
    if wanted == "all":
        return list(tracks)
    if wanted.isdecimal():
        return list(tracks[int(wanted) - 1 : int(wanted)])
    return [
        stream for stream in tracks if stream.language and is_same_language(wanted, stream.language)
    ]
