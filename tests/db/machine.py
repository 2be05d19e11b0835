"""
What can be done to jobs, as rules that Hypothesis puts into any order, and what holds after each.

This half has callers, workers, executors, the sweep and the clock; machine_queue.py adds leases,
pools and receivers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import func, select

from encoder_core.errors import Refused
from encoder_core.failures import failure
from encoder_core.specs import Priority
from encoder_core.states import FINAL_JOB, JOB_TRANSITIONS, OPEN_ATTEMPT, JobStatus, OutputStatus
from encoder_db.attempts import Refusal, open_attempts
from encoder_db.bump import bump_job
from encoder_db.cluster import mirror_pool
from encoder_db.fsck import fsck
from encoder_db.jobs import cancel_job, delete_job, read_row, retry_job
from encoder_db.pools import StopPolicy, set_pool
from encoder_db.queue import Engine
from encoder_db.redrive import redrive_jobs
from encoder_db.retention import delete_old_jobs
from encoder_db.store import Store
from encoder_db.sweep import sweep
from encoder_db.tables import job_attempts, job_events, job_outputs, jobs
from encoder_db.takeover import end_abandoned
from tests.db import builders as make

J = JobStatus
POOLS: dict[str, Engine] = {"default": "local", "k8s": "kubernetes"}
OWNERS = ("acme", "beta")
WORKERS = ("host-a", "host-b")
FAILURES = ("source_not_found", "worker_lost", "encode_failed", "destination_unreachable")
SECRETS = {"/source/access_key_id": "AKIA", "/source/access_key_secret": "another"}
MINUTE_S, HOUR_S = 60.0, 3600.0
A_JOB = st.integers(min_value=0, max_value=7)
A_WORKER = st.integers(min_value=0, max_value=7)

Fresh = Callable[[], Store]


@dataclass(frozen=True, kw_only=True)
class PoolRules:
    """As whoever rules the pool said it last."""

    places: int = 100
    per_owner: int | None = None
    policy: StopPolicy = "None"


class AnyOrder(RuleBasedStateMachine):
    """
    `jobs` are the numbers that were accepted, `present` those that must be there, `ended` those
    that are over; `open` is what workers hold, some for no good.
    """

    def __init__(self, fresh: Fresh) -> None:
        super().__init__()
        self.store = fresh()
        self.pools = {name: PoolRules() for name in POOLS}
        for name in POOLS:
            self.say_pool(name)
        self.jobs: list[int] = []
        self.present: set[int] = set()
        self.ended: dict[int, JobStatus] = {}
        self.open: list[make.Claimed] = []
        self.versions: dict[int, int] = {}
        self.uploaded: set[tuple[int, int]] = set()

    # --- Callers -------------------------------------------------------------------------------

    @rule(
        outputs=st.integers(1, 3),
        owner=st.sampled_from(OWNERS),
        pool=st.sampled_from(sorted(POOLS)),
        priority=st.sampled_from(Priority),
    )
    def submit(self, outputs: int, owner: str, pool: str, priority: Priority) -> None:
        asked = make.spec(
            outputs,
            source=make.s3(),
            notificationUrl="https://example.com/",
            pool=pool,
            priority=priority.value,
        )
        drained = self.pools[pool].policy == "Drain"
        try:
            job = make.create(self.store, asked, owner=owner).id
        except Refused as refused:
            assert (refused.code, drained) == ("pool_draining", True)  # noqa: PT017  # an answer
            return
        assert not drained
        self.jobs.append(job)
        self.present.add(job)

    @rule(which=A_JOB)
    @precondition(lambda self: self.jobs)
    def cancel(self, which: int) -> None:
        cancel_job(self.store, self.job(which), owner=None)

    @rule(which=A_JOB)
    @precondition(lambda self: len(self.jobs) > 2)
    def delete(self, which: int) -> None:
        delete_job(self.store, self.job(which), owner=None)
        self.present.discard(self.job(which))

    @rule(which=A_JOB)
    @precondition(lambda self: self.jobs)
    def retry(self, which: int) -> None:
        job = self.job(which)
        answer = self.answer_to(lambda: retry_job(self.store, job, owner=None, secrets=SECRETS))
        if answer is None:
            assert self.ended.pop(job) in (J.FAILED, J.CANCELED)
        elif job in self.present and self.ended.get(job) is J.CANCELED:
            assert answer == "pool_draining" or self._everything_is_uploaded(job)

    @rule(which=A_JOB, priority=st.sampled_from([None, *Priority]))
    @precondition(lambda self: self.jobs)
    def bump(self, which: int, priority: Priority | None) -> None:
        job = self.job(which)
        self.answer_to(lambda: bump_job(self.store, job, owner=None, priority=priority))

    @rule(code=st.sampled_from([*FAILURES, "abandoned"]))
    def redrive(self, code: str) -> None:
        redriven = redrive_jobs(self.store, owner=None, failure_code=code)
        for job in redriven.queued:
            assert self.ended.pop(job) is J.FAILED
            assert self._seen(job) is J.QUEUED
        for job, _ in redriven.refused:
            assert self._seen(job) is J.FAILED

    # --- Executors and workers -----------------------------------------------------------------

    @rule(
        worker=st.sampled_from(WORKERS),
        limit=st.integers(1, 3),
        engine=st.sampled_from(sorted(set(POOLS.values()))),
    )
    def claim(self, worker: str, limit: int, engine: Engine) -> None:
        for message in make.claim_some(self.store, limit, worker=worker, engine=engine):
            self.begin(message, worker)

    @rule(which=A_WORKER)
    @precondition(lambda self: self.open)
    def start(self, which: int) -> None:
        make.mark_starting(self.store, self.held(which))

    @rule(which=A_WORKER)
    @precondition(lambda self: self.open)
    def report_running(self, which: int) -> None:
        make.say(self.store, self.held(which), make.Started())

    @rule(which=A_WORKER)
    @precondition(lambda self: self.open)
    def report_progress(self, which: int) -> None:
        make.say(self.store, self.held(which), make.progress())

    @rule(which=A_WORKER, index=st.integers(0, 2))
    @precondition(lambda self: self.open)
    def upload(self, which: int, index: int) -> None:
        make.say(self.store, self.held(which), make.uploaded(index))

    @rule(which=A_WORKER)
    @precondition(lambda self: self.open)
    def succeed(self, which: int) -> None:
        worker = self.held(which)
        make.say(self.store, worker, make.succeeded(*(make.uploaded(i) for i in range(3))))
        make.finish(self.store, worker)

    @rule(which=A_WORKER, code=st.sampled_from(FAILURES))
    @precondition(lambda self: self.open)
    def fail(self, which: int, code: str) -> None:
        worker = self.held(which)
        make.say(self.store, worker, make.failed(failure(code)))
        make.finish(self.store, worker, exit_code=40)

    @rule(which=A_WORKER)
    @precondition(lambda self: self.open)
    def disappear(self, which: int) -> None:
        make.finish(self.store, self.held(which), exit_code=None, lost=True)

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
        self.present -= {job for job in self.ended if self._seen(job) is None}

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
    def nothing_is_lost_and_what_is_over_stays_so(self) -> None:
        with self.store.read() as tx:
            rows = tx.execute(select(jobs.c.id, jobs.c.status)).all()
        seen = {row.id: JobStatus(row.status) for row in rows}
        assert self.present <= set(seen)
        assert {job: seen[job] for job in self.ended if job in seen} == {
            job: status for job, status in self.ended.items() if job in seen
        }
        self.ended = {job: status for job, status in seen.items() if status in FINAL_JOB}

    @invariant()
    def one_attempt_of_a_job_is_open_at_most_and_one_succeeds(self) -> None:
        for counted in (sorted(OPEN_ATTEMPT), ["succeeded"]):
            twice = (
                select(job_attempts.c.job_id)
                .where(job_attempts.c.status.in_(counted))
                .group_by(job_attempts.c.job_id)
                .having(func.count() > 1)
            )
            with self.store.read() as tx:
                assert list(tx.execute(twice).scalars()) == []

    def teardown(self) -> None:
        """Every job that was accepted ends, and its events tell of steps that may follow."""
        try:
            self._events_follow_one_another()
            self.pools = {name: PoolRules() for name in POOLS}
            for name in POOLS:
                self.say_pool(name)
            for _ in range(12):
                self.go_on_for_an_hour()
            self.everything_is_over()
        finally:
            self.store.close()

    def everything_is_over(self) -> None:
        with self.store.read() as tx:
            ends = set(tx.execute(select(jobs.c.status)).scalars())
        assert ends <= FINAL_JOB, ends
        assert make.count(self.store, "queue_jobs") == 0
        assert fsck(self.store).findings == []

    def go_on_for_an_hour(self) -> None:
        """Whoever survived does what it is there for; the workers do nothing good."""
        make.let_pass(self.store, HOUR_S)
        sweep(self.store)
        end_abandoned(self.store, worker="host-c", limits=make.LIMITS)
        self._end_pods()
        for engine in set(POOLS.values()):
            for message in make.claim_some(self.store, 20, worker="host-c", engine=engine):
                opened = make.open_attempt(
                    self.store, message, executor=engine, worker="host-c", limits=make.LIMITS
                )
                if isinstance(opened, make.Claimed):
                    make.finish(self.store, opened)

    def _end_pods(self) -> None:
        """Their messages are acknowledged: the operator lists what is open, and finds no Pod."""
        with self.store.read() as tx:
            found = open_attempts(tx, executor="kubernetes")
        for attempt in found:
            with self.store.read() as tx:
                job = read_row(tx, attempt.job_id)
            assert job is not None
            message = make.QueueMessage(
                id=0, queue="", job_id=job.id, deliveries=0, failures=0, lease_seq=0
            )
            gone = make.Claimed(message=message, job=job, attempt=attempt.number, token="")
            make.finish(self.store, gone, exit_code=None, lost=True)

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

    # --- What the rules share --------------------------------------------------------------------

    def say_pool(self, name: str) -> None:
        rules = self.pools[name]
        limits = {"max_concurrency": rules.places, "stop_policy": rules.policy}
        if POOLS[name] == "kubernetes":
            self.store.run(
                lambda tx: mirror_pool(tx, name, max_per_owner=rules.per_owner, **limits)  # type: ignore[arg-type]  # of two types
            )
            return
        self.store.run(
            lambda tx: set_pool(tx, name, max_per_owner=rules.per_owner or 0, **limits)  # type: ignore[arg-type]  # as above
        )

    def begin(self, message: make.QueueMessage, worker: str) -> make.Claimed | Refusal:
        opened = make.open_attempt(
            self.store,
            message,
            executor=POOLS[message.pool],
            worker=worker,
            limits=make.LIMITS,
        )
        if isinstance(opened, make.Claimed):
            self.open.append(opened)
        return opened

    def job(self, which: int) -> int:
        return self.jobs[which % len(self.jobs)]

    def held(self, which: int) -> make.Claimed:
        return self.open[which % len(self.open)]

    def _seen(self, job: int) -> JobStatus | None:
        with self.store.read() as tx:
            row = read_row(tx, job)
        return None if row is None else row.status

    def _everything_is_uploaded(self, job: int) -> bool:
        statuses = select(job_outputs.c.status).where(job_outputs.c.job_id == job)
        with self.store.read() as tx:
            return set(tx.execute(statuses).scalars()) == {OutputStatus.UPLOADED}

    def answer_to(self, act: Callable[[], Any]) -> str | None:
        """The code of the refusal, if it was refused."""
        try:
            act()
        except Refused as refused:
            assert refused.status in (404, 409)  # noqa: PT017  # a refusal is an answer here
            return refused.code
        return None
