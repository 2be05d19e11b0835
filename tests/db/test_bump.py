"""A waiting job is moved to the front of its owner's jobs, and of nobody else's."""

from __future__ import annotations

import pytest

from encoder_core.errors import Refused
from encoder_core.specs import Priority
from encoder_db.bump import bump_job
from encoder_db.messages import nack
from encoder_db.store import Store
from tests.db import builders as make


def _order(store: Store, limit: int = 10) -> list[int]:
    return [message.job_id for message in make.claim_some(store, limit)]


def test_it_comes_before_everything_that_waited_longer(store: Store) -> None:
    first, second, third = (make.create(store).id for _ in range(3))
    bump_job(store, third, owner=None)
    assert _order(store) == [third, first, second]


def test_who_is_bumped_last_comes_first(store: Store) -> None:
    first, second, third = (make.create(store).id for _ in range(3))
    bump_job(store, second, owner=None)
    bump_job(store, third, owner=None)
    assert _order(store) == [third, second, first]


def test_it_may_change_its_priority_with_it(store: Store) -> None:
    high = make.create(store, make.spec(priority="high"))
    low = make.create(store, make.spec(priority="low"))
    normal = make.create(store)
    bumped = bump_job(store, low.uuid, owner=None, priority=Priority.HIGH)
    assert bumped.priority is Priority.HIGH
    assert [_order(store, 1)[0] for _ in range(3)] == [low.id, high.id, normal.id]


def test_a_priority_that_nobody_of_the_owner_has_used_is_claimed_from(store: Store) -> None:
    job = make.create(store)
    bump_job(store, job.id, owner=None, priority=Priority.LOW)
    assert _order(store) == [job.id]


def test_it_is_due_at_once_whatever_it_waited_for(store: Store) -> None:
    job = make.create(store)
    message = make.claim_one(store)
    store.run(lambda tx: nack(tx, message, 3600, "busy"))
    assert _order(store) == []
    bumped = bump_job(store, job.id, owner=None)
    assert bumped.due_at is not None
    assert bumped.due_at <= bumped.updated_at
    assert _order(store) == [job.id]


def test_owners_still_take_turns(store: Store) -> None:
    make.create(store, owner="alice")
    make.running(store)
    for _ in range(2):
        bump_job(store, make.create(store, owner="alice").id, owner="alice")
    others = make.create(store, owner="bob").id
    assert _order(store, 1) == [others]


def test_a_job_that_is_being_handed_out_keeps_its_lease(store: Store) -> None:
    job = make.create(store)
    message = make.claim_one(store)
    bump_job(store, job.id, owner=None)
    assert _order(store) == []
    opened = make.open_attempt(store, message, executor="local", worker=make.WORKER)
    assert isinstance(opened, make.Claimed)


def test_it_is_an_event(store: Store) -> None:
    job = make.create(store)
    assert bump_job(store, job.id, owner=None).version == 2
    assert make.events(store, job) == [(1, "job.queued"), (2, "job.bumped")]


def test_only_what_waits_can_be_moved(store: Store) -> None:
    running = make.create(store)
    make.running(store)
    with pytest.raises(Refused, match="only a job that waits") as refused:
        bump_job(store, running.id, owner=None)
    assert (refused.value.code, refused.value.status) == ("job_not_queued", 409)


def test_nobody_moves_anothers_job(store: Store) -> None:
    job = make.create(store, owner="alice")
    with pytest.raises(Refused) as refused:
        bump_job(store, job.id, owner="bob")
    assert (refused.value.code, refused.value.status) == ("job_not_found", 404)
