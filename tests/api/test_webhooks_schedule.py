"""When a webhook is tried again, and when it is over."""

from __future__ import annotations

import pytest

from encoder_api.webhooks.outcomes import outcome_of_status
from encoder_api.webhooks.schedule import LAST, PLANNED_S, next_delay_s
from encoder_core.deliveries import Outcome

RETRIED = [outcome for outcome in Outcome if outcome not in LAST]


def test_the_schedule_is_that_of_standard_webhooks() -> None:
    minutes = [round(pause / 60, 2) for pause in PLANNED_S]
    assert minutes == [0, 0.08, 5, 30, 120, 300, 600, 840, 1200, 1440]
    assert 75 * 3600 < sum(PLANNED_S) < 76 * 3600


@pytest.mark.parametrize("outcome", RETRIED)
def test_whatever_is_not_accepted_is_tried_ten_times(outcome: Outcome) -> None:
    delays = [
        next_delay_s(attempts, outcome, retry_after_s=None, jitter=0)
        for attempts in range(1, len(PLANNED_S) + 1)
    ]
    assert delays == [*PLANNED_S[1:], None]


@pytest.mark.parametrize(
    "outcome",
    [Outcome.DELIVERED, Outcome.GONE, Outcome.SUPERSEDED, Outcome.TARGET_LOST],
)
def test_an_accepted_one_a_gone_receiver_and_what_was_never_sent_end_it(outcome: Outcome) -> None:
    assert next_delay_s(1, outcome, retry_after_s=None, jitter=0) is None


@pytest.mark.parametrize(
    ("jitter", "retry_after_s", "want"),
    [
        pytest.param(-1, None, 240, id="a fifth earlier"),
        pytest.param(1, None, 360, id="a fifth later"),
        pytest.param(0, 0, 300, id="Retry-After never shortens"),
        pytest.param(0, 420, 420, id="Retry-After stretches"),
        pytest.param(-1, 420, 420, id="jitter never comes before Retry-After"),
        pytest.param(1, 86_400, 600, id="Retry-After is capped at twice the plan"),
    ],
)
def test_the_pause_before_the_third_attempt(
    jitter: float, retry_after_s: float | None, want: float
) -> None:
    delay = next_delay_s(2, Outcome.CLIENT_ERROR, retry_after_s=retry_after_s, jitter=jitter)
    assert delay == pytest.approx(want)


@pytest.mark.parametrize(
    ("status", "want"),
    [
        (200, Outcome.DELIVERED),
        (204, Outcome.DELIVERED),
        (299, Outcome.DELIVERED),
        (103, Outcome.SERVER_ERROR),
        (301, Outcome.REDIRECT_REFUSED),
        (304, Outcome.REDIRECT_REFUSED),
        (400, Outcome.CLIENT_ERROR),
        (410, Outcome.GONE),
        (429, Outcome.CLIENT_ERROR),
        (500, Outcome.SERVER_ERROR),
        (999, Outcome.SERVER_ERROR),
    ],
)
def test_what_a_status_means(status: int, want: Outcome) -> None:
    assert outcome_of_status(status) is want
