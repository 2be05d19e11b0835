"""Attempts that the dead left open end, whoever comes across them, and their places are free."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from sqlalchemy import update

from encoder_core.reports import PUBLISH_LEASE_S
from encoder_core.states import JobStatus
from encoder_db.attempts import Claimed, mark_starting, withdraw
from encoder_db.dialect import in_seconds
from encoder_db.jobs import cancel_job, retry_job
from encoder_db.pools import set_pool
from encoder_db.queue import release_leases_of
from encoder_db.store import Store, now
from encoder_db.tables import job_attempts
from encoder_db.takeover import LAPSE_MARGIN_S, end_abandoned
from tests.db import builders as make
from tests.db.builders import LIMITS, WORKER

J = JobStatus
LAPSE_S = make.LEASE_S + 1


def _take_over(store: Store, worker: str = WORKER, *, besides: Collection[int] = ()) -> int:
    return end_abandoned(store, worker=worker, limits=LIMITS, besides=besides)


def test_places_that_only_the_dead_hold_are_freed_though_nobody_can_claim(store: Store) -> None:
    job = make.create(store)
    store.run(lambda tx: set_pool(tx, "default", max_concurrency=1))
    make.running(store, worker="host-a")
    make.let_pass(store, LAPSE_S)
    assert make.claim_some(store, 1, worker="host-b") == []
    assert _take_over(store, "host-b") == 1
    assert make.claimed(store, worker="host-b").attempt == 2
    assert make.attempt_statuses(store, job) == ["lost", "created"]


def test_what_was_abandoned_in_a_stopped_pool_ends_as_asked(store: Store) -> None:
    job = make.create(store)
    make.running(store)
    cancel_job(store, job.id, owner=None)
    store.run(lambda tx: set_pool(tx, "default", stop_policy="Hold"))
    make.let_pass(store, LAPSE_S)
    assert _take_over(store) == 1
    assert make.status(store, job) is J.CANCELED


def test_what_somebody_holds_or_may_publish_is_not_abandoned(store: Store) -> None:
    ours = make.create(store)
    make.running(store)
    assert _take_over(store, "host-b") == 0
    make.let_pass(store, LAPSE_S)
    assert _take_over(store, besides=[ours.id]) == 0
    with store.begin() as tx:
        tx.execute(update(job_attempts).values(publish_until=in_seconds(PUBLISH_LEASE_S)))
    assert _take_over(store, "host-b") == 0
    make.let_pass(store, PUBLISH_LEASE_S + LAPSE_MARGIN_S + 1)
    assert _take_over(store, "host-b") == 1
    assert _take_over(store, "host-b") == 0


def test_a_worker_that_starts_again_goes_on_with_what_it_had_before_what_is_new(
    store: Store,
) -> None:
    interrupted = make.create(store)
    make.running(store)
    for _ in range(3):
        make.create(store)
    release_leases_of(store, WORKER)
    assert _take_over(store) == 1
    opened = make.open_one(store, limit=1)
    assert isinstance(opened, Claimed)
    assert (opened.job.id, opened.attempt) == (interrupted.id, 2)


def test_an_attempt_that_cannot_begin_yet_gives_its_place_back_and_charges_nobody(
    store: Store,
) -> None:
    pool = make.kubernetes_pool(store, places=1)
    job = make.create(store, make.spec(pool=pool))
    first = make.claimed(store, engine="kubernetes")
    assert withdraw(store, first, delay_s=5)
    assert not withdraw(store, first, delay_s=5)
    assert not mark_starting(store, first)
    assert make.claim_some(store, 1, engine="kubernetes") == []
    make.let_pass(store, 6)
    second = make.claimed(store, engine="kubernetes")
    assert second.attempt == 2
    assert mark_starting(store, second)
    assert not withdraw(store, second, delay_s=5)
    lost = make.read(store, job).attempts[0]
    assert (lost.status, lost.failure) == ("lost", None)


def test_who_cannot_begin_again_and_again_asks_less_and_less_often(store: Store) -> None:
    """Each time costs the job a number and a row, and what is in the way may stay for days."""
    pool = make.kubernetes_pool(store, places=1)
    job = make.create(store, make.spec(pool=pool))

    def wait_s() -> float:
        assert withdraw(store, make.claimed(store, engine="kubernetes"), delay_s=30)
        due = make.read(store, job).due_at
        with store.read() as tx:
            left_s = (due - now(tx)).total_seconds() if due else 0.0
        make.let_pass(store, left_s + 1)
        return left_s

    assert [wait_s() for _ in range(6)] == pytest.approx([30, 60, 120, 240, 300, 300], abs=5)
    cancel_job(store, job.uuid, owner=None)
    retry_job(store, job.uuid, owner=None)
    assert wait_s() == pytest.approx(30, abs=5), "what a person asks for anew is tried at once"


def test_a_dispatcher_that_died_before_it_began_holds_no_place(store: Store) -> None:
    pool = make.kubernetes_pool(store, places=1)
    make.create(store, make.spec(pool=pool))
    make.claimed(store, engine="kubernetes")
    make.let_pass(store, LAPSE_S)
    assert make.claim_some(store, 1, engine="kubernetes") == []
    assert _take_over(store, "another") == 1
    assert make.claimed(store, engine="kubernetes").attempt == 2
