"""Places are shared out by class, then by what each owner holds for their weight."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder_db.fairness import Share, Waiting, share_out

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
LATELY = datetime(2026, 1, 2, tzinfo=UTC)


def waiting(queue: str, **fields: object) -> Waiting:
    values: dict[str, object] = {
        "pool": "default",
        "owner": queue,
        "priority": 1,
        "weight": 1,
        "in_flight": 0,
        "last_served_at": LONG_AGO,
        "pool_free": 100,
        **fields,
    }
    return Waiting(queue=queue, **values)  # type: ignore[arg-type]  # built from words


@pytest.mark.parametrize(
    ("queues", "limit", "want"),
    [
        pytest.param([], 5, [], id="nobody waits"),
        pytest.param([waiting("a")], 3, [Share("a", 3)], id="alone one gets everything"),
        pytest.param(
            [waiting("a"), waiting("b")], 4, [Share("a", 2), Share("b", 2)], id="equal shares"
        ),
        pytest.param(
            [waiting("a", in_flight=2), waiting("b")],
            3,
            [Share("b", 2), Share("a", 1)],
            id="who holds more gets less",
        ),
        pytest.param(
            [waiting("a", weight=3), waiting("b")],
            4,
            [Share("a", 3), Share("b", 1)],
            id="three times the weight",
        ),
        pytest.param(
            [waiting("a", last_served_at=LATELY), waiting("b")],
            1,
            [Share("b", 1)],
            id="among equals the one served longest ago",
        ),
        pytest.param(
            [waiting("low", priority=2), waiting("high", priority=0)],
            9,
            [Share("high", 9)],
            id="only the highest class",
        ),
        pytest.param(
            [waiting("high", priority=0, pool="full", pool_free=0), waiting("low", priority=2)],
            1,
            [Share("low", 1)],
            id="a full pool lets the next class through",
        ),
        pytest.param(
            [waiting("a", in_flight=1, owner_free=2), waiting("b", owner_free=3)],
            9,
            [Share("b", 3), Share("a", 2)],
            id="no more than one owner may hold",
        ),
        pytest.param(
            [waiting("high", priority=0, in_flight=2, owner_free=0), waiting("low", priority=2)],
            1,
            [Share("low", 1)],
            id="owners who hold all they may let the next class through",
        ),
        pytest.param(
            [waiting("a", pool_free=1), waiting("b", pool_free=1)],
            5,
            [Share("a", 1)],
            id="no more than the pool has",
        ),
        pytest.param(
            [waiting("a", owner_free=1), waiting("b", in_flight=9)],
            4,
            [Share("a", 1), Share("b", 3)],
            id="no more than the owner may have",
        ),
    ],
)
def test_share_out(queues: list[Waiting], limit: int, want: list[Share]) -> None:
    assert share_out(queues, limit, taken={}) == want


def test_every_so_often_the_lowest_class_is_first() -> None:
    queues = [waiting("low", priority=2), waiting("high", priority=0)]
    assert share_out(queues, 1, taken={}, lowest_first=True) == [Share("low", 1)]


def test_what_was_taken_in_this_claim_counts_as_held() -> None:
    queues = [waiting("a"), waiting("b")]
    assert share_out(queues, 1, taken={("default", "a"): 1}) == [Share("b", 1)]


def test_an_owners_places_count_together_whatever_their_priority() -> None:
    low = waiting("low", owner="alice", priority=2, owner_free=2)
    assert share_out([low], 5, taken={("default", "alice"): 1}) == [Share("low", 1)]
    assert share_out([low], 5, taken={("default", "alice"): 2}) == []


def test_places_taken_by_a_queue_that_is_empty_now_are_not_free() -> None:
    assert share_out([waiting("b", pool_free=3)], 5, taken={("default", "a"): 2}) == [Share("b", 1)]


@given(
    held=st.lists(st.integers(0, 20), min_size=1, max_size=8),
    free=st.integers(0, 30),
    limit=st.integers(1, 30),
)
def test_everything_there_is_room_for_is_given_and_evenly(
    held: list[int], free: int, limit: int
) -> None:
    queues = [
        waiting(f"q{number}", in_flight=places, pool_free=free)
        for number, places in enumerate(held)
    ]
    shares = {share.queue: share.count for share in share_out(queues, limit, taken={})}
    assert sum(shares.values()) == min(limit, free)
    after = {f"q{n}": places + shares.get(f"q{n}", 0) for n, places in enumerate(held)}
    fewest = min(after.values())
    assert all(after[queue] <= fewest + 1 for queue in shares)
