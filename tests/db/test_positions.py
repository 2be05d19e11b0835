"""A waiting job says what is before it and when it will start, at a cost that does not grow."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import insert, text

from encoder_core.documents import JobPage, Position
from encoder_db import positions
from encoder_db.bump import bump_job
from encoder_db.dialect import in_seconds
from encoder_db.jobs import read_page
from encoder_db.pools import set_pool
from encoder_db.positions import COUNTED, estimate_wait_s
from encoder_db.rows import JobRow
from encoder_db.store import Store
from encoder_db.tables import queue_jobs
from encoder_db.workers import beat
from tests.db import builders as make


def _page(store: Store, job: JobRow) -> JobPage:
    with store.read() as tx:
        page = read_page(tx, job.id, owner=None)
    assert page is not None
    return page


def _position(store: Store, job: JobRow) -> Position:
    found = _page(store, job).position
    assert found is not None
    return found


def _ahead(store: Store, job: JobRow) -> int:
    return _position(store, job).ahead


def _worker(store: Store, capacity: int) -> None:
    beat(store, "host-a", kind="local", host="a", pid=1, capacity=capacity, running=[])


def test_jobs_of_one_owner_wait_one_behind_the_other(store: Store) -> None:
    jobs = [make.create(store) for _ in range(3)]
    assert [_ahead(store, job) for job in jobs] == [0, 1, 2]
    bump_job(store, jobs[2].id, owner=None)
    assert [_ahead(store, job) for job in jobs] == [1, 2, 0]


def test_owners_take_turns_so_a_long_queue_of_another_counts_little(store: Store) -> None:
    for _ in range(10):
        make.create(store, owner="alice")
    first, second = (make.create(store, owner="bob") for _ in range(2))
    assert (_ahead(store, first), _ahead(store, second)) == (1, 3)


def test_higher_priorities_come_before_and_lower_ones_after(store: Store) -> None:
    job = make.create(store)
    for _ in range(3):
        make.create(store, make.spec(priority="high"), owner="alice")
        make.create(store, make.spec(priority="low"), owner="alice")
    assert _ahead(store, job) == 3


def test_what_waits_in_another_pool_does_not_count(store: Store) -> None:
    make.create(store, make.spec(pool=make.kubernetes_pool(store)))
    assert _ahead(store, make.create(store)) == 0


def test_a_job_that_does_not_wait_has_no_position(store: Store) -> None:
    job = make.create(store)
    make.claim_one(store)
    assert _page(store, job).position is None
    make.let_pass(store, make.LEASE_S + 1)
    make.running(store)
    assert _page(store, job).position is None


def test_the_start_is_expected_by_how_long_the_latest_attempts_took(store: Store) -> None:
    _worker(store, 1)
    make.create(store)
    ended = make.running(store)
    make.let_pass(store, 100)
    make.complete(store, ended)
    make.create(store)
    running = make.running(store)
    _worker(store, 1)
    first, second = (make.create(store) for _ in range(2))
    moments = [_position(store, job).expected_start_at for job in (first, second)]
    assert moments[0] is not None
    assert moments[1] is not None
    gap = moments[1] - moments[0]
    assert timedelta(seconds=99) < gap < timedelta(seconds=105)
    make.complete(store, running)


def test_with_a_free_place_it_starts_when_it_is_due(store: Store) -> None:
    _worker(store, 2)
    job = make.create(store)
    seen = _page(store, job)
    assert seen.position is not None
    assert seen.position.expected_start_at is not None
    assert seen.position.expected_start_at >= seen.created_at


@pytest.mark.parametrize("reason", ["stopped", "no worker", "nothing to go by"])
def test_nothing_is_expected_where_nothing_can_be_said(store: Store, reason: str) -> None:
    if reason != "no worker":
        _worker(store, 1)
    if reason == "stopped":
        store.run(lambda tx: set_pool(tx, "default", stop_policy="Hold"))
    if reason == "nothing to go by":
        make.create(store)
    job = make.create(store)
    if reason == "nothing to go by":
        make.claimed(store)
    assert _position(store, job).expected_start_at is None


def test_a_long_queue_is_not_counted_to_its_end(store: Store) -> None:
    first = make.create(store)
    with store.begin() as tx:
        rows = [{"job_id": 1000 + number} for number in range(COUNTED + 10)]
        statement = insert(queue_jobs).values(
            queue="default/p1/default",
            visible_at=in_seconds(-5000),
            deliveries=0,
            failures=0,
            lease_seq=0,
            enqueued_at=in_seconds(0),
        )
        tx.execute(statement, rows)
    found = _position(store, first)
    assert (found.ahead, found.or_more, found.expected_start_at) == (COUNTED, True, None)


def test_the_number_of_queries_does_not_grow_with_what_waits(store: Store) -> None:
    _worker(store, 1)
    counted: list[int] = []
    for _ in range(3):
        for owner in ("alice", "bob", f"o{len(counted)}"):
            make.create(store, owner=owner)
        job = make.create(store)
        with make.statements(store) as seen:
            _page(store, job)
        counted.append(len(seen))
    assert counted == [9, 9, 9]


@pytest.mark.parametrize(
    ("ahead", "places", "held", "want"),
    [
        pytest.param(0, 2, 0, 0.0, id="a free place"),
        pytest.param(1, 2, 0, 0.0, id="the last free place"),
        pytest.param(0, 2, 2, 30.0, id="the next place of two that are taken"),
        pytest.param(3, 2, 2, 120.0, id="four have to end"),
        pytest.param(0, 1, 5, 60.0, id="more are held than there are places"),
    ],
)
def test_the_wait_follows_from_places_and_time(
    ahead: int, places: int, held: int, want: float
) -> None:
    assert estimate_wait_s(ahead, places=places, held=held, attempt_s=60.0) == want


def test_on_a_server_counting_reads_no_more_than_its_limit(store: Store) -> None:
    if store.dialect == "sqlite":
        assert positions.COUNTED < 100_000
        return
    job = make.create(store)
    with store.begin() as tx:
        before = tx.execute(text("SHOW SESSION STATUS LIKE 'Handler_read%'")).all()
        positions.read_position(tx, job.id)
        after = tx.execute(text("SHOW SESSION STATUS LIKE 'Handler_read%'")).all()
    assert sum(int(row[1]) for row in after) - sum(int(row[1]) for row in before) < 100
