"""
Kill the operator at every step of a job's life that leaves a trace, and let another one go on.

One run is recorded first: each write to the API server, before it and after it, and each commit.
Then the same life is lived once for each of these moments, with a kill there: a life with a second
attempt, which has every moment of one that goes well. In memory and on SQLite, so that all of them
take seconds; tests/kill does it on MySQL and after each statement, tests/cluster kills a real
process.
"""

from __future__ import annotations

import pytest

from encoder_db.store import Store
from tests.figures import tell_figure
from tests.operator.lives import RETRIED, STORIES, Life, Story

MOMENTS = 52
"""Of that life; the first test compares."""


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_without_a_kill_nothing_is_doubled_or_left_of(store: Store, story: Story) -> None:
    life = Life(store, story)
    life.run()
    life.check()
    assert story is not RETRIED or life.reaper.count == MOMENTS, life.reaper.moments
    tell_figure(f"operator, {story.name}: {life.reaper.count} moments, in memory")


@pytest.mark.parametrize("at", range(1, MOMENTS + 1))
def test_killed_there_the_job_still_ends_once_and_nothing_is_left(store: Store, at: int) -> None:
    life = Life(store, RETRIED, at=at)
    life.run()
    life.check()
