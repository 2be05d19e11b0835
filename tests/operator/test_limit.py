"""
No more run in all pools together than the operator may run, and what waits for that says so.

On SQLite and on MySQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any

import pytest
from sqlalchemy import event

from encoder_core.names import resource_name
from encoder_core.retries import RetryLimits
from encoder_core.sealing import KeyRing
from encoder_core.states import JobStatus
from encoder_db.migrations import migrate
from encoder_db.rows import JobRow
from encoder_db.store import Store
from encoder_operator.cache import Cache
from encoder_operator.dispatch import BATCH, Dispatcher
from encoder_operator.limit import Limit
from encoder_operator.metrics import Metrics
from tests.db import builders as make
from tests.operator.desk import SUCCEEDED, Desk
from tests.operator.fake_api import FakeApi

POOL = "k8s"


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with Store.open(database_url, keys=KeyRing([b"k" * 32])) as store:
        migrate(store)
        yield store


FULL = "The operator runs 2 of at most 2 jobs (ENCODER_OPERATOR_MAX_RUNNING)."
READY = ("True", "Open", "Pool k8s takes jobs")


@dataclass(frozen=True)
class Look:
    """For work, as `Limit.note` hears of it."""

    in_pools: int
    _: KW_ONLY
    left: int
    taken: int = 0
    granted: int = 0


def why(store: Store, job: JobRow) -> tuple[str, str] | None:
    """What `GET /jobs/{id}` says."""
    waiting = make.read(store, job).waiting
    return None if waiting is None else (waiting.reason, waiting.message)


def end(desk: Desk, name: str) -> None:
    desk.move_pod(name, SUCCEEDED)
    desk.settle(name)


def test_it_is_told_for_as_long_as_jobs_wait_for_it(store: Store) -> None:
    desk = Desk(store, places=10, max_running=2)
    names = [desk.admitted()[1] for _ in range(2)]
    waiting = [desk.submit() for _ in range(2)]
    desk.keep_pool()
    assert desk.told_of_pool("Ready") == ("False", "OperatorFull", FULL)
    assert why(store, waiting[1]) == ("OperatorFull", FULL)

    end(desk, names[0])
    assert desk.dispatch() == 1
    names.append(resource_name(waiting[0].uuid))
    desk.settle(names[2])
    desk.keep_pool()
    assert why(store, waiting[1]) == ("OperatorFull", FULL), "what ended was followed by another"

    end(desk, names[1])
    end(desk, names[2])
    assert desk.dispatch() == 1
    desk.keep_pool()
    assert why(store, waiting[1]) is None
    assert desk.told_of_pool("Ready") == READY
    assert desk.events().count("CapacityBlocked") == 0, "it is not the cluster that has no room"


def test_it_costs_a_write_when_it_is_reached_and_wakes_nobody(store: Store) -> None:
    desk = Desk(store, places=10, max_running=2)
    desk.keep_pool()
    desk.changed.clear()
    first, _ = desk.admitted()
    desk.admitted()
    waiting = [desk.submit() for _ in range(2)]
    desk.keep_pool()
    with make.statements(store) as seen:
        for _ in range(3):
            assert desk.dispatch() == 0
            desk.keep_pool()
    assert [statement for statement in seen if not statement.startswith("SELECT")] == []
    end(desk, resource_name(first.uuid))
    desk.dispatch()
    with make.statements(store) as seen:
        desk.keep_pool()
    assert [statement for statement in seen if not statement.startswith("SELECT")] == []
    assert why(store, waiting[1]) == ("OperatorFull", FULL)
    assert desk.changed == []


def test_a_restart_with_a_lower_limit_says_how_many_still_run(store: Store) -> None:
    before = Desk(store, places=10, max_running=3)
    names = [before.admitted()[1] for _ in range(3)]
    desk = Desk(store, before.api, max_running=2)
    job = desk.submit()
    assert desk.dispatch() == 0
    desk.keep_pool()
    said = "The operator runs 3 of at most 2 jobs (ENCODER_OPERATOR_MAX_RUNNING)."
    assert why(store, job) == ("OperatorFull", said)
    end(desk, names[0])
    assert desk.dispatch() == 0
    desk.keep_pool()
    assert why(store, job) == ("OperatorFull", FULL)


def test_one_that_starts_nothing_says_so_at_its_first_look(store: Store) -> None:
    desk = Desk(store, places=10, max_running=0)
    job = desk.submit()
    desk.keep_pool()
    said = "The operator starts nothing: it may run 0 jobs (ENCODER_OPERATOR_MAX_RUNNING)."
    assert desk.told_of_pool("Ready") == ("False", "OperatorFull", said)
    assert why(store, job) == ("OperatorFull", said)
    assert desk.dispatch() == 0


def test_what_holds_the_pool_itself_is_told_first(store: Store) -> None:
    desk = Desk(store, places=1, max_running=1)
    desk.admitted()
    job = desk.submit()
    assert desk.dispatch() == 0
    desk.keep_pool()
    assert why(store, job) == ("PoolFull", "Pool k8s is full: 1 of 1 places taken.")
    assert desk.told_of_pool("Ready") == READY


@pytest.mark.parametrize(
    ("looks", "running"),
    [
        pytest.param([Look(9, left=3, taken=2, granted=2)], None, id="there was room for all"),
        pytest.param([Look(9, left=3, taken=3, granted=3)], 10, id="it is used up by what came"),
        pytest.param([Look(9, left=0)], 10, id="it was used up before"),
        pytest.param([Look(9, left=-2)], 12, id="it was lowered"),
        pytest.param([Look(3, left=3, taken=3, granted=3)], None, id="the pools are full, too"),
        pytest.param([Look(9, left=0), Look(0, left=0)], None, id="all pools were filled"),
        pytest.param(
            [Look(99, left=0), Look(99, left=20, taken=8, granted=8)], 10,
            id="many ended at once, and a batch is not enough to fill it again",
        ),
        pytest.param(
            [Look(99, left=0), Look(99, left=2, taken=2, granted=1)], 10,
            id="one was canceled between claim and grant",
        ),
        pytest.param(
            [Look(99, left=0), Look(99, left=20, taken=7, granted=7)], None,
            id="many ended at once, and nobody waits any more",
        ),
    ],
)  # fmt: skip
def test_a_limit_of_ten_is_reached_when(looks: list[Look], running: int | None) -> None:
    limit = Limit(10)
    for look in looks:
        limit.note(
            in_pools=look.in_pools,
            left=look.left,
            asked=max(0, min(look.in_pools, look.left, BATCH)),
            taken=look.taken,
            granted=look.granted,
        )
    reached = limit.reached()
    said = f"The operator runs {running} of at most 10 jobs (ENCODER_OPERATOR_MAX_RUNNING)."
    assert (reached and reached.message) == (said if running is not None else None)


def break_job(store: Store, broken: JobRow) -> None:
    """So that nobody can read it any more."""

    def read(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked = parameters.values() if isinstance(parameters, dict) else parameters
        if "FROM jobs" in statement and broken.id in asked:
            raise ValueError("what is this?")

    event.listen(store.engine, "before_cursor_execute", read)


def test_also_when_a_job_that_cannot_be_read_has_its_batch_granted_one_by_one(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    make.kubernetes_pool(store, POOL, places=10)
    first, second, broken, last = make.create_many(store, make.spec(pool=POOL), 4)

    def meanwhile() -> set[str]:
        """Another operator takes what this one has found free."""
        make.claimed(store, engine="kubernetes")
        make.claimed(store, engine="kubernetes")
        break_job(store, broken)
        return set()

    dispatcher = Dispatcher(
        store=store,
        kube=FakeApi().kube(),
        cache=Cache(),
        worker="operator",
        limits=RetryLimits(),
        poll_s=0.0,
        limit=Limit(2),
        wake=lambda _: None,
        blocked=meanwhile,
        metrics=Metrics(),
    )
    with caplog.at_level("INFO"):
        assert asyncio.run(dispatcher.round()) == 2, "the one that is broken, and the last"
    told = [record.__dict__ for record in caplog.records if record.msg == "job_not_admitted"]
    assert [(each["job"], each["why"]) for each in told] == [
        (broken.id, "unreadable"),
        (last.id, "pool_full"),
    ]
    assert [make.read(store, job).attempt for job in (first, second, last)] == [1, 1, 0]
    assert make.status(store, last) is JobStatus.QUEUED
