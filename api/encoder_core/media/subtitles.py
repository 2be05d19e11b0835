"""Decide which subtitles an output has, kept as they are or converted. Pure."""

from __future__ import annotations

from typing import Final

from encoder_core.media.notes import Notes
from encoder_core.media.planned import SubtitlePlan
from encoder_core.media.probe import Probe, SubtitleStream
from encoder_core.media.tracks import find_tracks
from encoder_core.specs import Container, OutputSpec

TEXT: Final = frozenset({"subrip", "srt", "ass", "ssa", "webvtt", "mov_text", "text"})
_KEPT: Final = {
    Container.MP4: frozenset({"mov_text"}),
    Container.MOV: frozenset({"mov_text"}),
    Container.WEBM: frozenset({"webvtt"}),
    Container.HLS: frozenset({"webvtt"}),
    Container.DASH: frozenset({"webvtt"}),
    Container.MKV: frozenset({"subrip", "ass", "webvtt", "hdmv_pgs_subtitle", "dvd_subtitle",
                              "dvb_subtitle"}),
}  # fmt: skip
_CONVERTED: Final = {
    Container.MP4: "mov_text",
    Container.MOV: "mov_text",
    Container.WEBM: "webvtt",
    Container.HLS: "webvtt",
    Container.DASH: "webvtt",
    Container.MKV: "subrip",
}
WITH_SUBTITLES: Final = frozenset(_KEPT)
PACKAGES: Final = (Container.HLS, Container.DASH)
_A_CUE_EACH: Final = ("subrip", "webvtt")  # the packets of others may also show nothing


def plan_sidecar(spec: OutputSpec, probe: Probe, notes: Notes) -> tuple[SubtitlePlan, ...]:
    """The one text that a file of subtitles is; without it nothing is left, so it is refused."""
    wanted = spec.subtitles[0] if spec.subtitles else None
    field = "container" if wanted is None else "subtitles/0"
    named = "subtitles" if wanted is None else f"subtitles {wanted!r}"
    found = probe.subtitles if wanted is None else find_tracks(wanted, probe.subtitles)
    if not found:
        notes.refuse(field, "no_subtitles", f"the source has no {named}")
        return ()
    text = next((stream for stream in found if stream.codec in TEXT), None)
    if text is None:
        detail = f"the source's {named} are pictures, which cannot become text"
        notes.refuse(field, "no_subtitles", detail)
        return ()
    encoder = "copy" if text.codec == "webvtt" else "webvtt"
    return (_plan(text, encoder, "webvtt"),)


def plan_subtitles(spec: OutputSpec, probe: Probe, notes: Notes) -> tuple[SubtitlePlan, ...]:
    """Text becomes what the container holds; pictures of text cannot become text."""
    chosen: list[SubtitleStream] = []
    for number, wanted in enumerate(spec.subtitles or ()):
        found = find_tracks(wanted, probe.subtitles)
        if not found:
            message = f"The source has no subtitles {wanted!r}."
            notes.warn("track_not_found", message, f"subtitles/{number}")
        chosen += [stream for stream in found if stream not in chosen]
    planned = []
    for stream in chosen:
        if stream.codec in _KEPT[spec.container]:
            encoder, family = "copy", stream.codec
        elif stream.codec in TEXT:
            encoder = family = _CONVERTED[spec.container]
        else:
            name = spec.container.value
            message = f"Subtitles of kind {stream.codec} are pictures, which {name} cannot hold."
            notes.warn("subtitles_dropped", message, "subtitles")
            continue
        if stream.packets == 0 and spec.container in PACKAGES:
            # A file keeps an empty track; a choice that shows nothing helps no viewer.
            notes.warn("subtitles_dropped", "Subtitles without a single cue are left out.",
                       "subtitles")  # fmt: skip
            continue
        planned.append(_plan(stream, encoder, family))
    return tuple(planned)


def _plan(stream: SubtitleStream, encoder: str, family: str) -> SubtitlePlan:
    return SubtitlePlan(
        stream=stream.index,
        encoder=encoder,
        family=family,
        language=stream.language,
        forced=stream.forced,
        cues=stream.packets if stream.codec in _A_CUE_EACH else None,
    )
