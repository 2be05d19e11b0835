"""An attempt takes a place, is fenced by its number and token, and ends exactly once."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import select, update

from encoder_core.documents import MOST_ATTEMPTS
from encoder_core.errors import JobError
from encoder_core.failures import Failure, Warned, failure
from encoder_core.reports import (
    PUBLISH_LEASE_S,
    FinalReport,
    Outcome,
    OutputReport,
    Phase,
    SourceInfo,
    SourceReport,
    Started,
)
from encoder_core.retries import RetryLimits
from encoder_core.sealing import KeyRing
from encoder_core.states import JobStatus, OutputStatus
from encoder_db.attempts import (
    Claimed,
    Refusal,
    Resource,
    mark_starting,
    open_attempt,
    open_attempts,
    read_work,
)
from encoder_db.cluster import bind_resource
from encoder_db.documents import list_attempts
from encoder_db.events import list_events
from encoder_db.jobs import cancel_job, delete_job, read_page, read_row
from encoder_db.outcomes import judge
from encoder_db.pools import set_pool
from encoder_db.rows import JobRow
from encoder_db.secrets import destroy_credentials
from encoder_db.store import Store
from encoder_db.tables import job_attempts, pools, queue_jobs
from encoder_db.takeover import LAPSE_MARGIN_S
from tests.db import builders as make
from tests.db.builders import LIMITS, WORKER

J = JobStatus
LAPSE_S = make.LEASE_S + 1


# --- Taking a place --------------------------------------------------------------------------


def test_an_attempt_holds_a_place_from_its_row_on(store: Store) -> None:
    job = make.create(store)
    worker = make.claimed(store)
    assert (worker.attempt, worker.job.attempt) == (1, 1)
    assert make.status(store, job) is J.QUEUED
    with store.read() as tx:
        (held,) = open_attempts(tx, executor="local", worker=WORKER)
        assert open_attempts(tx, executor="kubernetes") == []
    assert (held.job_id, held.number, held.status, held.worker) == (job.id, 1, "created", WORKER)


def test_a_pool_never_has_more_attempts_than_places(store: Store) -> None:
    for _ in range(6):
        make.create(store)
    messages = make.claim_some(store, 6)
    store.run(lambda tx: set_pool(tx, "default", max_concurrency=2))
    outcomes: list[Claimed | Refusal] = []

    def take(number: int) -> None:
        outcomes.extend(
            open_attempt(store, message, executor="local", worker=f"w{number}", limits=LIMITS)
            for message in messages[number::3]
        )

    threads = [threading.Thread(target=take, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(outcome, Claimed) for outcome in outcomes) == 2
    assert outcomes.count(Refusal("pool_full")) == 4


def test_a_worker_has_a_limit_of_its_own(store: Store) -> None:
    for _ in range(3):
        make.create(store)
    assert isinstance(make.open_one(store, limit=1), Claimed)
    assert make.open_one(store, limit=1) == Refusal("pool_full")
    assert isinstance(make.open_one(store, limit=1, worker="host-b"), Claimed)


def test_who_found_the_pool_full_is_not_to_blame(store: Store) -> None:
    make.create(store)
    message = make.claim_one(store)
    store.run(lambda tx: set_pool(tx, "default", max_concurrency=0))
    refused = open_attempt(store, message, executor="local", worker=WORKER)
    assert refused == Refusal("pool_full")
    with store.read() as tx:
        row = tx.execute(select(queue_jobs)).mappings().one()
    assert (row["deliveries"], row["failures"], row["leased_by"]) == (0, 0, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"stop_policy": "Hold"}, "pool_stopped", id="the pool was stopped"),
        pytest.param({"engine": "kubernetes"}, "engine_mismatch", id="the pool changed its engine"),
        pytest.param({"name": "renamed"}, "pool_unknown", id="the pool was deleted"),
    ],
)
def test_a_claimed_job_is_held_when(store: Store, change: dict[str, str], reason: str) -> None:
    job = make.create(store)
    message = make.claim_one(store)
    with store.begin() as tx:
        tx.execute(update(pools).values(change))
    assert open_attempt(store, message, executor="local", worker=WORKER) == Refusal(reason)
    assert make.status(store, job) is J.QUEUED
    with store.begin() as tx:
        tx.execute(update(pools).values(name="default", engine="local", stop_policy="None"))
    make.let_pass(store, 31)
    make.complete(store, make.running(store))


def test_a_lost_lease_opens_nothing(store: Store) -> None:
    make.create(store)
    lost = make.claim_one(store)
    make.let_pass(store, LAPSE_S)
    make.claim_one(store, worker="host-b")
    assert open_attempt(store, lost, executor="local", worker=WORKER) == Refusal("lease_lost")


def test_a_job_that_was_canceled_meanwhile_is_not_begun(store: Store) -> None:
    job = make.create(store)
    message = make.claim_one(store)
    cancel_job(store, job.id, owner=None)
    assert open_attempt(store, message, executor="local", worker=WORKER) == Refusal("job_final")


def test_opening_twice_for_one_lease_is_one_attempt_with_a_fresh_token(store: Store) -> None:
    job = make.create(store)
    message = make.claim_one(store)
    first, second = (
        open_attempt(store, message, executor="local", worker=WORKER) for _ in range(2)
    )
    assert isinstance(first, Claimed)
    assert isinstance(second, Claimed)
    assert (first.attempt, second.attempt) == (1, 1)
    assert not make.say(store, first, Started()).accepted
    assert make.say(store, second, Started()).accepted
    assert make.attempt_statuses(store, job) == ["running"]


# --- Starting --------------------------------------------------------------------------------


def test_marking_twice_is_marking_once(store: Store) -> None:
    job = make.create(store)
    worker = make.claimed(store)
    assert mark_starting(store, worker)
    assert mark_starting(store, worker)
    assert make.events(store, job) == [(1, "job.queued"), (2, "job.starting")]


def test_the_local_engine_keeps_its_message_until_the_attempt_ends(store: Store) -> None:
    make.create(store)
    worker = make.running(store)
    assert make.count(store, "queue_jobs") == 1
    make.complete(store, worker)
    assert make.count(store, "queue_jobs") == 0


def test_on_kubernetes_the_message_is_acknowledged_with_the_start(store: Store) -> None:
    make.kubernetes_pool(store)
    job = make.create(store, make.spec(pool="k8s"))
    make.starting(store, engine="kubernetes")
    assert make.count(store, "queue_jobs") == 0
    assert make.status(store, job) is J.STARTING


def test_on_kubernetes_another_claimer_takes_up_the_same_attempt(store: Store) -> None:
    make.kubernetes_pool(store)
    job = make.create(store, make.spec(pool="k8s"))
    first = make.claimed(store, engine="kubernetes", worker="op-1")
    make.let_pass(store, LAPSE_S)
    second = make.claimed(store, engine="kubernetes", worker="op-2")
    assert (first.attempt, second.attempt) == (1, 1)
    assert not mark_starting(store, first)
    assert mark_starting(store, second)
    assert make.attempt_statuses(store, job) == ["created"]


def test_what_stands_for_it_in_the_cluster_is_noted_with_the_start(store: Store) -> None:
    make.kubernetes_pool(store)
    job = make.create(store, make.spec(pool="k8s"))
    worker = make.claimed(store, engine="kubernetes")
    assert mark_starting(store, worker, resource=Resource("tj-1", "uid-1"))
    assert _resource(store, job) == ("tj-1", "uid-1", J.STARTING)
    assert mark_starting(store, worker, resource=Resource("tj-1", "uid-1"))
    assert not mark_starting(store, worker, resource=Resource("tj-1", "uid-2"))
    assert _resource(store, job) == ("tj-1", "uid-1", J.STARTING)


def test_also_when_the_job_was_canceled_meanwhile_for_then_it_must_go(store: Store) -> None:
    make.kubernetes_pool(store)
    job = make.create(store, make.spec(pool="k8s"))
    worker = make.claimed(store, engine="kubernetes")
    cancel_job(store, job.id, owner=None)
    assert not mark_starting(store, worker, resource=Resource("tj-1", "uid-1"))
    assert _resource(store, job) == ("tj-1", "uid-1", J.CANCELED)


def test_a_job_that_another_resource_stands_for_is_not_started(store: Store) -> None:
    make.kubernetes_pool(store)
    job = make.create(store, make.spec(pool="k8s"))
    store.run(lambda tx: bind_resource(tx, job.id, name="by-hand", uid="uid-0"))
    worker = make.claimed(store, engine="kubernetes")
    assert not mark_starting(store, worker, resource=Resource("tj-1", "uid-1"))
    assert _resource(store, job) == ("by-hand", "uid-0", J.QUEUED)


def _resource(store: Store, job: JobRow) -> tuple[str | None, str | None, JobStatus]:
    with store.read() as tx:
        row = read_row(tx, job.id)
    assert row is not None
    return row.resource_name, row.resource_uid, row.status


def test_from_claimed_to_starting_it_takes_few_statements(store: Store) -> None:
    """Who waits, what is due, its lease and that it was served; the attempt; the start."""
    make.kubernetes_pool(store)
    make.create(store, make.spec(pool="k8s"))
    with make.statements(store) as claiming:
        message = make.claim_one(store, engine="kubernetes")
    with make.statements(store) as opening:
        opened = open_attempt(store, message, executor="kubernetes", worker=WORKER)
    assert isinstance(opened, Claimed)
    with make.statements(store) as starting:
        assert mark_starting(store, opened, resource=Resource("tj-1", "uid-1"))
    # The start: it is read, acknowledged and changed; its document is read in three; the event.
    assert (len(claiming), len(opening), len(starting)) == (4, 6, 7)


# --- Taking over from the dead ---------------------------------------------------------------


def test_the_attempt_of_a_dead_worker_ends_as_lost_and_the_next_one_begins(store: Store) -> None:
    job = make.create(store)
    dead = make.running(store, worker="host-a")
    make.let_pass(store, LAPSE_S)
    heir = make.claimed(store, worker="host-b")
    assert heir.attempt == 2
    assert make.attempt_statuses(store, job) == ["lost", "created"]
    assert make.events(store, job)[-1] == (4, "job.queued")
    assert not make.say(store, dead, make.uploaded()).accepted
    assert make.finish(store, dead) is None
    assert mark_starting(store, heir)
    make.complete(store, heir)
    lost = make.read(store, job).attempts[0]
    assert lost.failure == failure("worker_lost")


def test_nobody_takes_over_while_the_old_worker_may_publish(store: Store) -> None:
    job = make.create(store)
    old = make.running(store, worker="host-a")
    make.let_pass(store, LAPSE_S)
    make.say(store, old, make.progress())
    assert make.open_one(store, worker="host-b") == Refusal("publish_lease")
    assert make.claim_some(store, 1, worker="host-b") == []
    make.let_pass(store, PUBLISH_LEASE_S + LAPSE_MARGIN_S + 1)
    assert make.claimed(store, worker="host-b").attempt == 2
    assert make.attempt_statuses(store, job) == ["lost", "created"]


def test_a_worker_that_starts_again_under_its_name_does_not_wait(store: Store) -> None:
    make.create(store)
    old = make.running(store, worker="host-a")
    make.let_pass(store, LAPSE_S)
    make.say(store, old, make.progress())
    assert make.claimed(store, worker="host-a").attempt == 2


def test_lost_workers_are_not_charged_to_the_job_but_have_a_limit(store: Store) -> None:
    job = make.create(store)
    limits = RetryLimits(app=1, infra=3)
    for expected in (1, 2, 3):
        message = make.claim_one(store)
        opened = open_attempt(store, message, executor="local", worker=WORKER, limits=limits)
        assert isinstance(opened, Claimed)
        assert opened.attempt == expected
        make.let_pass(store, LAPSE_S)
    message = make.claim_one(store)
    ended = open_attempt(store, message, executor="local", worker=WORKER, limits=limits)
    assert ended == Refusal("attempts_exhausted")
    assert make.status(store, job) is J.FAILED


def test_a_canceling_job_whose_worker_died_is_canceled(store: Store) -> None:
    job = make.create(store)
    make.running(store)
    cancel_job(store, job.id, owner=None)
    make.let_pass(store, LAPSE_S)
    assert make.open_one(store) == Refusal("job_final")
    assert make.status(store, job) is J.CANCELED


def test_a_deleted_job_whose_worker_died_is_purged(store: Store) -> None:
    job = make.create(store)
    make.running(store)
    delete_job(store, job.id, owner=None)
    make.let_pass(store, LAPSE_S)
    assert make.open_one(store) == Refusal("job_final")
    assert make.count(store, "jobs") == make.count(store, "job_attempts") == 0


# --- Reports ---------------------------------------------------------------------------------


def test_the_first_report_makes_the_job_run(store: Store) -> None:
    job = make.create(store)
    worker = make.starting(store)
    answer = make.say(store, worker, Started(sandbox=["landlock"]))
    assert (answer.accepted, answer.cancel) == (True, False)
    assert answer.publish_lease_s == PUBLISH_LEASE_S
    seen = make.read(store, job)
    assert seen.status is J.RUNNING
    assert seen.started_at is not None
    assert seen.attempts[0].status == "running"
    make.say(store, worker, Started())
    assert make.read(store, job).version == seen.version


def test_a_report_that_is_faster_than_its_announcement_skips_no_status(store: Store) -> None:
    job = make.create(store)
    worker = make.claimed(store)
    make.say(store, worker, make.progress())
    assert mark_starting(store, worker)
    assert make.events(store, job) == [
        (1, "job.queued"),
        (2, "job.starting"),
        (3, "job.running"),
    ]


def test_progress_is_the_last_one_reported_and_no_change_of_the_job(store: Store) -> None:
    job = make.create(store)
    worker = make.running(store)
    make.say(store, worker, make.progress(10))
    make.say(store, worker, make.progress(60, Phase.UPLOADING))
    seen = make.read(store, job)
    assert seen.progress is not None
    assert (seen.progress.percent, seen.progress.phase) == (60, "uploading")
    assert seen.version == 3
    make.complete(store, worker)
    assert make.read(store, job).progress is None


def test_progress_takes_three_statements(store: Store) -> None:
    make.create(store)
    worker = make.running(store)
    with make.statements(store) as seen:
        make.say(store, worker, make.progress())
    assert len(seen) == 3, "\n".join(seen)


def test_the_source_is_described_once_probed(store: Store) -> None:
    job = make.create(store)
    info = SourceInfo(size_bytes=5, duration_s=2.0, streams=[{"codec": "h264"}])
    warned = Warned(code="no_audio", message="The source has no audio.")
    make.say(store, make.running(store), SourceReport(source=info, warnings=[warned]))
    seen = make.read(store, job)
    assert (seen.source_info, seen.warnings) == (info, [warned])


def test_an_uploaded_output_is_an_event_once_and_stays_uploaded(store: Store) -> None:
    job = make.create(store, make.spec(2))
    worker = make.running(store)
    running = OutputReport(index=1, status=OutputStatus.RUNNING)
    because = failure("output_invalid", output=1)
    for report in (
        running,
        make.uploaded(1),
        make.uploaded(1),
        running,
        OutputReport(index=1, status=OutputStatus.FAILED, failure=because),
    ):
        assert make.say(store, worker, report).accepted
    seen = make.read(store, job)
    assert [item.status for item in seen.outputs] == ["pending", "uploaded"]
    assert seen.outputs[1].result == make.uploaded(1).result
    assert make.events(store, job)[3:] == [(4, "output.uploaded")]


def test_a_failed_output_says_why(store: Store) -> None:
    job = make.create(store, make.spec(2))
    worker = make.running(store)
    own = failure("output_invalid", "The sound is missing.", output=1)
    make.say(store, worker, OutputReport(index=1, status=OutputStatus.FAILED, failure=own))
    because = failure("destination_denied")
    assert make.finish(store, worker, failure=because) is J.FAILED
    assert [item.error for item in make.read(store, job).outputs] == [because, own]


@pytest.mark.parametrize(
    "report",
    [
        pytest.param(Started(), id="started"),
        pytest.param(make.progress(), id="progress"),
        pytest.param(SourceReport(source=SourceInfo()), id="source"),
        pytest.param(make.uploaded(), id="output"),
        pytest.param(make.succeeded(), id="final"),
    ],
)
class TestARefusedReport:
    """Whatever it says, it changes nothing."""

    def check(self, store: Store, job: JobRow, worker: Claimed, report: make.Report) -> None:
        before = make.read(store, job)
        answer = make.say(store, worker, report)
        assert (answer.accepted, answer.publish_lease_s) == (False, 0.0)
        assert make.read(store, job) == before

    def test_has_a_wrong_token(self, store: Store, report: make.Report) -> None:
        job = make.create(store)
        worker = make.running(store)
        before = make.read(store, job)
        assert not make.say(store, worker, report, token="guessed").accepted
        assert make.read(store, job) == before

    def test_is_of_an_earlier_attempt(self, store: Store, report: make.Report) -> None:
        job = make.create(store)
        old = make.running(store)
        make.finish(store, old, lost=True, exit_code=None)
        make.let_pass(store, 3600)
        make.running(store)
        self.check(store, job, old, report)

    def test_comes_after_the_end(self, store: Store, report: make.Report) -> None:
        job = make.create(store)
        worker = make.running(store)
        make.complete(store, worker)
        self.check(store, job, worker, report)


# --- Ending ----------------------------------------------------------------------------------


def test_ending_twice_is_ending_once(store: Store) -> None:
    job = make.create(store)
    worker = make.running(store)
    make.complete(store, worker)
    before = make.read(store, job)
    assert make.finish(store, worker, exit_code=40) is None
    assert make.read(store, job) == before


def test_two_who_end_an_attempt_at_once_end_it_once(store: Store) -> None:
    job = make.create(store)
    worker = make.running(store)
    make.say(store, worker, make.succeeded(make.uploaded()))
    ended: list[JobStatus | None] = []
    threads = [
        threading.Thread(target=lambda: ended.append(make.finish(store, worker))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended, key=str) == [None, None, None, J.COMPLETED]
    assert make.events(store, job)[-1] == (5, "job.completed")


def test_the_final_report_makes_good_what_was_not_reported(store: Store) -> None:
    job = make.create(store, make.spec(2))
    worker = make.running(store)
    make.say(store, worker, make.uploaded(0))
    make.say(store, worker, make.succeeded(make.uploaded(0), make.uploaded(1)))
    assert make.finish(store, worker) is J.COMPLETED
    assert [kind for _, kind in make.events(store, job)][3:] == [
        *("output.uploaded", "output.uploaded", "job.completed")
    ]


def test_a_success_without_a_word_is_a_success_whose_details_are_lost(store: Store) -> None:
    job = make.create(store)
    assert make.finish(store, make.starting(store), exit_code=0) is J.COMPLETED
    (output,) = make.read(store, job).outputs
    assert (output.status, [item.code for item in output.warnings]) == (
        "uploaded",
        ["details_lost"],
    )


def test_an_attempt_that_ended_before_it_was_announced_skips_no_status(store: Store) -> None:
    job = make.create(store)
    assert make.finish(store, make.claimed(store), exit_code=0) is J.COMPLETED
    assert [kind for _, kind in make.events(store, job)] == [
        *("job.queued", "job.starting", "job.completed")
    ]


def test_a_failed_attempt_is_tried_again_after_a_growing_pause(store: Store) -> None:
    job = make.create(store, make.spec(2))
    worker = make.running(store)
    make.say(store, worker, make.uploaded(0))
    assert make.finish(store, worker, exit_code=51) is J.QUEUED
    seen = make.read(store, job)
    assert [item.status for item in seen.outputs] == ["uploaded", "pending"]
    assert (seen.failure, seen.attempts[0].failure is not None) == (None, True)
    assert make.claim_some(store, 1) == []
    make.let_pass(store, 6)
    again = make.running(store)
    make.finish(store, again, exit_code=51)
    make.let_pass(store, 6)
    assert make.claim_some(store, 1) == []
    make.let_pass(store, 15)
    assert make.claimed(store).attempt == 3


def test_the_other_side_may_ask_for_a_longer_pause(store: Store) -> None:
    make.create(store)
    worker = make.running(store)
    because = failure("source_unreachable")
    make.say(store, worker, make.failed(because, retry_after_s=100))
    make.finish(store, worker, exit_code=21)
    make.let_pass(store, 99)
    assert make.claim_some(store, 1) == []
    make.let_pass(store, 2)
    assert make.claim_some(store, 1) != []


def test_attempts_have_a_limit(store: Store) -> None:
    job = make.create(store)
    for number in range(1, LIMITS.app + 1):
        make.let_pass(store, 3600)
        worker = make.running(store)
        assert worker.attempt == number
        make.say(store, worker, make.failed(failure("encode_failed", "Boom.")))
        ended = make.finish(store, worker, exit_code=40)
    assert ended is J.FAILED
    seen = make.read(store, job)
    assert seen.failure == failure("encode_failed", "Boom.")
    assert make.count(store, "queue_jobs") == 0


def test_of_many_attempts_the_latest_are_shown_and_told(store: Store) -> None:
    job = make.create(store)
    number = make.finish_many(store, job, 3 * MOST_ATTEMPTS)
    latest = list(range(number - MOST_ATTEMPTS + 1, number + 1))
    assert cancel_job(store, job.id, owner=None)
    with store.read() as tx:
        page = read_page(tx, job.id, owner=None)
        told = list_events(tx, job.id)[-1].data
        everyone = list_attempts(tx, job.id)
    assert page is not None
    assert [attempt.number for attempt in page.attempts] == latest
    assert sorted({step.attempt for step in page.timeline if step.attempt}) == latest
    assert [attempt["number"] for attempt in told["attempts"]] == latest
    assert [attempt.number for attempt in everyone] == list(range(1, number + 1))


def test_attempts_that_the_machines_lost_do_not_count_as_the_jobs(store: Store) -> None:
    job = make.create(store)
    for _ in range(LIMITS.app + 1):
        make.let_pass(store, 3600)
        make.finish(store, make.running(store), exit_code=None, lost=True)
    assert make.status(store, job) is J.QUEUED


SAID_FAILED = FinalReport(outcome=Outcome.FAILED, failure=failure("encode_failed"))
EVICTED = failure("pod_evicted")


@pytest.mark.parametrize(
    ("exit_code", "final", "lost", "seen", "uploaded_all", "want"),
    [
        pytest.param(0, make.succeeded(), False, None, False, None, id="it succeeded"),
        pytest.param(0, None, False, None, False, None, id="exit 0 without a word"),
        pytest.param(None, make.succeeded(), True, EVICTED, False, None, id="gone, had succeeded"),
        pytest.param(70, None, False, None, True, None, id="all uploaded before it crashed"),
        pytest.param(0, SAID_FAILED, False, None, False, "encode_failed", id="exit 0, said failed"),
        pytest.param(40, SAID_FAILED, False, None, False, "encode_failed", id="said why"),
        pytest.param(
            40, SAID_FAILED, False, EVICTED, False, "pod_evicted", id="the executor saw why"
        ),
        pytest.param(50, None, False, None, False, "destination_rejected", id="by the exit code"),
        pytest.param(61, None, False, None, False, "worker_interrupted", id="stopped by itself"),
        pytest.param(-9, None, False, None, False, "worker_lost", id="killed"),
        pytest.param(137, None, False, None, False, "worker_lost", id="killed, as shells say it"),
        pytest.param(3, None, False, None, False, "worker_failed", id="an unknown exit code"),
        pytest.param(None, None, True, None, False, "worker_lost", id="gone without a word"),
        pytest.param(
            1, make.succeeded(), False, None, False, "worker_failed", id="said success, crashed"
        ),
    ],
)
def test_judge(
    exit_code: int | None,
    final: FinalReport | None,
    lost: bool,
    seen: Failure | None,
    uploaded_all: bool,
    want: str | None,
) -> None:
    because = judge(
        exit_code=exit_code, final=final, lost=lost, seen=seen, uploaded_all=uploaded_all
    )
    assert (because and because.code) == want


# --- The work --------------------------------------------------------------------------------


def test_the_work_has_the_secrets_and_only_what_is_missing(store: Store) -> None:
    hook = "https://user:pa55@example.com/h?token=t0ken"
    outputs = [make.output("a.mp4"), {"destination": make.s3("AKIB", "other-s3cret")}]
    asked = make.spec(outputs, source=make.s3(), notificationUrl=hook)
    job = make.create(store, asked)
    worker = make.running(store)
    make.say(store, worker, make.uploaded(0))
    make.finish(store, worker, exit_code=51)
    make.let_pass(store, 60)
    worker = make.running(store)
    work = read_work(store, job.id, worker.attempt)
    assert work is not None
    assert work.spec.source == asked.source
    assert [(item.index, item.spec) for item in work.outputs] == [(1, asked.outputs[1])]
    assert work.spec.outputs == [asked.outputs[1]]
    assert not work.inline
    assert read_work(store, job.id, 1) is None


def test_work_whose_secrets_are_gone_says_so(store: Store) -> None:
    job = make.create(store, make.spec(source=make.s3()))
    worker = make.running(store)
    store.run(lambda tx: destroy_credentials(tx, job.id))
    with pytest.raises(JobError) as error:
        read_work(store, job.id, worker.attempt)
    assert error.value.code == "credentials_required"


def test_work_whose_secrets_another_key_sealed_says_so(store: Store, database_url: str) -> None:
    job = make.create(store, make.spec(source=make.s3()))
    worker = make.running(store)
    with (
        Store.open(database_url, keys=KeyRing([b"x" * 32])) as elsewhere,
        pytest.raises(JobError, match="not among those in ENCODER_SECRET_KEY") as error,
    ):
        read_work(elsewhere, job.id, worker.attempt)
    assert error.value.code == "credentials_required"


def test_a_stored_token_is_a_hash(store: Store) -> None:
    make.create(store)
    worker = make.claimed(store)
    with store.read() as tx:
        stored = tx.execute(select(job_attempts.c.token_hash)).scalar_one()
    assert len(stored) == 32
    assert worker.token.encode() not in bytes(stored)
