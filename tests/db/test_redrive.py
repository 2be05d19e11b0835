"""What was given up is listed with its origin, and put back by the reason of its failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from encoder_core.failures import failure
from encoder_core.states import JobStatus
from encoder_db.pools import set_pool
from encoder_db.queue import MAX_ABANDONED
from encoder_db.redrive import list_dead_letters, redrive_jobs
from encoder_db.rows import JobRow
from encoder_db.store import Store
from tests.db import builders as make
from tests.db.conftest import empty_record

J = JobStatus
INVALID = "source_invalid"


@pytest.fixture(params=["sqlite", "mysql", "mariadb"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Here: also on MariaDB."""
    return empty_record(request, tmp_path)


def _failed(store: Store, code: str = INVALID, *, owner: str = make.OWNER) -> JobRow:
    job = make.create(store, owner=owner)
    started = make.running(store)
    assert make.finish(store, started, exit_code=1, failure=failure(code)) is J.FAILED
    return job


def _dead(store: Store, *, owner: str = make.OWNER) -> JobRow:
    job = make.create(store, owner=owner)
    for _ in range(MAX_ABANDONED):
        assert make.claim_some(store, 1)
        make.let_pass(store, make.LEASE_S + 1)
    assert make.claim_some(store, 1) == []
    return job


def test_failed_jobs_are_put_back_by_the_reason_of_their_failure(store: Store) -> None:
    jobs = [_failed(store) for _ in range(3)]
    other = _failed(store, "request_impossible")
    redriven = redrive_jobs(store, owner=None, failure_code=INVALID)
    assert redriven.queued == [job.id for job in jobs]
    assert (redriven.refused, redriven.next_after_id) == ([], None)
    assert {make.status(store, job) for job in jobs} == {J.QUEUED}
    assert make.status(store, other) is J.FAILED
    assert redrive_jobs(store, owner=None, failure_code=INVALID).queued == []


def test_a_page_says_where_the_next_one_begins(store: Store) -> None:
    first, second, third = (_failed(store).id for _ in range(3))
    page = redrive_jobs(store, owner=None, failure_code=INVALID, limit=2)
    assert (page.queued, page.next_after_id) == ([first, second], second)
    rest = redrive_jobs(store, owner=None, failure_code=INVALID, limit=2, after_id=second)
    assert (rest.queued, rest.next_after_id) == ([third], None)


def test_everybody_puts_back_their_own(store: Store) -> None:
    theirs = _failed(store, owner="alice")
    ours = _failed(store, owner="bob")
    assert redrive_jobs(store, owner="bob", failure_code=INVALID).queued == [ours.id]
    assert make.status(store, theirs) is J.FAILED


def test_only_the_jobs_of_one_pool(store: Store) -> None:
    job = _failed(store)
    assert redrive_jobs(store, owner=None, failure_code=INVALID, pool="hd").queued == []
    redriven = redrive_jobs(store, owner=None, failure_code=INVALID, pool="default")
    assert redriven.queued == [job.id]


def test_one_that_cannot_be_put_back_does_not_keep_the_others(store: Store) -> None:
    locked = make.create(store, make.spec(source=make.s3()))
    started = make.running(store)
    make.finish(store, started, exit_code=1, failure=failure(INVALID))
    make.let_pass(store, 25 * 3600.0)  # its credentials are gone by now
    job = _failed(store)
    redriven = redrive_jobs(store, owner=None, failure_code=INVALID)
    assert redriven.queued == [job.id]
    assert [(number, why.code) for number, why in redriven.refused] == [
        (locked.id, "credentials_required")
    ]


def test_a_pool_that_is_drained_takes_nothing_back(store: Store) -> None:
    job = _failed(store)
    store.run(lambda tx: set_pool(tx, "default", stop_policy="Drain"))
    redriven = redrive_jobs(store, owner=None, failure_code=INVALID)
    assert [(number, why.code) for number, why in redriven.refused] == [(job.id, "pool_draining")]


def test_dead_letters_say_where_they_came_from_and_when_they_went_back(store: Store) -> None:
    theirs = _dead(store, owner="alice")
    ours = _dead(store, owner="bob")
    with store.read() as tx:
        both = list_dead_letters(tx, owner=None)
        (mine,) = list_dead_letters(tx, owner="bob")
        older = list_dead_letters(tx, owner=None, before_id=both[0].id)
    assert [letter.job_id for letter in both] == [ours.id, theirs.id]
    assert [letter.job_id for letter in older] == [theirs.id]
    assert (mine.job_uuid, mine.queue) == (ours.uuid, "default/p1/bob")
    assert (mine.deliveries, mine.failures, mine.reason) == (MAX_ABANDONED, 0, "abandoned")
    assert mine.redriven_at is None
    assert redrive_jobs(store, owner="bob", failure_code="abandoned").queued == [ours.id]
    with store.read() as tx:
        back = {letter.job_id: letter.redriven_at for letter in list_dead_letters(tx, owner=None)}
    assert back[ours.id] is not None
    assert back[theirs.id] is None


@pytest.mark.parametrize("after_id", [0, 10_000])
def test_nothing_to_put_back_is_no_error(store: Store, after_id: int) -> None:
    redriven = redrive_jobs(store, owner=None, failure_code=INVALID, after_id=after_id)
    assert (redriven.queued, redriven.refused, redriven.next_after_id) == ([], [], None)
