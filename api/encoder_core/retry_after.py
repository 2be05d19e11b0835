"""Read the Retry-After header of whoever asks us to come back later. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

LONGEST_READ_S: Final = 1e9  # 30 years: what says more says no more than "not today"
_DIGITS: Final = 9


def read_retry_after(text: str | None, *, now: datetime | None = None) -> float | None:
    """
    Seconds that the header asks for, as a number or as a date; None: there is none that we read.

    It comes from a stranger, so nothing in it raises, and the answer is finite: between 0 and
    LONGEST_READ_S. How long is too long for an answer is for the caller to say. `now` is the
    system's time when it is not given.
    """
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdecimal():
        significant = text.lstrip("0")
        return float(significant or 0) if len(significant) <= _DIGITS else LONGEST_READ_S
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError, TypeError, IndexError):  # by what is wrong with it
        return None
    left_s = (at.replace(tzinfo=at.tzinfo or UTC) - (now or datetime.now(UTC))).total_seconds()
    return min(max(0.0, left_s), LONGEST_READ_S)
