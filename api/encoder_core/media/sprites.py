"""
Write the WebVTT that says where on which sheet each picture is, and check it as a player reads it.

Pure. A cue lasts as long as its picture is the nearest one, in seconds from where the clip begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final
from urllib.parse import quote, unquote

from encoder_core.media.planned import OutputPlan, SpritePlan
from encoder_core.media.verify import Finding, invalid, truncated

INSTANT_SLACK_S: Final = 1.0  # the first frame at or after an instant may come after a pause

_LISTED: Final = re.compile(r"^frame:\d+\s+pts:\S+\s+pts_time:(\S+)")
_CUE: Final = re.compile(r"^(\d+):(\d\d):(\d\d\.\d{3}) --> (\d+):(\d\d):(\d\d\.\d{3})$")
_PLACE: Final = re.compile(r"^(.+)#xywh=(\d+),(\d+),(\d+),(\d+)$")


def read_tiles(lines: Iterable[str]) -> list[float]:
    """When the pictures on the sheets are from, out of what ffmpeg's metadata filter prints."""
    found = (_LISTED.match(line) for line in lines)
    return [float(match[1]) for match in found if match]


def compare_tiles(plan: OutputPlan, tiles: Sequence[float]) -> list[Finding]:
    """Whether the pictures on the sheets are those that were planned."""
    if len(tiles) != len(plan.pictures):
        return [truncated(f"There are {len(tiles)} of {len(plan.pictures)} pictures.")]
    for wanted, found in zip(plan.pictures, tiles, strict=True):
        if not -0.001 <= found - wanted <= INSTANT_SLACK_S:
            return [invalid(f"The picture of {wanted:.3f} s is one of {found:.3f} s.")]
    return []


def build_vtt(plan: OutputPlan, sheets: Sequence[str], end_s: float) -> str:
    """`end_s` is where the clip ends, on the source's timeline; the sheets are file names."""
    sprite = plan.sprite
    assert sprite is not None
    begins = [plan.start_s, *(sum(pair) / 2 for pair in pairwise(plan.pictures))]
    ends = [*begins[1:], max(end_s, plan.pictures[-1] + 0.001)]
    lines = ["WEBVTT", ""]
    for number, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        sheet, x, y = _place(sprite, number)
        times = f"{_clock(begin - plan.start_s)} --> {_clock(end - plan.start_s)}"
        width, height = sprite.tile
        lines += [times, f"{quote(sheets[sheet])}#xywh={x},{y},{width},{height}", ""]
    return "\n".join(lines) + "\n"


def _place(sprite: SpritePlan, number: int) -> tuple[int, int, int]:
    """The sheet that a picture is on, and where, in pixels."""
    sheet, on_sheet = divmod(number, sprite.columns * sprite.rows)
    row, column = divmod(on_sheet, sprite.columns)
    return sheet, column * sprite.tile[0], row * sprite.tile[1]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(max(0.0, seconds) * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}.{rest % 1000:03d}"


def compare_vtt(
    plan: OutputPlan, text: str, sheets: Mapping[str, tuple[int, int]]
) -> list[Finding]:
    """What is wrong with the cues; `sheets` has the real size of every sheet by its name."""
    lines = text.splitlines()
    if not lines or lines[0] != "WEBVTT":
        return [invalid("The WebVTT file does not begin as one.")]
    cues = [(_CUE.match(when), _PLACE.match(where)) for when, where in pairwise(lines)]
    found = [(when, where) for when, where in cues if when is not None]
    if len(found) != len(plan.pictures):
        return [invalid(f"There are cues for {len(found)} of {len(plan.pictures)} pictures.")]
    last_end = 0.0
    places: set[str] = set()
    for when, where in found:
        begin, end = _seconds(when[1], when[2], when[3]), _seconds(when[4], when[5], when[6])
        if abs(begin - last_end) > 0.0015 or end <= begin:
            return [invalid(f"The cue {when[0]} does not follow the one before it.")]
        last_end = end
        if where is None or where[0] in places:
            return [invalid(f"The cue {when[0]} has no picture of its own.")]
        places.add(where[0])
        size = sheets.get(unquote(where[1]))
        x, y, width, height = (int(where[number]) for number in (2, 3, 4, 5))
        if size is None or x + width > size[0] or y + height > size[1]:
            return [invalid(f"The cue {when[0]} points to what is on no sheet.")]
    return []


def _seconds(hours: str, minutes: str, seconds: str) -> float:
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
