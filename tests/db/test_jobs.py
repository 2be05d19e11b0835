"""What a caller can do to a job, and what the record says of it then."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from pydantic import ValidationError
from sqlalchemy import Connection

from encoder_core.errors import InvalidRequest, Refused
from encoder_core.events import job_event
from encoder_core.failures import failure
from encoder_core.names import resource_name
from encoder_core.reports import Started
from encoder_core.sealing import KeyRing
from encoder_core.specs import InlineSource, JobSpec
from encoder_core.states import JOB_TRANSITIONS, JobStatus
from encoder_db.attempts import mark_starting, read_work
from encoder_db.blobs import (
    CHUNK_BYTES,
    SOURCE_BLOB,
    find_inline,
    image_blob,
    list_blobs,
    read_blob,
)
from encoder_db.cluster import adopt_job, bind_resource
from encoder_db.events import list_events
from encoder_db.idempotency import Idempotency, Replayed
from encoder_db.jobs import (
    cancel_job,
    create_job,
    delete_job,
    fail_queued,
    list_jobs,
    read_job,
    retry_job,
)
from encoder_db.rows import JobRow, lock_job
from encoder_db.store import Store
from encoder_db.tables import metadata
from encoder_db.transitions import IllegalTransition, move_job
from tests.db import builders as make
from tests.db.builders import LIMITS
from tests.db.conftest import KEYS, empty

J = JobStatus


# --- Creating --------------------------------------------------------------------------------


def test_a_new_job_is_queued_and_due_and_its_first_event_says_so(store: Store) -> None:
    job = make.create(store, make.spec(2, externalId="mine", metadata={"a": "b"}))
    seen = make.read(store, job)
    assert (seen.status, seen.version, seen.attempt) == (J.QUEUED, 1, 0)
    assert [item.status for item in seen.outputs] == ["pending", "pending"]
    assert [item.index for item in seen.outputs] == [0, 1]
    assert (seen.external_id, seen.metadata) == ("mine", {"a": "b"})
    assert seen.due_at is not None
    assert make.events(store, job) == [(1, "job.queued")]
    assert make.count(store, "queue_jobs") == 1


def test_the_first_event_carries_the_document_that_reading_gives(store: Store) -> None:
    job = make.create(store, make.spec(2, metadata={"a": "b"}))
    with store.read() as tx:
        (event,) = list_events(tx, job.id)
    # What it waits for is read when somebody asks.
    assert event.data == {**make.read(store, job).to_json(), "waiting": None}


def test_a_job_is_found_by_number_and_by_uuid_but_not_by_another_owner(store: Store) -> None:
    job = make.create(store, owner="alice")
    with store.read() as tx:
        by_number = read_job(tx, job.id, owner="alice")
        assert by_number is not None
        assert read_job(tx, job.uuid, owner="alice") == by_number
        assert read_job(tx, job.id, owner=None) == by_number
        assert read_job(tx, job.id, owner="bob") is None
        assert read_job(tx, uuid4(), owner=None) is None


def test_an_unknown_pool_is_refused(store: Store) -> None:
    with pytest.raises(InvalidRequest) as wrong:
        make.create(store, make.spec(pool="gpu"))
    (problem,) = wrong.value.problems
    assert (problem.pointer, problem.code) == ("/pool", "pool_unknown")
    assert make.count(store, "jobs") == 0


def test_an_external_id_is_unique_for_its_owner_until_the_job_is_deleted(store: Store) -> None:
    job = make.create(store, make.spec(externalId="mine"))
    make.create(store, make.spec(externalId="mine"), owner="somebody-else")
    with pytest.raises(Refused, match=f"job {job.id} has this externalId already"):
        make.create(store, make.spec(externalId="mine"))
    make.running(store)
    assert delete_job(store, job.id, owner=None)
    make.create(store, make.spec(externalId="mine"))


@pytest.mark.parametrize("name", ["a", "é 🎬", "a\n\tb"])
def test_two_names_are_the_same_on_every_database_or_on_none(store: Store, name: str) -> None:
    make.create(store, make.spec(externalId=name))
    for other in (f"{name} ", f" {name}", f"{name}\n"):
        with pytest.raises(ValidationError, match="externalId"):
            make.spec(externalId=other)
    make.create(store, make.spec(externalId=f"{name}\N{NO-BREAK SPACE}"))


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 1], ids="{0} bytes".format)
def test_inline_bytes_become_a_blob_and_the_job_keeps_their_number(store: Store, size: int) -> None:
    data = (b"\x00\xff'\\%s" * (size // 6 + 1))[:size]
    source = InlineSource(kind="inline", data="AAAA")
    asked = make.spec().model_copy(update={"source": source})
    job = store.run(
        lambda tx: create_job(tx, spec=asked, owner="default", keys=store.keys, inline={0: data})
    )
    assert make.read(store, job).source == {"kind": "inline", "sizeBytes": size}
    with store.read() as tx:
        assert b"".join(read_blob(tx, job.id, 0)) == data


def test_inline_bytes_may_be_left_in_the_spec(store: Store) -> None:
    asked = make.spec().model_copy(update={"source": InlineSource(kind="inline", data="aGk=")})
    job = make.create(store, asked)
    with store.read() as tx:
        assert b"".join(read_blob(tx, job.id, 0)) == b"hi"


@pytest.mark.parametrize(
    ("source", "image", "numbers"),
    [
        pytest.param("file", "file", set(), id="nothing"),
        pytest.param("inline", "file", {SOURCE_BLOB}, id="the source"),
        pytest.param("file", "inline", {image_blob(1)}, id="an image"),
        pytest.param("inline", "inline", {SOURCE_BLOB, image_blob(1)}, id="both"),
    ],
)
def test_what_a_request_has_in_itself_is_found(source: str, image: str, numbers: set[int]) -> None:
    places = {"file": {"kind": "file", "path": "a"}, "inline": {"kind": "inline", "data": "aGk="}}
    outputs = [make.output("a.mp4"), make.output("b.mp4", watermark={"source": places[image]})]
    assert set(find_inline(make.spec(outputs, source=places[source]))) == numbers


def test_the_images_of_watermarks_are_blobs_beside_that_of_the_source(store: Store) -> None:
    image = {"source": {"kind": "inline", "data": "aGk="}, "opacity": 0.5}
    outputs = [make.output("a.mp4"), make.output("b.mp4", watermark=image)]
    job = make.create(store, make.spec(outputs, source={"kind": "inline", "data": "AAAA"}))
    kept = make.read(store, job).outputs[1].spec["watermark"]
    assert kept == {"source": {"kind": "inline", "sizeBytes": 2}, "opacity": 0.5}
    with store.read() as tx:
        assert list_blobs(tx, job.id) == {SOURCE_BLOB, image_blob(1)}
        assert b"".join(read_blob(tx, job.id, image_blob(1))) == b"hi"
        assert b"".join(read_blob(tx, job.id, SOURCE_BLOB)) == bytes(3)
    worker = make.running(store)
    for index in (0, 1):
        make.say(store, worker, make.uploaded(index))
    make.say(store, worker, make.succeeded())
    assert make.finish(store, worker) is J.COMPLETED
    with store.read() as tx:
        assert list_blobs(tx, job.id) == frozenset()


def test_a_probe_is_a_job_without_outputs(store: Store) -> None:
    job = make.create(store, make.spec(0))
    worker = make.running(store)
    make.say(store, worker, make.succeeded())
    assert make.finish(store, worker) is J.COMPLETED
    assert make.read(store, job).outputs == []


# --- Sending a request twice -----------------------------------------------------------------


def _send(
    store: Store, *, key: str = "k1", body: bytes = b"b" * 32, external_id: str | None = None
) -> JobRow:
    idempotency = Idempotency(key=key, fingerprints=(body,))
    return store.run(
        lambda tx: create_job(
            tx,
            spec=make.spec(externalId=external_id),
            owner=make.OWNER,
            keys=store.keys,
            idempotency=idempotency,
        )
    )


@pytest.mark.parametrize("external_id", [None, "mine"], ids=["plain", "with externalId"])
def test_the_same_request_gets_the_same_answer_and_no_second_job(
    store: Store, external_id: str | None
) -> None:
    job = _send(store, external_id=external_id)
    with pytest.raises(Replayed) as replayed:
        _send(store, external_id=external_id)
    assert replayed.value.response == {
        "id": job.id,
        "uuid": str(job.uuid),
        "status": "queued",
    }
    assert make.count(store, "jobs") == 1


def test_the_same_request_sent_at_once_by_many_makes_one_job(store: Store) -> None:
    answers: list[object] = []

    def send() -> None:
        try:
            answers.append(_send(store, external_id="mine").id)
        except Replayed as replayed:
            answers.append(replayed.response["id"])

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert len(set(answers)) == 1
    assert make.count(store, "jobs") == 1


def test_a_duplicate_is_told_to_come_back_while_the_first_is_not_done(
    migrated_mysql: str,
) -> None:
    """Two processes on a server; one process of SQLite's writes one after the other."""
    with Store.open(migrated_mysql, keys=KEYS) as store:
        empty(store.engine)
        make.create(store)  # its owner has a queue: only the key is what both want
        key = Idempotency(key="k1", fingerprints=(b"b" * 32,))
        with store.begin() as first:
            create_job(first, spec=make.spec(), owner=make.OWNER, keys=store.keys, idempotency=key)
            with pytest.raises(Refused) as refused:
                _send(store)
    assert (refused.value.code, refused.value.status) == ("idempotency_in_progress", 409)
    assert refused.value.retry_after_s


def test_a_key_with_another_request_is_refused(store: Store) -> None:
    _send(store)
    with pytest.raises(Refused) as refused:
        _send(store, body=b"x" * 32)
    assert (refused.value.code, refused.value.status) == ("idempotency_key_reused", 422)


def test_a_key_is_forgotten_after_a_day(store: Store) -> None:
    _send(store)
    make.let_pass(store, 24 * 3600 + 1)
    _send(store, body=b"x" * 32)
    assert make.count(store, "jobs") == 2
    with pytest.raises(Replayed):
        _send(store, body=b"x" * 32)


# --- Listing ---------------------------------------------------------------------------------


def test_a_list_begins_with_the_latest_and_goes_on_where_a_page_ended(store: Store) -> None:
    jobs = [make.create(store) for _ in range(5)]
    with store.read() as tx:
        first = list_jobs(tx, owner=None, limit=2)
        second = list_jobs(tx, owner=None, limit=2, before_id=first[-1].id)
    assert [item.id for item in first + second] == [job.id for job in reversed(jobs[1:])]


def test_a_list_can_be_narrowed(store: Store) -> None:
    make.kubernetes_pool(store)
    ours = make.create(store, make.spec(externalId="e1"), owner="alice")
    theirs = make.create(store, make.spec(pool="k8s"), owner="bob")
    cancel_job(store, theirs.id, owner="bob")
    with store.read() as tx:

        def ids(**filters: Any) -> list[int]:
            return [item.id for item in list_jobs(tx, **filters)]

        assert ids(owner="alice") == [ours.id]
        assert ids(owner=None, status=J.CANCELED) == [theirs.id]
        assert ids(owner=None, status={J.CANCELED, J.QUEUED}) == [theirs.id, ours.id]
        assert ids(owner=None, pool="k8s") == [theirs.id]
        assert ids(owner=None, external_id="e1") == [ours.id]
        assert ids(owner="bob", external_id="e1") == []
        assert ids(owner=None, created_after=theirs.created_at) == []


@pytest.mark.parametrize("text", ["Élan", "élan", "ÉLAN 🎬", "N %_/"])
def test_a_text_is_found_in_any_case_also_beyond_ascii(store: Store, text: str) -> None:
    name = make.create(store, make.spec(externalId="Élan 🎬 n %_/"))
    title = make.create(store, make.spec(metadata={"title": "Un élan 🎬 N %_/"}))
    make.create(store, make.spec(externalId="Plan", metadata={"title": "🎞 n _%/"}))
    with store.read() as tx:
        found = list_jobs(tx, owner=None, text=text)
    assert [job.id for job in found] == [title.id, name.id]


def test_a_list_of_200_takes_as_many_queries_as_a_list_of_2(store: Store) -> None:
    for _ in range(30):
        make.create(store, make.spec(3))
    counts = []
    for limit in (2, 200):
        with make.statements(store) as seen, store.read() as tx:
            list_jobs(tx, owner=None, limit=limit)
        counts.append(len(seen))
    assert counts == [2, 2]


def test_creating_a_job_takes_few_statements(store: Store) -> None:
    make.create(store, make.spec(notificationUrl="https://example.com/hook"))
    with make.statements(store) as seen:
        make.create(store, make.spec(8, notificationUrl="https://example.com/hook"))
    # The pool with the queue's owner, the job, its outputs, its secrets, its message, its
    # outputs' numbers, the event, and its delivery.
    assert len(seen) == 8, "\n".join(seen)


# --- Statuses --------------------------------------------------------------------------------


def _in_status(store: Store, wanted: JobStatus) -> JobRow:
    job = make.create(store)
    if wanted is J.QUEUED:
        return job
    if wanted is J.CANCELED:
        cancel_job(store, job.id, owner=None)
        return job
    worker = make.starting(store)
    if wanted is J.RUNNING:
        make.say(store, worker, Started())
    if wanted is J.CANCELING:
        cancel_job(store, job.id, owner=None)
    if wanted is J.COMPLETED:
        make.complete(store, worker)
    if wanted is J.FAILED:
        make.finish(store, worker, failure=failure("source_not_found"), exit_code=20)
    return job


@pytest.mark.parametrize("after", JobStatus, ids=lambda status: f"to {status}")
@pytest.mark.parametrize("before", JobStatus, ids=lambda status: f"from {status}")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_status_follows_only_those_it_may_follow(
    store: Store, before: JobStatus, after: JobStatus
) -> None:
    job = _in_status(store, before)
    version = make.read(store, job).version

    def move(tx: Connection) -> None:
        locked = lock_job(tx, job.id)
        assert locked is not None
        move_job(tx, locked, after)

    if after in JOB_TRANSITIONS[before]:
        store.run(move)
        assert make.events(store, job)[-1] == (version + 1, job_event(after))
        return
    with pytest.raises(IllegalTransition):
        store.run(move)
    assert make.read(store, job).version == version


def test_versions_and_events_have_no_gaps_over_a_whole_life(store: Store) -> None:
    job = make.create(store, make.spec(2))
    make.finish(store, make.running(store), exit_code=51)
    make.let_pass(store, 3600)
    make.complete(store, make.running(store))
    assert make.events(store, job) == [
        (1, "job.queued"),
        (2, "job.starting"),
        (3, "job.running"),
        (4, "job.queued"),
        (5, "job.starting"),
        (6, "job.running"),
        (7, "output.uploaded"),
        (8, "output.uploaded"),
        (9, "job.completed"),
    ]
    assert make.read(store, job).version == 9


def test_an_event_carries_the_document_as_of_its_change(store: Store) -> None:
    job = make.create(store, make.spec(2))
    worker = make.running(store)
    make.say(store, worker, make.uploaded(0))
    make.complete(store, worker)
    with store.read() as tx:
        told = [event.data for event in list_events(tx, job.id)]
    assert [item["status"] for item in told] == [
        *("queued", "starting", "running", "running", "running", "completed")
    ]
    assert [item["version"] for item in told] == [1, 2, 3, 4, 5, 6]
    assert [output["status"] for output in told[3]["outputs"]] == ["uploaded", "pending"]
    assert told[-1] == make.read(store, job).to_json()


# --- Cancelling ------------------------------------------------------------------------------


def test_a_waiting_job_is_canceled_at_once(store: Store) -> None:
    job = make.create(store, make.spec(2))
    seen = cancel_job(store, job.id, owner=None)
    assert seen is not None
    assert seen.status is J.CANCELED
    assert [item.status for item in seen.outputs] == ["canceled", "canceled"]
    assert make.count(store, "queue_jobs") == 0


def test_a_running_job_is_canceled_when_its_worker_ended(store: Store) -> None:
    job = make.create(store, make.spec(2))
    worker = make.running(store)
    make.say(store, worker, make.uploaded(1))
    seen = cancel_job(store, job.uuid, owner=make.OWNER)
    assert seen is not None
    assert seen.status is J.CANCELING
    answer = make.say(store, worker, make.progress())
    assert (answer.accepted, answer.cancel, answer.publish_lease_s) == (True, True, 0.0)
    assert make.finish(store, worker, exit_code=61) is J.CANCELED
    after = make.read(store, job)
    assert [item.status for item in after.outputs] == ["canceled", "uploaded"]
    assert make.attempt_statuses(store, job) == ["canceled"]


def test_a_canceling_job_never_becomes_completed(store: Store) -> None:
    job = make.create(store)
    worker = make.running(store)
    cancel_job(store, job.id, owner=None)
    make.say(store, worker, make.succeeded(make.uploaded()))
    assert make.finish(store, worker, exit_code=0) is J.CANCELED
    assert [item.status for item in make.read(store, job).outputs] == ["uploaded"]


def test_a_job_canceled_between_its_claim_and_its_start_is_not_started(store: Store) -> None:
    job = make.create(store)
    worker = make.claimed(store)
    cancel_job(store, job.id, owner=None)
    assert not mark_starting(store, worker)
    assert make.status(store, job) is J.CANCELED
    assert make.attempt_statuses(store, job) == ["canceled"]


def test_a_job_that_is_over_cannot_be_canceled(store: Store) -> None:
    job = make.create(store)
    make.complete(store, make.running(store))
    seen = cancel_job(store, job.id, owner=None)
    assert seen is not None
    assert seen.status is J.COMPLETED


def test_another_owner_can_neither_cancel_nor_delete_nor_retry(store: Store) -> None:
    job = make.create(store, owner="alice")
    assert cancel_job(store, job.id, owner="bob") is None
    assert not delete_job(store, job.id, owner="bob")
    with pytest.raises(Refused) as refused:
        retry_job(store, job.id, owner="bob")
    assert refused.value.status == 404
    assert make.status(store, job) is J.QUEUED


# --- Trying again ----------------------------------------------------------------------------


def test_a_retry_makes_only_what_is_not_uploaded_and_counts_attempts_on(store: Store) -> None:
    job = make.create(store, make.spec(3))
    worker = make.running(store)
    make.say(store, worker, make.uploaded(1))
    make.finish(store, worker, failure=failure("destination_denied", output=2))
    assert make.status(store, job) is J.FAILED
    seen = retry_job(store, job.id, owner=None)
    assert (seen.status, seen.failure, seen.finished_at) == (J.QUEUED, None, None)
    assert [item.status for item in seen.outputs] == ["pending", "uploaded", "pending"]
    again = make.running(store)
    assert again.attempt == 2
    work = read_work(store, job.id, 2)
    assert work is not None
    assert [item.index for item in work.outputs] == [0, 2]
    assert len(work.spec.outputs) == 2


def test_a_retry_gets_a_resource_of_its_own(store: Store) -> None:
    make.kubernetes_pool(store)
    job = make.create(store, make.spec(pool="k8s"))
    name = resource_name(job.uuid)
    store.run(lambda tx: bind_resource(tx, job.id, name=name, uid="first"))
    cancel_job(store, job.id, owner=None)
    retry_job(store, job.id, owner=None)
    assert store.run(lambda tx: bind_resource(tx, job.id, name=name, uid="second"))


def test_a_retry_is_refused_of_what_was_applied_with_kubectl(store: Store) -> None:
    make.kubernetes_pool(store)
    asked = make.spec(pool="k8s")
    adopted = store.run(lambda tx: adopt_job(tx, spec=asked, name="mine", uid="u", keys=store.keys))
    assert adopted is not None
    cancel_job(store, adopted.id, owner=None)
    with pytest.raises(Refused, match="delete the TranscodeJob mine and apply it again") as no:
        retry_job(store, adopted.id, owner=None)
    assert (no.value.code, no.value.status) == ("applied_resource", 409)


def test_a_retry_begins_its_budgets_anew(store: Store) -> None:
    job = make.create(store)
    for _ in range(LIMITS.app):
        make.let_pass(store, 3600)
        make.finish(store, make.running(store), exit_code=40)
    assert make.status(store, job) is J.FAILED
    retry_job(store, job.id, owner=None)
    assert make.finish(store, make.running(store), exit_code=40) is J.QUEUED


@pytest.mark.parametrize(
    ("before", "code"),
    [
        pytest.param(J.QUEUED, "job_not_final", id="it waits"),
        pytest.param(J.RUNNING, "job_not_final", id="it runs"),
        pytest.param(J.COMPLETED, "job_completed", id="it is completed"),
    ],
)
def test_a_retry_is_refused_while(store: Store, before: JobStatus, code: str) -> None:
    job = _in_status(store, before)
    with pytest.raises(Refused) as refused:
        retry_job(store, job.id, owner=None)
    assert (refused.value.code, refused.value.status) == (code, 409)


def _with_secrets() -> JobSpec:
    return make.spec(source=make.s3())


NEW = {"/source/access_key_id": "AKIANEW", "/source/access_key_secret": "newer-value"}


def test_credentials_outlive_a_failure_by_a_day(store: Store) -> None:
    job = make.create(store, _with_secrets())
    make.finish(store, make.running(store), exit_code=30)
    make.let_pass(store, 23 * 3600)
    retry_job(store, job.id, owner=None)
    assert read_secret(store, job.id, make.running(store).attempt) == "s3cr3t-value"


def read_secret(store: Store, job_id: int, attempt: int) -> str:
    work = read_work(store, job_id, attempt)
    assert work is not None
    shown = work.spec.to_json_with_secrets()["source"]["access_key_secret"]
    assert isinstance(shown, str)
    return shown


def _fail_and_wait(store: Store, job: JobRow) -> None:
    make.finish(store, make.running(store), exit_code=30)
    make.let_pass(store, 25 * 3600)


def _cancel(store: Store, job: JobRow) -> None:
    cancel_job(store, job.id, owner=None)


@pytest.mark.parametrize(
    "end", [_fail_and_wait, _cancel], ids=["it failed a day ago", "it was canceled"]
)
def test_a_retry_needs_new_credentials_when(
    store: Store, end: Callable[[Store, JobRow], None]
) -> None:
    job = make.create(store, _with_secrets())
    end(store, job)
    with pytest.raises(Refused, match="/source/access_key_id, /source/access_key_secret") as no:
        retry_job(store, job.id, owner=None)
    assert (no.value.code, no.value.status) == ("credentials_required", 409)
    retry_job(store, job.id, owner=None, secrets=NEW)
    assert read_secret(store, job.id, make.running(store).attempt) == "newer-value"


def test_a_retry_needs_new_credentials_when_another_key_sealed_them(
    store: Store, database_url: str
) -> None:
    job = make.create(store, _with_secrets())
    make.finish(store, make.running(store), exit_code=30)
    with Store.open(database_url, keys=KeyRing([b"x" * 32])) as elsewhere:
        with pytest.raises(Refused) as no:
            retry_job(elsewhere, job.id, owner=None)
        assert no.value.code == "credentials_required"
        retry_job(elsewhere, job.id, owner=None, secrets=NEW)
        assert read_secret(elsewhere, job.id, make.running(elsewhere).attempt) == "newer-value"


def test_a_retry_takes_credentials_only_for_fields_that_had_some(store: Store) -> None:
    job = make.create(store, _with_secrets())
    _cancel(store, job)
    with pytest.raises(InvalidRequest) as wrong:
        retry_job(store, job.id, owner=None, secrets={"/source/bucket": "other"})
    assert [problem.pointer for problem in wrong.value.problems] == ["/source/bucket"]
    with pytest.raises(InvalidRequest, match="does not fit"):
        retry_job(store, job.id, owner=None, secrets={**NEW, "/source/access_key_id": "\n"})


# --- Deleting --------------------------------------------------------------------------------


def test_a_deleted_job_is_gone_from_every_table(store: Store) -> None:
    job = make.create(store, make.spec(source=make.s3()))
    make.complete(store, make.running(store))
    other = make.create(store)
    assert delete_job(store, job.id, owner=None)
    left = {name: make.count(store, name) for name in metadata.tables if "job" in name}
    ones = dict.fromkeys(["jobs", "job_outputs", "job_events", "queue_jobs"], 1)
    assert left == {**dict.fromkeys(left, 0), **ones}
    assert make.status(store, other) is J.QUEUED
    assert not delete_job(store, job.id, owner=None)


def test_a_job_deleted_while_it_runs_is_gone_at_once_and_its_rows_with_its_attempt(
    store: Store,
) -> None:
    job = make.create(store)
    worker = make.running(store)
    assert delete_job(store, job.id, owner=None)
    with store.read() as tx:
        assert read_job(tx, job.id, owner=None) is None
        assert list_jobs(tx, owner=None) == []
    assert not delete_job(store, job.id, owner=None)
    assert cancel_job(store, job.id, owner=None) is None
    assert make.say(store, worker, make.progress()).cancel
    assert make.finish(store, worker, exit_code=61) is J.CANCELED
    assert make.count(store, "jobs") == make.count(store, "job_attempts") == 0
    assert not make.say(store, worker, make.progress()).accepted


def test_a_job_that_can_never_start_fails_with_the_reason(store: Store) -> None:
    job = make.create(store, make.spec(2))
    because = failure("never_fits")
    assert store.run(lambda tx: fail_queued(tx, job.id, because))
    seen = make.read(store, job)
    assert (seen.status, seen.failure) == (J.FAILED, because)
    assert [item.error for item in seen.outputs] == [because, because]
    assert make.count(store, "queue_jobs") == 0
    assert not store.run(lambda tx: fail_queued(tx, job.id, because))
