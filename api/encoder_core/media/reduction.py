"""
One reduction for all renditions of a picture far larger than they are. Pure.

Why, and what it costs: docs/decisions/0018-one-reduction-for-large-sources.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from encoder_core.media.containers import Kind
from encoder_core.media.planned import OutputPlan, VideoPlan

MIN_PIXELS: Final = 2560 * 1440
MIN_RATIO: Final = 2
"""Of each side of the source to that of the largest rendition."""


@dataclass(frozen=True, slots=True)
class Reduction:
    size: tuple[int, int]
    tone_map: bool
    pixel_format: str
    names: frozenset[str]
    """Of the branches that begin with it."""


def find_reduction(branches: Iterable[tuple[OutputPlan, VideoPlan, str]]) -> Reduction | None:
    """What the renditions among these branches of one graph have in common, if it pays."""
    films = [
        (video.scale, video, name)
        for plan, video, name in branches
        if video.scale is not None and _is_film(plan, video)
    ]
    if not films:
        return None
    size, first, _ = max(films, key=lambda film: film[0][0] * film[0][1])
    if not _pays(first, size):
        return None
    alike = frozenset(
        name
        for scale, video, name in films
        if scale[0] <= size[0] and scale[1] <= size[1] and _look(video) == _look(first)
    )
    return Reduction(size, *_look(first), alike) if len(alike) > 1 else None


def _is_film(plan: OutputPlan, video: VideoPlan) -> bool:
    """Every frame of it, upright, in colours that need no matrix made up."""
    return plan.kind.kind in (Kind.VIDEO, Kind.PACKAGE) and not video.rotate and not video.from_rgb


def _pays(video: VideoPlan, size: tuple[int, int]) -> bool:
    width, height = video.source_size
    return (
        width * height > MIN_PIXELS
        and width >= MIN_RATIO * size[0]
        and height >= MIN_RATIO * size[1]
    )


def _look(video: VideoPlan) -> tuple[bool, str]:
    assert video.encoder is not None, "a copied picture has no branch"
    return video.tone_map, video.encoder.pixel_format
