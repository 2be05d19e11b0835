"""
Say which options of an output contradict one another. Pure, and asked before a job is accepted.

`check` asks whether codecs and containers go together; here is what only some outputs can have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from encoder_core.media.codecs import COPY, NONE
from encoder_core.media.containers import ContainerKind, Kind
from encoder_core.media.notes import Notes
from encoder_core.media.subtitles import WITH_SUBTITLES
from encoder_core.specs import Container, OutputSpec

_OF_THE_PICTURE: Final = ("rotate", "watermark")
_OF_THE_SOUND: Final = ("language", "audio_tracks", "loudness")


def check_options(spec: OutputSpec, kind: ContainerKind, notes: Notes) -> None:
    name = spec.container.value
    if kind.kind in (Kind.AUDIO, Kind.TEXT):
        _refuse(spec, _OF_THE_PICTURE, f"{name} holds no picture", notes)
    elif spec.video_codec == NONE:
        _refuse(spec, _OF_THE_PICTURE, "there is no picture, by videoCodec", notes)
    elif spec.video_codec == COPY:
        _refuse(spec, _OF_THE_PICTURE, "a copied stream stays as it is", notes)
    if not kind.audio:
        _refuse(spec, _OF_THE_SOUND, f"{name} holds no sound", notes)
    elif spec.audio_codec == NONE:
        _refuse(spec, _OF_THE_SOUND, "there is no sound, by audioCodec", notes)
    else:
        if spec.audio_codec == COPY:
            _refuse(spec, ("loudness",), "a copied stream stays as it is", notes)
        _check_tracks(spec, kind, notes)
    if kind.kind is Kind.TEXT:
        if spec.subtitles is not None and (len(spec.subtitles) > 1 or "all" in spec.subtitles):
            detail = f"{name} holds one of them; give one language or number"
            notes.refuse("subtitles", "not_applicable", detail)
    elif spec.container not in WITH_SUBTITLES:
        _refuse(spec, ("subtitles",), f"{name} keeps no subtitles here", notes)
    elif spec.clip is not None:
        _refuse(spec, ("subtitles",), "subtitles of a part cannot be cut out", notes)
    if kind.kind not in (Kind.VIDEO, Kind.AUDIO) or spec.container is Container.TS:
        _refuse(spec, ("metadata",), f"{name} keeps no metadata", notes)


def _check_tracks(spec: OutputSpec, kind: ContainerKind, notes: Notes) -> None:
    if spec.audio_tracks is None:
        return
    if kind.kind not in (Kind.VIDEO, Kind.PACKAGE):
        why = f"{spec.container.value} holds one sound here; choose it by language"
        _refuse(spec, ("audio_tracks",), why, notes)
    if spec.language is not None:
        notes.refuse("language", "not_applicable", "audioTracks names the sounds; leave it out")


def _refuse(spec: OutputSpec, fields: Sequence[str], why: str, notes: Notes) -> None:
    for field in fields:
        if getattr(spec, field) is not None:
            notes.refuse(field, "not_applicable", f"{why}; leave it out")
