"""
Kill the operator at every step of a job's life that leaves a trace, and let another one go on.

One run is recorded first: each write to the API server, before it and after it, and each commit.
Then the same life is lived once for each of these moments, with a kill there. In memory and on
SQLite, so that all of them take seconds; tests/kill does it on MySQL and after each statement,
tests/cluster kills a real process.
"""

from __future__ import annotations

import pytest

from encoder_core.states import JobStatus
from encoder_db.store import Store
from encoder_operator.kube import JOBS, PODS, SECRETS
from tests.db import builders as make
from tests.operator.lives import WELL, Life

MOMENTS = 27
"""Of a life that goes well; the first test compares."""


def test_the_moments_of_a_life_are_all_tried(store: Store) -> None:
    life = Life(store, WELL)
    life.run()
    print(f"moments: {life.reaper.count}: {life.reaper.moments}")
    assert life.reaper.count == MOMENTS


@pytest.mark.parametrize("at", range(1, MOMENTS + 1))
def test_killed_there_the_job_still_ends_once_and_nothing_is_left(store: Store, at: int) -> None:
    life = Life(store, WELL, at=at)
    life.run()
    job = life.job
    assert job is not None
    assert make.status(store, job) is JobStatus.COMPLETED, life.reaper.moments
    told = [type_ for _, type_ in make.events(store, job)]
    assert told.count("job.completed") == 1
    assert make.attempt_statuses(store, job).count("succeeded") == 1
    assert [number for number, _ in make.events(store, job)] == list(range(1, len(told) + 1))
    api = life.desk.api
    assert api.all(JOBS) == api.all(PODS) == api.all(SECRETS) == []
    with store.read() as tx:
        held = tx.exec_driver_sql(
            "SELECT COUNT(*) FROM job_attempts WHERE status IN ('created', 'running')"
        ).scalar_one()
    assert held == 0
