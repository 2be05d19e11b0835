"""Whose turn it is: jobs that are applied by hand wait as those of the API do, as one owner's."""

from __future__ import annotations

from collections import Counter

import pytest

from encoder_db.cluster import KUBERNETES_OWNER
from encoder_db.store import Store
from tests.db import builders as make
from tests.operator.desk import BY_HAND, Desk

API_OWNER = "film"
EACH = 4


def submit(desk: Desk, *owners: str, priority: str = "normal") -> None:
    """So many jobs of each owner, all of one before the next one's."""
    for owner in owners:
        for number in range(EACH):
            if owner == KUBERNETES_OWNER:
                name = f"by-hand-{priority}-{number}"
                desk.apply(name, {**BY_HAND, "priority": priority})
                desk.settle(name)
            else:
                make.create(desk.store, make.spec(pool=desk.pool, priority=priority), owner=owner)


def holders(desk: Desk) -> Counter[str]:
    """The places that each owner's jobs hold."""
    with desk.store.read() as tx:
        held = tx.exec_driver_sql("SELECT owner FROM jobs WHERE status = 'starting'").scalars()
        return Counter(held)


def scale(desk: Desk, places: int, **spec: int) -> None:
    desk.api.put_spec(desk.pool, {"maxConcurrency": places, **spec})
    desk.keep_pool()


@pytest.mark.parametrize(
    "owners",
    [
        pytest.param((API_OWNER, KUBERNETES_OWNER), id="those of the API came first"),
        pytest.param((KUBERNETES_OWNER, API_OWNER), id="those by hand came first"),
    ],
)
def test_places_that_come_one_by_one_go_to_both_in_turn(
    store: Store, owners: tuple[str, str]
) -> None:
    desk = Desk(store)
    submit(desk, *owners)
    for places in range(1, 2 * EACH + 1):
        scale(desk, places)
        assert desk.dispatch() == 1
        held = holders(desk)
        assert abs(held[API_OWNER] - held[KUBERNETES_OWNER]) == places % 2
        assert held.total() == places


def test_all_that_is_applied_by_hand_is_one_owner_among_those_of_the_api(store: Store) -> None:
    owners = (API_OWNER, "sport", KUBERNETES_OWNER)
    desk = Desk(store, places=2 * len(owners))
    submit(desk, *owners)
    desk.dispatch()
    assert holders(desk) == dict.fromkeys(owners, 2)


def test_what_one_owner_may_hold_bounds_both_alike(store: Store) -> None:
    desk = Desk(store)
    submit(desk, KUBERNETES_OWNER, API_OWNER)
    scale(desk, 2 * EACH, maxPerOwner=2)
    desk.dispatch()
    assert holders(desk) == {API_OWNER: 2, KUBERNETES_OWNER: 2}


@pytest.mark.parametrize(
    ("urgent", "other"),
    [
        pytest.param(API_OWNER, KUBERNETES_OWNER, id="of the API"),
        pytest.param(KUBERNETES_OWNER, API_OWNER, id="by hand"),
    ],
)
def test_a_higher_priority_goes_first_wherever_it_comes_from(
    store: Store, urgent: str, other: str
) -> None:
    desk = Desk(store, places=EACH)
    submit(desk, other)
    submit(desk, urgent, priority="high")
    desk.dispatch()
    assert holders(desk) == {urgent: EACH}
