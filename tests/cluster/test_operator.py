"""
The operator as a process on a real API server and a real MySQL: what it writes, what it survives.

Nodes and workers are stood in for, so that a life takes as long as its writes do.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from encoder_operator.kube import JOBS as TRANSCODE_JOBS
from encoder_operator.kube import PODS, POOLS
from tests.cluster.deployment import FULL
from tests.figures import tell_figure
from tests.harness.rig import CORE, CRDS, GROUP, MERGE, NAMESPACE, WAIT_S, Operator, Rig, apply_crds
from tests.harness.standin import DOES
from tests.harness.tamper import Tamper, tamper
from tests.harness.witness import pods_watched
from tests.operator.invariants import Pods, check, last_job

JOBS = 12
WATCHED = {kind.plural for kind in (TRANSCODE_JOBS, PODS, POOLS)}
EACH = 4  # every fourth write in the short run; a kill costs up to a claim's lease of a minute


@pytest.fixture(autouse=True)
def nothing_doubled_or_left(shared: Rig) -> Iterator[None]:
    """Of the jobs of any test here. One that failed must not fail the next one."""
    pods, known = Pods(), last_job(shared.store)
    with pods_watched(shared.cluster, NAMESPACE, pods.look):
        yield
        while shared.operators:
            shared.operators.pop().stop(kill=True)
    check(shared.store, pods, since=known)


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


def run_some(on: Rig, count: int = JOBS, *, timeout_s: float = WAIT_S) -> None:
    before = completed(on)
    on.submit(count)
    on.wait_for("completed", lambda: completed(on) >= before + count, timeout_s=timeout_s)
    on.wait_for("tidied up", lambda: on.count("transcodejobs") == 0)


def test_it_needs_no_more_than_its_rights_and_ten_writes_a_job(shared: Rig) -> None:
    operator = shared.start_operator()
    operator.wait_ready()
    run_some(shared)
    writes, calls = operator.writes(), operator.metrics()
    of_jobs = {name: count for name, count in writes.items() if "transcodepools" not in name}
    assert sum(of_jobs.values()) / JOBS <= 12, of_jobs
    assert not [n for n in calls if n.startswith("transcode_api_requests") and 'code="403"' in n]
    labels = 'category="succeeded",outcome="completed",pool="default"'
    assert calls[f"transcode_jobs_finished_total{{{labels}}}"] == JOBS
    assert operator.stop() == 0


def test_two_operators_at_once_run_each_job_once(shared: Rig) -> None:
    both = [shared.start_operator(), shared.start_operator()]
    for operator in both:
        operator.wait_ready()
    run_some(shared, 20)
    writes = sum(sum(operator.writes().values()) for operator in both) / 20
    tell_figure(f"two operators at once: {writes:.1f} writes a job, of pools too")
    assert writes <= 2 * 12
    with shared.store.read() as tx:
        attempts = tx.exec_driver_sql("SELECT MAX(attempt), MIN(status) FROM jobs").one()
    assert tuple(attempts) == (1, "completed")
    assert [operator.stop() for operator in both] == [0, 0]


def test_when_one_of_two_is_killed_the_other_goes_on(shared: Rig) -> None:
    """Neither leads, so nobody has to be elected first; what the dead one held lapses."""
    first, second = shared.start_operator(), shared.start_operator()
    for operator in (first, second):
        operator.wait_ready()
    before = completed(shared)
    shared.submit(JOBS)
    shared.wait_for("one more", one_more_than(shared, before))
    first.stop(kill=True)
    shared.wait_for("all", lambda: completed(shared) == before + JOBS)
    shared.wait_for("tidied up", lambda: shared.count("transcodejobs") == 0)
    assert second.stop() == 0


def test_what_is_applied_in_another_namespace_is_no_job(shared: Rig) -> None:
    operator = shared.start_operator()
    operator.wait_ready()
    before = completed(shared)
    here, elsewhere = (f"{base}/transcodejobs" for base in (GROUP, GROUP_ELSEWHERE))
    for path in (elsewhere, here):
        status, said = shared.cluster.send("POST", path, BY_HAND)
        assert status == 201, said
    shared.wait_for("it is over", one_more_than(shared, before))
    assert "status" not in shared.cluster.get(f"{elsewhere}/by-hand")
    assert completed(shared) == before + 1
    shared.cluster.send("DELETE", f"{elsewhere}/by-hand")
    shared.wait_for("tidied up", lambda: shared.count("transcodejobs") == 0)
    assert operator.stop() == 0


BY_HAND = {
    "apiVersion": "encoder.dev/v1alpha1",
    "kind": "TranscodeJob",
    "metadata": {"name": "by-hand"},
    "spec": {
        "source": {"kind": "https", "url": "https://media.example/in.mov"},
        "outputs": [{"destination": {"kind": "s3", "bucket": "clips", "path": "out.mp4"}}],
    },
}
GROUP_ELSEWHERE = GROUP.replace("/work", "/default")


def test_one_that_is_killed_again_and_again_loses_nothing(shared: Rig) -> None:
    before = completed(shared)
    for _ in range(3):
        shared.submit(JOBS // 3)  # each time: a quick one leaves the next nothing to do
        known = completed(shared)
        operator = shared.start_operator()
        operator.wait_ready()
        shared.wait_for("one more", one_more_than(shared, known))
        operator.stop(kill=True)
    operator = shared.start_operator()
    shared.wait_for("all", lambda: completed(shared) == before + JOBS)
    shared.wait_for("tidied up", lambda: shared.count("transcodejobs") == 0)
    assert operator.stop() == 0


def test_one_that_comes_before_its_resources_says_so_and_works_once_they_are_there(
    shared: Rig,
) -> None:
    shared.cluster.kubectl("delete", "-f", CRDS, "--ignore-not-found", "--timeout=240s")
    operator = shared.start_operator()
    shared.wait_for("it says so", lambda: "apply crds/" in operator.log.read_text())
    shared.wait_for("it is not ready", lambda: operator.get("/readyz")[0] == 503)
    apply_crds(shared.cluster)
    shared.make_pool("default", places=20)
    operator.wait_ready()
    run_some(shared, 2)
    assert operator.stop() == 0


@pytest.mark.parametrize("spoil", ["double", "late", "410"])
def test_events_and_answers_that_are(shared: Rig, between: Tamper, spoil: str) -> None:
    match spoil:
        case "double":
            between.double = True
        case "late":
            between.delay_s = 0.3
        case "410":
            between.gone = Counter(dict.fromkeys(WATCHED, 2))
    operator = shared.start_operator(kubeconfig=between.kubeconfig(shared.folder))
    operator.wait_ready()
    run_some(shared, 6)
    assert between.expired == Counter(dict.fromkeys(WATCHED, 2 if spoil == "410" else 0))
    assert operator.stop() == 0


@contextmanager
def unheard(on: Rig, between: Tamper) -> Iterator[None]:
    """What happens meanwhile no watch tells, and then each ends with 410: it never will."""
    on.wait_for("everything is watched", lambda: between.watched() == WATCHED)
    between.drop = lambda _: True
    yield
    between.drop = lambda _: False
    before = between.expired.copy()
    between.expire()
    on.wait_for(
        "each watch expired",
        lambda: {kind for kind in WATCHED if between.expired[kind] > before[kind]} == WATCHED,
    )


def run_their_pods(on: Rig, count: int) -> None:
    """Jobs whose Pods come, run and end."""
    wanted = {f"{name}-a1" for name, _ in on.submit(count)}

    def ended() -> bool:
        pods = on.cluster.get(f"{CORE}/pods")["items"]
        phases = {pod["metadata"]["name"]: pod["status"].get("phase") for pod in pods}
        return {phases.get(name) for name in wanted} == {"Succeeded"}

    on.wait_for("their Pods have ended", ended)


def test_when_every_watch_expires_while_jobs_run_a_fresh_list_brings_what_they_missed(
    shared: Rig, between: Tamper
) -> None:
    operator = shared.start_operator(kubeconfig=between.kubeconfig(shared.folder), resync_s=3600)
    operator.wait_ready()
    before = completed(shared)
    with unheard(shared, between):
        run_their_pods(shared, 6)
        shared.scale("default", 21)
        assert completed(shared) == before
    shared.wait_for("completed", lambda: completed(shared) == before + 6)
    shared.wait_for("scaled", lambda: places(shared, "default") == 21)
    shared.wait_for("tidied up", lambda: shared.count("transcodejobs") == 0)
    assert ghosts(operator) == 0
    shared.scale("default", 20)
    shared.wait_for("scaled back", lambda: places(shared, "default") == 20)
    assert operator.stop() == 0


@pytest.fixture
def stays(shared: Rig) -> Iterator[str]:
    """A pool whose Pods run for ever."""
    shared.make_pool("stays", places=1, podTemplate={"annotations": {DOES: "stays"}})
    yield "stays"
    shared.cluster.send("DELETE", f"{GROUP}/transcodepools/stays")


def test_a_job_whose_resource_is_deleted_while_the_watches_expire_is_canceled(
    shared: Rig, between: Tamper, stays: str
) -> None:
    """No fresh list tells of what is not there any more: the next resync does."""
    operator = shared.start_operator(kubeconfig=between.kubeconfig(shared.folder), resync_s=10)
    operator.wait_ready()
    shared.wait_for("its pool", lambda: places(shared, stays) == 1)
    before = shared.statuses()
    ((doomed, _),) = shared.submit(1, pool=stays)
    shared.wait_for("it runs", lambda: shared.statuses().get("running"))
    with unheard(shared, between):
        shared.cluster.send("DELETE", f"{GROUP}/transcodejobs/{doomed}")
        run_their_pods(shared, 6)
    ends = {"completed": before.get("completed", 0) + 6, "canceled": before.get("canceled", 0) + 1}
    shared.wait_for("all are over", lambda: ends.items() <= shared.statuses().items())
    shared.wait_for("tidied up", lambda: shared.count("transcodejobs") == 0)
    shared.wait_for("no Pod is left", lambda: shared.count("pods") == 0)
    assert operator.stop() == 0


def places(on: Rig, pool: str) -> int:
    """What the record says of it; -1 when it does not know it."""
    with on.store.read() as tx:
        found = tx.exec_driver_sql(
            "SELECT max_concurrency FROM pools WHERE name = %s", (pool,)
        ).scalar()
    return -1 if found is None else int(found)


def test_what_the_watches_lose_a_fresh_list_brings(shared: Rig, between: Tamper) -> None:
    """Every second event, and each deletion: those nobody tells of again."""
    events = itertools.count()
    between.drop = lambda event: b'"type":"DELETED"' in event or next(events) % 2 == 0
    operator = shared.start_operator(kubeconfig=between.kubeconfig(shared.folder), resync_s=2)
    operator.wait_ready()
    run_some(shared, 6)
    shared.wait_for("ghosts are counted", lambda: ghosts(operator) >= 6)
    assert between.dropped > 6
    assert operator.stop() == 0


def ghosts(operator: Operator) -> float:
    told = operator.metrics()
    return sum(n for name, n in told.items() if name.startswith("transcode_ghost_objects_total"))


NO_RIGHT = 'pods is forbidden: User "u" cannot create resource "pods" in API group "" in'


@pytest.mark.parametrize("answer", [429, 503, pytest.param(500, marks=pytest.mark.full), 403])
def test_writes_that_are_refused_are_tried_again(shared: Rig, between: Tamper, answer: int) -> None:
    """403 as of a server that has just started, and has not read the roles yet."""
    between.reason, between.message = ("Forbidden", NO_RIGHT) if answer == 403 else ("NotNow", "")
    operator = shared.start_operator(kubeconfig=between.kubeconfig(shared.folder))
    operator.wait_ready()
    between.refusal, between.refuse_writes = answer, 7
    run_some(shared, 6)  # what cannot be admitted is put off for half a minute
    told = operator.metrics()
    asked_again = sum(
        count
        for name, count in told.items()
        if name.startswith("transcode_api_requests_total") and f'code="{answer}"' in name
    )
    assert between.refused == asked_again == 7
    waited_s = told.get('transcode_throttled_seconds_total{cause="api"}', 0.0)
    assert waited_s > 0.9 or answer != 429  # as long as Retry-After says
    assert operator.stop() == 0


def test_what_was_written_and_not_heard_of_is_not_written_twice(
    shared: Rig, between: Tamper
) -> None:
    operator = shared.start_operator(kubeconfig=between.kubeconfig(shared.folder))
    operator.wait_ready()
    between.lose_answers = 9  # of 6 resources, and of the first Secrets and Pods
    run_some(shared, 6)
    assert between.lost == 9
    assert between.writes.count("POST pods 201") == 6
    assert operator.stop() == 0


def test_an_operator_that_hears_nothing_fails_its_probe_and_ends(
    shared: Rig, between: Tamper
) -> None:
    """Lists and writes are answered, only the watches are silent: nothing else would notice."""
    operator = shared.start_operator(kubeconfig=between.kubeconfig(shared.folder), canary_s=4)
    operator.wait_ready()
    assert operator.get("/healthz") == (200, "ok\n")
    between.mute.set()
    shared.wait_for("the probe is red", lambda: operator.get("/healthz")[0] != 200)
    assert operator.process.wait(timeout=WAIT_S) == 2
    assert "did not bring back what was written" in operator.log.read_text()
    between.mute.clear()
    following = shared.start_operator(kubeconfig=between.kubeconfig(shared.folder), canary_s=4)
    following.wait_ready()
    run_some(shared, 2)
    assert following.get("/healthz") == (200, "ok\n")
    assert following.stop() == 0


def test_one_whose_watch_of_pods_alone_is_deaf_ends_though_it_writes_none(
    shared: Rig, between: Tamper, stays: str
) -> None:
    """The other watches speak, and bring back what it writes of jobs and pools."""
    user = between.kubeconfig(shared.folder)
    operator = shared.start_operator(kubeconfig=user, canary_s=4, resync_s=2)
    operator.wait_ready()
    shared.wait_for("its pool", lambda: places(shared, stays) == 1)
    canceled = shared.statuses().get("canceled", 0)
    ((job, _),) = shared.submit(1, pool=stays)
    shared.wait_for("it runs", lambda: shared.statuses().get("running"))
    between.drop = lambda event: b'"kind":"Pod"' in event
    touch = {"metadata": {"annotations": {"touched": "by somebody"}}}
    pod = f"{CORE}/pods/{job}-a1"
    assert shared.cluster.send("PATCH", pod, touch, content_type=MERGE)[0] == 200
    assert operator.process.wait(timeout=WAIT_S) == 2
    assert "the watch of pods did not bring back" in operator.log.read_text()
    between.drop = lambda _: False
    following = shared.start_operator(kubeconfig=user, canary_s=4, resync_s=2)
    following.wait_ready()
    shared.cluster.send("DELETE", f"{GROUP}/transcodejobs/{job}")
    shared.wait_for("canceled", lambda: shared.statuses().get("canceled", 0) == canceled + 1)
    shared.wait_for("tidied up", lambda: shared.count("transcodejobs") == 0)
    shared.wait_for("no Pod is left", lambda: shared.count("pods") == 0)
    assert following.stop() == 0


# --- Killed after each write of a life -----------------------------------------------------------


def live(on: Rig, between: Tamper, *, kill_after: int | None = None) -> list[str]:
    """
    One job from its acceptance to its last trace; the writes about it to the API server.

    After the given one the operator is killed, before it hears of it, and another one begins.
    """
    kubeconfig = between.kubeconfig(on.folder)
    first = on.start_operator(kubeconfig=kubeconfig)
    first.wait_ready()
    writes: list[str] = []
    killed = threading.Event()

    def note(number: int) -> None:
        write = between.writes[number - 1]
        if "transcodepools" in write or killed.is_set():
            return
        writes.append(write)
        if len(writes) == kill_after:
            killed.set()
            first.stop(kill=True)

    between.after_write = note
    known = completed(on)
    on.submit(1)
    if kill_after is not None:
        on.wait_for("killed, or over", lambda: killed.is_set() or completed(on) > known)
        first.stop(kill=True)
        on.start_operator(kubeconfig=kubeconfig)
    on.wait_for("completed", lambda: completed(on) == known + 1)
    on.wait_for("tidied up", lambda: on.count("transcodejobs") == 0)
    while on.operators:
        on.operators.pop().stop(kill=True)
    return writes


def test_killed_after_any_write_of_a_life_it_loses_and_doubles_nothing(
    shared: Rig, between: Tamper
) -> None:
    writes = live(shared, between)
    assert [write for write in writes if write.startswith("POST pods ")] == ["POST pods 201"]
    places = range(1, len(writes) + 1, 1 if FULL else EACH)
    for place in places:
        live(shared, between, kill_after=place)
    for plural in ("pods", "secrets"):  # collected after what they belong to
        shared.wait_for(f"no {plural}", lambda plural=plural: shared.count(plural) == 0)  # type: ignore[misc]  # mypy infers no type for a lambda's default
    tell_figure(f"operator, a process: {len(writes)} writes a life; kills {len(places)}, lost 0")
