"""What the tests of kills, losses and doublings look at notices what it is there for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from encoder_core.names import ATTEMPT_LABEL, JOB_LABEL
from encoder_db.store import Store
from encoder_db.tables import job_attempts, job_outputs, jobs
from tests.operator.invariants import Pods, check, mark
from tests.operator.lives import WELL, Life

Spoil = Callable[[Life], None]


def a_pod(uid: str, *, owner: str, attempt: int, phase: str = "Running") -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"tj-a{attempt}",
            "uid": uid,
            "labels": {JOB_LABEL: "tj", ATTEMPT_LABEL: str(attempt)},
            "ownerReferences": [{"uid": owner}],
        },
        "status": {"phase": phase},
    }


def uid_of(life: Life) -> str:
    with life.store.read() as tx:
        return str(tx.execute(select(jobs.c.resource_uid)).scalar_one())


def another_pod(life: Life) -> None:
    life.pods.look([a_pod("second", owner=uid_of(life), attempt=1)])


def a_pod_too_many(life: Life) -> None:
    life.pods.look([a_pod("second", owner=uid_of(life), attempt=2)])


def no_pod(life: Life) -> None:
    life.pods.made.clear()


def a_second_success(life: Life) -> None:
    with life.store.begin() as tx:
        row = dict(tx.execute(select(job_attempts)).mappings().one())
        tx.execute(insert(job_attempts).values({**row, "number": 2}))
        tx.execute(update(jobs).values(attempt=2))


def a_strange_result(life: Life) -> None:
    with life.store.begin() as tx:
        tx.execute(update(job_outputs).values(checksum=mark(2)))


def an_open_attempt(life: Life) -> None:
    with life.store.begin() as tx:
        tx.execute(update(job_attempts).values(status="running", finished_at=None))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(another_pod, "an attempt has one Pod", id="a second Pod of an attempt"),
        pytest.param(a_pod_too_many, "a Pod has an attempt", id="a Pod of no attempt"),
        pytest.param(no_pod, "it succeeded with a Pod", id="a success without a Pod"),
        pytest.param(a_second_success, "and no other", id="two attempts that succeeded"),
        pytest.param(a_strange_result, "of its last attempt", id="a result of another attempt"),
        pytest.param(an_open_attempt, "it holds no place", id="a place that is held"),
    ],
)
def test_it_sees(store: Store, spoil: Spoil, said: str) -> None:
    life = Life(store, WELL)
    life.run()
    life.check()
    spoil(life)
    with pytest.raises(AssertionError, match=said):
        check(store, life.pods)


def test_it_sees_a_job_that_is_not_over(store: Store) -> None:
    Life(store, WELL)
    with pytest.raises(AssertionError, match="it is over"):
        check(store, Pods())


def test_it_sees_two_pods_of_one_job_that_are_alive_at_once(store: Store) -> None:
    first, second = (a_pod(f"pod-{n}", owner="job", attempt=n) for n in (1, 2))
    ended = a_pod("pod-1", owner="job", attempt=1, phase="Failed")
    pods = Pods()
    pods.look([first, a_pod("pod-3", owner="another", attempt=1)])
    pods.look([ended, second])
    check(store, pods)
    pods.look([first, second])
    with pytest.raises(AssertionError, match="two Pods of one job"):
        check(store, pods)
