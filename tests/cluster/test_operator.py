"""
The operator as a process on a real API server and a real MySQL: what it writes, what it survives.

Nodes and workers are stood in for, so that a life takes as long as its writes do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.harness.rig import Rig, rig
from tests.harness.tamper import Tamper, tamper

JOBS = 12


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig(tmp_path_factory.mktemp("rig")) as made:
        made.make_pool("default", places=20)
        made.start_nodes(run_s=0.2)
        yield made


@pytest.fixture(autouse=True)
def nobody_left(shared: Rig) -> Iterator[None]:
    """A test that failed must not fail the next one."""
    yield
    while shared.operators:
        shared.operators.pop().stop(kill=True)


@pytest.fixture
def between(shared: Rig) -> Iterator[Tamper]:
    user = shared.kubeconfig
    parts = (shared.cluster.authority, user.with_suffix(".crt"), user.with_suffix(".key"))
    with tamper(shared.cluster.url, *parts) as proxy:
        yield proxy


def completed(on: Rig) -> int:
    return on.statuses().get("completed", 0)


def one_more_than(on: Rig, known: int) -> Callable[[], bool]:
    return lambda: completed(on) > known


def run_some(on: Rig, count: int = JOBS) -> None:
    before = completed(on)
    on.submit(count)
    on.wait_for("completed", lambda: completed(on) >= before + count)
    on.wait_for("tidied up", lambda: on.count("transcodejobs") == 0)


def test_it_needs_no_more_than_its_rights_and_ten_writes_a_job(shared: Rig) -> None:
    operator = shared.start_operator()
    operator.wait_ready()
    run_some(shared)
    writes, calls = operator.writes(), operator.metrics()
    of_jobs = {name: count for name, count in writes.items() if "transcodepools" not in name}
    assert sum(of_jobs.values()) / JOBS <= 12, of_jobs
    assert not [n for n in calls if n.startswith("transcode_api_requests") and 'code="403"' in n]
    labels = 'category="worker",outcome="completed",pool="default"'
    assert calls[f"transcode_jobs_finished_total{{{labels}}}"] == JOBS
    assert operator.stop() == 0


def test_two_operators_at_once_run_each_job_once(shared: Rig) -> None:
    both = [shared.start_operator(), shared.start_operator()]
    for operator in both:
        operator.wait_ready()
    run_some(shared, 20)
    with shared.store.read() as tx:
        attempts = tx.exec_driver_sql("SELECT MAX(attempt), MIN(status) FROM jobs").one()
    assert tuple(attempts) == (1, "completed")
    assert [operator.stop() for operator in both] == [0, 0]


def test_one_that_is_killed_again_and_again_loses_nothing(shared: Rig) -> None:
    before = completed(shared)
    shared.submit(JOBS)
    for _ in range(3):
        operator = shared.start_operator()
        operator.wait_ready()
        shared.wait_for("one more", one_more_than(shared, completed(shared)))
        operator.stop(kill=True)
    operator = shared.start_operator()
    shared.wait_for("all", lambda: completed(shared) == before + JOBS, timeout_s=180)
    shared.wait_for("tidied up", lambda: shared.count("transcodejobs") == 0)
    assert operator.stop() == 0


@pytest.mark.parametrize("spoil", ["double", "late", "410"])
def test_events_and_answers_that_are(shared: Rig, between: Tamper, spoil: str) -> None:
    operator = shared.start_operator(kubeconfig=between.kubeconfig(shared.folder))
    operator.wait_ready()
    match spoil:
        case "double":
            between.double = True
        case "late":
            between.delay_s = 0.3
        case "410":
            between.gone = 6
    run_some(shared, 6)
    assert operator.stop() == 0
