"""What is taken in and when it may start: quotas, caps, drained pools, delayed starts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from encoder_core.errors import InvalidRequest, Refused
from encoder_core.failures import failure
from encoder_core.states import JobStatus
from encoder_db.idempotency import Idempotency, Replayed
from encoder_db.intake import create_job
from encoder_db.jobs import cancel_job, fail_queued, retry_job
from encoder_db.pools import set_pool
from encoder_db.redrive import redrive_jobs
from encoder_db.rows import JobRow, Refusal
from encoder_db.store import Store, now
from tests.db import builders as make


def _clock(store: Store) -> datetime:
    with store.read() as tx:
        return now(tx)


def _ask(
    store: Store,
    *,
    owner: str = make.OWNER,
    max_queued: int | None = None,
    idempotency: Idempotency | None = None,
) -> JobRow:
    return store.run(
        lambda tx: create_job(
            tx,
            spec=make.spec(),
            owner=owner,
            keys=store.keys,
            max_queued=max_queued,
            idempotency=idempotency,
        )
    )


# --- How many may wait -----------------------------------------------------------------------


def test_no_more_jobs_of_an_owner_wait_than_the_quota_allows(store: Store) -> None:
    for _ in range(2):
        _ask(store, max_queued=2)
    with pytest.raises(Refused, match="2 jobs of yours wait already") as refused:
        _ask(store, max_queued=2)
    assert (refused.value.code, refused.value.status) == ("too_many_queued", 429)
    assert refused.value.retry_after_s == 30.0
    assert make.count(store, "jobs") == make.count(store, "queue_jobs") == 2


def test_what_has_started_does_not_count(store: Store) -> None:
    _ask(store, max_queued=1)
    make.running(store)
    _ask(store, max_queued=1)


def test_each_owner_has_a_quota_of_their_own(store: Store) -> None:
    _ask(store, owner="alice", max_queued=1)
    _ask(store, owner="bob", max_queued=1)


def test_a_request_that_was_accepted_before_gets_its_answer_whatever_the_quota(
    store: Store,
) -> None:
    key = Idempotency(key="again", fingerprints=(b"f" * 32,))
    job = _ask(store, max_queued=1, idempotency=key)
    with pytest.raises(Replayed) as earlier:
        _ask(store, max_queued=1, idempotency=key)
    assert earlier.value.response["id"] == job.id


def test_a_quota_costs_one_query_and_none_without_it(store: Store) -> None:
    _ask(store)
    with make.statements(store) as without:
        _ask(store)
    with make.statements(store) as limited:
        _ask(store, max_queued=100)
    assert len(limited) == len(without) + 1


def _canceled(store: Store, *, owner: str = make.OWNER) -> JobRow:
    job = _ask(store, owner=owner)
    cancel_job(store, job.id, owner=None)
    return job


def test_a_retry_by_request_counts_like_a_new_job(store: Store) -> None:
    first, second = _canceled(store), _canceled(store)
    retry_job(store, first.id, owner=None, max_queued=1)
    with pytest.raises(Refused, match="1 jobs of yours wait already") as refused:
        retry_job(store, second.id, owner=None, max_queued=1)
    assert (refused.value.code, refused.value.status) == ("too_many_queued", 429)
    assert make.read(store, second).status is JobStatus.CANCELED
    retry_job(store, _canceled(store, owner="bob").id, owner=None, max_queued=1)
    retry_job(store, second.id, owner=None)


def test_a_redrive_puts_back_no_more_than_the_quota_allows(store: Store) -> None:
    failed = [_ask(store) for _ in range(3)]
    because = failure("never_fits")
    for job in failed:
        store.run(lambda tx, job=job: fail_queued(tx, job.id, because))  # type: ignore[misc]  # mypy infers no type for a lambda's default
    done = redrive_jobs(store, owner=make.OWNER, failure_code="never_fits", max_queued=2)
    assert done.queued == [job.id for job in failed[:2]]
    assert [(job_id, why.code) for job_id, why in done.refused] == [
        (failed[2].id, "too_many_queued")
    ]


# --- How many may run ------------------------------------------------------------------------


def test_one_owner_holds_no_more_places_than_one_may(store: Store) -> None:
    store.run(lambda tx: set_pool(tx, "default", max_per_owner=2))
    for priority in ("high", "normal", "low"):
        make.create(store, make.spec(priority=priority), owner="alice")
    others = make.create(store, owner="bob")
    messages = make.claim_some(store, 10)
    assert sorted(message.queue for message in messages) == [
        "default/p0/alice",
        "default/p1/alice",
        "default/p1/bob",
    ]
    assert others.id in {message.job_id for message in messages}


def test_the_cap_holds_when_two_claimed_at_the_same_time(store: Store) -> None:
    store.run(lambda tx: set_pool(tx, "default", max_per_owner=1))
    for _ in range(2):
        make.create(store)
    messages = [*make.claim_some(store, 1), *make.claim_some(store, 1)]
    assert len(messages) == 2  # neither had begun when the other looked
    opened = [
        make.open_attempt(store, message, executor="local", worker=make.WORKER)
        for message in messages
    ]
    assert isinstance(opened[0], make.Claimed)
    assert opened[1] == Refusal("owner_full")
    make.complete(store, opened[0])
    make.let_pass(store, 2)
    make.claimed(store)


def test_the_cap_can_be_taken_away(store: Store) -> None:
    capped = store.run(lambda tx: set_pool(tx, "default", max_per_owner=1))
    assert capped is not None
    assert capped.max_per_owner == 1
    free = store.run(lambda tx: set_pool(tx, "default", max_per_owner=0))
    assert free is not None
    assert free.max_per_owner is None


# --- Pools that are stopped ------------------------------------------------------------------


def test_a_pool_on_hold_accepts_jobs_and_keeps_them(store: Store) -> None:
    store.run(lambda tx: set_pool(tx, "default", stop_policy="Hold"))
    job = make.create(store)
    assert make.claim_some(store, 1) == []
    store.run(lambda tx: set_pool(tx, "default", stop_policy="None"))
    assert make.claim_one(store).job_id == job.id


def test_a_pool_that_is_drained_takes_no_new_jobs_and_ends_what_runs(store: Store) -> None:
    waits = make.create(store)
    started = make.running(store)
    queued = make.create(store)
    store.run(lambda tx: set_pool(tx, "default", stop_policy="Drain"))
    with pytest.raises(Refused, match="'default' is being drained") as refused:
        make.create(store)
    assert (refused.value.code, refused.value.status) == ("pool_draining", 409)
    assert make.claim_some(store, 1) == []
    make.complete(store, started)
    store.run(lambda tx: set_pool(tx, "default", stop_policy="None"))
    assert make.claim_one(store).job_id == queued.id
    assert make.read(store, waits).finished_at is not None


def test_a_pool_that_is_drained_takes_no_retry_by_request(store: Store) -> None:
    job = make.create(store)
    cancel_job(store, job.id, owner=None)
    store.run(lambda tx: set_pool(tx, "default", stop_policy="Drain"))
    with pytest.raises(Refused) as refused:
        retry_job(store, job.id, owner=None)
    assert refused.value.code == "pool_draining"


# --- Not before ------------------------------------------------------------------------------


def test_a_job_starts_not_before_its_moment(store: Store) -> None:
    moment = _clock(store) + timedelta(hours=1)
    job = make.create(store, make.spec(startAt=moment.isoformat()))
    seen = make.read(store, job)
    assert (seen.start_at, seen.due_at) == (moment, moment)
    now_due = make.create(store)
    assert [message.job_id for message in make.claim_some(store, 5)] == [now_due.id]
    make.let_pass(store, 3601)  # the other one's lease is over by then, too
    assert job.id in {make.claim_one(store).job_id for _ in range(2)}


def test_a_moment_that_is_past_means_now(store: Store) -> None:
    job = make.create(store, make.spec(startAt="2001-01-01T00:00:00+02:00"))
    assert make.claim_one(store).job_id == job.id
    seen = make.read(store, job)
    assert seen.start_at == datetime(2000, 12, 31, 22, tzinfo=UTC)


def test_a_moment_more_than_a_year_away_is_refused(store: Store) -> None:
    far = _clock(store) + timedelta(days=367)
    with pytest.raises(InvalidRequest) as invalid:
        make.create(store, make.spec(startAt=far.isoformat()))
    assert [problem.pointer for problem in invalid.value.problems] == ["/startAt"]


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("2026-03-01T12:00:00", id="no zone"),
        pytest.param(1772366400, id="a number"),
        pytest.param("tomorrow", id="no date"),
        pytest.param("0001-01-01T00:00:00+14:00", id="before the first year"),
    ],
)
def test_a_moment_is_a_date_and_a_time_with_a_zone(moment: object) -> None:
    with pytest.raises(ValidationError):
        make.spec(startAt=moment)
