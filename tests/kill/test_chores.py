"""
A process is killed at each step of what is done about jobs besides running them.

No step breaks a rule that held before; then the owner of that crash goes on, alone, and all of it
is done, once.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from encoder_db.fsck import fsck
from encoder_db.store import Store
from tests.figures import tell_figure
from tests.kill.actors import run_act
from tests.kill.chores import CHORES, Chore, do
from tests.kill.conftest import steps_of

ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"


@pytest.mark.parametrize("chore", CHORES, ids=lambda chore: chore.name)
def test_killed_at_each_step_its_owner_alone_completes_it(
    store: Store, url: str, chore: Chore
) -> None:
    count = run_act(url, partial(do, chore.name, chore.made(store).id))
    assert count
    steps = steps_of(count, sample=3)
    undone = []
    for step in steps:
        job = chore.made(store)
        before = _broken(store)
        if run_act(url, partial(do, chore.name, job.id), kill_at=step) is not None:
            raise AssertionError(f"step {step} of {count} never came")
        assert _broken(store) <= before, f"after step {step} of {count}"
        chore.owner(store, job.id)
        if _broken(store) or not chore.is_done(store, job.id):
            undone.append(step)
    tell_figure(
        f"{chore.name}: killed at {len(steps)} of {count} steps, not completed {len(undone)}"
    )
    assert undone == []


def _broken(store: Store) -> set[tuple[str, int]]:
    return {(finding.rule, finding.job_id) for finding in fsck(store).findings}


def test_the_documentation_says_who_goes_on() -> None:
    text = ARCHITECTURE.read_text()
    for chore in CHORES:
        assert f"| {chore.name.split(',')[0]} |" in text
