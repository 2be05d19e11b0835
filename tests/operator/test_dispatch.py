"""From the queue into the cluster: a place is held by what is under way there, and by nothing else.

The API server is one in memory; tests/cluster has the real one.
"""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from encoder_core.names import resource_name
from encoder_core.retries import RetryLimits
from encoder_core.states import JobStatus
from encoder_db.cluster import mirror_pool
from encoder_db.jobs import cancel_job, retry_job
from encoder_db.rows import JobRow
from encoder_db.store import Store
from encoder_operator.cache import Cache
from encoder_operator.dispatch import Dispatcher
from encoder_operator.kube import JOBS
from encoder_operator.limit import Limit
from encoder_operator.metrics import Metrics
from tests.db import builders as make
from tests.operator.fake_api import Answer, FakeApi, refusal

J = JobStatus


class Desk:
    """A dispatcher with what it talks to. Its pool has one place."""

    def __init__(self, store: Store, *, poll_s: float = 0.0) -> None:
        self.store, self.api, self.woken = store, FakeApi(), list[str]()
        self.cache, self.metrics = Cache(), Metrics()
        self.pool = make.kubernetes_pool(store, places=1)
        self.dispatcher = Dispatcher(
            store=store,
            kube=self.api.kube(),
            cache=self.cache,
            worker="operator",
            limits=RetryLimits(),
            poll_s=poll_s,
            limit=Limit(100),
            wake=self.woken.append,
            blocked=set,
            metrics=self.metrics,
        )

    def create(self) -> JobRow:
        return make.create(self.store, make.spec(pool=self.pool))

    def round(self) -> int:
        return asyncio.run(self.dispatcher.round())


@pytest.fixture
def desk(store: Store) -> Desk:
    return Desk(store)


def test_a_queued_job_gets_its_resource_and_is_starting(desk: Desk) -> None:
    job = desk.create()
    assert desk.round() == 1
    name = resource_name(job.uuid)
    assert list(desk.cache.jobs) == desk.woken == [name]
    assert make.status(desk.store, job) is J.STARTING
    assert desk.round() == 0


def test_a_resource_that_could_not_be_noted_is_looked_at(desk: Desk) -> None:
    job = desk.create()
    engine = desk.store.engine

    def away(*_: object) -> None:
        raise OperationalError("", {}, ConnectionError())

    def cut(moment: str) -> None:
        if moment == "after POST 201":
            event.listen(engine, "before_cursor_execute", away)

    desk.api.around_write = cut
    try:
        assert desk.round() == 1
    finally:
        event.remove(engine, "before_cursor_execute", away)
    assert make.status(desk.store, job) is J.QUEUED
    assert desk.woken == [resource_name(job.uuid)]


def test_a_pool_that_opens_is_served_while_the_resources_of_others_are_made(store: Store) -> None:
    desk = Desk(store, poll_s=3600.0)
    desk.create()
    waiting = make.create(store, make.spec(pool=make.kubernetes_pool(store, "closed", places=0)))

    def open_pool(tx: Connection) -> None:
        mirror_pool(tx, "closed", max_concurrency=1, stop_policy="None")

    async def until_calls(count: int) -> None:
        while desk.api.at_once < count:
            await asyncio.sleep(0.01)

    async def story() -> None:
        desk.api.gate = asyncio.Event()
        async with asyncio.timeout(60.0):
            running = asyncio.create_task(desk.dispatcher.run())
            await until_calls(1)
            store.run(open_pool)
            desk.dispatcher.look()
            await until_calls(2)
            running.cancel()
        await asyncio.wait([running])

    asyncio.run(story())
    assert make.read(store, waiting).attempt == 1


def test_nothing_is_claimed_while_the_api_server_is_away_and_everything_at_once_when_it_is_back(
    desk: Desk,
) -> None:
    job = desk.create()
    desk.api.away_for = 4
    assert desk.round() == 1
    assert desk.api.away_for == 0, "it was waited for"
    assert (make.status(desk.store, job), desk.api.all(JOBS)) == (J.QUEUED, [])
    assert desk.round() == 1
    assert make.status(desk.store, job) is J.STARTING
    assert [a.budget for a in make.read(desk.store, job).attempts] == [None, None]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(refusal(500, "InternalError"), id="the API server failed"),
        pytest.param(refusal(403, "Forbidden"), id="a right is missing"),
    ],
)
def test_a_refused_resource_holds_no_place_and_is_tried_again(desk: Desk, answer: object) -> None:
    refused = desk.create()
    desk.api.refuse["POST", JOBS.plural] = answer  # type: ignore[assignment]  # parametrised
    desk.round()
    assert make.status(desk.store, refused) is J.QUEUED
    desk.api.refuse.clear()
    another = desk.create()
    desk.round()
    assert make.status(desk.store, another) is J.STARTING
    make.let_pass(desk.store, 60)
    make.finish(desk.store, _attempt_of(desk, another))
    desk.round()
    assert make.status(desk.store, refused) is J.STARTING


def _attempt_of(desk: Desk, job: JobRow) -> make.Claimed:
    message = make.QueueMessage(
        id=0, queue="", job_id=job.id, deliveries=1, failures=0, lease_seq=1
    )
    return make.Claimed(message=message, job=job, attempt=1, token="")


def test_a_resource_that_the_schema_refuses_fails_its_job(desk: Desk) -> None:
    job = desk.create()
    desk.api.refuse["POST", JOBS.plural] = refusal(422, "Invalid", "spec.outputs[0]: too long")
    desk.round()
    document = make.read(desk.store, job)
    assert document.status is J.FAILED
    assert document.failure is not None
    assert document.failure.code == "request_impossible"
    assert "spec.outputs[0]: too long" in document.failure.message


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(
            refusal(413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728"),
            id="the API server",
        ),
        pytest.param(refusal(500, "", "etcdserver: request is too large"), id="etcd"),
        pytest.param(
            refusal(
                *(500, ""),
                "rpc error: code = ResourceExhausted desc = trying to send message larger than max "
                "(2097163 vs. 2097152)",
            ),
            id="the way to etcd",
        ),
    ],
)
def test_a_job_whose_resource_is_too_large_fails_and_says_so_if_too_large_for_(
    desk: Desk, answer: Answer
) -> None:
    job = desk.create()
    desk.api.refuse["POST", JOBS.plural] = answer
    desk.round()
    document = make.read(desk.store, job)
    assert (document.status, document.attempt) == (J.FAILED, 1)
    assert document.failure is not None
    assert document.failure.code == "request_impossible"
    assert document.failure.message == (
        f"source and outputs are too large for a TranscodeJob: {answer.body['message']}"
    )


@pytest.mark.parametrize(("status", "counted"), [(422, 1), (413, 1), (503, None)])
def test_a_job_that_can_have_no_resource_is_counted_once_among_those_that_ended(
    desk: Desk, status: int, counted: int | None
) -> None:
    desk.create()
    desk.api.refuse["POST", JOBS.plural] = refusal(status, "", "Request entity too large: limit")
    for _ in range(2):
        desk.round()
    ended = {"pool": desk.pool, "category": "none"}
    for name, labels in (
        ("transcode_jobs_finished_total", {"outcome": "failed"}),
        ("transcode_attempts_total", {"reason": "request_impossible"}),
    ):
        assert desk.metrics.registry.get_sample_value(name, ended | labels) == counted


def test_a_retry_waits_for_the_old_resource_to_go_even_when_the_pool_has_one_place(
    desk: Desk,
) -> None:
    job = desk.create()
    desk.round()
    cancel_job(desk.store, job.id, owner=None)
    make.finish(desk.store, _attempt_of(desk, job), lost=True, exit_code=None)
    name = resource_name(job.uuid)
    [old] = desk.api.objects.values()
    old["status"] = {"conditions": [{"type": "ResultRecorded", "status": "True"}]}
    retry_job(desk.store, job.id, owner=None)
    desk.round()
    assert make.status(desk.store, job) is J.QUEUED
    assert desk.woken[-1] == name  # whoever is woken deletes it
    desk.api.objects.clear()
    make.let_pass(desk.store, 2)
    desk.round()
    assert make.status(desk.store, job) is J.STARTING
    assert desk.cache.jobs[name].uid != old["metadata"]["uid"]


def test_an_old_resource_that_cannot_go_costs_few_attempts(desk: Desk) -> None:
    """Somebody's finalizer may keep it for days."""
    job = desk.create()
    desk.round()
    cancel_job(desk.store, job.id, owner=None)
    make.finish(desk.store, _attempt_of(desk, job), lost=True, exit_code=None)
    [old] = desk.api.objects.values()
    old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    retry_job(desk.store, job.id, owner=None)
    for _ in range(30):
        make.let_pass(desk.store, 20)
        desk.round()
    assert make.read(desk.store, job).attempt < 1 + 12, "in ten minutes"
