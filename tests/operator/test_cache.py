"""What the operator remembers of the cluster, and what a fresh list finds to be wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from encoder_operator.cache import Cache
from encoder_operator.seen import JobSeen, PodPhase, PodSeen, PoolSeen
from tests.operator.builders import NAME, a_job, a_pod

OTHER = a_pod(name="other-a1", uid="pod-2", resource="other")


def a_cache(jobs: Sequence[JobSeen] = (), pods: Sequence[PodSeen] = ()) -> Cache:
    cache = Cache(jobs={job.name: job for job in jobs})
    for pod in pods:
        cache.put_pod(pod)
    return cache


def test_the_pods_of_a_job_by_attempt() -> None:
    second = a_pod(name=f"{NAME}-a2", uid="pod-3", attempt=2)
    cache = a_cache(pods=[a_pod(), second, OTHER])
    assert cache.pods_of(NAME) == {1: a_pod(), 2: second}
    assert cache.pods_of("nobody") == {}


def test_a_pod_is_its_latest_projection() -> None:
    ended = a_pod(phase=PodPhase.SUCCEEDED)
    cache = a_cache(pods=[a_pod(), ended])
    assert cache.pods_of(NAME) == {1: ended}


@pytest.mark.parametrize(
    ("uid", "left"),
    [
        pytest.param("pod-1", {}, id="it goes"),
        pytest.param(None, {}, id="whoever it is"),
        pytest.param("old", {1: a_pod()}, id="the news is of an earlier one of that name"),
    ],
)
def test_a_deleted_pod(uid: str | None, left: dict[int, PodSeen]) -> None:
    cache = a_cache(pods=[a_pod()])
    cache.drop_pod(a_pod().name, uid)
    assert cache.pods_of(NAME) == left


ENDED = a_pod(phase=PodPhase.FAILED, running=False, exit_code=60, deleting=True)


@pytest.mark.parametrize(
    ("jobs", "pod", "left"),
    [
        pytest.param(
            [a_job()], ENDED, {1: replace(ENDED, gone=True)}, id="had an end that nobody recorded"
        ),
        pytest.param([a_job()], a_pod(), {}, id="was deleted by force: no end is known"),
        pytest.param(
            [a_job(conditions={"ResultRecorded": {"status": "True"}})],
            ENDED, {}, id="belonged to a job whose result is recorded",
        ),
        pytest.param([], ENDED, {}, id="belonged to a job that is gone"),
        pytest.param([a_job(uid="job-2")], ENDED, {}, id="belonged to an earlier job of that name"),
        pytest.param(
            [a_job()], replace(ENDED, uid="old"), {1: a_pod()}, id="was an earlier one of that name"
        ),
    ],
)  # fmt: skip
def test_what_is_kept_of_a_deleted_pod_that(
    jobs: list[JobSeen], pod: PodSeen, left: dict[int, PodSeen]
) -> None:
    cache = a_cache(jobs, [a_pod()])
    cache.bury_pod(pod)
    assert cache.pods_of(NAME) == left


def test_what_was_kept_goes_once_its_attempt_is_recorded() -> None:
    cache = a_cache([a_job()], [a_pod(), a_pod(name=f"{NAME}-a2", uid="pod-2", attempt=2)])
    cache.bury_pod(ENDED)
    cache.forget_buried(NAME, besides=1)
    assert set(cache.pods_of(NAME)) == {1, 2}
    cache.forget_buried(NAME, besides=2)
    assert set(cache.pods_of(NAME)) == {2}


def test_dropping_what_is_not_known_is_nothing() -> None:
    cache = a_cache()
    cache.drop_pod("nobody")
    cache.drop_job("nobody")
    assert cache == Cache()


def test_a_deleted_job_goes_but_not_its_successor() -> None:
    cache = a_cache([a_job(uid="job-2")])
    cache.drop_job(NAME, "job-1")
    assert list(cache.jobs) == [NAME]
    cache.drop_job(NAME, "job-2")
    assert cache.jobs == {}


def a_pool(**changes: Any) -> PoolSeen:
    values: dict[str, Any] = {
        "name": "hd", "uid": "pool-1", "generation": 1, "resource_version": "7",
        "max_concurrency": 4, "stop_policy": "None", "spec": {}, "status": {},
    }  # fmt: skip
    return PoolSeen(**{**values, **changes})


def test_a_deleted_pool_goes_but_not_its_successor() -> None:
    cache = Cache(pools={"hd": a_pool()})
    cache.drop_pool("hd", "pool-0")
    assert cache.pools == {"hd": a_pool()}
    cache.drop_pool("hd", "pool-1")
    cache.drop_pool("hd", "pool-1")
    assert cache.pools == {}


@pytest.mark.parametrize(
    ("meanwhile", "kept"),
    [
        pytest.param({}, True, id="nothing"),
        pytest.param({"resource_version": "9"}, True, id="the write itself"),
        pytest.param({"resource_version": "10"}, False, id="a later change"),
        pytest.param({"uid": "another"}, False, id="that another has its name now"),
        pytest.param(None, False, id="its deletion"),
    ],
)
def test_an_answer_to_a_write_counts_unless_the_watch_has_told_meanwhile_of(
    meanwhile: dict[str, Any] | None, kept: bool
) -> None:
    job, pool = a_job(resource_version="9"), a_pool(resource_version="9")
    cache = Cache()
    if meanwhile is not None:
        cache.jobs[NAME] = told = a_job(**meanwhile)
        cache.pools["hd"] = told_of_pool = a_pool(**meanwhile)
    cache.renew_job(job)
    cache.renew_pool(pool)
    if kept:
        assert (cache.jobs, cache.pools) == ({NAME: job}, {"hd": pool})
    elif meanwhile is None:
        assert (cache.jobs, cache.pools) == ({}, {})
    else:
        assert (cache.jobs, cache.pools) == ({NAME: told}, {"hd": told_of_pool})


BEFORE = ([a_job()], [a_pod()])


@pytest.mark.parametrize(
    ("jobs", "pods", "changed"),
    [
        pytest.param(*BEFORE, set(), id="nothing happened"),
        pytest.param([], [a_pod()], {NAME}, id="a job was deleted meanwhile"),
        pytest.param([a_job()], [], {NAME}, id="a pod was deleted meanwhile"),
        pytest.param([], [], {NAME}, id="both"),
        pytest.param([a_job(cancel=True)], [a_pod()], {NAME}, id="a job changed"),
        pytest.param(
            [a_job()], [a_pod(phase=PodPhase.FAILED)], {NAME}, id="a pod changed"
        ),
        pytest.param([a_job(uid="job-2")], [a_pod()], {NAME}, id="another took the name"),
        pytest.param([a_job(), a_job(name="new")], [a_pod()], {"new"}, id="a job is new"),
        pytest.param([a_job()], [a_pod(), OTHER], {"other"}, id="a pod of a job that is gone"),
        pytest.param(
            [a_job()], [a_pod(resource="other")], {NAME, "other"}, id="a pod went to another job"
        ),
    ],
)  # fmt: skip
def test_a_fresh_list_is_the_truth_and_says_what_differed(
    jobs: list[JobSeen], pods: list[PodSeen], changed: set[str]
) -> None:
    cache = a_cache(*BEFORE)
    assert cache.replace(jobs=jobs, pods=pods, pools=[]) == changed
    assert cache == a_cache(jobs, pods)


def test_pools_are_replaced_too() -> None:
    cache = Cache(pools={"gone": a_pool()})
    cache.replace(jobs=[], pods=[], pools=[a_pool()])
    assert cache.pools == {"hd": a_pool()}
