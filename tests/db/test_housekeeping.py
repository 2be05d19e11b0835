"""Old rows go, what a crash left half done is mended, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import delete, event, func, insert, select, update

from encoder_core.errors import Refused
from encoder_core.failures import failure
from encoder_core.states import AttemptStatus, JobStatus
from encoder_db.blobs import CHUNK_BYTES, write_blob
from encoder_db.bump import bump_job
from encoder_db.fsck import fsck
from encoder_db.idempotency import Idempotency
from encoder_db.jobs import cancel_job, create_job, delete_job, fail_queued, retry_job
from encoder_db.outbox import claim_deliveries, finish_delivery
from encoder_db.owners import list_owners, set_weight
from encoder_db.purge import PORTION_BYTES
from encoder_db.retention import delete_old_jobs
from encoder_db.rows import JobRow
from encoder_db.store import Store
from encoder_db.sweep import Mended, sweep
from encoder_db.tables import (
    job_attempts,
    job_events,
    jobs,
    metadata,
    queue_jobs,
    queue_owners,
    webhook_deliveries,
)
from encoder_db.workers import beat, list_workers, retire
from tests.db import builders as make

J = JobStatus
DAY_S = 24 * 3600.0
NOTHING = Mended()


# --- Retention -------------------------------------------------------------------------------


def _finished(store: Store) -> JobRow:
    job = make.create(store, make.spec(2, source=make.s3()))
    make.complete(store, make.running(store))
    return job


def test_jobs_that_ended_long_ago_go_with_all_that_is_theirs(store: Store) -> None:
    for _ in range(5):
        _finished(store)
    make.let_pass(store, 2 * DAY_S)
    fresh = _finished(store)
    assert delete_old_jobs(store, older_than_h=24, batch=2) == 5
    rows = {name: make.count(store, name) for name in metadata.tables if name.startswith("job")}
    assert rows == {
        "jobs": 1,
        "job_outputs": 2,
        "job_attempts": 1,
        "job_secrets": 0,
        "job_blobs": 0,
        "job_progress": 0,
        "job_logs": 0,
        "job_events": 6,
    }
    assert make.status(store, fresh) is J.COMPLETED
    assert delete_old_jobs(store, older_than_h=24) == 0


def test_jobs_that_are_not_over_stay_however_old_they_are(store: Store) -> None:
    waits = make.create(store)
    make.let_pass(store, 365 * DAY_S)
    assert delete_old_jobs(store, older_than_h=1) == 0
    assert make.status(store, waits) is J.QUEUED


def test_expired_answers_credentials_and_logs_go_too(store: Store) -> None:
    asked = make.spec(source=make.s3(), notificationUrl="https://example.com/")
    idempotency = Idempotency(key="k", fingerprints=(b"f" * 32,))
    store.run(
        lambda tx: create_job(
            tx, spec=asked, owner="default", keys=store.keys, idempotency=idempotency
        )
    )
    (delivery,) = claim_deliveries(store, worker="s", limit=1, lease_s=60)
    finish_delivery(store, delivery, outcome="delivered")
    make.finish(store, make.running(store), exit_code=30)
    tables = ("idempotency_keys", "job_secrets", "webhook_attempts")
    delete_old_jobs(store, older_than_h=48)
    assert [make.count(store, name) for name in tables] == [1, 2, 1]
    make.let_pass(store, DAY_S + 1)
    delete_old_jobs(store, older_than_h=48)
    assert [make.count(store, name) for name in tables] == [0, 1, 1]
    make.let_pass(store, DAY_S)
    assert delete_old_jobs(store, older_than_h=48) == 1
    assert [make.count(store, name) for name in tables] == [0, 0, 0]


def test_empty_queues_are_forgotten_a_day_after_they_were_served(store: Store) -> None:
    store.run(lambda tx: set_weight(tx, "weighty", 3))
    for owner in ("idle", "weighty"):
        make.create(store, owner=owner)
        make.finish(store, make.running(store))
    make.create(store, owner="leased")
    make.claim_one(store)
    make.create(store, owner="waits")
    make.let_pass(store, DAY_S - 60)
    delete_old_jobs(store, older_than_h=48)
    assert _owners(store) == ["idle", "leased", "waits", "weighty"]
    make.let_pass(store, 120)
    delete_old_jobs(store, older_than_h=48, batch=2)
    assert _owners(store) == ["leased", "waits", "weighty"]
    assert fsck(store).is_clean


def _owners(store: Store) -> list[str]:
    with store.read() as tx:
        return [row.owner for row in list_owners(tx)]


def test_whoever_comes_back_stands_behind_those_who_wait_and_before_nobody(store: Store) -> None:
    make.create(store, owner="returning")
    make.finish(store, make.running(store))
    make.let_pass(store, 2 * DAY_S)
    delete_old_jobs(store, older_than_h=480)
    waits = make.create(store, owner="waits")
    make.let_pass(store, 1)
    returning = make.create(store, owner="returning")
    assert [message.job_id for message in make.claim_some(store, 2)] == [waits.id, returning.id]


def test_a_weight_is_kept_also_when_the_queue_was_forgotten_meanwhile(store: Store) -> None:
    make.create(store, owner="idle")
    make.finish(store, make.running(store))
    with store.begin() as tx:
        tx.execute(delete(queue_owners))
    assert not store.run(lambda tx: set_weight(tx, "idle", 3))
    with store.read() as tx:
        assert [(row.owner, row.weight) for row in list_owners(tx)] == [("idle", 3)]


# --- What is heavy ---------------------------------------------------------------------------

EVENT_BYTES = PORTION_BYTES // 4 + 1


def _with_large_events(store: Store) -> JobRow:
    """A job that is over and has to announce six events of more than a portion together."""
    job = make.create(store, make.spec(notificationUrl="https://down.example.com/"))
    for _ in range(4):
        bump_job(store, job.id, owner=None)
    cancel_job(store, job.id, owner=None)
    _enlarge_events(store, job, EVENT_BYTES)
    return job


def _enlarge_events(store: Store, job: JobRow, size: int) -> None:
    with store.begin() as tx:
        of_job = update(job_events).where(job_events.c.job_id == job.id)
        tx.execute(of_job.values(payload="x" * size))


def _with_a_large_source(store: Store) -> JobRow:
    """A job that failed and whose inline sources are more than two portions."""
    job = make.create(store, make.spec(notificationUrl="https://down.example.com/"))
    assert store.run(lambda tx: fail_queued(tx, job.id, failure("never_fits")))
    with store.begin() as tx:
        for number in range(3):
            write_blob(tx, job.id, number, bytes(PORTION_BYTES - CHUNK_BYTES))
    return job


class Died(Exception):
    """As if the process had been killed."""


@contextmanager
def _dying_after(store: Store, commits: int) -> Iterator[None]:
    left = commits

    def commit(_: Any) -> None:
        nonlocal left
        if left == 0:
            raise Died
        left -= 1

    event.listen(store.engine, "commit", commit)
    with pytest.raises(Died):
        yield
    event.remove(store.engine, "commit", commit)


def _bodies(store: Store) -> list[int]:
    """How long what is to be announced is, wherever it is kept."""
    body = func.coalesce(webhook_deliveries.c.body, job_events.c.payload)
    table = webhook_deliveries.outerjoin(
        job_events, job_events.c.id == webhook_deliveries.c.event_id
    )
    with store.read() as tx:
        return list(tx.execute(select(func.length(body)).select_from(table)).scalars())


Remove = Callable[[Store, JobRow], object]


def _by_age(store: Store, job: JobRow) -> int:
    return delete_old_jobs(store, older_than_h=0)


def _by_request(store: Store, job: JobRow) -> bool:
    return delete_job(store, job.id, owner=None)


@pytest.mark.parametrize("finish", [_by_age, lambda store, _: sweep(store)], ids=["age", "sweep"])
@pytest.mark.parametrize("remove", [_by_age, _by_request], ids=["by age", "by request"])
@pytest.mark.parametrize(
    ("heavy", "table"),
    [(_with_large_events, "job_events"), (_with_a_large_source, "job_blobs")],
    ids=["events", "sources"],
)
def test_what_dies_while_it_deletes_a_heavy_job_leaves_a_portion_to_whoever_comes_next(
    store: Store, heavy: Callable[[Store], JobRow], table: str, remove: Remove, finish: Remove
) -> None:
    job = heavy(store)
    make.let_pass(store, 1)
    to_announce, rows = _bodies(store), make.count(store, table)
    with _dying_after(store, commits=1):
        remove(store, job)
    assert 0 < make.count(store, table) < rows
    assert fsck(store).findings == []
    with pytest.raises(Refused, match="no such job"):
        retry_job(store, job.id, owner=None)
    finish(store, job)
    assert make.count(store, table) == make.count(store, "jobs") == 0
    assert _bodies(store) == to_announce
    assert fsck(store).findings == []


@pytest.mark.parametrize("remove", [_by_age, _by_request], ids=["by age", "by request"])
def test_a_heavy_job_goes_in_portions(store: Store, remove: Remove) -> None:
    job = _with_large_events(store)
    make.let_pass(store, 1)
    with make.statements(store) as seen:
        assert remove(store, job) == 1
    assert sum("DELETE FROM job_events" in statement for statement in seen) == 2
    assert make.count(store, "job_events") == make.count(store, "jobs") == 0


def test_a_heavy_job_keeps_no_other_from_being_forgotten(store: Store) -> None:
    _finished(store)
    _with_large_events(store)
    _finished(store)
    make.let_pass(store, 1)
    assert delete_old_jobs(store, older_than_h=0) == 3
    assert make.count(store, "jobs") == make.count(store, "job_events") == 0


def test_jobs_are_forgotten_as_many_at_once_as_are_a_portion(store: Store) -> None:
    for _ in range(3):
        job = make.create(store)
        cancel_job(store, job.id, owner=None)
        _enlarge_events(store, job, PORTION_BYTES // 5)  # of two each
    make.let_pass(store, 1)
    with make.statements(store) as seen:
        assert delete_old_jobs(store, older_than_h=0) == 3
    assert sum("DELETE FROM jobs" in statement for statement in seen) == 2


# --- Workers ---------------------------------------------------------------------------------


def _beat(store: Store, name: str, running: list[int]) -> None:
    beat(store, name, kind="app", host="h", pid=7, capacity=2, running=running)


def test_workers_are_listed_while_they_are_heard_of(store: Store) -> None:
    _beat(store, "a", [])
    _beat(store, "b", [])
    make.let_pass(store, 20)
    _beat(store, "a", [1, 2])
    with store.read() as tx:
        first, _ = list_workers(tx)
    assert (first["name"], first["running"], first["capacity"]) == ("a", [1, 2], 2)
    assert first["heartbeat_at"] > first["started_at"]
    make.let_pass(store, 20)
    with store.read() as tx:
        assert [worker["name"] for worker in list_workers(tx)] == ["a"]
    retire(store, "a")
    with store.read() as tx:
        assert list_workers(tx) == []


def test_silent_workers_are_forgotten_after_a_day(store: Store) -> None:
    _beat(store, "a", [])
    delete_old_jobs(store, older_than_h=1)
    assert make.count(store, "workers") == 1
    make.let_pass(store, DAY_S + 1)
    delete_old_jobs(store, older_than_h=1)
    assert make.count(store, "workers") == 0


# --- Sweep -----------------------------------------------------------------------------------


def test_a_sweep_of_a_healthy_record_changes_nothing(store: Store) -> None:
    make.create(store)
    make.running(store)
    make.create(store)
    make.claimed(store)
    make.create(store)
    make.kubernetes_pool(store)
    make.create(store, make.spec(pool="k8s"))
    make.running(store, engine="kubernetes")
    canceling = make.create(store)
    make.running(store)
    cancel_job(store, canceling.id, owner=None)
    make.let_pass(store, 120)
    before = [make.count(store, name) for name in metadata.tables]
    assert sweep(store) == NOTHING
    assert [make.count(store, name) for name in metadata.tables] == before


def _lose_message(store: Store, job: JobRow) -> None:
    with store.begin() as tx:
        tx.execute(delete(queue_jobs).where(queue_jobs.c.job_id == job.id))


def _lose_attempt(store: Store, job: JobRow) -> None:
    with store.begin() as tx:
        tx.execute(
            update(job_attempts)
            .where(job_attempts.c.job_id == job.id)
            .values(status=AttemptStatus.LOST)
        )


def test_a_queued_job_without_a_message_is_queued_again(store: Store) -> None:
    job = make.create(store)
    _lose_message(store, job)
    assert sweep(store) == NOTHING  # whoever is at it may not have committed yet
    make.let_pass(store, 61)
    assert sweep(store) == Mended(requeued=1)
    make.complete(store, make.running(store))


def test_an_active_job_without_an_attempt_begins_anew(store: Store) -> None:
    job = make.create(store)
    make.running(store)
    _lose_attempt(store, job)
    make.let_pass(store, 61)
    assert sweep(store) == Mended(restarted=1)
    assert make.status(store, job) is J.QUEUED
    make.complete(store, make.running(store))


def test_a_canceling_job_without_an_attempt_is_canceled(store: Store) -> None:
    job = make.create(store)
    make.running(store)
    cancel_job(store, job.id, owner=None)
    _lose_attempt(store, job)
    make.let_pass(store, 61)
    sweep(store)
    assert make.status(store, job) is J.CANCELED


def test_a_local_attempt_whose_message_is_gone_can_be_taken_over(store: Store) -> None:
    job = make.create(store)
    make.running(store)
    _lose_message(store, job)
    make.let_pass(store, 200)
    assert sweep(store) == Mended(restarted=1)
    assert make.claimed(store, worker="another").attempt == 2


def test_a_deleted_job_that_is_over_is_purged(store: Store) -> None:
    job = make.create(store)
    make.running(store)
    delete_job(store, job.id, owner=None)
    with store.begin() as tx:  # as if the process had died between two steps
        over = update(jobs).where(jobs.c.id == job.id)
        tx.execute(over.values(status="canceled", finished_at=jobs.c.updated_at))
    assert sweep(store).purged == 1
    assert make.count(store, "jobs") == 0


@pytest.mark.parametrize("exists", [True, False], ids=["over", "gone"])
def test_a_message_of_a_job_that_is_over_or_gone_is_dropped(store: Store, exists: bool) -> None:
    job = make.create(store)
    with store.read() as tx:
        message = dict(tx.execute(select(queue_jobs)).mappings().one())
    cancel_job(store, job.id, owner=None)
    if not exists:
        delete_job(store, job.id, owner=None)
    with store.begin() as tx:
        tx.execute(insert(queue_jobs).values(message))
    assert sweep(store) == Mended(messages=1)
    assert make.count(store, "queue_jobs") == 0


def test_deliveries_that_wait_for_nothing_are_let_go(store: Store) -> None:
    job = make.create(store, make.spec(notificationUrl="https://example.com/"))
    make.running(store)
    with store.begin() as tx:
        tx.execute(delete(webhook_deliveries).where(webhook_deliveries.c.seq == 1))
    assert claim_deliveries(store, worker="s", limit=9, lease_s=60) == []
    assert sweep(store) == Mended(deliveries=1)
    (delivery,) = claim_deliveries(store, worker="s", limit=9, lease_s=60)
    assert (delivery.job_id, delivery.seq) == (job.id, 2)


@pytest.mark.parametrize("why", ["its job is over", "another attempt follows", "its job is gone"])
def test_a_place_that_is_held_for_nothing_is_given_back(store: Store, why: str) -> None:
    job = make.create(store)
    make.running(store)
    place = update(job_attempts).where(job_attempts.c.job_id == job.id)
    with store.begin() as tx:  # no step of ours leaves that
        if why == "its job is over":
            tx.execute(update(jobs).values(status="failed", finished_at=jobs.c.updated_at))
        elif why == "another attempt follows":
            tx.execute(update(jobs).values(attempt=2, status="queued"))
        else:
            tx.execute(place.values(job_id=job.id + 1000))
    assert sweep(store).places == 1
    assert sweep(store).places == 0
    with store.read() as tx:
        assert tx.execute(select(job_attempts.c.status)).scalars().all() == ["lost"]
