"""Sets of bytes of a file, as spans. Pure: which have arrived, which nobody has asked for yet."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field


@dataclass(slots=True)
class Spans:
    """Disjoint spans in order, each from its first byte up to, and without, its end."""

    _spans: list[tuple[int, int]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self._spans)

    @property
    def total(self) -> int:
        return sum(end - first for first, end in self._spans)

    @property
    def first(self) -> tuple[int, int]:
        return self._spans[0]

    def add(self, first: int, end: int) -> None:
        """Bytes that are there already are no mistake: they are there once."""
        if first >= end:
            return
        kept = []
        for a, b in self._spans:
            if b < first or a > end:
                kept.append((a, b))
            else:  # they touch
                first, end = min(a, first), max(b, end)
        kept.append((first, end))
        self._spans = sorted(kept)

    def remove(self, first: int, end: int) -> None:
        left = []
        for a, b in self._spans:
            left += [(a, min(b, first)), (max(a, end), b)]
        self._spans = [(a, b) for a, b in left if a < b]

    def end_from(self, at: int) -> int:
        """Where the span that holds byte `at` ends; `at` itself when none does."""
        number = bisect_right(self._spans, (at, float("inf"))) - 1
        if number < 0:
            return at
        return max(at, self._spans[number][1])
