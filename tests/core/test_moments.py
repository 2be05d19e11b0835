"""Moments in documents are text that sorts as in time, in whichever zone they were given."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from encoder_core.model import Instant, Model


class Document(Model):
    at: Instant


def said(moment: datetime) -> str:
    text: str = Document(at=moment).to_json()["at"]
    return text


def test_a_full_second_has_its_fraction_too() -> None:
    full = datetime(2026, 3, 1, 2, 0, 0, tzinfo=UTC)
    assert said(full) == "2026-03-01T02:00:00.000000Z"
    later = [full + timedelta(microseconds=step) for step in (0, 1, 999_999, 1_000_000)]
    assert sorted(map(said, later)) == [said(moment) for moment in later]


def test_another_zone_is_said_in_utc() -> None:
    there = datetime(2026, 3, 1, 2, 0, 0, tzinfo=timezone(timedelta(hours=2)))
    assert said(there) == "2026-03-01T00:00:00.000000Z"
