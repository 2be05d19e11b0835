"""
The operator is killed after each write of a job's life to MySQL, and the next one goes on.

Each INSERT, UPDATE and DELETE, each commit before it happens; also before and after each write to
the API server, which is one in memory. One run of each life is recorded first, to know its moments.
"""

from __future__ import annotations

import pytest

from encoder_db.fsck import fsck
from encoder_db.store import Store
from tests.db.conftest import empty
from tests.figures import tell_figure
from tests.kill.conftest import steps_of
from tests.operator.lives import STORIES, Life, Story


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_killed_after_any_write_to_the_record_it_loses_and_doubles_nothing(
    store: Store, story: Story
) -> None:
    recorded = Life(store, story)
    recorded.run(statements=True)
    moments = recorded.reaper.moments
    writes = [moment for moment in moments if moment.split()[0] in ("INSERT", "UPDATE", "DELETE")]
    assert len(writes) > 15, moments
    steps = steps_of(len(moments), sample=6)
    kills: list[int] = []
    for step in steps:
        empty(store.engine)
        life = Life(store, story, at=step)

        def holds(step: int = step) -> None:
            kills.append(step)
            assert fsck(store).findings == [], f"killed at {moments[step - 1]}, the {step}th"

        life.run(statements=True, after_kill=holds)
        life.check()
    tell_figure(
        f"operator, {story.name}: {len(moments)} moments, {len(writes)} of them statements; "
        f"kills {len(kills)}, lost and doubled 0"
    )
    assert kills == steps
