"""No more run in all pools together than the operator may run, on SQLite and on MySQL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event

from encoder_core.retries import RetryLimits
from encoder_core.sealing import KeyRing
from encoder_core.states import JobStatus
from encoder_db.migrations import migrate
from encoder_db.rows import JobRow
from encoder_db.store import Store
from encoder_operator.cache import Cache
from encoder_operator.dispatch import Dispatcher
from encoder_operator.metrics import Metrics
from tests.db import builders as make
from tests.operator.fake_api import FakeApi

POOL = "k8s"


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with Store.open(database_url, keys=KeyRing([b"k" * 32])) as store:
        migrate(store)
        make.kubernetes_pool(store, POOL, places=10)
        yield store


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
        max_running=2,
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
