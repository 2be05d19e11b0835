"""Places are given in batches, never more than pool, owner and engine have."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from encoder_db import cluster
from encoder_db.attempts import Claimed, Refusal, open_attempts_of
from encoder_db.jobs import cancel_job
from encoder_db.messages import release
from encoder_db.queue import QueueMessage
from encoder_db.queue import claim as claim_messages
from encoder_db.store import Store
from tests.db import builders as make

POOL = "k8s"


def pool(store: Store, *, places: int = 10, per_owner: int | None = None, name: str = POOL) -> None:
    store.run(
        lambda tx: cluster.mirror_pool(
            tx, name, max_concurrency=places, stop_policy="None", max_per_owner=per_owner
        )
    )


def waiting(store: Store, count: int, *, owner: str = make.OWNER, name: str = POOL) -> None:
    for _ in range(count):
        make.create(store, make.spec(pool=name), owner=owner)


def claim(store: Store, limit: int = 50) -> list[QueueMessage]:
    return make.claim_some(store, limit, engine="kubernetes")


def grant(
    store: Store, messages: list[QueueMessage], *, total: int | None = None
) -> list[Claimed | Refusal]:
    return open_attempts_of(store, messages, executor="kubernetes", worker="operator", total=total)


def granted(results: list[Claimed | Refusal]) -> int:
    return sum(isinstance(result, Claimed) for result in results)


def test_a_batch_costs_as_many_statements_as_one(store: Store) -> None:
    """Pools, jobs, their leases, how many places are taken; then attempts, and the jobs again."""
    pool(store)
    for batch in (1, 8):
        waiting(store, batch)
        messages = claim(store)
        with make.statements(store) as seen:
            assert granted(grant(store, messages)) == batch
        assert len(seen) == 6


def test_no_more_than_the_pool_has(store: Store) -> None:
    pool(store, places=10)
    waiting(store, 5)
    messages = claim(store)
    pool(store, places=3)  # lowered between claim and grant
    results = grant(store, messages)
    assert [type(result) for result in results] == [Claimed] * 3 + [Refusal] * 2
    assert results[-1] == Refusal("pool_full")


def test_what_was_lost_or_ended_meanwhile_takes_nothing_from_the_others(store: Store) -> None:
    pool(store)
    waiting(store, 4)
    canceled, lost, *others = claim(store)
    cancel_job(store, canceled.job_id, owner=None)
    assert release(store, lost)
    first, second, *rest = grant(store, [canceled, lost, *others])
    assert (first, second) == (Refusal("job_final"), Refusal("lease_lost"))
    assert [one.message for one in rest if isinstance(one, Claimed)] == others


def test_no_more_than_an_owner_may_have(store: Store) -> None:
    pool(store, places=10, per_owner=2)
    waiting(store, 5, owner="greedy")
    waiting(store, 1, owner="modest")
    messages = claim(store)
    assert len(messages) == 3  # what is above the limit is not even claimed
    assert granted(grant(store, messages)) == 3
    assert claim(store) == []


def test_an_owners_limit_holds_also_for_what_was_claimed_before_it_was_set(store: Store) -> None:
    pool(store)
    waiting(store, 3)
    messages = claim(store)
    pool(store, per_owner=1)
    assert grant(store, messages)[1:] == [Refusal("owner_full")] * 2


def test_no_more_than_the_engine_may_have_in_all_pools(store: Store) -> None:
    for name in ("a", "b"):
        pool(store, name=name)
        waiting(store, 3, name=name)
    messages = claim(store)
    assert granted(grant(store, messages, total=4)) == 4


def test_pools_to_be_left_alone_are_not_claimed_from(store: Store) -> None:
    for name in ("blocked", "open"):
        pool(store, name=name)
        waiting(store, 1, name=name)
    messages = claim_messages(
        store, engine="kubernetes", worker="w", limit=9, lease_s=60, besides={"blocked"}
    )
    assert [message.pool for message in messages] == ["open"]


@pytest.mark.parametrize("claimers", [4])
def test_two_claimers_at_once_never_give_a_place_twice(store: Store, claimers: int) -> None:
    """Each believes that there is room: it is decided where the pool's row is locked."""
    pool(store, places=20)
    waiting(store, 20)
    batches = [claim(store, 5) for _ in range(claimers)]
    pool(store, places=7)
    with ThreadPoolExecutor(claimers) as threads:
        results = list(threads.map(lambda batch: granted(grant(store, batch, total=6)), batches))
    assert sum(results) == 6
