"""
How the parts of an output are called: files after their destination, so that sets can share a
folder, and tracks after their languages. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from encoder_core.media.languages import standard_tag
from encoder_core.specs import Destination


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackName:
    """One of the sounds or of the subtitles that a package lets a viewer choose from."""

    name: str
    """Unique in its package and a part of its files' names: `audio`, `audio-de`, `audio-de-2`."""
    label: str
    """What a viewer chooses by, unique among those of its kind: `de`, `de 2`."""
    language: str | None
    """By BCP 47."""
    number: int
    """Its place among those of its kind, from 0. The first is what players take."""
    repeats: bool
    """Whether one before it has the same language, so that the language does not tell it apart."""
    forced: bool = False
    """Subtitles that are shown to everybody; beside the full ones they are none of a kind."""


def name_tracks(
    kind: str, languages: Sequence[str | None], forced: Sequence[bool] = ()
) -> tuple[TrackName, ...]:
    """
    Names that follow from the request and the source alone, so a repeated run makes the same.

    Without a choice there is nothing to tell apart: a single one has the name of its kind.
    """
    tags = [
        (standard_tag(language), number < len(forced) and forced[number])
        for number, language in enumerate(languages)
    ]
    names: list[TrackName] = []
    for number, (tag, is_forced) in enumerate(tags):
        before = tags[:number].count((tag, is_forced))
        more = [*(["forced"] if is_forced else []), *([str(before + 1)] if before else [])]
        first = kind if len(tags) == 1 else f"{kind}-{tag or 'und'}"
        names.append(
            TrackName(
                name="-".join([first, *more]),
                label=" ".join([tag or kind, *more]),
                language=tag,
                number=number,
                repeats=before > 0,
                forced=is_forced,
            )
        )
    return tuple(names)


def stem_of(destination: Destination) -> str:
    """The destination's own name without its ending, not escaped as in a URL."""
    url = getattr(destination, "url", None)
    if url is not None:
        path = unquote(urlsplit(url.get_secret_value()).path)
    else:
        path = getattr(destination, "path", None) or ""
    name = path.rpartition("/")[2]
    return name.rpartition(".")[0] or name or "output"
