"""What a Retry-After header asks for, whoever sent it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder_core.retry_after import LONGEST_READ_S, read_retry_after

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        pytest.param(None, None, id="no header"),
        pytest.param("", None, id="an empty one"),
        pytest.param("120", 120, id="seconds"),
        pytest.param(" 7 ", 7, id="seconds with spaces"),
        pytest.param("000", 0, id="at once"),
        pytest.param("000000000000007", 7, id="seconds with zeros before them"),
        pytest.param("Sun, 01 Mar 2026 12:10:00 GMT", 600, id="a date"),
        pytest.param("Sun, 01 Mar 2026 12:10:00", 600, id="a date without a zone"),
        pytest.param("Sunday, 01-Mar-26 12:10:00 GMT", 600, id="a date of RFC 850"),
        pytest.param("Sun, 01 Mar 2026 11:00:00 GMT", 0, id="a date that has passed"),
        pytest.param("Sun, 01 Mar 9999 12:00:00 GMT", LONGEST_READ_S, id="a date far away"),
        pytest.param("Sun, 32 Mar 2026 12:00:00 GMT", None, id="a day that no month has"),
        pytest.param("Sun, 01 Mar 99999999999999999999 12:00:00 GMT", None, id="an absurd year"),
        pytest.param("Sun, 01 Mar 2026 12:00:00 +99999999999999", None, id="an absurd zone"),
        pytest.param("soon", None, id="a word"),
        pytest.param("-5", None, id="a negative number"),
        pytest.param("1.5", None, id="a fraction"),
        pytest.param("1e9", None, id="a power"),
        pytest.param("\u0663", None, id="a digit that is not ASCII"),
        pytest.param("\u00b2", None, id="a digit that is no number"),
        pytest.param("9" * 20, LONGEST_READ_S, id="a huge number"),
        pytest.param("9" * 5000, LONGEST_READ_S, id="an absurd number"),
    ],
)
def test_read_retry_after(text: str | None, want: float | None) -> None:
    assert read_retry_after(text, now=NOW) == want


TIMES = st.from_regex(
    r"(Sun, )?[0-9\u00b2]{1,25}[ -](Mar|Feb|x)[ -][0-9]{1,25} [0-9]{1,12}:[0-9]{2}:[0-9]{2}"
    r"( GMT| [+-][0-9]{1,25})?",
    fullmatch=True,
)


@given(st.text() | st.text("0123456789") | TIMES)
def test_whatever_it_says_the_answer_is_bounded(text: str) -> None:
    asked_s = read_retry_after(text, now=NOW)
    assert asked_s is None or 0 <= asked_s <= LONGEST_READ_S
