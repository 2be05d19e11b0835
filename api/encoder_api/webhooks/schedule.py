"""Decide when a webhook is tried again. Pure."""

from __future__ import annotations

from typing import Final

from encoder_core.deliveries import Outcome

_MINUTE, _HOUR = 60.0, 3600.0

PLANNED_S: Final = (
    *(0.0, 5.0, 5 * _MINUTE, 30 * _MINUTE),
    *(2 * _HOUR, 5 * _HOUR, 10 * _HOUR, 14 * _HOUR, 20 * _HOUR, 24 * _HOUR),
)
"""
The pause before each attempt: the example of Standard Webhooks, about 75 hours in all.

Long enough for a receiver that breaks on Friday evening and is mended on Monday.
"""

LAST: Final = frozenset({Outcome.DELIVERED, Outcome.GONE, Outcome.SUPERSEDED, Outcome.TARGET_LOST})
"""After these there is no other attempt."""

JITTER: Final = 0.2  # what failed together must not come back together


def next_delay_s(
    attempts: int, outcome: Outcome, *, retry_after_s: float | None, jitter: float
) -> float | None:
    """
    Seconds until the next attempt after `attempts` of them, or None: it is over.

    `jitter` is a random number in [-1, 1]. A receiver's Retry-After may stretch the planned pause
    to twice its length and never shortens it: neither a typing mistake of theirs nor a wish to be
    called at once decides how long events stay undelivered.
    """
    if outcome in LAST or attempts >= len(PLANNED_S):
        return None
    planned = PLANNED_S[attempts]
    delay = planned * (1 + JITTER * jitter)
    return delay if retry_after_s is None else min(max(retry_after_s, delay), 2 * planned)
