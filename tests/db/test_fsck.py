"""Each rule of the record, broken by hand, is found, and repaired where it can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Table, delete, insert, select, update

from encoder_core.reports import LogReport
from encoder_core.states import AttemptStatus, JobStatus, OutputStatus
from encoder_db.deliveries import claim_deliveries, finish_delivery, give_up_delivery
from encoder_db.events import PARKED_UNTIL
from encoder_db.fsck import REPAIRS, fsck
from encoder_db.invariants import BY_HAND, CHECKS
from encoder_db.jobs import cancel_job
from encoder_db.purge import CHILDREN
from encoder_db.rows import JobRow
from encoder_db.store import Store
from encoder_db.tables import (
    dead_letters,
    job_attempts,
    job_blobs,
    job_events,
    job_outputs,
    job_secrets,
    jobs,
    queue_jobs,
    queue_owners,
    webhook_deliveries,
)
from tests.db import builders as make


def _change(store: Store, table: Table, job: JobRow, **values: Any) -> None:
    column = table.c.id if table is jobs else table.c.job_id
    with store.begin() as tx:
        assert tx.execute(update(table).where(column == job.id).values(values)).rowcount > 0


def _drop(store: Store, table: Table, job: JobRow) -> None:
    with store.begin() as tx:
        assert tx.execute(delete(table).where(table.c.job_id == job.id)).rowcount > 0


def _found(store: Store, *, repair: bool = False) -> list[tuple[str, bool]]:
    return [(item.rule, item.repaired) for item in fsck(store, repair=repair).findings]


# --- Jobs in each state ------------------------------------------------------------------------


def _queued(store: Store) -> JobRow:
    return make.create(store, make.spec(source=make.s3()))


def _running(store: Store) -> JobRow:
    job = _queued(store)
    make.running(store)
    return job


def _completed(store: Store) -> JobRow:
    job = _queued(store)
    make.complete(store, make.running(store))
    return job


def _failed(store: Store) -> JobRow:
    job = _queued(store)
    assert make.finish(store, make.running(store), exit_code=30) is JobStatus.FAILED
    return job


def _canceled(store: Store) -> JobRow:
    job = _queued(store)
    cancel_job(store, job.id, owner=None)
    return job


# --- Ways to break them ------------------------------------------------------------------------


def _reopen_attempt(store: Store, job: JobRow) -> None:
    _change(store, job_attempts, job, status=AttemptStatus.RUNNING, finished_at=None)


def _forget_attempt(store: Store, job: JobRow) -> None:
    _change(store, job_attempts, job, status=AttemptStatus.LOST, finished_at=job.created_at)


def _put_message_back(store: Store, job: JobRow) -> None:
    row = {"queue": "default/p1/default", "job_id": job.id, "visible_at": job.created_at}
    counts = {"deliveries": 0, "failures": 0, "lease_seq": 0, "enqueued_at": job.created_at}
    with store.begin() as tx:
        tx.execute(insert(queue_jobs).values(**row, **counts))


def _forget_queue(store: Store, job: JobRow) -> None:
    with store.begin() as tx:
        tx.execute(delete(queue_owners))


def _delete_last_event(store: Store, job: JobRow) -> None:
    latest = (job_events.c.job_id == job.id) & (job_events.c.seq == 3)
    with store.begin() as tx:
        assert tx.execute(delete(job_events).where(latest)).rowcount == 1


def _keep_credentials(store: Store, job: JobRow) -> None:
    sealed = {"purpose": "job-secrets", "sealed": b"sealed", "kek_id": b"k" * 8}
    with store.begin() as tx:
        tx.execute(insert(job_secrets).values(job_id=job.id, **sealed))


def _delete_by_half(store: Store, job: JobRow) -> None:
    _change(store, jobs, job, deleted_at=job.created_at)


def _announced(store: Store) -> JobRow:
    """A job that has told its receiver of its first two changes, and tells it of the third."""
    job = make.create(store, make.spec(notificationUrl="https://example.com/"))
    make.running(store)
    for _ in range(2):
        [delivery] = claim_deliveries(store, worker="s", limit=1, lease_s=60)
        assert finish_delivery(store, delivery, outcome="delivered", status=200)
    return job


def _drop_event_with_its_delivery(store: Store, job: JobRow) -> None:
    _drop(store, webhook_deliveries, job)
    _delete_last_event(store, job)


def _leave_a_letter(store: Store, job: JobRow) -> None:
    row = {"job_id": job.id, "queue": "default/p1/default", "deliveries": 5, "failures": 0}
    times = {"enqueued_at": job.created_at, "dead_at": job.created_at}
    with store.begin() as tx:
        tx.execute(insert(dead_letters).values(**row, **times, reason="abandoned"))


Break = Callable[[Store, JobRow], None]


def _setting(table: Table, **values: Any) -> Break:
    return lambda store, job: _change(store, table, job, **values)


WAYS: list[Any] = [
    pytest.param(_completed, _reopen_attempt, ["place"], id="a place is held after the end"),
    pytest.param(
        _running,
        _setting(jobs, attempt=0),
        ["place", "attempt_number", "owner"],
        id="an attempt is ahead of its job",
    ),
    pytest.param(
        _failed,
        _setting(job_attempts, finished_at=None),
        ["attempt_end"],
        id="an attempt ended at no time",
    ),
    pytest.param(
        _running,
        lambda store, job: _change(store, job_attempts, job, finished_at=job.created_at),
        ["attempt_end"],
        id="an attempt that runs has ended",
    ),
    pytest.param(_completed, _delete_by_half, ["deleted"], id="deleted, over and still there"),
    pytest.param(
        _completed, _put_message_back, ["pointless_message"], id="over and still in its queue"
    ),
    pytest.param(
        _queued,
        lambda store, job: _drop(store, queue_jobs, job),
        ["waiting"],
        id="queued in no queue",
    ),
    pytest.param(_running, _forget_attempt, ["owner"], id="active and run by nobody"),
    pytest.param(
        _running,
        lambda store, job: _drop(store, queue_jobs, job),
        ["lease"],
        id="run by a local worker that nobody watches",
    ),
    pytest.param(
        _queued, _setting(queue_jobs, queue="other/p0/x"), ["queue"], id="in another's queue"
    ),
    pytest.param(_queued, _forget_queue, ["queue"], id="in a queue that no claimer knows"),
    pytest.param(
        _completed,
        _setting(job_outputs, status=OutputStatus.RUNNING),
        ["completed"],
        id="completed without an output",
    ),
    pytest.param(
        _failed,
        _setting(job_outputs, status=OutputStatus.RUNNING, error=None),
        ["unfinished_output"],
        id="failed with an output that runs",
    ),
    pytest.param(
        _canceled,
        _setting(job_outputs, status=OutputStatus.PENDING),
        ["unfinished_output"],
        id="canceled with an output that waits",
    ),
    pytest.param(
        _completed, _setting(job_outputs, result=None), ["uploaded"], id="uploaded without proof"
    ),
    pytest.param(
        _failed,
        _setting(jobs, failure=None, failure_code=None),
        ["reason"],
        id="failed without a reason",
    ),
    pytest.param(
        _completed, _keep_credentials, ["credentials"], id="completed with its credentials"
    ),
    pytest.param(_canceled, _keep_credentials, ["credentials"], id="canceled with its credentials"),
    pytest.param(
        _failed,
        _setting(job_secrets, expires_at=None),
        ["credentials"],
        id="failed with credentials for ever",
    ),
    pytest.param(_running, _delete_last_event, ["events"], id="a change without its event"),
    pytest.param(_running, _setting(jobs, version=2), ["events"], id="an event without its change"),
    pytest.param(
        _announced,
        lambda store, job: _drop(store, webhook_deliveries, job),
        ["delivery"],
        id="an event that its receiver will not hear of",
    ),
    pytest.param(
        _announced,
        _drop_event_with_its_delivery,
        ["events", "delivery"],
        id="a change that its receiver will not hear of",
    ),
    pytest.param(_running, _leave_a_letter, ["dead_letter"], id="given up and running"),
    pytest.param(_completed, _leave_a_letter, ["dead_letter"], id="given up and completed"),
]


@pytest.mark.parametrize(("made", "breaks", "rules"), WAYS)
def test_what_is_broken_is_found_and_repaired(
    store: Store, made: Callable[[Store], JobRow], breaks: Break, rules: list[str]
) -> None:
    job = made(store)
    assert _found(store) == []
    breaks(store, job)
    assert _found(store) == [(rule, False) for rule in rules]
    assert _found(store) == [(rule, False) for rule in rules], "to look changes nothing"
    can_be = [(rule, rule in REPAIRS) for rule in rules]
    assert _found(store, repair=True) == can_be
    assert _found(store) == [(rule, False) for rule, repaired in can_be if not repaired]


def test_every_rule_is_broken_by_one_of_these_ways() -> None:
    assert {rule for way in WAYS for rule in way.values[2]} == {check.name for check in CHECKS}


def test_what_has_no_repair_says_so() -> None:
    assert {c.name for c in CHECKS if c.repair == BY_HAND} == {c.name for c in CHECKS} - set(
        REPAIRS
    )


@pytest.mark.parametrize(
    "breaks",
    [
        pytest.param(lambda store, job: _drop(store, queue_jobs, job), id="whose message is gone"),
        pytest.param(_forget_queue, id="whose queue nobody knows"),
        pytest.param(_setting(queue_jobs, queue="other/p0/x"), id="that is in another's queue"),
    ],
)
def test_a_repaired_job_goes_on_to_its_end(store: Store, breaks: Break) -> None:
    job = _queued(store)
    breaks(store, job)
    assert make.claim_some(store, 1) == []
    fsck(store, repair=True)
    make.complete(store, make.running(store))
    assert make.status(store, job) is JobStatus.COMPLETED


def test_a_repair_gives_the_place_back(store: Store) -> None:
    job = _completed(store)
    _reopen_attempt(store, job)
    fsck(store, repair=True)
    assert make.attempt_statuses(store, job) == ["lost"]


# --- Rows without a job ------------------------------------------------------------------------


def _with_rows_everywhere(store: Store) -> JobRow:
    job = make.create(store, make.spec(source=make.s3(), notificationUrl="https://example.com/"))
    worker = make.running(store)
    make.say(store, worker, make.progress())
    make.say(store, worker, LogReport(tail="a line", lines=1))
    _leave_a_letter(store, job)
    with store.begin() as tx:
        tx.execute(insert(job_blobs).values(job_id=job.id, number=0, chunk=0, data=b"bytes"))
    return job


@pytest.mark.parametrize("table", CHILDREN, ids=lambda table: table.name)
def test_rows_whose_job_is_gone_are_found_and_deleted(store: Store, table: Table) -> None:
    job = _with_rows_everywhere(store)
    mine = select(table).where(table.c.job_id == job.id)
    with store.read() as tx:
        rows = [dict(row) for row in tx.execute(mine).mappings()]
    with store.begin() as tx:
        for own in (*CHILDREN, webhook_deliveries):
            tx.execute(delete(own))
        tx.execute(delete(jobs))
        tx.execute(insert(table), rows)
    [finding] = fsck(store).findings
    assert (finding.rule, finding.table, finding.job_id) == ("orphan", table.name, job.id)
    assert _found(store, repair=True) == [("orphan", True)]
    assert make.count(store, table.name) == 0


def test_a_lost_delivery_is_made_good_and_what_was_told_is_not_told_again(store: Store) -> None:
    job = _announced(store)
    _drop(store, webhook_deliveries, job)
    fsck(store, repair=True)
    [delivery] = claim_deliveries(store, worker="s", limit=9, lease_s=60)
    assert (delivery.seq, delivery.event_type) == (3, "job.running")
    assert finish_delivery(store, delivery, outcome="delivered", status=200)
    assert _found(store) == []


def test_a_receiver_that_is_gone_lacks_nothing(store: Store) -> None:
    make.create(store, make.spec(notificationUrl="https://example.com/"))
    make.running(store)
    [delivery] = claim_deliveries(store, worker="s", limit=1, lease_s=60)
    assert give_up_delivery(store, delivery, outcome="gone", status=410, whole_job=True)
    assert _found(store) == []


def test_a_delivery_that_lost_its_event_is_found_and_replaced(store: Store) -> None:
    make.create(store, make.spec(notificationUrl="https://example.com/"))
    with store.begin() as tx:
        tx.execute(update(webhook_deliveries).values(event_id=999_999, event_uuid=uuid4()))
    assert _found(store, repair=True) == [
        ("delivery", True),
        ("delivery_body", True),
        ("parked", True),
    ]
    [delivery] = claim_deliveries(store, worker="s", limit=9, lease_s=60)
    assert delivery.seq == 1


def test_deliveries_that_wait_for_nothing_are_let_go(store: Store) -> None:
    make.create(store, make.spec(notificationUrl="https://example.com/"))
    make.running(store)
    with store.begin() as tx:
        tx.execute(delete(webhook_deliveries).where(webhook_deliveries.c.seq == 1))
    assert _found(store) == [("delivery", False), ("parked", False)]
    assert _found(store, repair=True) == [("delivery", True)], "the first repair did for both"
    assert [one.seq for one in claim_deliveries(store, worker="s", limit=9, lease_s=60)] == [1]


def test_deliveries_that_wait_for_one_that_was_told_are_let_go(store: Store) -> None:
    job = _announced(store)
    _change(store, webhook_deliveries, job, next_attempt_at=PARKED_UNTIL)
    assert _found(store, repair=True) == [("parked", True)]
    assert len(claim_deliveries(store, worker="s", limit=9, lease_s=60)) == 1


def test_it_pages_through_any_number_of_jobs(store: Store) -> None:
    for _ in range(5):
        make.create(store)
    with store.begin() as tx:
        tx.execute(delete(queue_jobs))
    report = fsck(store, page=2)
    assert (report.jobs, len(report.findings)) == (5, 5)
