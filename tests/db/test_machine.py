"""
Whatever is done to jobs, in any order: every rule holds after each step, and every job ends.

Hypothesis chooses the steps over the real record; what a caller, a worker, an executor, the sweep
and the clock can do are its rules. A failure is shrunk to the shortest way that leads there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import create_engine, func, select

from encoder_core.errors import Refused
from encoder_core.failures import failure
from encoder_core.states import FINAL_JOB, JOB_TRANSITIONS, OPEN_ATTEMPT, JobStatus, OutputStatus
from encoder_db.bump import bump_job
from encoder_db.fsck import fsck
from encoder_db.jobs import cancel_job, delete_job, retry_job
from encoder_db.redrive import redrive_jobs
from encoder_db.retention import delete_old_jobs
from encoder_db.store import Store
from encoder_db.sweep import sweep
from encoder_db.tables import job_attempts, job_events, job_outputs, jobs
from encoder_db.takeover import end_abandoned
from tests.db import builders as make
from tests.db.conftest import KEYS, empty

J = JobStatus
WORKERS = ("host-a", "host-b")
FAILURES = ("source_not_found", "worker_lost", "encode_failed", "destination_unreachable")
MINUTE_S, HOUR_S = 60.0, 3600.0
A_JOB = st.integers(min_value=0, max_value=7)
A_WORKER = st.integers(min_value=0, max_value=7)

Fresh = Callable[[], Store]


class AnyOrder(RuleBasedStateMachine):
    """`jobs` are the numbers that were accepted; `open` what workers hold, some for no good."""

    def __init__(self, fresh: Fresh) -> None:
        super().__init__()
        self.store = fresh()
        self.jobs: list[int] = []
        self.open: list[make.Claimed] = []
        self.versions: dict[int, int] = {}
        self.uploaded: set[tuple[int, int]] = set()

    # --- Callers -------------------------------------------------------------------------------

    @rule(outputs=st.integers(1, 3), owner=st.sampled_from(["acme", "beta"]))
    def submit(self, outputs: int, owner: str) -> None:
        asked = make.spec(outputs, source=make.s3(), notificationUrl="https://example.com/")
        self.jobs.append(make.create(self.store, asked, owner=owner).id)

    @rule(which=A_JOB)
    @precondition(lambda self: self.jobs)
    def cancel(self, which: int) -> None:
        cancel_job(self.store, self._job(which), owner=None)

    @rule(which=A_JOB)
    @precondition(lambda self: len(self.jobs) > 2)
    def delete(self, which: int) -> None:
        delete_job(self.store, self._job(which), owner=None)

    @rule(which=A_JOB)
    @precondition(lambda self: self.jobs)
    def retry(self, which: int) -> None:
        secrets = {
            "/source/access_key_id": "AKIA",
            "/source/access_key_secret": "another",
        }
        self._if_allowed(
            lambda: retry_job(self.store, self._job(which), owner=None, secrets=secrets)
        )

    @rule(which=A_JOB)
    @precondition(lambda self: self.jobs)
    def bump(self, which: int) -> None:
        self._if_allowed(lambda: bump_job(self.store, self._job(which), owner=None))

    @rule(code=st.sampled_from(FAILURES))
    def redrive(self, code: str) -> None:
        redrive_jobs(self.store, owner=None, failure_code=code)

    # --- Executors and workers -----------------------------------------------------------------

    @rule(worker=st.sampled_from(WORKERS), limit=st.integers(1, 3))
    def claim(self, worker: str, limit: int) -> None:
        for message in make.claim_some(self.store, limit, worker=worker):
            opened = make.open_attempt(
                self.store, message, executor="local", worker=worker, limits=make.LIMITS
            )
            if isinstance(opened, make.Claimed):
                self.open.append(opened)

    @rule(which=A_WORKER)
    @precondition(lambda self: self.open)
    def start(self, which: int) -> None:
        make.mark_starting(self.store, self._held(which))

    @rule(which=A_WORKER)
    @precondition(lambda self: self.open)
    def report_running(self, which: int) -> None:
        make.say(self.store, self._held(which), make.Started())

    @rule(which=A_WORKER)
    @precondition(lambda self: self.open)
    def report_progress(self, which: int) -> None:
        make.say(self.store, self._held(which), make.progress())

    @rule(which=A_WORKER, index=st.integers(0, 2))
    @precondition(lambda self: self.open)
    def upload(self, which: int, index: int) -> None:
        make.say(self.store, self._held(which), make.uploaded(index))

    @rule(which=A_WORKER)
    @precondition(lambda self: self.open)
    def succeed(self, which: int) -> None:
        worker = self._held(which)
        make.say(self.store, worker, make.succeeded(*(make.uploaded(i) for i in range(3))))
        make.finish(self.store, worker)

    @rule(which=A_WORKER, code=st.sampled_from(FAILURES))
    @precondition(lambda self: self.open)
    def fail(self, which: int, code: str) -> None:
        worker = self._held(which)
        make.say(self.store, worker, make.failed(failure(code)))
        make.finish(self.store, worker, exit_code=40)

    @rule(which=A_WORKER)
    @precondition(lambda self: self.open)
    def disappear(self, which: int) -> None:
        make.finish(self.store, self._held(which), exit_code=None, lost=True)

    # --- Time, and who puts things right ---------------------------------------------------------

    @rule(seconds=st.sampled_from([MINUTE_S, 0.5 * HOUR_S, 30 * HOUR_S]))
    def wait(self, seconds: float) -> None:
        make.let_pass(self.store, seconds)

    @rule()
    def mend(self) -> None:
        sweep(self.store)

    @rule(worker=st.sampled_from(WORKERS))
    def take_over(self, worker: str) -> None:
        end_abandoned(self.store, worker=worker, limits=make.LIMITS)

    @rule()
    def forget_the_old(self) -> None:
        delete_old_jobs(self.store, older_than_h=24)

    # --- What always holds -----------------------------------------------------------------------

    @invariant()
    def every_rule_holds(self) -> None:
        assert fsck(self.store).findings == []

    @invariant()
    def versions_only_rise_and_what_is_uploaded_stays_so(self) -> None:
        with self.store.read() as tx:
            rows = tx.execute(select(jobs.c.id, jobs.c.version)).all()
            done = select(job_outputs.c.job_id, job_outputs.c.position).where(
                job_outputs.c.status == OutputStatus.UPLOADED
            )
            uploaded = {(row.job_id, row.position) for row in tx.execute(done)}
        there = {row.id for row in rows}
        assert all(self.versions.get(row.id, 0) <= row.version for row in rows)
        assert {item for item in self.uploaded if item[0] in there} <= uploaded
        self.versions = {row.id: row.version for row in rows}
        self.uploaded = uploaded

    @invariant()
    def one_attempt_of_a_job_is_open_at_most(self) -> None:
        held = (
            select(job_attempts.c.job_id)
            .where(job_attempts.c.status.in_(sorted(OPEN_ATTEMPT)))
            .group_by(job_attempts.c.job_id)
            .having(func.count() > 1)
        )
        with self.store.read() as tx:
            assert list(tx.execute(held).scalars()) == []

    def teardown(self) -> None:
        """Every job that was accepted ends, and its events tell of steps that may follow."""
        try:
            self._events_follow_one_another()
            for _ in range(12):
                make.let_pass(self.store, HOUR_S)
                sweep(self.store)
                end_abandoned(self.store, worker="host-c", limits=make.LIMITS)
                for message in make.claim_some(self.store, 20, worker="host-c"):
                    opened = make.open_attempt(
                        self.store, message, executor="local", worker="host-c", limits=make.LIMITS
                    )
                    if isinstance(opened, make.Claimed):
                        make.finish(self.store, opened)
            with self.store.read() as tx:
                ends = set(tx.execute(select(jobs.c.status)).scalars())
            assert ends <= FINAL_JOB, ends
            assert fsck(self.store).findings == []
        finally:
            self.store.close()

    def _events_follow_one_another(self) -> None:
        query = select(job_events.c.job_id, job_events.c.type)
        with self.store.read() as tx:
            rows = tx.execute(query.order_by(job_events.c.job_id, job_events.c.seq)).all()
        statuses: dict[int, list[JobStatus]] = {}
        for row in rows:
            kind = row.type.removeprefix("job.")
            if kind in J.__members__.values():
                statuses.setdefault(row.job_id, []).append(J(kind))
        for told in statuses.values():
            assert told[0] is J.QUEUED
            for before, after in pairwise(told):
                assert after in JOB_TRANSITIONS[before], told

    def _job(self, which: int) -> int:
        return self.jobs[which % len(self.jobs)]

    def _held(self, which: int) -> make.Claimed:
        return self.open[which % len(self.open)]

    def _if_allowed(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except Refused as refused:
            assert refused.status in (404, 409)  # noqa: PT017  # a refusal is an answer here


@pytest.fixture(params=["sqlite", "mysql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Here: the kind; each example gets a record of its own."""
    kind: str = request.param
    return kind


@pytest.fixture
def fresh(database_url: str, request: pytest.FixtureRequest, tmp_path: Path) -> Fresh:
    if database_url == "mysql":
        url: str = request.getfixturevalue("migrated_mysql")

        def emptied() -> Store:
            engine = create_engine(url)
            empty(engine)
            engine.dispose()
            return Store.open(url, keys=KEYS)

        return emptied
    template: Path = request.getfixturevalue("sqlite_template")
    numbers = iter(range(1_000_000))

    def copied() -> Store:
        path = tmp_path / f"{next(numbers)}.db"
        shutil.copy(template, path)
        return Store.open(f"sqlite:///{path}", keys=KEYS)

    return copied


EXAMPLES = {"sqlite": 12, "mysql": 3}


def test_in_any_order_every_rule_holds_and_every_job_ends(fresh: Fresh, database_url: str) -> None:
    run_state_machine_as_test(
        lambda: AnyOrder(fresh),  # type: ignore[arg-type]  # a factory is fine, says its docstring
        settings=settings(
            max_examples=EXAMPLES[database_url],
            stateful_step_count=40,
            deadline=None,
            derandomize=True,  # the same steps in each run of the suite
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
