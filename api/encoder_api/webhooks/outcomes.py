"""What one attempt to deliver a webhook says about its receiver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from encoder_core.deliveries import Outcome

UNWELL: Final = frozenset(
    {
        *(Outcome.SERVER_ERROR, Outcome.TIMEOUT, Outcome.CONNECTION_FAILED),
        *(Outcome.TLS_FAILED, Outcome.INVALID_ANSWER),
    }
)
"""These say something about the host, and not about one of the receivers on it."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One attempt, as the log keeps it."""

    outcome: Outcome
    duration_ms: int
    status: int | None = None
    remote_ip: str | None = None
    """The address that was dialled."""
    snippet: bytes | None = None
    """The beginning of the answer, without the URL's secrets; or why its TLS is not acceptable."""
    retry_after: str | None = None
    """The header as it was sent."""


def outcome_of_status(status: int) -> Outcome:
    if 200 <= status < 300:
        return Outcome.DELIVERED
    if 300 <= status < 400:
        return Outcome.REDIRECT_REFUSED
    if status == 410:
        return Outcome.GONE
    if 400 <= status < 500:
        return Outcome.CLIENT_ERROR
    return Outcome.SERVER_ERROR
