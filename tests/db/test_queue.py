"""The queue hands out what is due, fairly, once at a time, and takes back what was abandoned."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from encoder_core.states import JobStatus
from encoder_db.fairness import STARVATION_TURN
from encoder_db.jobs import retry_job
from encoder_db.messages import ack, extend, nack, release
from encoder_db.owners import set_weight
from encoder_db.pools import create_pool, set_pool
from encoder_db.queue import (
    MAX_ABANDONED,
    MAX_FAILURES,
    QueueMessage,
    claim,
    dead_letter,
    release_leases_of,
    waiting_queues,
)
from encoder_db.rows import JobRow
from encoder_db.store import Store
from encoder_db.tables import dead_letters, queue_jobs, queue_owners
from tests.db import builders as make
from tests.db.conftest import empty_record

J = JobStatus
LAPSE_S = make.LEASE_S + 1


@pytest.fixture(params=["sqlite", "mysql", "mariadb"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Here: also on MariaDB."""
    return empty_record(request, tmp_path)


def _claimed_jobs(store: Store, limit: int = 10) -> list[int]:
    return [message.job_id for message in make.claim_some(store, limit)]


# --- Claiming --------------------------------------------------------------------------------


def test_jobs_come_in_the_order_in_which_they_are_due(store: Store) -> None:
    first, second, third = (make.create(store) for _ in range(3))
    message = make.claim_one(store)
    assert message.job_id == first.id
    store.run(lambda tx: nack(tx, message, 100, "busy"))
    assert _claimed_jobs(store) == [second.id, third.id]
    make.let_pass(store, 101)
    assert _claimed_jobs(store) == [first.id]


def test_what_is_leased_is_not_claimed_again(store: Store) -> None:
    make.create(store)
    make.claim_one(store)
    assert make.claim_some(store, 1, worker="another") == []


def test_a_lapsed_lease_is_claimed_again(store: Store) -> None:
    job = make.create(store)
    first = make.claim_one(store)
    make.let_pass(store, LAPSE_S)
    second = make.claim_one(store, worker="another")
    assert (second.job_id, second.id) == (job.id, first.id)
    assert (second.lease_seq, second.deliveries) == (first.lease_seq + 1, 2)


def test_no_more_is_claimed_than_asked_for(store: Store) -> None:
    for _ in range(5):
        make.create(store)
    assert len(make.claim_some(store, 2)) == 2
    assert len(make.claim_some(store, 10)) == 3


def test_each_of_many_jobs_goes_to_one_of_many_claimers(store: Store) -> None:
    jobs = {make.create(store).id for _ in range(24)}
    got: list[int] = []

    def work(worker: str) -> None:
        while messages := make.claim_some(store, 3, worker=worker):
            got.extend(message.job_id for message in messages)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    got += _claimed_jobs(store, 50)  # an empty answer may only mean that others had the rows
    assert sorted(got) == sorted(jobs)


# --- A lease is what its sequence number says ------------------------------------------------


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda store, held: extend(store, held, 60), id="extend"),
        pytest.param(lambda store, held: release(store, held), id="release"),
        pytest.param(lambda store, held: store.run(lambda tx: nack(tx, held, 0, "no")), id="nack"),
        pytest.param(lambda store, held: store.run(lambda tx: ack(tx, held)), id="ack"),
        pytest.param(lambda store, held: dead_letter(store, held, "abandoned"), id="dead letter"),
    ],
)
def test_a_lost_lease_changes_nothing(store: Store, act: make.Act) -> None:
    job = make.create(store)
    lost = make.claim_one(store)
    make.let_pass(store, LAPSE_S)
    held = make.claim_one(store, worker="another")
    before = _row(store, job)
    assert act(store, lost) is False
    assert _row(store, job) == before
    assert act(store, held) is True
    assert _row(store, job) != before


def _row(store: Store, job: JobRow) -> object:
    with store.read() as tx:
        return tx.execute(select(queue_jobs).where(queue_jobs.c.job_id == job.id)).one_or_none()


def test_an_extended_lease_does_not_lapse(store: Store) -> None:
    make.create(store)
    message = make.claim_one(store)
    make.let_pass(store, LAPSE_S - 10)
    assert extend(store, message, make.LEASE_S)
    make.let_pass(store, LAPSE_S - 10)
    assert make.claim_some(store, 1) == []


def test_a_released_message_is_due_at_once_and_charged_to_nobody(store: Store) -> None:
    make.create(store)
    assert release(store, make.claim_one(store))
    assert make.claim_one(store).deliveries == 1


def test_a_worker_that_starts_again_releases_what_it_had_leased(store: Store) -> None:
    ours = make.create(store)
    message = make.claim_one(store, worker="host-a")
    make.create(store)
    make.claim_one(store, worker="host-b")
    assert release_leases_of(store, "host-a") == 1
    assert not extend(store, message, 60)
    assert _claimed_jobs(store) == [ours.id]
    assert release_leases_of(store, "host-c") == 0


# --- Suspects --------------------------------------------------------------------------------


def _abandon(store: Store, times: int = 1) -> None:
    for _ in range(times):
        assert make.claim_some(store, 1)
        make.let_pass(store, LAPSE_S)


def test_what_was_abandoned_comes_alone(store: Store) -> None:
    suspect = make.create(store)
    _abandon(store)
    others = [make.create(store).id for _ in range(3)]
    # Its lease lapsed before the others were enqueued, so it is the first in the line.
    assert _claimed_jobs(store) == [suspect.id]
    assert _claimed_jobs(store) == others


def test_those_before_a_suspect_are_claimed_without_it(store: Store) -> None:
    jobs = [make.create(store) for _ in range(4)]
    with store.begin() as tx:
        third = queue_jobs.c.job_id == jobs[2].id
        tx.execute(update(queue_jobs).where(third).values(deliveries=1))
    assert _claimed_jobs(store) == [jobs[0].id, jobs[1].id]
    assert _claimed_jobs(store) == [jobs[2].id]
    assert _claimed_jobs(store) == [jobs[3].id]


def test_a_suspect_never_shares_a_claim_with_another_owners_jobs(store: Store) -> None:
    suspect = make.create(store, owner="alice")
    _abandon(store)
    other = make.create(store, owner="bob")
    batches = [_claimed_jobs(store), _claimed_jobs(store)]
    assert sorted(batches) == sorted([[suspect.id], [other.id]])


def test_a_returned_message_is_no_suspect(store: Store) -> None:
    jobs = [make.create(store) for _ in range(2)]
    message = make.claim_one(store)
    store.run(lambda tx: nack(tx, message, 0, "busy"))
    assert sorted(_claimed_jobs(store)) == [job.id for job in jobs]


# --- Dead letters ----------------------------------------------------------------------------


def test_what_is_abandoned_again_and_again_becomes_a_dead_letter(store: Store) -> None:
    poison = make.create(store)
    _abandon(store, MAX_ABANDONED)
    bystander = make.create(store)
    assert _claimed_jobs(store) == [bystander.id]
    seen = make.read(store, poison)
    assert seen.status is J.FAILED
    assert seen.failure is not None
    assert seen.failure.code == "abandoned"
    with store.read() as tx:
        letter = tx.execute(select(dead_letters)).mappings().one()
    assert (letter["job_id"], letter["reason"]) == (poison.id, "abandoned")
    assert (letter["deliveries"], letter["failures"]) == (MAX_ABANDONED, 0)
    assert make.events(store, poison)[-1] == (2, "job.failed")


def test_errors_are_forgiven_longer_than_silence(store: Store) -> None:
    job = make.create(store)
    for _ in range(MAX_FAILURES):
        message = make.claim_one(store)
        store.run(lambda tx, held=message: nack(tx, held, 0, "e" * 600))  # type: ignore[misc]  # a default binds the loop's value
    assert make.claim_some(store, 1) == []
    assert make.status(store, job) is J.FAILED


def test_redriving_a_dead_letter_queues_its_job_anew_and_remembers_it(store: Store) -> None:
    job = make.create(store)
    _abandon(store, MAX_ABANDONED)
    assert make.claim_some(store, 1) == []
    retry_job(store, job.id, owner=None)
    assert make.claim_one(store).deliveries == 1
    with store.read() as tx:
        letter = tx.execute(select(dead_letters)).mappings().one()
    assert letter["redriven_at"] is not None


def test_an_attempt_that_begins_forgives_what_was_abandoned_before(store: Store) -> None:
    job = make.create(store)
    _abandon(store, MAX_ABANDONED - 1)
    make.running(store)
    make.let_pass(store, LAPSE_S)
    _abandon(store, MAX_ABANDONED - 2)
    assert make.status(store, job) is J.RUNNING


# --- Who is next -----------------------------------------------------------------------------


def test_higher_priorities_come_first(store: Store) -> None:
    order = ("low", "normal", "high")
    jobs = {name: make.create(store, make.spec(priority=name)) for name in order}
    assert [make.claim_one(store).job_id for _ in range(3)] == [
        jobs[name].id for name in reversed(order)
    ]


def test_every_eighth_claim_begins_with_the_lowest_priority(store: Store) -> None:
    low = make.create(store, make.spec(priority="low"))
    for _ in range(STARVATION_TURN):
        make.create(store, make.spec(priority="high"))
    claimed = [make.claim_one(store).job_id for _ in range(STARVATION_TURN)]
    assert claimed[STARVATION_TURN - 1] == low.id


def test_owners_take_turns_however_many_jobs_one_has_queued(store: Store) -> None:
    many = [make.create(store, owner="alice").id for _ in range(6)]
    few = [make.create(store, owner="bob").id for _ in range(2)]
    claimed = _claimed_jobs(store, 4)
    assert sorted(claimed) == sorted([*many[:2], *few])


def test_who_holds_places_already_waits_for_who_holds_none(store: Store) -> None:
    for _ in range(4):
        make.create(store, owner="alice")
    for _ in range(2):
        make.running(store)
    bobs = make.create(store, owner="bob")
    assert _claimed_jobs(store, 1) == [bobs.id]


def test_a_heavier_owner_gets_a_larger_share(store: Store) -> None:
    for _ in range(6):
        make.create(store, owner="alice")
        make.create(store, owner="bob")
    assert store.run(lambda tx: set_weight(tx, "alice", 2))
    claimed = make.claim_some(store, 6)
    assert [message.queue.endswith("/alice") for message in claimed].count(True) == 4


def test_a_weight_holds_for_queues_to_come_and_for_owners_to_come(store: Store) -> None:
    make.create(store, owner="alice")
    assert store.run(lambda tx: set_weight(tx, "alice", 2))
    assert not store.run(lambda tx: set_weight(tx, "carol", 3))
    for priority in ("high", "low"):
        make.create(store, make.spec(priority=priority), owner="alice")
        make.create(store, make.spec(priority=priority), owner="bob")
    make.create(store, owner="carol")
    with store.read() as tx:
        weights = tx.execute(select(queue_owners.c.queue, queue_owners.c.weight)).all()
    assert sorted(tuple(row) for row in weights) == [
        *(("default/p0/alice", 2), ("default/p0/bob", 1)),
        *(("default/p1/alice", 2), ("default/p1/carol", 3)),
        *(("default/p2/alice", 2), ("default/p2/bob", 1)),
    ]


def test_a_small_queue_leaves_its_share_to_the_others(store: Store) -> None:
    many = [make.create(store, owner="alice").id for _ in range(4)]
    few = make.create(store, owner="bob").id
    assert sorted(_claimed_jobs(store, 5)) == sorted([*many, few])


# --- Pools -----------------------------------------------------------------------------------


def test_an_engine_claims_only_from_its_own_pools(store: Store) -> None:
    make.kubernetes_pool(store)
    local = make.create(store)
    remote = make.create(store, make.spec(pool="k8s"))
    assert _claimed_jobs(store) == [local.id]
    (message,) = claim(store, engine="kubernetes", worker="op", limit=5, lease_s=60)
    assert (message.job_id, message.pool) == (remote.id, "k8s")


def test_who_waits_is_told_with_what_the_owner_and_all_hold_in_the_pool(store: Store) -> None:
    store.run(lambda tx: create_pool(tx, "hd", engine="local", max_concurrency=9))
    make.kubernetes_pool(store, "k8s")
    for owner in ("alice", "alice", "only-runs", "is-done"):
        make.create(store, owner=owner)
        last = make.claimed(store)
    make.finish(store, last)
    for priority in ("high", "low", "low"):
        make.create(store, make.spec(priority=priority), owner="alice")
    for pool in ("hd", "k8s"):
        make.create(store, make.spec(pool=pool), owner="alice")
    make.create(store, owner="bob")
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    make.create(store, make.spec(startAt=tomorrow.isoformat()), owner="later")
    with store.read() as tx:
        waiting = tx.execute(waiting_queues("local")).all()
    assert sorted((row.queue, row.in_flight, row.in_pool) for row in waiting) == [
        ("default/p0/alice", 2, 3),
        ("default/p1/bob", 0, 3),
        ("default/p2/alice", 2, 3),
        ("hd/p1/alice", 0, 0),
    ]


def test_a_full_pool_is_not_claimed_from(store: Store) -> None:
    store.run(lambda tx: set_pool(tx, "default", max_concurrency=2))
    for _ in range(4):
        make.create(store)
    make.running(store)
    assert len(make.claim_some(store, 4)) == 1


@pytest.mark.parametrize("policy", ["Hold", "Drain"])
def test_a_stopped_pool_is_not_claimed_from_until_it_goes_on(store: Store, policy: str) -> None:
    make.create(store)
    store.run(lambda tx: set_pool(tx, "default", stop_policy=policy))  # type: ignore[arg-type]  # parametrised
    assert make.claim_some(store, 1) == []
    store.run(lambda tx: set_pool(tx, "default", stop_policy="None"))
    assert make.claim_some(store, 1) != []


def test_a_message_names_its_pool() -> None:
    message = QueueMessage(
        id=1, queue="hd/p1/alice", job_id=1, deliveries=1, failures=0, lease_seq=1
    )
    assert message.pool == "hd"
