"""
Kill the operator at every step of a job's life that leaves a trace, and let another one go on.

One run is recorded first: each write to the API server, before it and after it, and each commit.
Then the same life is lived once for each of these moments, with a kill there. In memory and on
SQLite, so that all of them take seconds; tests/cluster kills a real process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from encoder_core.names import resource_name
from encoder_core.reports import Started
from encoder_core.states import JobStatus
from encoder_db.store import Store
from encoder_operator.kube import JOBS, PODS, SECRETS
from tests.db import builders as make
from tests.operator.desk import RUNNING, SUCCEEDED, Desk

MOMENTS = 30
"""Of a life that goes well; the first test compares."""
CRASH_S = 75.0
"""Longer than the lease of a claim and than the one of a Pod that is being made."""


class Killed(BaseException):
    """The process is gone: whatever it would have done next does not happen."""


class Reaper:
    """Counts the moments, and kills at one of them. Dead is dead: every later call raises too."""

    def __init__(self, store: Store, *, at: int | None) -> None:
        self._store = store
        self._at = at
        self.count = 0
        self.dead = False
        self.armed = False
        self.moments: list[str] = []

    def pass_by(self, moment: str) -> None:
        if not self.armed:
            return
        if self.dead:
            raise Killed
        self.count += 1
        self.moments.append(moment)
        if self.count == self._at:
            self.dead = True
            raise Killed

    @contextmanager
    def watching(self) -> Iterator[None]:
        def before_commit(_: Any) -> None:
            self.pass_by("commit")

        event.listen(self._store.engine, "commit", before_commit)
        try:
            yield
        finally:
            event.remove(self._store.engine, "commit", before_commit)


def live(store: Store, *, at: int | None) -> tuple[Desk, Any, Reaper]:
    """A whole life; after the kill another operator goes on, some time later."""
    reaper = Reaper(store, at=at)
    desk = Desk(store)
    desk.api.around_write = reaper.pass_by
    with reaper.watching():
        job = desk.submit()
        name, crashed = resource_name(job.uuid), False
        for _ in range(40):
            reaper.armed = True
            try:
                if crashed:
                    desk.sweep()
                desk.dispatch()
                desk.settle(name)
            except Killed:
                pass
            reaper.armed = False
            if reaper.dead:
                desk, reaper.dead, crashed = desk.another(), False, True
                make.let_pass(store, CRASH_S)
                continue
            if not _move_on(desk, job, name):
                break
        return desk, job, reaper


def _move_on(desk: Desk, job: Any, name: str) -> bool:
    """What node, worker and time do next. False when nothing is left."""
    if make.status(desk.store, job) is JobStatus.COMPLETED:
        make.let_pass(desk.store, 3601)
        return bool(desk.api.all(JOBS))
    attempt = make.read(desk.store, job).attempt
    pods = {pod["metadata"]["name"]: pod for pod in desk.api.all(PODS)}
    pod = pods.get(f"{name}-a{attempt}")
    if pod is None:
        make.let_pass(desk.store, CRASH_S)
    elif "status" not in pod:
        desk.move_pod(name, RUNNING, attempt=attempt)
        assert desk.say(job, Started(), attempt=attempt), "its token is void"
    elif pod["status"]["phase"] == "Running":
        desk.say(job, make.uploaded(), attempt=attempt)
        desk.say(job, make.succeeded(), attempt=attempt)
        desk.move_pod(name, SUCCEEDED, attempt=attempt)
    return True


def test_the_moments_of_a_life_are_all_tried(store: Store) -> None:
    _, _, reaper = live(store, at=None)
    print(f"moments: {reaper.count}: {reaper.moments}")
    assert reaper.count == MOMENTS


@pytest.mark.parametrize("at", range(1, MOMENTS + 1))
def test_killed_there_the_job_still_ends_once_and_nothing_is_left(store: Store, at: int) -> None:
    desk, job, reaper = live(store, at=at)
    assert make.status(store, job) is JobStatus.COMPLETED, reaper.moments
    told = [type_ for _, type_ in make.events(store, job)]
    assert told.count("job.completed") == 1
    assert make.attempt_statuses(store, job).count("succeeded") == 1
    assert [number for number, _ in make.events(store, job)] == list(range(1, len(told) + 1))
    assert desk.api.all(JOBS) == desk.api.all(PODS) == desk.api.all(SECRETS) == []
    with store.read() as tx:
        held = tx.exec_driver_sql(
            "SELECT COUNT(*) FROM job_attempts WHERE status IN ('created', 'running')"
        ).scalar_one()
    assert held == 0
