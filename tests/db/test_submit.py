"""Jobs that arrive together are written together, and each is answered for itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from encoder_core.errors import InvalidRequest, Refused
from encoder_core.specs import JobSpec
from encoder_db.blobs import decode_inline
from encoder_db.idempotency import Idempotency, Replayed
from encoder_db.intake import Submission, create_jobs
from encoder_db.jobs import read_job
from encoder_db.rows import JobRow
from encoder_db.store import Store
from encoder_db.submit import Intake
from tests.db import builders as make

Submit = Callable[[Submission], "Future[JobRow]"]


def asked(spec: JobSpec | None = None, *, key: str | None = None) -> Submission:
    """As the API asks."""
    idempotency = None if key is None else Idempotency(key=key, fingerprints=(b"f" * 32,))
    spec = spec or make.spec()
    inline = decode_inline(spec)
    return Submission(spec=spec, owner="default", inline=inline, idempotency=idempotency)


def with_webhook() -> Submission:
    return asked(make.spec(source=make.s3(), notificationUrl="https://example.com/hook"))


def wait_for(intake: Intake, count: int) -> None:
    never = threading.Event()
    for _ in range(6000):
        if intake.waiting == count:
            return
        never.wait(0.01)
    raise AssertionError(f"{intake.waiting} wait, not {count}")


@contextmanager
def while_one_is_written(store: Store, intake: Intake) -> Iterator[tuple[Submit, list[None]]]:
    """
    A job is being written for as long as the block; what is submitted in it waits.

    Yields how to submit, and one entry for each transaction.
    """
    began, go_on = threading.Event(), threading.Event()
    transactions: list[None] = []

    def hold_the_first(_: object) -> None:
        transactions.append(None)
        began.set()
        assert go_on.wait(60)

    event.listen(store.engine, "begin", hold_the_first)
    first = intake.submit(asked())
    try:
        assert began.wait(60)
        yield intake.submit, transactions
    finally:
        go_on.set()
    first.result(60)


def test_what_arrives_while_one_is_written_shares_the_next_transaction(store: Store) -> None:
    make.create(store)  # the first one of all makes the owner's queue, and the connection
    intake = Intake(store)
    with while_one_is_written(store, intake) as (submit, transactions):
        answers = [submit(with_webhook()) for _ in range(20)]
        wait_for(intake, 20)
    written = [answer.result(60) for answer in answers]
    assert len(transactions) == 2
    assert len({job.id for job in written}) == 20
    for job in written:
        with store.read() as tx:
            document = read_job(tx, job.id, owner=None)
        assert document is not None
        assert document.uuid == job.uuid
        assert [one.index for one in document.outputs] == [0]
        assert make.events(store, job) == [(1, "job.queued")]


def test_one_that_is_refused_fails_no_other(store: Store) -> None:
    make.create(store, make.spec(externalId="taken"))
    make.create(store)
    intake = Intake(store)
    with while_one_is_written(store, intake) as (submit, _):
        good = submit(asked())
        nowhere = submit(asked(make.spec(pool="nowhere")))
        taken = submit(asked(make.spec(externalId="taken")))
        wait_for(intake, 3)
    assert good.result(60).id
    with pytest.raises(InvalidRequest, match="no such pool"):
        nowhere.result(60)
    with pytest.raises(Refused, match="has this externalId already"):
        taken.result(60)


def test_one_that_is_a_mistake_of_ours_fails_no_other(store: Store) -> None:
    make.create(store)
    intake = Intake(store)
    half_a_pair = make.spec().model_copy(update={"external_id": "\ud83c"})  # no driver writes it
    with while_one_is_written(store, intake) as (submit, _):
        good = submit(asked())
        bad = submit(asked(half_a_pair))
        late = submit(asked())
        wait_for(intake, 3)
    assert isinstance(bad.exception(60), UnicodeEncodeError)
    assert good.result(60).id
    assert late.result(60).id
    assert make.count(store, "jobs") == 4


def test_a_database_that_is_away_is_asked_once_for_all(store: Store) -> None:
    make.create(store)
    intake = Intake(store)
    with while_one_is_written(store, intake) as (submit, transactions):
        answers = [submit(asked()) for _ in range(3)]
        wait_for(intake, 3)

        @event.listens_for(store.engine, "before_cursor_execute")
        def _go_away_after_the_first(*_: object) -> None:
            if len(transactions) > 1:
                raise OperationalError("SELECT 1", {}, Exception("gone"))

    assert {type(answer.exception(60)) for answer in answers} == {OperationalError}
    assert len(transactions) == 2


def test_two_with_the_same_idempotency_key_make_one_job(store: Store) -> None:
    make.create(store)
    intake = Intake(store)
    with while_one_is_written(store, intake) as (submit, _):
        twins = [submit(asked(key="key")) for _ in range(2)]
        wait_for(intake, 2)
    errors = [twin.exception(60) for twin in twins]
    (job,) = [twin.result() for twin in twins if twin.exception() is None]
    (replayed,) = [error for error in errors if error is not None]
    assert isinstance(replayed, Replayed)
    assert replayed.response["id"] == job.id
    assert make.count(store, "jobs") == 3


def test_who_gives_up_before_its_turn_is_not_written_and_fails_no_other(store: Store) -> None:
    make.create(store)
    intake = Intake(store)
    with while_one_is_written(store, intake) as (submit, _):
        given_up, other = submit(asked()), submit(asked())
        wait_for(intake, 2)
        assert given_up.cancel()
    assert other.result(60).id
    assert make.count(store, "jobs") == 3


def test_many_jobs_take_as_many_statements_as_two(store: Store) -> None:
    make.create(store)

    def statements(count: int) -> int:
        batch = [with_webhook() for _ in range(count)]
        with make.statements(store) as seen:
            store.run(lambda tx: create_jobs(tx, batch, keys=store.keys))
        return len(seen)

    # Of several, the numbers of jobs, outputs and events are read back; of one, its output's.
    assert (statements(1), statements(2), statements(30)) == (8, 10, 10)
