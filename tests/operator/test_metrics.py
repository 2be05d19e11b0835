"""What Prometheus is told: that numbers move when they should, and only then."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import Metric

from encoder_core.exits import Exit
from encoder_core.failures import failure
from encoder_core.reports import Report, Started
from encoder_db.store import Store
from encoder_operator.budget import WriteBudget
from encoder_operator.cache import Cache
from encoder_operator.kube import JOBS, PODS, POOLS
from encoder_operator.limit import Limit
from encoder_operator.metrics import Metrics
from encoder_operator.poolkeeper import PoolKeeper
from encoder_operator.poolstatus import BAD_IMAGES
from encoder_operator.seen import PoolSeen, parse_pod
from tests.db import builders as make
from tests.operator.builders import NOW, a_pod
from tests.operator.desk import BY_HAND, RUNNING, Desk
from tests.operator.fake_api import FakeApi
from tests.operator.fake_time import run_in_fake_time
from tests.operator.test_health import an_operator


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


OPEN = PoolSeen(name="k8s", generation=1, max_concurrency=1, stop_policy="None", spec={}, status={})
Trouble = Callable[[Store, Cache, bool], None]


def no_node(_: Store, cache: Cache, is_on: bool) -> None:
    said = "0/3 nodes are available" if is_on else None
    cache.put_pod(a_pod(pool="k8s", running=not is_on, unschedulable=said))


def no_quota(_: Store, cache: Cache, is_on: bool) -> None:
    cache.note_quota("k8s", "exceeded quota: q", NOW + timedelta(days=1 if is_on else -1))


def no_image(_: Store, cache: Cache, is_on: bool) -> None:
    why = "ErrImagePull" if is_on else None
    for number in range(BAD_IMAGES):
        cache.put_pod(a_pod(name=f"p{number}", pool="k8s", running=not is_on, waiting=why))


def no_database(store: Store, _: Cache, is_on: bool) -> None:
    names = ("pools", "elsewhere") if is_on else ("elsewhere", "pools")
    with store.begin() as tx:
        tx.exec_driver_sql("ALTER TABLE {} RENAME TO {}".format(*names))


@pytest.mark.parametrize(
    ("cause", "turn"),
    [
        pytest.param("node", no_node, id="no node has room"),
        pytest.param("quota", no_quota, id="the quota is used up"),
        pytest.param("image", no_image, id="the image cannot be pulled"),
        pytest.param("db", no_database, id="the database is away"),
    ],
)
def test_time_is_counted_as_it_passes_in_which(store: Store, cause: str, turn: Trouble) -> None:
    """However often the pool is looked at meanwhile."""
    cache, metrics, clock = Cache(), Metrics(), [NOW]
    make.kubernetes_pool(store)
    keeper = PoolKeeper(store, FakeApi().kube(), cache, metrics, now=lambda: clock[0])
    cache.pools["k8s"] = OPEN
    turned, counted = {0: True, 30: False, 90: True, 99: False}, []
    for at_s in (0, 10, 11, 30, 90, 95, 99):
        clock[0] = NOW + timedelta(seconds=at_s)
        if at_s in turned:
            turn(store, cache, turned[at_s])
        asyncio.run(keeper.reconcile("k8s"))
        counted.append(throttled_s(metrics, cause))
    assert counted == [0, 10, 11, 11, 11, 16, 16]
    others = {"node", "quota", "image", "limit", "db", "api"} - {cause}
    assert {throttled_s(metrics, other) for other in others} == {0}


def test_time_is_counted_in_which_the_operator_may_run_nothing_more(store: Store) -> None:
    cache, metrics, clock = Cache(), Metrics(), [NOW]
    make.kubernetes_pool(store)
    keeper = PoolKeeper(
        store, FakeApi().kube(), cache, metrics, now=lambda: clock[0], full=Limit(0).reached
    )
    cache.pools["k8s"] = OPEN
    for at_s in (0, 10, 11):
        clock[0] = NOW + timedelta(seconds=at_s)
        asyncio.run(keeper.reconcile("k8s"))
    assert throttled_s(metrics, "limit") == 11


def throttled_s(metrics: Metrics, cause: str) -> float:
    return value(metrics, "transcode_throttled_seconds_total", cause=cause)


def test_time_is_counted_for_which_the_api_server_has_writes_held() -> None:
    metrics = Metrics()

    async def story() -> None:
        budget = WriteBudget(10, burst=5, now=asyncio.get_running_loop().time)
        kube = FakeApi().kube(metrics=metrics, budget=budget)
        budget.throttled(7.0)
        for number in range(3):
            await kube.create(PODS, {"metadata": {"name": f"pod-{number}"}})

    run_in_fake_time(story())
    assert throttled_s(metrics, "api") == pytest.approx(7.0)


OF_TROUBLE = {
    "transcode_throttled_seconds",
    "transcode_slot_leaks",
    "transcode_ghost_objects",
    "transcode_transactions_retried",
}
"""They stay at 0 in a life that goes well; the tests of each trouble count them."""
BY_THE_PROBE = {"transcode_watch_last_event_age_seconds"}


def test_one_life_moves_every_metric(store: Store) -> None:
    make.kubernetes_pool(store)
    api = FakeApi()
    api.put(POOLS, "k8s", spec={"maxConcurrency": 1})
    job = make.create(store, make.spec(pool="k8s"))
    desk, versions = Desk(store, api), itertools.count(10_000)
    # Of late: a Pod that does not run yet is ended when its start deadline is over.
    made_at = datetime.now(UTC) - timedelta(seconds=10)

    def at(seconds: int) -> str:
        return f"{made_at + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"

    def step(pod: dict[str, Any]) -> None:
        """What its node and its worker do next."""
        phase = pod.get("status", {}).get("phase")
        if phase is None:
            pod["metadata"]["creationTimestamp"] = at(0)
            pod["status"] = {"phase": "Pending"}
        elif phase == "Pending":
            pod["status"] = ran("running", since=at(1), startedAt=at(2))
            desk.say(job, Started())
        elif phase == "Running":
            desk.say(job, make.succeeded(make.uploaded(0)))
            times = {"startedAt": at(2), "finishedAt": at(9)}
            ended = ran("terminated", since=at(1), exitCode=0, **times)
            pod["status"] = {**ended, "phase": "Succeeded"}
        pod["metadata"]["resourceVersion"] = str(next(versions))

    async def live() -> Metrics:
        operator = an_operator(store, api, asyncio.get_running_loop().time)
        written = asyncio.Event()
        api.around_write = lambda _: written.set()
        running = asyncio.create_task(operator.run())
        while not recorded(api):
            await asyncio.wait_for(written.wait(), timeout=60)
            written.clear()
            for body in api.all(JOBS):
                operator.job_changed("MODIFIED", body)
            for body in api.all(PODS):
                operator.pod_changed("MODIFIED", body)
                if body.get("status", {}).get("phase") != "Succeeded":
                    step(body)
                    written.set()
                operator.pod_changed("MODIFIED", body)
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        return operator._metrics

    metrics = asyncio.run(live())
    still = {
        family.name
        for family in metrics.registry.collect()
        if family.name.startswith("transcode_")
        and not (family.samples if family.type == "gauge" else moved(family))
    }
    assert still == OF_TROUBLE | BY_THE_PROBE


def ran(state: str, *, since: str = "2026-01-01T00:00:01Z", **facts: Any) -> dict[str, Any]:
    met = {"status": "True", "lastTransitionTime": since}
    return {
        "phase": "Running",
        "conditions": [
            {**met, "type": "PodScheduled"},
            {**met, "type": "PodReadyToStartContainers"},
        ],
        "containerStatuses": [{"name": "worker", "state": {state: facts}}],
    }


def recorded(api: FakeApi) -> bool:
    conditions = [
        condition
        for body in api.all(JOBS)
        for condition in body.get("status", {}).get("conditions", [])
    ]
    return any(c["type"] == "ResultRecorded" and c["status"] == "True" for c in conditions)


def moved(family: Metric) -> bool:
    """A counter or a histogram that counted something."""
    return any(s.value for s in family.samples if s.name.endswith(("_total", "_count")))


def test_the_numbers_of_a_pool_go_with_it(store: Store) -> None:
    """Else an alert on Pods that do not start would stand for ever."""
    desk = Desk(store)
    desk.admitted()
    desk.keep_pool()
    assert gauges_of(desk.metrics, desk.pool) == {
        *("transcode_pool_limit", "transcode_active", "transcode_pending"),
        *("transcode_queued", "transcode_oldest_queued_seconds"),
    }
    del desk.api.objects[POOLS.path("work", desk.pool)]
    for _ in range(2):
        desk.keep_pool()
        assert gauges_of(desk.metrics, desk.pool) == set()


def gauges_of(metrics: Metrics, pool: str) -> set[str]:
    return {
        family.name
        for family in metrics.registry.collect()
        if family.type == "gauge" and any(s.labels.get("pool") == pool for s in family.samples)
    }


@pytest.mark.parametrize("stage", ["waiting", "starting", "running"])
def test_a_canceled_job_is_counted_once_wherever_it_was(store: Store, stage: str) -> None:
    desk = Desk(store, places=0 if stage == "waiting" else 1)
    desk.apply("by-hand", BY_HAND)
    desk.settle("by-hand")
    if stage != "waiting":
        desk.dispatch()
        desk.settle("by-hand")
    if stage == "running":
        desk.move_pod("by-hand", RUNNING)
        desk.say_of("by-hand", Started())
        desk.settle("by-hand")
    desk.api.objects[JOBS.path("work", "by-hand")]["spec"]["desiredState"] = "Cancel"
    for _ in range(3):
        desk.settle("by-hand")
    counted = [
        sample.value
        for family in desk.metrics.registry.collect()
        for sample in family.samples
        if sample.name == "transcode_jobs_finished_total" and sample.labels["outcome"] == "canceled"
    ]
    assert counted == [1]


@pytest.mark.parametrize(
    ("said", "exit_code", "category", "reason"),
    [
        pytest.param(make.succeeded(make.uploaded()), 0, "succeeded", "succeeded", id="success"),
        pytest.param(make.failed(failure("source_not_found")), Exit.SOURCE, "none",
                     "source_not_found", id="the worker's own failure"),
        pytest.param(None, Exit.MEMORY, "app", "capacity_memory", id="its exit code alone"),
        pytest.param(None, 139, "app", "worker_failed", id="a signal"),
    ],
)  # fmt: skip
def test_an_attempt_is_counted_by_its_budget_and_the_code_of_its_failure(
    store: Store, said: Report | None, exit_code: int, category: str, reason: str
) -> None:
    desk = Desk(store)
    job, name = desk.admitted()
    desk.move_pod(name, RUNNING)
    desk.say(job, Started())
    desk.settle(name)
    if said is not None:
        desk.say(job, said)
    phase = {"phase": "Failed" if exit_code else "Succeeded"}
    desk.move_pod(name, {**ran("terminated", exitCode=int(exit_code)), **phase})
    desk.settle(name)
    assert attempts_of(desk.metrics) == {(category, reason): 1}


def attempts_of(metrics: Metrics) -> dict[tuple[str, str], float]:
    return {
        (sample.labels["category"], sample.labels["reason"]): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "transcode_attempts_total"
    }


def test_codes_of_newer_workers_are_one_series() -> None:
    metrics = Metrics()
    for code in ("code_of_tomorrow", "code_of_next_week", "encode_failed"):
        metrics.count_attempt("p", "app", code)
    assert attempts_of(metrics) == {("app", "unknown"): 2, ("app", "encode_failed"): 1}


def test_the_start_of_a_pod_is_measured_by_its_stages(store: Store) -> None:
    """The image's pull is what lies between its network and its container."""
    desk = Desk(store)
    _, name = desk.admitted()
    body = desk.pod(name)
    operator = an_operator(store, desk.api, lambda: 0.0)
    operator.pod_changed("ADDED", body)
    body["metadata"] |= {"creationTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": "999"}
    ready = {"status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z"}
    body["status"] = {
        "phase": "Running",
        "conditions": [
            {**ready, "type": "PodScheduled", "lastTransitionTime": "2026-01-01T00:00:02Z"},
            {**ready, "type": "PodReadyToStartContainers"},
        ],
        "containerStatuses": [
            {"name": "worker", "state": {"running": {"startedAt": "2026-01-01T00:00:45Z"}}}
        ],
    }
    assert parse_pod(body) is not None
    for _ in range(2):
        operator.pod_changed("MODIFIED", body)
    took = {
        stage: value(operator._metrics, "transcode_pod_start_seconds_sum", pool="k8s", stage=stage)
        for stage in ("schedule", "start", "pull")
    }
    assert took == {"schedule": 2.0, "start": 3.0, "pull": 40.0}
