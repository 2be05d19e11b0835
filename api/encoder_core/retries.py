"""Decide whether a failed attempt is followed by another, and when. Pure; used by both engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from encoder_core.failures import Budget, kind_of


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryLimits:
    """How many attempts may be charged to each budget, the failed one included."""

    app: int = 3
    """`QUEUE_MAX_ATTEMPTS`: 3 means two retries."""
    infra: int = 10
    config: int = 5


@dataclass(frozen=True, slots=True)
class Retry:
    after_s: float


@dataclass(frozen=True, slots=True)
class Stop:
    pass


_FIRST_S: Mapping[Budget, float] = {
    Budget.APP: 5.0,
    Budget.INFRA: 1.0,  # the next machine is most likely fine
    Budget.CAPACITY: 30.0,  # room appears when something ends
    Budget.CONFIG: 60.0,  # somebody has to act
}
_FACTOR = 3.0
_LONGEST_S = 300.0
_LONGEST_ASKED_S = 3600.0  # a server that says Retry-After: 1 year must not park a job that long


def decide_retry(
    code: str,
    charged: Mapping[Budget, int],
    *,
    limits: RetryLimits,
    jitter: float,
    retry_after_s: float | None = None,
) -> Retry | Stop:
    """
    Say what follows an attempt that failed with `code`.

    `charged` counts the attempts charged to each budget so far, this one included. `jitter` is a
    random number in [0, 1): the delay is stretched by up to half, so that jobs that failed
    together do not come back together. `retry_after_s` is what the other side asked for.
    """
    budget = kind_of(code).budget
    if budget is Budget.NONE:
        return Stop()
    used = max(charged.get(budget, 0), 1)
    allowed = {Budget.APP: limits.app, Budget.INFRA: limits.infra, Budget.CONFIG: limits.config}
    if budget in allowed and used >= allowed[budget]:
        return Stop()
    # The exponent is capped before the power: a job may wait for room thousands of times.
    backoff_s = min(_FIRST_S[budget] * _FACTOR ** min(used - 1, 6), _LONGEST_S)
    asked_s = min(retry_after_s or 0.0, _LONGEST_ASKED_S)
    return Retry(after_s=max(backoff_s, asked_s) * (1 + jitter / 2))
