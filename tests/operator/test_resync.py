"""A list takes a while: what happens meanwhile is neither lost nor taken for a deletion.

The API server is one in memory; tests/cluster has the real one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from encoder_core.failures import Budget
from encoder_core.names import pod_name, resource_name
from encoder_core.reports import AmbientCredentials, Started
from encoder_core.states import JobStatus
from encoder_db.cluster import bind_resource
from encoder_db.pools import read_pool
from encoder_db.store import Store
from encoder_operator.act import Actor
from encoder_operator.cache import Cache
from encoder_operator.kube import JOBS, PODS, POOLS
from encoder_operator.metrics import Metrics
from encoder_operator.operator import is_news, renewed
from encoder_operator.pods import PodSettings
from encoder_operator.policy import PoolPolicy
from encoder_operator.poolkeeper import PoolKeeper
from encoder_operator.reconcile import Reconciler
from encoder_operator.seen import JobSeen, parse_pod
from encoder_operator.sizing import Wanted
from tests.db import builders as make
from tests.operator.builders import a_job
from tests.operator.desk import RUNNING, Desk
from tests.operator.fake_api import FakeApi

J = JobStatus

OLD, NEW, OTHER = a_job(), a_job(resource_version="8"), a_job(name="other")


@pytest.mark.parametrize(
    ("listed", "before", "now", "want"),
    [
        pytest.param([NEW], [OLD], [OLD], [NEW], id="a list is newer than what was known before"),
        pytest.param([OLD], [OLD], [NEW], [NEW], id="a change meanwhile is newer than the list"),
        pytest.param([], [], [NEW], [NEW], id="what was made meanwhile is no ghost"),
        pytest.param([], [OLD], [OLD], [], id="what was gone before is one"),
        pytest.param([OLD, OTHER], [OLD], [], [OTHER], id="what was deleted meanwhile is gone"),
    ],
)
def test_renewed(
    listed: list[JobSeen], before: list[JobSeen], now: list[JobSeen], want: list[JobSeen]
) -> None:
    known = {job.name: job for job in before}
    assert renewed(listed, before=known, now={job.name: job for job in now}) == want


@pytest.mark.parametrize(
    ("known", "seen", "news"),
    [
        pytest.param(NEW, NEW, False, id="what our own write was answered with is nothing new"),
        pytest.param(OLD, NEW, True, id="a later version is"),
        pytest.param(NEW, OLD, False, id="an earlier one that comes late is not"),
        pytest.param(a_job(resource_version="10"), NEW, False, id="versions are numbers"),
        pytest.param(None, NEW, True, id="what was not known is"),
        pytest.param(a_job(uid="job-2", resource_version="8"), NEW, True, id="another's name is"),
    ],
)
def test_an_event_of_a_watch(known: JobSeen | None, seen: JobSeen, news: bool) -> None:
    assert is_news(seen, known=known) is news


def _reconciler(store: Store, api: FakeApi, cache: Cache) -> Reconciler:
    actor = Actor(
        store=store,
        kube=api.kube(),
        cache=cache,
        worker="operator",
        pods=PodSettings(image="worker"),
        report_url="http://api/internal/reports",
        allowed_cidrs=(),
        denied_cidrs=(),
        ambient=AmbientCredentials(),
        wanted=Wanted(),
        defaults=PoolPolicy(),
        metrics=Metrics(),
    )
    return Reconciler(store=store, kube=api.kube(), cache=cache, actor=actor)


async def _settle(reconciler: Callable[[str], object], name: str) -> None:
    while await reconciler(name) == 0:  # type: ignore[misc]  # a coroutine
        pass


@pytest.mark.parametrize(
    ("exists", "want", "pods"),
    [
        pytest.param(True, J.STARTING, 1, id="exists is started, not canceled"),
        pytest.param(False, J.CANCELED, 0, id="is gone is canceled"),
    ],
)
def test_a_job_whose_resource_is_not_in_the_cache_but(
    store: Store, exists: bool, want: JobStatus, pods: int
) -> None:
    make.kubernetes_pool(store)
    job = make.create(store, make.spec(pool="k8s"))
    name = resource_name(job.uuid)
    api = FakeApi()
    resource = api.put(JOBS, name, spec={"jobUID": str(job.uuid)})
    uid = resource["metadata"]["uid"]
    store.run(lambda tx: bind_resource(tx, job.id, name=name, uid=uid))
    make.starting(store, engine="kubernetes")
    if not exists:
        api.objects.clear()
    asyncio.run(_settle(_reconciler(store, api, Cache()), name))
    assert make.status(store, job) is want
    assert sum(path.startswith(PODS.path("work")) for path in api.objects) == pods


INTERRUPTED = {
    "phase": "Failed",
    "containerStatuses": [{"name": "worker", "state": {"terminated": {"exitCode": 60}}}],
}


def test_a_pod_that_ended_and_went_between_two_looks_is_judged_by_its_end(store: Store) -> None:
    desk = Desk(store)
    job, name = desk.admitted()
    desk.move_pod(name, RUNNING)
    desk.say(job, Started())
    desk.settle(name)
    desk.move_pod(name, INTERRUPTED)
    pod = parse_pod(desk.api.objects.pop(PODS.path("work", pod_name(name, 1))))
    assert pod is not None
    desk.cache.bury_pod(pod)
    desk.look(name)
    (attempt,) = make.read(store, job).attempts
    assert attempt.failure is not None
    assert (attempt.failure.code, attempt.exit_code) == ("worker_interrupted", 60)
    assert desk.cache.pods_of(name) == {}


def test_a_pod_that_somebody_deleted_is_told_as_a_disruption_though_its_worker_ended_by_itself(
    store: Store,
) -> None:
    desk = Desk(store)
    job, name = desk.admitted()
    desk.move_pod(name, RUNNING)
    desk.say(job, Started())
    desk.settle(name)
    desk.pod(name)["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    desk.move_pod(name, INTERRUPTED)
    desk.settle(name)
    (attempt,) = make.read(store, job).attempts
    assert attempt.failure is not None
    assert (attempt.failure.code, attempt.budget) == ("pod_deleted", Budget.INFRA)
    assert attempt.exit_code == 60
    assert desk.condition(name, "Disrupted") == (
        "True",
        "PodDeleted",
        "Attempt 1: The Pod was deleted.",
    )
    assert desk.events().count("DisruptionObserved") == 1


def once(event: Callable[[], None], *, moment: str) -> Callable[[str], None]:
    """What happens at the first such moment of a write, and never again."""
    left = [event]

    def around(now: str) -> None:
        if left and now.startswith(moment):
            left.pop()()

    return around


def test_a_job_whose_deletion_is_told_while_its_status_is_written_is_canceled(store: Store) -> None:
    desk = Desk(store)
    job, name = desk.admitted()
    desk.move_pod(name, RUNNING)
    desk.say(job, Started())
    desk.watch()

    def delete() -> None:
        desk.api.objects.clear()
        desk.watch()

    desk.api.around_write = once(delete, moment="after PATCH")
    for _ in range(3):
        desk.look(name)
    assert make.status(store, job) is J.CANCELED


def test_a_pool_whose_deletion_is_told_while_its_status_is_written_holds_its_jobs(
    store: Store,
) -> None:
    desk = Desk(store)
    desk.watch()

    def delete() -> None:
        desk.api.objects.clear()
        desk.watch()

    desk.api.around_write = once(delete, moment="after PATCH")
    asyncio.run(desk.keeper.reconcile(desk.pool))
    asyncio.run(desk.keeper.reconcile(desk.pool))  # the watch woke it
    with store.read() as tx:
        pool = read_pool(tx, desk.pool)
    assert pool is not None
    assert pool.stop_policy == "Hold"


def test_a_pool_that_is_deleted_and_made_again_is_not_given_the_status_of_the_first(
    store: Store,
) -> None:
    desk = Desk(store)
    desk.watch()

    def replace() -> None:
        desk.api.objects.clear()
        desk.api.put(POOLS, desk.pool, spec={"maxConcurrency": 3})

    desk.api.around_write = once(replace, moment="before PATCH")
    asyncio.run(desk.keeper.reconcile(desk.pool))
    assert "status" not in desk.api.objects[POOLS.path("work", desk.pool)]
    desk.keep_pool()
    assert desk.pool_condition("Ready") == "True"


def test_a_pool_whose_resource_is_gone_holds_its_jobs(store: Store) -> None:
    make.kubernetes_pool(store, "hd")
    api = FakeApi()
    keeper = PoolKeeper(store, api.kube(), Cache(), Metrics())
    asyncio.run(keeper.reconcile("hd"))
    with store.read() as tx:
        pool = read_pool(tx, "hd")
    assert pool is not None
    assert pool.stop_policy == "Hold"
