"""
Say what no source could make possible. Pure, and asked before a job is accepted.

Each problem names its field by a JSON pointer into the request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from encoder_core.errors import FieldProblem
from encoder_core.media.codecs import (
    AUDIO_ENCODERS,
    COPY,
    NONE,
    VIDEO_ENCODERS,
    find_audio_encoder,
    find_video_encoder,
)
from encoder_core.media.containers import CONTAINERS, ContainerKind, Kind
from encoder_core.media.ladder import (
    allowed_families,
    check_packaging,
    list_manifests,
    list_renditions,
)
from encoder_core.media.notes import Notes
from encoder_core.media.options import check_options
from encoder_core.media.stills import MAX_SHEET, sprite_grid
from encoder_core.specs import JobSpec, OutputSpec, VideoSettings, parse_bitrate

_PICTURE_FIELDS: Final = (
    "video_codec", "video_bitrate", "max_bitrate", "crf", "width", "height", "frame_rate",
    "profile", "preset", "gop_seconds", "fit", "upscale",
)  # fmt: skip
_SOUND_FIELDS: Final = ("audio_codec", "audio_bitrate", "audio_channels", "audio_sample_rate")


def check_request(spec: JobSpec) -> list[FieldProblem]:
    """What no source could make possible, found before a job is accepted."""
    problems: list[FieldProblem] = []
    for index, output in enumerate(spec.outputs):
        notes = Notes(index)
        check_output(output, notes)
        problems += notes.problems
    return problems


def check_output(spec: OutputSpec, notes: Notes) -> None:
    kind = CONTAINERS[spec.container]
    if kind.kind is Kind.AUDIO:
        _refuse_fields(spec, _PICTURE_FIELDS, f"{spec.container.value} holds no picture", notes)
    if kind.kind is Kind.TEXT:
        why = f"{spec.container.value} holds subtitles alone"
        _refuse_fields(spec, (*_PICTURE_FIELDS, *_SOUND_FIELDS, "clip"), why, notes)
    if kind.kind in (Kind.PICTURE, Kind.ANIMATION):
        _refuse_fields(spec, _SOUND_FIELDS, f"{spec.container.value} holds no sound", notes)
        _refuse_fields(
            spec,
            ("video_bitrate", "max_bitrate", "crf", "profile", "preset", "gop_seconds"),
            f"{spec.container.value} has no such setting",
            notes,
        )
    if kind.kind is Kind.PACKAGE:
        _check_package(spec, kind, notes)
    else:
        _check_video(spec, spec.container.value, kind, notes)
    _check_audio(spec, kind, notes)
    check_options(spec, kind, notes)
    _check_sprite(spec, notes)
    if (
        kind.kind in (Kind.VIDEO, Kind.PACKAGE)
        and spec.video_codec == NONE
        and spec.audio_codec == NONE
    ):
        notes.refuse(
            "audio_codec", "nothing_left", "with neither picture nor sound nothing is left"
        )


def _check_package(spec: OutputSpec, kind: ContainerKind, notes: Notes) -> None:
    """Every rendition by itself, then what they have to agree on."""
    check_packaging(spec, notes)
    names = " and ".join(list_manifests(spec))
    kind = replace(kind, video=allowed_families(spec, CONTAINERS))
    if spec.renditions is not None and spec.video_codec == NONE:
        notes.refuse("video_codec", "nothing_left", "without a picture there are no renditions")
        return
    for settings, own in list_renditions(spec, notes):
        if settings.video_codec == COPY:
            own.refuse(
                "video_codec",
                "not_applicable",
                "segments begin with keyframes at fixed instants, which a copied stream lacks; "
                "name a codec",
            )
        elif settings.video_codec == NONE and spec.video_codec != NONE:
            own.refuse("video_codec", "nothing_left", "a rendition is a picture; leave it out")
        else:
            _check_video(settings, names, kind, own)


def _check_sprite(spec: OutputSpec, notes: Notes) -> None:
    if spec.thumbnails is None or spec.thumbnails.sprite is None:
        return
    columns, rows = sprite_grid(spec.thumbnails.sprite)
    for field, across in (("width", columns), ("height", rows)):
        side = getattr(spec, field)
        if side is not None and side * across > MAX_SHEET:
            notes.refuse(
                field,
                "out_of_range",
                f"a sheet of {across} pictures would have {side * across} pixels; "
                f"at most {MAX_SHEET} are made",
            )


def _refuse_fields(
    spec: VideoSettings | OutputSpec, fields: Sequence[str], why: str, notes: Notes
) -> None:
    for field in fields:
        value = getattr(spec, field)
        if value is not None and value is not False and value != NONE:
            notes.refuse(field, "not_applicable", f"{why}; leave it out")


def _check_video(spec: VideoSettings, container: str, kind: ContainerKind, notes: Notes) -> None:
    if not kind.video or spec.video_codec == NONE:
        if kind.kind in (Kind.PICTURE, Kind.ANIMATION):
            notes.refuse("video_codec", "nothing_left", "without a picture nothing is left")
        return
    name = spec.video_codec or kind.default_video or ""
    if name == COPY:
        _refuse_fields(
            spec,
            [field for field in _PICTURE_FIELDS if field != "video_codec"],
            "a copied stream stays as it is",
            notes,
        )
        if kind.kind in (Kind.PICTURE, Kind.ANIMATION):
            notes.refuse("video_codec", "not_applicable", "pictures are always encoded")
        return
    encoder = find_video_encoder(name)
    if encoder is None:
        known = ", ".join(n for n, e in VIDEO_ENCODERS.items() if e.family in kind.video)
        notes.refuse("video_codec", "unknown_codec", f"is not known here; choose one of {known}")
        return
    if encoder.family not in kind.video:
        notes.refuse(
            "video_codec",
            "codec_not_in_container",
            f"{container} cannot hold {encoder.family}; it holds {_list(kind.video)}",
        )
    if spec.crf is not None and (encoder.default_crf is None or spec.crf > encoder.max_crf):
        detail = (
            f"{encoder.name} has no constant quality; give videoBitrate"
            if encoder.default_crf is None
            else f"{encoder.name} takes 0 to {encoder.max_crf:g}"
        )
        notes.refuse("crf", "out_of_range", detail)
    _check_choice(spec.preset, encoder.presets, "preset", encoder.name, notes)
    _check_choice(spec.profile, encoder.profiles, "profile", encoder.name, notes)
    peak, average = spec.max_bitrate, spec.video_bitrate
    if peak and average and parse_bitrate(peak) < parse_bitrate(average):
        notes.refuse("max_bitrate", "out_of_range", "must not be below videoBitrate")


def _check_choice(
    value: str | None, choices: Sequence[str], field: str, encoder: str, notes: Notes
) -> None:
    if value is None or value in choices:
        return
    detail = f"{encoder} takes {_list(choices)}" if choices else f"{encoder} has none"
    notes.refuse(field, "unknown_choice", detail)


def _check_audio(spec: OutputSpec, kind: ContainerKind, notes: Notes) -> None:
    if not kind.audio:
        return
    if spec.audio_codec == NONE:
        if kind.kind is Kind.AUDIO:
            notes.refuse("audio_codec", "nothing_left", "without sound nothing is left")
        return
    name = spec.audio_codec or kind.default_audio or ""
    if name == COPY:
        _refuse_fields(
            spec,
            [field for field in _SOUND_FIELDS if field != "audio_codec"],
            "a copied stream stays as it is",
            notes,
        )
        return
    encoder = find_audio_encoder(name)
    if encoder is None:
        known = ", ".join(n for n, e in AUDIO_ENCODERS.items() if e.family in kind.audio)
        notes.refuse("audio_codec", "unknown_codec", f"is not known here; choose one of {known}")
        return
    if encoder.family not in kind.audio:
        notes.refuse(
            "audio_codec",
            "codec_not_in_container",
            f"{spec.container.value} cannot hold {encoder.family}; it holds {_list(kind.audio)}",
        )
    if spec.audio_channels is not None and spec.audio_channels > encoder.max_channels:
        notes.refuse(
            "audio_channels",
            "out_of_range",
            f"{encoder.name} makes at most {encoder.max_channels} channels",
        )
    rates = encoder.sample_rates
    if spec.audio_sample_rate is not None and rates and spec.audio_sample_rate not in rates:
        notes.refuse("audio_sample_rate", "unknown_choice", f"{encoder.name} takes {_list(rates)}")


def _list(values: Sequence[object]) -> str:
    return ", ".join(str(value) for value in values)
