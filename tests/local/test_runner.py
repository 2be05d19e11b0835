"""The local runner keeps every promise while the database goes away and workers misbehave.

The database is a real SQLite file whose statements fail when told to; workers are real processes
with a source that does not exist, so that each ends within a second.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import DataError, DBAPIError, OperationalError

from encoder_core.reports import WorkOrder
from encoder_core.sealing import KeyRing
from encoder_core.states import JobStatus
from encoder_db.intake import create_job
from encoder_db.joblogs import read_log
from encoder_db.migrations import migrate
from encoder_db.pools import set_pool
from encoder_db.rows import JobRow
from encoder_db.settings import QueueSettings
from encoder_db.store import Store
from encoder_local.child import Child
from encoder_local.order import OrderContext
from encoder_local.runner import LocalRunner
from encoder_local.scratch import Scratch
from tests.db import builders as make

J = JobStatus
PATIENCE_S = 30.0
WORKER = "local-test"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/encoder.db", keys=KeyRing([b"k" * 32])) as store:
        migrate(store)
        yield store


class Faults:
    """Makes statements fail: those that contain a text, so many times."""

    def __init__(self, store: Store) -> None:
        self._left: dict[str, tuple[int, type[DBAPIError]]] = {}
        for engine in (store.engine, store.reads):
            event.listen(engine, "before_cursor_execute", self._strike)

    def add(self, text: str, *, times: int, error: type[DBAPIError] = OperationalError) -> None:
        self._left[text] = (times, error)

    def to_come(self) -> list[str]:
        """Those that have not happened as often as they should."""
        return [text for text, (times, _) in self._left.items() if times]

    def _strike(self, _: Any, __: Any, statement: str, *rest: Any) -> None:
        for text, (times, error) in self._left.items():
            if text in statement and times:
                self._left[text] = (times - 1, error)
                raise error(statement, None, Exception("made to fail"))


@contextmanager
def running(
    store: Store,
    folder: Path,
    *,
    spawn: Callable[[WorkOrder], Child] = Child,
    poll_ms: int = 100,
) -> Iterator[LocalRunner]:
    runner = LocalRunner(
        store,
        worker=WORKER,
        capacity=1,
        settings=QueueSettings(poll_interval_ms=poll_ms, visibility_timeout_ms=60_000),
        scratch=Scratch(folder / "scratch"),
        context=OrderContext(files_root=folder),
        jitter=lambda: 0.0,
        spawn=spawn,
    )
    stop = threading.Event()
    thread = threading.Thread(target=runner.run, args=(stop,))
    thread.start()
    yield runner
    stop.set()
    runner.wake()
    thread.join(timeout=PATIENCE_S)
    assert not thread.is_alive()


def wait_for(store: Store, job: JobRow, status: JobStatus) -> None:
    """The record tells nobody who waits for it: it is asked again."""
    asked_again = threading.Event()
    for _ in range(int(PATIENCE_S / 0.05)):
        if make.status(store, job) is status:
            return
        asked_again.wait(0.05)
    raise AssertionError(make.read(store, job))


@pytest.mark.parametrize(
    ("statement", "times"),
    [
        pytest.param("INSERT INTO job_attempts", 1, id="as the attempt is opened"),
        pytest.param("FROM job_secrets", 1, id="as the order is read"),
        pytest.param("SET worker=", 1, id="as the attempt is taken up again"),
        pytest.param("SET final_report", 2, id="as the worker says its last word"),
        pytest.param("SET status=?, exit_code", 2, id="as the attempt is ended"),
    ],
)
def test_a_job_goes_on_when_the_database_was_away(
    store: Store, tmp_path: Path, statement: str, times: int
) -> None:
    faults = Faults(store)
    faults.add(statement, times=times)
    faults.add("FROM job_secrets", times=1)  # so that the attempt is opened twice
    job = make.create(store)
    with running(store, tmp_path):
        wait_for(store, job, J.FAILED)
    assert faults.to_come() == []
    [attempt] = make.read(store, job).attempts
    assert attempt.failure is not None
    assert attempt.failure.code == "source_not_found"


def test_a_report_that_the_database_refuses_ends_its_attempt_and_no_other(
    store: Store, tmp_path: Path
) -> None:
    faults = Faults(store)
    faults.add("SET final_report", times=1, error=DataError)
    refused, another = make.create(store), make.create(store)
    with running(store, tmp_path):
        wait_for(store, another, J.FAILED)
    assert faults.to_come() == []
    first = make.read(store, refused).attempts[0]
    assert first.failure is not None
    assert first.failure.code == "worker_failed"


def test_a_worker_that_cannot_be_started_is_tried_again(store: Store, tmp_path: Path) -> None:
    def fail_once(order: WorkOrder) -> Child:
        if order.attempt == 1:
            raise OSError("no more processes")
        return Child(order)

    job = make.create(store)
    with running(store, tmp_path, spawn=fail_once):
        wait_for(store, job, J.QUEUED)
        make.let_pass(store, 60)
        wait_for(store, job, J.FAILED)
    codes = [a.failure.code for a in make.read(store, job).attempts if a.failure is not None]
    assert codes == ["worker_failed", "source_not_found"]


def test_a_predecessor_that_was_killed_holds_no_place(store: Store, tmp_path: Path) -> None:
    job = make.create(store)
    make.running(store, worker=WORKER)
    store.run(lambda tx: set_pool(tx, "default", max_concurrency=1))
    with running(store, tmp_path):
        wait_for(store, job, J.FAILED)
    assert make.attempt_statuses(store, job) == ["lost", "failed"]


def test_a_seldom_polled_queue_is_looked_at_when_somebody_knows(
    store: Store, tmp_path: Path
) -> None:
    first = make.create(store)
    with running(store, tmp_path, poll_ms=600_000) as runner:
        wait_for(store, first, J.FAILED)
        job = make.create(store)
        runner.wake()
        wait_for(store, job, J.FAILED)


def test_the_request_behind_a_job_is_in_every_line_of_its_worker(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="encoder.local")
    job = store.run(
        lambda tx: create_job(
            tx, spec=make.spec(), owner="default", keys=store.keys, request_id="r-1"
        )
    )
    with running(store, tmp_path):
        wait_for(store, job, J.FAILED)
    lines = [record for record in caplog.records if getattr(record, "job", None) == job.id]
    assert {getattr(record, "request", None) for record in lines} == {"r-1"}
    events = [record.getMessage() for record in lines]
    assert {"attempt_started", "worker_says", "worker_ended", "attempt_finished"} <= set(events)
    with store.read() as tx:
        log = read_log(tx, job.id, limit=1)
    assert log is not None
    assert "attempt_ended" in log.lines[0]
