"""What is done to one job, from which state, and what the survivors of a crash do. No pytest here:
the children of a killed process load this module."""

from __future__ import annotations

from collections.abc import Callable

from encoder_core.states import FINAL_JOB, JobStatus
from encoder_db.attempts import finish_attempt, open_attempts
from encoder_db.bump import bump_job
from encoder_db.jobs import cancel_job, delete_job, retry_job
from encoder_db.queue import Engine
from encoder_db.redrive import redrive_jobs
from encoder_db.retention import delete_old_jobs
from encoder_db.rows import JobRow
from encoder_db.store import Store
from encoder_db.sweep import sweep
from encoder_db.takeover import LAPSE_MARGIN_S, end_abandoned
from tests.db import builders as make
from tests.kill.actors import work_off

J = JobStatus
DAY_S = 24 * 3600.0
LAPSED_S = make.LEASE_S + 120 + LAPSE_MARGIN_S + 1


# --- What is done to a job, and from which state -----------------------------------------------


def waits(store: Store) -> JobRow:
    return make.create(store, make.spec(2, source=make.s3()))


def runs(store: Store) -> JobRow:
    job = waits(store)
    make.running(store)
    return job


def runs_in_a_pod(store: Store) -> JobRow:
    job = make.create(store, make.spec(pool="k8s"))
    make.running(store, engine="kubernetes")
    return job


def failed(store: Store) -> JobRow:
    job = runs(store)
    assert make.finish(store, _current(store, job), exit_code=30) is J.FAILED
    return job


def _current(store: Store, job: JobRow) -> make.Claimed:
    """Enough of an attempt to end it."""
    numbers = {"deliveries": 0, "failures": 0, "lease_seq": 0}
    message = make.QueueMessage(id=0, queue="", job_id=job.id, **numbers)
    return make.Claimed(message=message, job=job, attempt=1, token="")


def is_old(store: Store) -> JobRow:
    job = waits(store)
    work_off(store, "before")
    make.let_pass(store, 2 * DAY_S)
    return job


def local_life(store: Store, job: int) -> None:
    work_off(store, "victim")


def life_in_a_pod(store: Store, job: int) -> None:
    work_off(store, "victim", "kubernetes")


def waits_for_a_pod(store: Store) -> JobRow:
    return make.create(store, make.spec(2, pool="k8s", source=make.s3()))


def cancel(store: Store, job: int) -> None:
    cancel_job(store, job, owner=None)


def delete(store: Store, job: int) -> None:
    delete_job(store, job, owner=None)


def retry(store: Store, job: int) -> None:
    if make.status(store, job) in FINAL_JOB:
        retry_job(store, job, owner=None)


def redrive(store: Store, job: int) -> None:
    code = make.read(store, job).failure
    if code is not None:
        redrive_jobs(store, owner=None, failure_code=code.code)


def bump(store: Store, job: int) -> None:
    bump_job(store, job, owner=None)


def retain(store: Store, job: int) -> None:
    delete_old_jobs(store, older_than_h=24)


def take_over(store: Store, job: int) -> None:
    make.let_pass(store, LAPSED_S)
    end_abandoned(store, worker="victim", limits=make.LIMITS)


def on_job(act: Callable[[Store, int], None], job: int, store: Store) -> None:
    act(store, job)


# --- Afterwards --------------------------------------------------------------------------------


def recover(store: Store) -> None:
    """What the survivors do: leases lapse, the operator looks at its Pods, the queue goes on."""
    make.let_pass(store, LAPSED_S)
    sweep(store)
    end_abandoned(store, worker="survivor", limits=make.LIMITS)
    engines: tuple[Engine, ...] = ("local", "kubernetes")
    for _ in range(2):
        with store.read() as tx:
            pods = open_attempts(tx, executor="kubernetes")
        for attempt in pods:
            if attempt.job_status is not J.QUEUED:
                finish_attempt(
                    store,
                    attempt.job_id,
                    attempt.number,
                    exit_code=None,
                    lost=True,
                    limits=make.LIMITS,
                    jitter=0.0,
                )
        for engine in engines:
            work_off(store, "survivor", engine)
        make.let_pass(store, 600)
