"""What the record holds is counted in three queries, each of which reads an index up to a limit."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, insert, text

from encoder_core.specs import JobSpec
from encoder_core.states import JobStatus
from encoder_db.census import (
    OVERLAP,
    POOLS,
    Census,
    PoolCount,
    SentTally,
    count_all,
    pool_counts,
    take_census,
)
from encoder_db.deliveries import claim_deliveries, finish_delivery, reschedule_delivery
from encoder_db.dialect import db_now
from encoder_db.events import PARKED_UNTIL
from encoder_db.jobs import cancel_job, retry_job
from encoder_db.migrations import migrate
from encoder_db.pools import set_pool
from encoder_db.queue import MAX_ABANDONED
from encoder_db.store import Store, now
from encoder_db.tables import job_attempts, webhook_attempts, webhook_deliveries
from tests.db import builders as make

J = JobStatus


def _taken(store: Store) -> Census:
    with store.read() as tx:
        return take_census(tx)


def _heard(**fields: Any) -> JobSpec:
    return make.spec(notificationUrl="https://receiver.example/hook", **fields)


def test_a_new_installation_has_nothing(store: Store) -> None:
    taken = _taken(store)
    assert taken == Census(
        jobs=dict.fromkeys(J, 0),
        pools={"default": PoolCount(places=1000, taken=0, queued=0, oldest_due_s=0.0)},
        deliveries={"due": 0, "later": 0, "behind": 0},
        oldest_delivery_s=0.0,
        dead_letters=0,
    )


def test_jobs_are_counted_by_status_and_waiting_ones_by_pool(store: Store) -> None:
    pool = make.kubernetes_pool(store, places=7)
    make.complete(store, _begun(store))
    _begun(store)
    cancel_job(store, make.create(store).id, owner=None)
    for name in ("default", pool, pool):
        make.create(store, make.spec(pool=name))
    taken = _taken(store)
    assert {status: count for status, count in taken.jobs.items() if count} == {
        J.COMPLETED: 1,
        J.RUNNING: 1,
        J.CANCELED: 1,
        J.QUEUED: 3,
    }
    counts = {name: (p.places, p.taken, p.queued) for name, p in taken.pools.items()}
    assert counts == {"default": (1000, 1, 1), pool: (7, 0, 2)}


def _begun(store: Store) -> make.Claimed:
    make.create(store)
    return make.running(store)


def test_the_oldest_is_the_one_that_has_been_due_for_longest(store: Store) -> None:
    make.create(store)
    make.let_pass(store, 100)
    make.create(store)
    with store.read() as tx:
        tomorrow = now(tx) + timedelta(days=1)
    make.create(store, make.spec(startAt=tomorrow.isoformat()), owner="alice")
    pool = _taken(store).pools["default"]
    assert pool.queued == 3
    assert 100 <= pool.oldest_due_s < 160
    make.claim_some(store, 2)
    assert _taken(store).pools["default"].oldest_due_s == 0, "what is leased or not due yet"


@pytest.mark.parametrize("policy", ["Hold", "Drain"])
def test_a_pool_that_is_stopped_has_no_places(store: Store, policy: Any) -> None:
    store.run(lambda tx: set_pool(tx, "default", stop_policy=policy))
    assert _taken(store).pools["default"].places == 0


def test_more_pools_than_anybody_draws_are_left_out(store: Store) -> None:
    for number in range(POOLS):
        make.kubernetes_pool(store, f"p{number:03}")
    assert len(_taken(store).pools) == POOLS


def test_deliveries_wait_due_later_or_behind_another(store: Store) -> None:
    make.create(store, _heard())
    make.let_pass(store, 50)
    make.create(store, _heard())
    make.starting(store)  # a second event of the first job
    assert _taken(store).deliveries == {"due": 2, "later": 0, "behind": 1}
    assert 50 <= _taken(store).oldest_delivery_s < 110
    first, second = claim_deliveries(store, worker="w", limit=5, lease_s=60)
    assert _taken(store).deliveries == {"due": 0, "later": 2, "behind": 1}
    assert _taken(store).oldest_delivery_s == 0
    finish_delivery(store, first, outcome="delivered")
    reschedule_delivery(store, second, delay_s=60, outcome="server_error")
    assert _taken(store).deliveries == {"due": 1, "later": 1, "behind": 0}


def test_a_dead_letter_counts_until_somebody_puts_it_back(store: Store) -> None:
    job = make.create(store)
    for _ in range(MAX_ABANDONED):
        assert make.claim_some(store, 1)
        make.let_pass(store, make.LEASE_S + 1)
    assert make.claim_some(store, 1) == []
    assert _taken(store).dead_letters == 1
    retry_job(store, job.id, owner=None)
    assert _taken(store).dead_letters == 0


def test_three_queries_whatever_there_is(store: Store) -> None:
    for number in range(3):
        make.kubernetes_pool(store, f"p{number}")
        make.create(store, _heard(), owner=f"owner-{number}")
    with make.statements(store) as seen:
        _taken(store)
    assert len(seen) == 3


# --- What was sent ---------------------------------------------------------------------------


def _send(tx: Connection, outcome: str, *, number: int | None = None) -> None:
    row: dict[str, Any] = {
        "event_uuid": uuid4(),
        "event_type": "job.queued",
        "job_id": 1,
        "seq": 1,
        "attempt": 1,
        "trigger_kind": "auto",
        "started_at": db_now(),
        "duration_ms": 5,
        "outcome": outcome,
    }
    tx.execute(insert(webhook_attempts).values(**row, **({} if number is None else {"id": number})))


def _caught_up(store: Store, tally: SentTally) -> dict[str, int]:
    with store.read() as tx:
        tally.catch_up(tx)
    return dict(tally.outcomes)


def test_what_was_sent_counts_once_by_its_outcome_from_the_first_look_on(store: Store) -> None:
    tally = SentTally()
    store.run(lambda tx: _send(tx, "timeout"))
    assert _caught_up(store, tally) == {}
    for outcome in ("delivered", "server_error", "delivered"):
        store.run(lambda tx, outcome=outcome: _send(tx, outcome))  # type: ignore[misc]  # bound
    assert _caught_up(store, tally) == {"delivered": 2, "server_error": 1}
    assert _caught_up(store, tally) == {"delivered": 2, "server_error": 1}


def test_one_that_is_committed_after_a_later_number_counts_too(store: Store) -> None:
    tally = SentTally()
    _caught_up(store, tally)
    store.run(lambda tx: _send(tx, "delivered", number=1000))
    assert _caught_up(store, tally) == {"delivered": 1}
    store.run(lambda tx: _send(tx, "delivered", number=1000 - OVERLAP + 1))
    assert _caught_up(store, tally) == {"delivered": 2}


def test_one_look_reads_one_page_and_the_next_goes_on(store: Store) -> None:
    tally = SentTally(page=3, overlap=1)
    _caught_up(store, tally)

    def many(tx: Connection) -> None:
        for _ in range(6):
            _send(tx, "delivered")

    store.run(many)
    seen = [_caught_up(store, tally)["delivered"] for _ in range(4)]
    assert seen[0] == 3
    assert seen[-1] == 6
    with make.statements(store) as statements:
        _caught_up(store, tally)
    assert len(statements) == 1


# --- Which index is read ---------------------------------------------------------------------


class TestOnMySQL:
    @pytest.fixture
    def store(self, mysql_url: str) -> Iterator[Store]:
        with Store.open(mysql_url) as store:
            migrate(store)
            yield store

    def test_every_count_reads_its_index_and_no_row(self, store: Store) -> None:
        _grow(store)
        plan = _explain(store, count_all(["default", "hd"]))
        read = [row for row in plan if not str(row["table"]).startswith("<")]
        keys = [(row["table"], row["key"]) for row in read]
        assert keys == [
            *[("jobs", "ix_jobs_by_status")] * len(J),
            *[("jobs", "ix_jobs_by_pool")] * 2,
            *[("webhook_deliveries", "ix_webhook_deliveries_claim")] * 3,
            ("dead_letters", "ix_dead_letters_open"),
        ]
        for row in read:
            assert row["type"] in {"ref", "range"}, row
            assert "Using index" in str(row["Extra"]), row

    def test_the_oldest_of_a_queue_is_the_first_entry_of_the_claims_index(
        self, store: Store
    ) -> None:
        _grow(store)
        by_table = {row["table"]: row for row in _explain(store, pool_counts())}
        assert by_table["job_attempts"]["key"] == "ix_job_attempts_slots"
        assert by_table["queue_jobs"]["key"] == "ix_queue_jobs_claim"
        assert by_table["queue_owners"]["key"] == "ix_queue_owners_pool"


def _grow(store: Store, rows: int = 1000) -> None:
    """As many attempts that have ended and deliveries that wait as make a plan worth having."""
    make.create(store, _heard())
    attempts = [
        {
            "job_id": number,
            "number": 1,
            "status": "succeeded",
            "executor": "local",
            "worker": "w",
            "pool": "default",
            "owner": "default",
            "token_hash": bytes(32),
        }
        for number in range(rows)
    ]
    deliveries = [
        {
            "event_id": rows + number,
            "event_uuid": uuid4(),
            "event_type": "job.queued",
            "job_id": number,
            "job_uuid": uuid4(),
            "seq": 1,
            "trigger_kind": "auto",
            "target": b"",
            "host_hash": bytes(16),
            "attempts": 0,
            "lease_seq": 0,
            "next_attempt_at": PARKED_UNTIL - timedelta(days=number * 2_900_000 // rows),
        }
        for number in range(rows)
    ]
    with store.begin() as tx:
        tx.execute(insert(job_attempts).values(created_at=db_now()), attempts)
        tx.execute(insert(webhook_deliveries), deliveries)


def _explain(store: Store, query: Any) -> list[dict[str, Any]]:
    compiled = str(query.compile(store.engine, compile_kwargs={"literal_binds": True}))
    with store.read() as tx:
        tx.execute(
            text("ANALYZE TABLE jobs, job_attempts, queue_jobs, webhook_deliveries, dead_letters")
        )
        plan = tx.exec_driver_sql(f"EXPLAIN FORMAT=TRADITIONAL {compiled}".replace("%", "%%"))
        return [dict(row) for row in plan.mappings()]
