"""What can become of one attempt to deliver a webhook."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Outcome(StrEnum):
    DELIVERED = "delivered"  #: The receiver answered 2xx.
    CLIENT_ERROR = "client_error"  #: It answered 4xx: it does not like the request.
    SERVER_ERROR = "server_error"  #: It answered 5xx, or something that is no final answer.
    GONE = "gone"  #: It answered 410: it wants no more of this job.
    REDIRECT_REFUSED = "redirect_refused"  #: It answered 3xx: redirects are never followed.
    TIMEOUT = "timeout"  #: No answer within the time allowed.
    CONNECTION_FAILED = "connection_failed"  #: Unknown name, refused, or cut before the answer.
    TLS_FAILED = "tls_failed"  #: Its certificate or its TLS is not acceptable.
    ADDRESS_NOT_ALLOWED = "address_not_allowed"  #: Its address is private; see docs/webhooks.md.
    INVALID_ANSWER = "invalid_answer"  #: What it sent back is not HTTP.


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
