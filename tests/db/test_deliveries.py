"""What happened to a job is sent once at a time and in order, and never lost on the way."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

from encoder_core.failures import failure
from encoder_db.deliveries import LOOK_AHEAD
from encoder_db.events import hash_host
from encoder_db.jobs import cancel_job, delete_job, retry_job
from encoder_db.outbox import (
    Delivery,
    claim_deliveries,
    events_since,
    finish_delivery,
    give_up_delivery,
    last_event_row,
    list_events,
    list_webhook_attempts,
    redeliver,
    reschedule_delivery,
)
from encoder_db.rows import JobRow
from encoder_db.store import Store
from tests.db import builders as make

HOOK = "https://user:pa55word@hooks.example.com/h?token=t0kenvalue"
LEASE_S = 60.0


def announced(store: Store, outputs: int = 1, url: str = HOOK) -> JobRow:
    return make.create(store, make.spec(outputs, notificationUrl=url))


def due(store: Store, limit: int = 10, **options: Any) -> list[Delivery]:
    return claim_deliveries(store, worker="sender", limit=limit, lease_s=LEASE_S, **options)


def one(store: Store) -> Delivery:
    (delivery,) = due(store)
    return delivery


def arrive(store: Store, delivery: Delivery) -> None:
    assert finish_delivery(store, delivery, outcome="delivered", status=200, duration_ms=5)


def fail(store: Store, delivery: Delivery, delay_s: float = 100.0) -> None:
    assert reschedule_delivery(
        store, delivery, delay_s=delay_s, outcome="server_error", status=500, snippet=b"x" * 2000
    )


def sent(store: Store, job: JobRow) -> list[tuple[str, str]]:
    with store.read() as tx:
        found = list_webhook_attempts(tx, job.id)
    return [(item.event_type, item.outcome) for item in reversed(found)]


def test_an_event_is_delivered_with_its_body_to_the_whole_address(store: Store) -> None:
    job = announced(store)
    delivery = one(store)
    assert (delivery.url, delivery.seq, delivery.attempts) == (HOOK, 1, 0)
    body = json.loads(delivery.body)
    assert list(body) == ["type", "id", "timestamp", "sequence", "data"]
    assert (body["type"], body["id"]) == ("job.queued", str(delivery.event_uuid))
    assert body["data"] == make.read(store, job).to_json() | {"waiting": None}  # said when asked
    assert "pa55word" not in delivery.body.decode()
    arrive(store, delivery)
    assert due(store) == []
    assert sent(store, job) == [("job.queued", "delivered")]


def test_a_job_without_a_notification_url_has_events_and_no_deliveries(store: Store) -> None:
    job = make.create(store)
    assert make.events(store, job) == [(1, "job.queued")]
    assert due(store) == []


def test_events_of_a_job_are_sent_one_after_another(store: Store) -> None:
    announced(store)
    make.complete(store, make.running(store))
    order = []
    while deliveries := due(store):
        (delivery,) = deliveries
        order.append((delivery.seq, delivery.event_type))
        arrive(store, delivery)
    assert order == [
        (1, "job.queued"),
        (2, "job.starting"),
        (3, "job.running"),
        (4, "output.uploaded"),
        (5, "job.completed"),
    ]


def test_jobs_do_not_wait_for_one_another(store: Store) -> None:
    jobs = [announced(store) for _ in range(3)]
    assert [item.job_id for item in due(store)] == [job.id for job in jobs]


def test_a_failed_delivery_is_sent_again_after_its_delay_with_the_same_bytes(
    store: Store,
) -> None:
    job = announced(store)
    first = one(store)
    fail(store, first)
    assert due(store) == []
    make.let_pass(store, 101)
    second = one(store)
    assert (second.event_uuid, second.body) == (first.event_uuid, first.body)
    assert (first.attempts, second.attempts) == (0, 1)
    assert (first.first_attempt_at, second.first_attempt_at is None) == (None, False)
    with store.read() as tx:
        (logged,) = list_webhook_attempts(tx, job.id)
    assert (logged.attempt, logged.status, len(logged.snippet or b"")) == (1, 500, 1024)
    assert logged.next_attempt_at is not None


def test_a_delivery_of_a_dead_sender_is_due_again(store: Store) -> None:
    announced(store)
    dead = one(store)
    make.let_pass(store, LEASE_S + 1)
    heir = one(store)
    assert (heir.id, heir.lease_seq) == (dead.id, dead.lease_seq + 1)
    assert not finish_delivery(store, dead, outcome="delivered")
    assert not reschedule_delivery(store, dead, delay_s=1, outcome="timeout")
    assert not give_up_delivery(store, dead, outcome="gone")
    arrive(store, heir)


def test_a_final_event_takes_the_place_of_those_that_failed(store: Store) -> None:
    job = announced(store)
    fail(store, one(store))
    cancel_job(store, job.id, owner=None)
    delivery = one(store)
    assert delivery.event_type == "job.canceled"
    assert sent(store, job) == [("job.queued", "server_error"), ("job.queued", "superseded")]


def test_what_waited_behind_a_delivery_that_a_final_event_drops_is_due(store: Store) -> None:
    job = announced(store)
    fail(store, one(store))
    worker = make.running(store)
    cancel_job(store, job.id, owner=None)
    make.finish(store, worker, exit_code=61)
    for kind in ("job.starting", "job.running", "job.canceling", "job.canceled"):
        delivery = one(store)
        assert delivery.event_type == kind
        arrive(store, delivery)


def test_what_has_not_failed_yet_is_sent_before_the_final_event(store: Store) -> None:
    job = announced(store)
    cancel_job(store, job.id, owner=None)
    first = one(store)
    assert first.event_type == "job.queued"
    arrive(store, first)
    assert one(store).event_type == "job.canceled"


def test_what_fails_while_a_final_event_waits_is_not_tried_again(store: Store) -> None:
    job = announced(store)
    worker = make.running(store)
    first = one(store)
    cancel_job(store, job.id, owner=None)
    make.finish(store, worker, exit_code=61)
    fail(store, first)
    for kind in ("job.starting", "job.running", "job.canceling"):
        delivery = one(store)
        assert delivery.event_type == kind
        fail(store, delivery)
    assert one(store).event_type == "job.canceled"


def test_a_delivery_under_way_is_not_superseded(store: Store) -> None:
    job = announced(store)
    fail(store, one(store), delay_s=0)
    under_way = one(store)
    cancel_job(store, job.id, owner=None)
    assert due(store) == []
    arrive(store, under_way)
    assert one(store).event_type == "job.canceled"


def test_giving_up_lets_the_next_event_go(store: Store) -> None:
    job = announced(store)
    cancel_job(store, job.id, owner=None)
    assert give_up_delivery(store, one(store), outcome="server_error", status=500)
    assert one(store).event_type == "job.canceled"


def test_a_receiver_that_is_gone_hears_no_more_of_the_job(store: Store) -> None:
    job = announced(store)
    make.running(store)
    assert give_up_delivery(store, one(store), outcome="gone", status=410, whole_job=True)
    cancel_job(store, job.id, owner=None)
    assert due(store) == []
    assert make.events(store, job)[-1] == (4, "job.canceling")


def test_hosts_that_have_enough_to_do_are_passed_over(store: Store) -> None:
    slow = announced(store, url="https://slow.example.com/a")
    announced(store, url="https://slow.example.com/b")
    quick = announced(store, url="https://quick.example.com/")
    (first,) = due(store, limit=1)
    assert first.job_id == slow.id
    assert [item.job_id for item in due(store, skip_hosts=[first.host_hash])] == [quick.id]


def test_however_much_waits_for_them_the_others_are_found_those_that_wait_longest_first(
    store: Store,
) -> None:
    full = make.create_many(
        store, make.spec(notificationUrl="https://full.example.com/"), LOOK_AHEAD + 1
    )
    longest, shorter = (
        [announced(store, url=f"https://{name}.example.com/").id for _ in range(3)]
        for name in ("longest", "shorter")
    )
    (first,) = due(store, limit=1)
    assert first.job_id == full[0].id
    others = due(store, limit=5, skip_hosts=[first.host_hash], most_of=lambda host: 4)
    assert [item.job_id for item in others] == [*longest, *shorter[:2]]
    others = due(store, skip_hosts=[first.host_hash])
    assert [item.job_id for item in others] == shorter[2:]
    assert due(store, skip_hosts=[first.host_hash]) == []


def test_others_are_found_behind_many_hosts_of_which_nothing_is_wanted(store: Store) -> None:
    for number in range(LOOK_AHEAD + 1):
        announced(store, url=f"https://new-{number}.example.com/")
    known = announced(store, url="https://known.example.com/")
    wanted = hash_host("https://known.example.com/")
    found = due(store, limit=1, most_of=lambda host: int(host == wanted))
    assert [item.job_id for item in found] == [known.id]


def test_of_one_host_no_more_is_claimed_than_there_is_room_for(store: Store) -> None:
    jobs = [announced(store) for _ in range(3)]
    quick = announced(store, url="https://quick.example.com/")
    first = due(store, most_of=lambda host: 1)
    assert [item.job_id for item in first] == [jobs[0].id, quick.id]
    rest = due(store)
    assert [item.job_id for item in rest] == [jobs[1].id, jobs[2].id], "left where they were"
    assert {item.attempts for item in rest} == {0}


# --- After the job ---------------------------------------------------------------------------


def test_what_was_to_be_announced_outlives_the_job(store: Store) -> None:
    job = announced(store)
    make.complete(store, make.running(store))
    told = [event.to_json() for event in _events(store, job)]
    assert delete_job(store, job.id, owner=None)
    assert make.count(store, "job_events") == 0
    bodies = []
    while deliveries := due(store):
        bodies.append(json.loads(deliveries[0].body))
        assert deliveries[0].url == HOOK
        arrive(store, deliveries[0])
    assert [body["sequence"] for body in bodies] == [item["sequence"] for item in told]
    assert bodies[-1]["data"] == told[-1]["data"]


def test_deleting_a_running_job_announces_its_end(store: Store) -> None:
    job = announced(store)
    worker = make.running(store)
    delete_job(store, job.id, owner=None)
    make.finish(store, worker, exit_code=61)
    kinds = []
    while deliveries := due(store):
        kinds.append(deliveries[0].event_type)
        arrive(store, deliveries[0])
    assert kinds[-2:] == ["job.canceling", "job.canceled"]


# --- Sending again ---------------------------------------------------------------------------


def test_an_event_can_be_sent_again_with_the_same_id_and_one_attempt(store: Store) -> None:
    job = announced(store)
    first = one(store)
    arrive(store, first)
    assert redeliver(store, job.id, first.event_uuid)
    again = one(store)
    assert (again.event_uuid, again.body) == (first.event_uuid, first.body)
    assert again.trigger_kind == "manual"
    fail(store, again)
    assert make.count(store, "webhook_deliveries") == 0
    with store.read() as tx:
        assert [item.trigger_kind for item in list_webhook_attempts(tx, job.id)] == [
            *("manual", "auto")
        ]


def test_a_manual_delivery_neither_waits_nor_makes_others_wait(store: Store) -> None:
    job = announced(store)
    first = one(store)
    arrive(store, first)
    redeliver(store, job.id, first.event_uuid)
    cancel_job(store, job.id, owner=None)
    assert sorted(item.event_type for item in due(store)) == ["job.canceled", "job.queued"]


def test_a_pending_event_is_brought_forward(store: Store) -> None:
    job = announced(store)
    first = one(store)
    fail(store, first)
    assert redeliver(store, job.id, first.event_uuid)
    assert one(store).attempts == 1


def test_only_events_of_the_owners_own_job_are_sent_again(store: Store) -> None:
    job = announced(store)
    delivery = one(store)
    arrive(store, delivery)
    other = announced(store)
    assert not redeliver(store, job.id, uuid4())
    assert not redeliver(store, other.id, delivery.event_uuid)
    assert not redeliver(store, job.id, delivery.event_uuid, owner="somebody-else")


def test_the_next_life_of_a_job_is_announced_too(store: Store) -> None:
    job = announced(store)
    make.finish(store, make.running(store), failure=failure("source_not_found"))
    retry_job(store, job.id, owner=None)
    kinds = []
    while deliveries := due(store):
        kinds.append(deliveries[0].event_type)
        arrive(store, deliveries[0])
    assert kinds[-2:] == ["job.failed", "job.queued"]


# --- Events as a stream ----------------------------------------------------------------------


def _events(store: Store, job: JobRow) -> list[Any]:
    with store.read() as tx:
        return list(list_events(tx, job.id))


def test_events_are_read_from_where_one_stopped(store: Store) -> None:
    job = make.create(store)
    make.running(store)
    with store.read() as tx:
        assert [item.sequence for item in list_events(tx, job.id, after=1)] == [2, 3]
        assert [item.sequence for item in list_events(tx, job.id, after=1, limit=1)] == [2]


def test_a_stream_of_all_jobs_says_whose_each_event_is(store: Store) -> None:
    make.create(store, owner="alice")
    with store.read() as tx:
        begin = last_event_row(tx)
    bobs = make.create(store, owner="bob")
    with store.read() as tx:
        (seen,) = events_since(tx, begin)
        assert events_since(tx, seen.row_id) == []
    assert (seen.owner, seen.job_id, seen.document.type) == ("bob", bobs.id, "job.queued")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_stream_of_an_empty_record_begins_at_its_beginning(store: Store) -> None:
    with store.read() as tx:
        assert last_event_row(tx) == 0
