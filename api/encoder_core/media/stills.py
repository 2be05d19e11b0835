"""Decide the instants of the source of which pictures are taken. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from encoder_core.media.containers import ContainerKind, Kind
from encoder_core.media.notes import Notes
from encoder_core.media.planned import ChoicePlan, SpritePlan, VideoPlan
from encoder_core.media.probe import Probe
from encoder_core.specs import OutputSpec, Sprite

POSTER_AT: Final = 0.1  # the first frames are often black; a tenth in there is something to see
POSTER_WINDOW_S: Final = 3.0
POSTER_FRAMES: Final = 25
POSTER_BYTES: Final = 128 * 1024**2  # the frames to choose from are all held in memory, as RGB
MAX_PICTURES: Final = 1000
SPRITE_COLUMNS: Final = 10
SPRITE_ROWS: Final = 10
MAX_SHEET: Final = 16384  # the largest side that browsers decode; JPEG itself ends at 65,535


def plan_choice(
    spec: OutputSpec, video: VideoPlan, probe: Probe, pictures: Sequence[float]
) -> ChoicePlan | None:
    """
    A poster is the most telling of some frames, so that it is not the one black frame of a cut.

    None for pictures whose instants were asked for, and where there is no second frame.
    """
    source = probe.video
    if spec.thumbnails is not None or not pictures or probe.still or source is None:
        return None
    rate = float(source.average_fps or source.nominal_fps or 0)
    shown = source.duration_s or probe.duration_s or 0.0
    left = min(POSTER_WINDOW_S, shown - pictures[0]) * rate - 1
    fitting = POSTER_BYTES // (3 * video.width * video.height)
    frames = int(min(POSTER_FRAMES, left, fitting))
    if frames < 2:
        return None
    return ChoicePlan(frames=frames, every=max(1, int(left // frames)))


def sprite_grid(sprite: Sprite) -> tuple[int, int]:
    """Columns and rows of a full sheet."""
    return sprite.columns or SPRITE_COLUMNS, sprite.rows or SPRITE_ROWS


def plan_sprite(
    spec: OutputSpec, tile: tuple[int, int], pictures: int, notes: Notes
) -> SpritePlan | None:
    """How the pictures lie on their sheets; a single sheet is no larger than they need."""
    if spec.thumbnails is None or spec.thumbnails.sprite is None or not pictures:
        return None
    columns, rows = sprite_grid(spec.thumbnails.sprite)
    columns = min(columns, pictures)
    rows = min(rows, math.ceil(pictures / columns))
    if max(columns * tile[0], rows * tile[1]) > MAX_SHEET:
        notes.refuse(
            "thumbnails/sprite",
            "out_of_range",
            f"a sheet would have {columns * tile[0]}x{rows * tile[1]} pixels; at most {MAX_SHEET} "
            "are made; give fewer columns or rows, or a smaller width",
        )
    return SpritePlan(
        columns=columns, rows=rows, tile=tile, sheets=math.ceil(pictures / (columns * rows))
    )


def plan_pictures(
    spec: OutputSpec,
    kind: ContainerKind,
    probe: Probe,
    start: float,
    duration: float | None,
    notes: Notes,
) -> tuple[float, ...]:
    """The instants of the source of which pictures are taken."""
    if kind.kind is not Kind.PICTURE or notes.problems:
        return ()
    if probe.still or duration is None:
        if spec.thumbnails is not None and (probe.still or spec.thumbnails.at is None):
            notes.refuse(
                "thumbnails", "no_duration", "the source has no duration to take them from"
            )
        return (start,)
    # The picture has its own length: a longer sound track has no pictures to show.
    shown = probe.video.duration_s if probe.video and probe.video.duration_s else probe.duration_s
    end = min(start + duration, shown or start + duration)
    span = max(end - start, 0.0)
    if spec.thumbnails is None:
        return (start + POSTER_AT * span,)
    if spec.thumbnails.count is not None:
        count = spec.thumbnails.count
        return tuple(start + span * (number + 0.5) / count for number in range(count))
    if spec.thumbnails.interval_seconds is not None:
        interval = spec.thumbnails.interval_seconds
        count = max(1, math.ceil(span / interval - 1e-6))
        if count > MAX_PICTURES:
            notes.refuse(
                "thumbnails/interval_seconds",
                "too_many",
                f"that makes {count} pictures; at most {MAX_PICTURES} are made",
            )
        return tuple(start + number * interval for number in range(min(count, MAX_PICTURES)))
    instants = sorted(set(spec.thumbnails.at or ()))
    if instants and instants[-1] >= end:
        notes.refuse("thumbnails/at", "beyond_end", f"the source ends after {end:.3f} s")
    return tuple(instants)
