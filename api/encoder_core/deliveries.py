"""What can become of one attempt to deliver a webhook, as the log of a job's webhooks says it."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    DELIVERED = "delivered"  #: The receiver answered 2xx.
    CLIENT_ERROR = "client_error"  #: It answered 4xx: it does not like the request.
    SERVER_ERROR = "server_error"  #: It answered 5xx, or something that is no final answer.
    GONE = "gone"  #: It answered 410: it wants no more of this job.
    REDIRECT_REFUSED = "redirect_refused"  #: It answered 3xx: redirects are never followed.
    TIMEOUT = "timeout"  #: No answer within the time allowed.
    CONNECTION_FAILED = "connection_failed"  #: Unknown name, refused, or cut before the answer.
    TLS_FAILED = "tls_failed"  #: Its certificate or its TLS is not acceptable; `answer` says why.
    ADDRESS_NOT_ALLOWED = "address_not_allowed"  #: Its address is private, or not https; see below.
    INVALID_ANSWER = "invalid_answer"  #: What it sent back is not HTTP.
    SUPERSEDED = "superseded"  #: Nothing was sent: after a failure it gave way to the job's end.
    TARGET_LOST = "target_lost"  #: Nothing was sent: no `ENCODER_SECRET_KEY` opens the address.
