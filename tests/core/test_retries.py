"""What follows a failed attempt, as a table: which budget, how many tries, how long the wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder_core.failures import FAILURES, Budget
from encoder_core.retries import Retry, RetryLimits, Stop, decide_retry

LIMITS = RetryLimits(app=3, infra=10, config=5)


@pytest.mark.parametrize(
    ("code", "charged", "want"),
    [
        pytest.param("encode_failed", {Budget.APP: 1}, Retry(5.0), id="the first of three"),
        pytest.param("encode_failed", {Budget.APP: 2}, Retry(15.0), id="the second of three"),
        pytest.param("encode_failed", {Budget.APP: 3}, Stop(), id="the third of three is the last"),
        pytest.param("encode_failed", {Budget.APP: 4}, Stop(), id="more than allowed"),
        pytest.param(
            "encode_failed", {Budget.APP: 1, Budget.INFRA: 9}, Retry(5.0), id="another budget used"
        ),
        pytest.param("worker_lost", {Budget.INFRA: 1}, Retry(1.0), id="a lost worker"),
        pytest.param(
            "worker_lost", {Budget.INFRA: 1, Budget.APP: 2}, Retry(1.0), id="lost after failures"
        ),
        pytest.param("worker_lost", {Budget.INFRA: 9}, Retry(300.0), id="the ninth lost worker"),
        pytest.param("worker_lost", {Budget.INFRA: 10}, Stop(), id="the tenth lost worker"),
        pytest.param("image_unavailable", {Budget.CONFIG: 4}, Retry(300.0), id="no image yet"),
        pytest.param("image_unavailable", {Budget.CONFIG: 5}, Stop(), id="no image at all"),
        pytest.param("pod_unschedulable", {Budget.CAPACITY: 1}, Retry(30.0), id="no room"),
        pytest.param(
            "pod_unschedulable", {Budget.CAPACITY: 5000}, Retry(300.0), id="no room for days"
        ),
        pytest.param("source_not_found", {}, Stop(), id="what trying again cannot mend"),
        pytest.param("canceled", {}, Stop(), id="what was asked for"),
        pytest.param("encode_failed", {}, Retry(5.0), id="not charged yet counts as the first"),
        pytest.param("code_of_tomorrow", {Budget.APP: 1}, Retry(5.0), id="a newer worker's code"),
    ],
)
def test_decide_retry(code: str, charged: dict[Budget, int], want: Retry | Stop) -> None:
    assert decide_retry(code, charged, limits=LIMITS, jitter=0.0) == want


def test_max_attempts_of_1_means_no_retry() -> None:
    limits = RetryLimits(app=1)
    assert decide_retry("encode_failed", {Budget.APP: 1}, limits=limits, jitter=0.0) == Stop()


@pytest.mark.parametrize(
    ("asked_s", "after_s"),
    [
        pytest.param(120.0, 120.0, id="longer than ours"),
        pytest.param(1.0, 5.0, id="shorter than ours"),
        pytest.param(1e9, 3600.0, id="for years"),
        pytest.param(float("inf"), 3600.0, id="for ever"),
        pytest.param(-1.0, 5.0, id="in the past"),
    ],
)
def test_what_the_other_side_asked_for_is_honoured_within_reason(
    asked_s: float, after_s: float
) -> None:
    decision = decide_retry(
        "destination_unreachable",
        {Budget.APP: 1},
        limits=LIMITS,
        jitter=0.0,
        retry_after_s=asked_s,
    )
    assert decision == Retry(after_s)


@given(
    st.sampled_from(sorted(FAILURES)),
    st.dictionaries(st.sampled_from(Budget), st.integers(0, 10_000)),
    st.floats(0, 1, exclude_max=True),
    st.none() | st.floats(allow_nan=False),
)
def test_every_failure_is_decided_and_every_wait_is_bounded(
    code: str, charged: dict[Budget, int], jitter: float, asked_s: float | None
) -> None:
    decision = decide_retry(code, charged, limits=LIMITS, jitter=jitter, retry_after_s=asked_s)
    if isinstance(decision, Retry):
        assert FAILURES[code].retryable
        assert 1.0 <= decision.after_s <= 5400.0


def test_jitter_stretches_by_up_to_half_and_never_shortens() -> None:
    charged = {Budget.APP: 1}
    waits = [
        decide_retry("encode_failed", charged, limits=LIMITS, jitter=jitter)
        for jitter in (0.0, 0.5, 0.999)
    ]
    assert waits == [Retry(5.0), Retry(6.25), Retry(5.0 * 1.4995)]
