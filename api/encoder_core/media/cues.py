"""Read the cues of a WebVTT file of subtitles, and say what is wrong with them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from encoder_core.media.planned import OutputPlan, SubtitlePlan
from encoder_core.media.verify import Finding, invalid, truncated

MISSING_SHARE: Final = 0.01  # cues without a word, which are not written
LATE_S: Final = 1.0  # a source's duration is rounded, and may not count its subtitles
_CLOCK: Final = r"(?:(\d{2,}):)?([0-5]\d):([0-5]\d\.\d{3})"
# Settings of its place on the screen may follow.
_CUE: Final = re.compile(rf"^{_CLOCK} --> {_CLOCK}(?:\s|$)")


@dataclass(frozen=True, slots=True)
class Cues:
    """What a file of subtitles has."""

    header: bool
    """Whether it begins as WebVTT does."""
    count: int = 0
    last_begin_s: float = 0.0
    last_end_s: float = 0.0
    backwards: int = 0
    """How many end before they begin."""


def read_cues(lines: Iterable[str]) -> Cues:
    rest = iter(lines)
    header = next(rest, "").removeprefix("\ufeff").split(maxsplit=1)[:1] == ["WEBVTT"]
    times = list(_times(rest))
    return Cues(
        header=header,
        count=len(times),
        last_begin_s=max((begin for begin, _ in times), default=0.0),
        last_end_s=max((end for _, end in times), default=0.0),
        backwards=sum(end < begin for begin, end in times),
    )


def compare_cues(plan: OutputPlan, words: SubtitlePlan, cues: Cues) -> list[Finding]:
    """Words may stay when the film is over, but none may come after it."""
    if not cues.header:
        return [invalid("The subtitles do not begin as WebVTT.")]
    if not cues.count:
        return [truncated("There is not one cue.")]
    findings = []
    missing = (words.cues or 0) - cues.count
    if missing > MISSING_SHARE * cues.count:
        findings.append(truncated(f"There are {cues.count} of {words.cues} cues."))
    if cues.backwards:
        findings.append(invalid(f"{cues.backwards} cues end before they begin."))
    if plan.shown_s is not None and cues.last_begin_s > plan.shown_s + LATE_S:
        late = f"A cue begins at {cues.last_begin_s:.2f} s of {plan.shown_s:.2f} s."
        findings.append(invalid(late))
    return findings


def _times(lines: Iterator[str]) -> Iterator[tuple[float, float]]:
    for line in lines:
        match = _CUE.match(line)
        if match is not None:
            yield _seconds(*match.groups()[:3]), _seconds(*match.groups()[3:])


def _seconds(hours: str | None, minutes: str, seconds: str) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds)
