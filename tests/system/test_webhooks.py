"""From a change in the record to a receiver: signed, in order, at least once."""

from __future__ import annotations

import gzip
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trustme
from pydantic import SecretStr
from sqlalchemy import Connection, select, update
from sqlalchemy.exc import OperationalError

from encoder_api.webhooks.client import SNIPPET_BYTES
from encoder_api.webhooks.sender import BATCH, Sender
from encoder_api.webhooks.settings import WebhookSettings
from encoder_core.egress import Dialler
from encoder_core.reports import (
    Envelope,
    FinalReport,
    Outcome,
    OutputFile,
    OutputReport,
    OutputResult,
    Report,
    Started,
)
from encoder_core.retries import RetryLimits
from encoder_core.sealing import KeyRing
from encoder_core.specs import JobSpec
from encoder_core.states import OutputStatus
from encoder_db import migrations, outbox, queue
from encoder_db.attempts import Claimed, mark_starting, open_attempt
from encoder_db.dialect import db_now
from encoder_db.events import PARKED_UNTIL
from encoder_db.intake import create_job
from encoder_db.jobs import cancel_job
from encoder_db.outbox import WebhookAttempt
from encoder_db.outcomes import finish_attempt
from encoder_db.reports import apply_report
from encoder_db.rows import JobRow
from encoder_db.store import Store
from encoder_db.tables import webhook_deliveries
from tests.servers.tls import UNACCEPTABLE, bad_server
from tests.servers.webhooks import MISBEHAVIOUR, SECRET, Answer, WebhookReceiver

KEYS = KeyRing([bytes(range(32))])
LOOPBACK = Dialler(["127.0.0.0/8"])
QUICK = WebhookSettings(timeout_s=0.5)
LONGEST = WebhookSettings(timeout_s=60)


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with Store.open(database_url, keys=KEYS, webhook_secret=SECRET) as store:
        migrations.migrate(store)
        yield store


@contextmanager
def sending(
    store: Store,
    *,
    settings: WebhookSettings = QUICK,
    dialler: Dialler = LOOPBACK,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Sender]:
    sender = Sender(store, dialler=dialler, settings=settings, tls=tls)
    stop = threading.Event()
    thread = threading.Thread(target=sender.run, args=(stop,))
    thread.start()
    try:
        yield sender
    finally:
        stop.set()
        sender.wake()
        thread.join(30)
        assert not thread.is_alive()


def submit(store: Store, url: str, **changes: Any) -> JobRow:
    spec = JobSpec.model_validate(
        {
            "source": {"kind": "https", "url": "https://example.com/in.mp4"},
            "outputs": [{"destination": {"kind": "https", "url": "https://example.com/out"}}],
            "notificationUrl": url,
            **changes,
        }
    )
    return store.run(lambda tx: create_job(tx, spec=spec, owner="default", keys=KEYS))


def run_to_the_end(store: Store) -> None:
    """Play a worker that does the next job."""
    [message] = queue.claim(store, engine="local", worker="test", limit=1, lease_s=600)
    claimed = open_attempt(store, message, executor="local", worker="test")
    assert isinstance(claimed, Claimed)
    mark_starting(store, claimed)
    file = OutputFile(url="https://x/y", size_bytes=1, sha256="0" * 64, content_type="video/mp4")
    uploaded = OutputReport(
        index=0,
        status=OutputStatus.UPLOADED,
        result=OutputResult(files=[file], size_bytes=1),
    )
    told: list[Report] = [Started(), uploaded, FinalReport(outcome=Outcome.SUCCEEDED)]
    for report in told:
        token = SecretStr(claimed.token)
        apply_report(
            store,
            Envelope(
                job_uuid=claimed.job.uuid, attempt=claimed.attempt, token=token, report=report
            ),
        )
    finish_attempt(
        store, claimed.job.id, claimed.attempt, exit_code=0, limits=RetryLimits(), jitter=0.0
    )


def attempts_of(store: Store, job: JobRow) -> list[WebhookAttempt]:
    """The log of a job's webhooks, the earliest first."""
    with store.read() as tx:
        return outbox.list_webhook_attempts(tx, job.id)[::-1]


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 20) -> None:
    """For what only the database knows of: there is nothing to be woken by."""
    ends, paused = time.monotonic() + timeout_s, threading.Event()
    while not condition():
        assert time.monotonic() < ends, f"not within {timeout_s} s"
        paused.wait(0.02)


def logged(store: Store, job: JobRow, count: int) -> list[WebhookAttempt]:
    wait_until(lambda: len(attempts_of(store, job)) >= count)
    return attempts_of(store, job)


def hours_pass(store: Store) -> None:
    """Whatever waits for a later attempt, or for a lease to lapse, is due now."""

    def work(tx: Connection) -> None:
        waiting = webhook_deliveries.c.next_attempt_at != PARKED_UNTIL
        tx.execute(update(webhook_deliveries).where(waiting).values(next_attempt_at=db_now()))

    store.run(work)


def pending(store: Store) -> int:
    with store.read() as tx:
        return len(tx.execute(select(webhook_deliveries.c.id)).all())


def types(deliveries: Any) -> list[str]:
    return [delivery.body["type"] for delivery in deliveries]


WHOLE_LIFE = ["job.queued", "job.starting", "job.running", "output.uploaded", "job.completed"]


def test_every_change_arrives_signed_and_in_order(
    store: Store, webhook_receiver: WebhookReceiver
) -> None:
    job = submit(store, f"{webhook_receiver.url}/hook", metadata={"name": "Übung 🎬"})
    with sending(store):
        run_to_the_end(store)
        arrived = webhook_receiver.wait_for(5)
        wait_until(lambda: pending(store) == 0)
    assert types(arrived) == WHOLE_LIFE
    assert [delivery.refused for delivery in arrived] == [""] * 5
    assert [delivery.body["sequence"] for delivery in arrived] == [1, 2, 3, 4, 5]
    assert [delivery.id for delivery in arrived] == [delivery.body["id"] for delivery in arrived]
    assert len({delivery.id for delivery in arrived}) == 5
    last = arrived[-1]
    assert last.headers["content-type"] == "application/json"
    assert last.headers["webhook-attempt"] == "1"
    assert last.headers["user-agent"].startswith("encoder/")
    assert last.body["data"]["uuid"] == str(job.uuid)
    assert last.body["data"]["metadata"] == {"name": "Übung 🎬"}
    assert last.body["data"]["status"] == "completed"
    assert [one.outcome for one in attempts_of(store, job)] == ["delivered"] * 5


def test_the_headers_are_those_that_the_page_shows(
    store: Store, webhook_receiver: WebhookReceiver
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    shown = re.search(r"```\nPOST [^\n]*\n(.*?)```", page, re.DOTALL)
    assert shown is not None
    submit(store, f"{webhook_receiver.url}/hook")
    with sending(store):
        [arrived] = webhook_receiver.wait_for(1)
    names = {line.partition(":")[0] for line in shown[1].splitlines()}
    assert names == set(arrived.headers) - {"host", "connection", "content-length"}


@pytest.mark.parametrize(
    ("answer", "outcome", "status"),
    [
        pytest.param(
            Answer(status=301, headers={"Location": "/"}), "redirect_refused", 301, id="a redirect"
        ),
        pytest.param(Answer(status=400), "client_error", 400, id="400"),
        pytest.param(Answer(status=500), "server_error", 500, id="500"),
        pytest.param(Answer(hang=True), "timeout", None, id="hangs"),
    ],
)
def test_what_is_not_accepted_comes_again_under_the_same_id(
    answer: Answer,
    outcome: str,
    status: int | None,
    store: Store,
    webhook_receiver: WebhookReceiver,
) -> None:
    job = submit(store, webhook_receiver.answer("/hook", answer))
    with sending(store):
        [first] = logged(store, job, 1)
        assert (first.outcome, first.status) == (outcome, status)
        assert first.next_attempt_at is not None
        pause = (first.next_attempt_at - first.started_at).total_seconds()
        assert 4 <= pause - first.duration_ms / 1000 <= 6.1
        hours_pass(store)
        once, again = webhook_receiver.wait_for(2)
        assert logged(store, job, 2)[1].outcome == "delivered"
    assert once.id == again.id
    assert once.raw == again.raw
    assert again.headers["webhook-attempt"] == "2"


def test_retry_after_stretches_the_pause(store: Store, webhook_receiver: WebhookReceiver) -> None:
    answer = Answer(status=429, headers={"Retry-After": "8"})
    job = submit(store, webhook_receiver.answer("/hook", answer))
    with sending(store):
        [first] = logged(store, job, 1)
    assert first.next_attempt_at is not None
    pause = (first.next_attempt_at - first.started_at).total_seconds()
    assert 7.9 <= pause - first.duration_ms / 1000 <= 8.1


@pytest.mark.parametrize(
    ("asked", "longest_s"),
    [
        pytest.param("99999999999999999999", 10.2, id="more seconds than a date has room for"),
        pytest.param("Sun, 01 Mar 99999999999999999999 12:00:00 GMT", 6.2, id="a year beyond all"),
        pytest.param("\u00b2", 6.2, id="a digit that is no number"),
    ],
)
def test_a_retry_after_that_makes_no_sense_does_not_keep_the_attempt_from_being_recorded(
    store: Store, webhook_receiver: WebhookReceiver, asked: str, longest_s: float
) -> None:
    answer = Answer(status=429, headers={"Retry-After": asked})
    job = submit(store, webhook_receiver.answer("/hook", answer))
    with sending(store):
        [first] = logged(store, job, 1)
    assert (first.outcome, first.status) == ("client_error", 429)
    assert first.next_attempt_at is not None
    pause = (first.next_attempt_at - first.started_at).total_seconds()
    assert 4 <= pause - first.duration_ms / 1000 <= longest_s


def test_later_events_of_a_job_wait_for_an_earlier_one(
    store: Store, webhook_receiver: WebhookReceiver
) -> None:
    job = submit(store, webhook_receiver.answer("/hook", Answer(status=500)))
    with sending(store):
        logged(store, job, 1)
        other = submit(store, f"{webhook_receiver.url}/other")
        logged(store, other, 1)
        [message] = queue.claim(store, engine="local", worker="test", limit=1, lease_s=600)
        claimed = open_attempt(store, message, executor="local", worker="test")
        assert isinstance(claimed, Claimed)
        mark_starting(store, claimed)
        hours_pass(store)
        arrived = webhook_receiver.wait_for(4)
    hooks = [delivery for delivery in arrived if delivery.path == "/hook"]
    assert types(hooks) == ["job.queued", "job.queued", "job.starting"]


def test_the_end_of_a_job_goes_before_what_failed_earlier(
    store: Store, webhook_receiver: WebhookReceiver
) -> None:
    job = submit(store, webhook_receiver.answer("/hook", Answer(status=503)))
    with sending(store):
        logged(store, job, 1)
        cancel_job(store, job.id, owner="default")
        arrived = webhook_receiver.wait_for(2)
        wait_until(lambda: pending(store) == 0)
    assert types(arrived) == ["job.queued", "job.canceled"]
    outcomes = [one.outcome for one in attempts_of(store, job)]
    assert outcomes == ["server_error", "superseded", "delivered"]


def test_a_receiver_that_is_gone_hears_no_more_of_the_job(
    store: Store, webhook_receiver: WebhookReceiver
) -> None:
    job = submit(store, webhook_receiver.answer("/hook", Answer(status=410)))
    with sending(store):
        logged(store, job, 1)
        cancel_job(store, job.id, owner="default")
        wait_until(lambda: pending(store) == 0)
    assert types(webhook_receiver.deliveries) == ["job.queued"]
    assert [one.outcome for one in attempts_of(store, job)] == ["gone"]


def test_after_ten_attempts_it_is_given_up(store: Store, webhook_receiver: WebhookReceiver) -> None:
    url = webhook_receiver.answer("/hook", *[Answer(status=404)] * 10)
    job = submit(store, url)
    with sending(store):
        for count in range(1, 11):
            log = logged(store, job, count)
            hours_pass(store)
        wait_until(lambda: pending(store) == 0)
    assert [one.attempt for one in log] == list(range(1, 11))
    assert log[-1].next_attempt_at is None
    assert len(webhook_receiver.deliveries) == 10


def test_what_was_given_up_can_be_sent_again_by_hand(
    store: Store, webhook_receiver: WebhookReceiver
) -> None:
    job = submit(store, webhook_receiver.answer("/hook", *[Answer(status=404)] * 10))
    with sending(store):
        for count in range(1, 11):
            logged(store, job, count)
            hours_pass(store)
        wait_until(lambda: pending(store) == 0)
        [first, *_] = webhook_receiver.wait_for(10)
        assert outbox.redeliver(store, job.id, UUID(first.id))
        last = webhook_receiver.wait_for(11)[-1]
        wait_until(lambda: pending(store) == 0)
    assert (last.id, last.refused) == (first.id, "")
    assert attempts_of(store, job)[-1].outcome == "delivered"


def test_what_is_sent_again_by_hand_is_sent_once(
    store: Store, webhook_receiver: WebhookReceiver
) -> None:
    job = submit(store, webhook_receiver.answer("/hook", Answer(), Answer(status=500)))
    with sending(store):
        [sent] = webhook_receiver.wait_for(1)
        logged(store, job, 1)
        assert outbox.redeliver(store, job.id, UUID(sent.id))
        _, again = webhook_receiver.wait_for(2)
        wait_until(lambda: pending(store) == 0)
    assert (again.id, again.refused) == (sent.id, "")
    assert attempts_of(store, job)[-1].trigger_kind == "manual"
    assert attempts_of(store, job)[-1].next_attempt_at is None


def test_what_a_dead_sender_had_claimed_is_sent_by_the_next(
    store: Store, webhook_receiver: WebhookReceiver
) -> None:
    submit(store, f"{webhook_receiver.url}/hook")
    [held] = outbox.claim_deliveries(store, worker="dead", limit=1, lease_s=600)
    with sending(store) as sender:
        hours_pass(store)
        sender.wake()
        [arrived] = webhook_receiver.wait_for(1)
        wait_until(lambda: pending(store) == 0)
    assert arrived.id == str(held.event_uuid)
    assert not outbox.finish_delivery(store, held, outcome="delivered"), "its lease is lost"


def test_a_sender_ends_soon_and_what_hung_is_sent_by_the_next(
    store: Store, webhook_receiver: WebhookReceiver
) -> None:
    job = submit(store, webhook_receiver.answer("/hook", Answer(hang=True)))
    with sending(store, settings=LONGEST):
        webhook_receiver.wait_for(1)
    assert attempts_of(store, job) == [], "it ended before the exchange timed out"
    hours_pass(store)
    with sending(store):
        first, second = webhook_receiver.wait_for(2)
        logged(store, job, 1)
    assert first.id == second.id


def test_receivers_that_hang_do_not_delay_the_others(
    store: Store, webhook_receiver: WebhookReceiver
) -> None:
    """
    Three hosts with ten events each never answer; a healthy one hears of everything meanwhile.

    Meanwhile means: before the first exchange with any of them has timed out.
    """
    with WebhookReceiver() as first, WebhookReceiver() as second, WebhookReceiver() as third:
        dead = (first, second, third)
        stuck = []
        for one in dead:
            one.answer("/hook", *[Answer(hang=True)] * 10)
            stuck += [submit(store, f"{one.url}/hook") for _ in range(10)]
        with sending(store, settings=LONGEST):
            for one in dead:
                one.wait_for(1, timeout_s=50)
            for number in range(1, 11):
                submit(store, f"{webhook_receiver.url}/hook")
                arrived = webhook_receiver.wait_for(number, timeout_s=50)
            assert not any(attempts_of(store, job) for job in stuck)
        assert [one.headers["webhook-attempt"] for one in arrived] == ["1"] * 10
        assert [len(one.deliveries) for one in dead] == [1] * 3, "one at once, until it answers"


@pytest.mark.parametrize(
    ("kind", "outcomes"),
    [
        ("hangs", set()),
        ("drips", set()),
        ("resets", {"connection_failed"}),
        ("floods", {"delivered"}),
        ("promises more than it sends", set()),
        ("redirects to itself", {"redirect_refused"}),
    ],
)
def test_a_receiver_that_misbehaves_holds_up_nobody_elses_first_attempt(
    kind: str, outcomes: set[str], store: Store, webhook_receiver: WebhookReceiver
) -> None:
    """
    The healthy one hears of everything while no exchange with the bad one has timed out.

    More deliveries than one claim takes wait for the bad one, all of them older.
    """
    count = BATCH + 4
    with sending(store, settings=LONGEST), WebhookReceiver() as bad:
        url = bad.answer("/hook", *[MISBEHAVIOUR[kind]] * count * 2)
        jobs = [submit(store, url) for _ in range(count)]
        bad.wait_for(1)
        for number in range(1, 4):
            submit(store, f"{webhook_receiver.url}/hook")
            arrived = webhook_receiver.wait_for(number, timeout_s=50)
        if outcomes:
            wait_until(lambda: any(attempts_of(store, job) for job in jobs))
        came = {one.outcome for job in jobs for one in attempts_of(store, job)}
        assert came == outcomes
    assert [one.headers["webhook-attempt"] for one in arrived] == ["1"] * 3


def test_a_receiver_that_sends_a_bomb_holds_up_nobody_elses_first_attempt(
    store: Store, webhook_receiver: WebhookReceiver
) -> None:
    """It is neither unpacked nor read to its end: the log keeps 1 KiB of it as it came."""
    bomb = gzip.compress(bytes(64 * 1024 * 1024))
    kind = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    with sending(store, settings=LONGEST), WebhookReceiver() as bad:
        url = bad.answer("/hook", *[Answer(status=500, headers=kind, body=bomb)] * BATCH * 4)
        jobs = [submit(store, url) for _ in range(BATCH + 4)]
        bad.wait_for(1)
        for number in range(1, 4):
            submit(store, f"{webhook_receiver.url}/hook")
            arrived = webhook_receiver.wait_for(number, timeout_s=50)
        [first] = logged(store, jobs[0], 1)
    assert (first.outcome, first.status) == ("server_error", 500)
    assert first.snippet is not None
    assert len(first.snippet) <= SNIPPET_BYTES
    assert [one.headers["webhook-attempt"] for one in arrived] == ["1"] * 3


@pytest.mark.parametrize(("why", "words"), UNACCEPTABLE.items())
def test_a_receiver_whose_certificate_does_not_verify_holds_up_nobody_and_is_told_why(
    why: str, words: str, store: Store, webhook_receiver: WebhookReceiver
) -> None:
    authority, trusting = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trusting)
    server = bad_server(why, authority, "127.0.0.1")
    with WebhookReceiver(tls=server) as bad, sending(store, settings=LONGEST, tls=trusting):
        jobs = [submit(store, f"{bad.url}/hook") for _ in range(BATCH + 4)]
        for number in range(1, 4):
            submit(store, f"{webhook_receiver.url}/hook")
            arrived = webhook_receiver.wait_for(number, timeout_s=50)
        [first] = logged(store, jobs[0], 1)
        assert bad.deliveries == []
    assert (first.outcome, first.status) == ("tls_failed", None)
    assert words in (first.snippet or b"").decode()
    assert first.next_attempt_at is not None
    assert [one.headers["webhook-attempt"] for one in arrived] == ["1"] * 3


def test_more_receivers_that_hang_than_there_are_attempts_in_all_leave_room_for_one_that_answers(
    store: Store, webhook_receiver: WebhookReceiver
) -> None:
    """Ten hosts at four attempts each would take all eight that the sender has."""
    settings = WebhookSettings(timeout_s=60, concurrency=8, per_host=4)
    with ExitStack() as stack:
        stack.enter_context(sending(store, settings=settings))
        submit(store, f"{webhook_receiver.url}/hook")
        webhook_receiver.wait_for(1, timeout_s=50)
        dead = [stack.enter_context(WebhookReceiver()) for _ in range(10)]
        for one in dead:
            one.answer("/hook", *[Answer(hang=True)] * 4)
            for _ in range(4):
                submit(store, f"{one.url}/hook")
        for one in dead[:6]:
            one.wait_for(1, timeout_s=50)
        for number in range(2, 5):
            submit(store, f"{webhook_receiver.url}/hook")
            webhook_receiver.wait_for(number, timeout_s=50)
        assert sorted(len(one.deliveries) for one in dead) == [0] * 4 + [1] * 6


def test_an_address_that_is_not_allowed_is_never_dialled(
    store: Store, webhook_receiver: WebhookReceiver
) -> None:
    job = submit(store, f"{webhook_receiver.url}/hook")
    with sending(store, dialler=Dialler()):
        [tried] = logged(store, job, 1)
    assert (tried.outcome, tried.remote_ip) == ("address_not_allowed", None)
    assert webhook_receiver.deliveries == []


class AwayOnce(Store):
    """A database that cannot be reached when it is asked for the first time."""

    was_away = False

    def run(self, work: Callable[[Connection], Any]) -> Any:
        if not self.was_away:
            self.was_away = True
            raise OperationalError("claim", {}, Exception("gone away"))
        return super().run(work)


def test_a_database_that_was_away_is_asked_again(
    store: Store, database_url: str, webhook_receiver: WebhookReceiver
) -> None:
    submit(store, f"{webhook_receiver.url}/hook")
    with (
        AwayOnce.open(database_url, keys=KEYS, webhook_secret=SECRET) as away,
        sending(away),
    ):
        webhook_receiver.wait_for(1)
        wait_until(lambda: pending(store) == 0)
    assert away.was_away


def test_two_senders_share_the_work(store: Store, webhook_receiver: WebhookReceiver) -> None:
    for _ in range(20):
        submit(store, f"{webhook_receiver.url}/hook")
    with sending(store), sending(store):
        arrived = webhook_receiver.wait_for(20)
        wait_until(lambda: pending(store) == 0)
    assert len({delivery.id for delivery in arrived}) == len(arrived) == 20
