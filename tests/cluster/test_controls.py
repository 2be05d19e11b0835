"""
What people do to jobs and pools, at each stage of a life, on a real API server and a real MySQL.

What kubectl shows afterwards and what the API tells is compared each time. The pool of a job says
what its Pods do: wait for a container for ever, run for ever, or end at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from encoder_core.documents import JobDocument
from encoder_db.jobs import cancel_job, read_job
from encoder_operator.kube import JOBS
from tests.cluster.deployment import fresh
from tests.harness.rig import CORE, GROUP, MERGE, Rig
from tests.harness.standin import DOES

SPEC = {
    "source": {"kind": "https", "url": "https://media.example/in.mov"},
    "outputs": [{"destination": {"kind": "s3", "bucket": "clips", "path": "out.mp4"}}],
}
KEPT = {"retention": {"completedSeconds": 3600, "failedSeconds": 3600}}
_numbers = itertools.count(1)


def pods_that(does: str) -> dict[str, Any]:
    return {**KEPT, "podTemplate": {"annotations": {DOES: does}}}


@pytest.fixture(scope="module", autouse=True)
def operator(shared: Rig) -> Iterator[None]:
    shared.make_pool("closed", places=0, **KEPT)
    shared.make_pool("waits", places=9, **pods_that("waits"))
    shared.make_pool("stays", places=9, **pods_that("stays"))
    shared.make_pool("ends", places=9, **KEPT)
    running = shared.start_operator(progress_s=1)
    running.wait_ready()
    yield
    assert running.stop() == 0


def apply(on: Rig, pool: str) -> str:
    name = f"job-{next(_numbers)}"
    body = {
        "apiVersion": "encoder.dev/v1alpha1",
        "kind": "TranscodeJob",
        "metadata": {"name": name},
        "spec": {**SPEC, "poolRef": {"name": pool}},
    }
    status, said = on.cluster.send("POST", f"{GROUP}/transcodejobs", body)
    assert status == 201, said
    return name


def conditions(on: Rig, name: str) -> dict[str, dict[str, str]]:
    shown = on.cluster.get(f"{GROUP}/{JOBS.plural}/{name}").get("status", {})
    return {c["type"]: c for c in shown.get("conditions", [])}


def reason(on: Rig, name: str, type_: str = "Succeeded") -> str:
    return conditions(on, name).get(type_, {}).get("reason", "")


def until(on: Rig, name: str, *reasons: str) -> None:
    on.wait_for(f"{name}: {reasons}", lambda: reason(on, name) in reasons)


def number_of(on: Rig, name: str) -> int:
    """Of the job in the API, as the resource tells it."""
    number: int = on.cluster.get(f"{GROUP}/transcodejobs/{name}")["status"]["jobID"]
    return number


def document(on: Rig, number: int) -> JobDocument:
    """What `GET /jobs/{id}` answers."""
    with on.store.read() as tx:
        found = read_job(tx, number, owner=None)
    assert found is not None
    return found


def names(on: Rig, base: str) -> set[str]:
    return {item["metadata"]["name"] for item in on.cluster.get(base)["items"]}


def change_pool(on: Rig, name: str, spec: dict[str, Any]) -> None:
    path = f"{GROUP}/transcodepools/{name}"
    status, changed = on.cluster.send("PATCH", path, {"spec": spec}, content_type=MERGE)
    assert status == 200, changed
    # Pools and jobs come by two watches: a job that is applied now may be heard of first.
    on.wait_for(
        f"the operator knows of the change of {name}",
        lambda: (
            on.cluster.get(path).get("status", {}).get("observedGeneration", 0)
            >= changed["metadata"]["generation"]
        ),
    )


def waits_saying(on: Rig, name: str, words: str) -> None:
    """In the condition that kubectl shows, and in the job of the API."""

    def shown() -> tuple[str, ...]:
        told = conditions(on, name).get("Admitted", {})
        return tuple(told.get(key, "") for key in ("status", "reason", "message"))

    def same() -> bool:
        waiting = document(on, number_of(on, name)).waiting
        return waiting is not None and shown() == ("False", waiting.reason, waiting.message)

    on.wait_for(words, lambda: words in shown()[2])
    on.wait_for(f"the API says of {name} what kubectl shows", same)


def told_of(on: Rig, name: str, *reasons: str) -> dict[str, str]:
    """What Events say, by their reason, once there are these: some follow what they tell of."""
    on.wait_for(f"{reasons} of {name}", lambda: set(reasons) <= events_of(on, name).keys())
    return events_of(on, name)


def events_of(on: Rig, name: str) -> dict[str, str]:
    events = on.cluster.get(f"{CORE}/events")["items"]
    ours = [event for event in events if event["involvedObject"]["name"] == name]
    return {event["reason"]: event["message"] for event in ours}


# --- Cancel --------------------------------------------------------------------------------------

STAGES = {
    "waiting": ("closed", ("Pending",)),
    "starting": ("waits", ("Scheduling",)),
    "running": ("stays", ("Running",)),
    "ended": ("ends", ("Completed",)),
}


def cancel(on: Rig, name: str, how: str) -> None:
    path = f"{GROUP}/transcodejobs/{name}"
    match how:
        case "a patch":
            body = {"spec": {"desiredState": "Cancel"}}
            status, said = on.cluster.send("PATCH", path, body, content_type=MERGE)
        case "deleting it":
            status, said = on.cluster.send("DELETE", path)
        case _:
            number = number_of(on, name)
            if document(on, number).finished_at is None:
                cancel_job(on.store, number, owner=None)
            return
    assert status == 200, said


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", ["a patch", "deleting it", "the API"])
def test_a_job_is_canceled_by(shared: Rig, how: str, stage: str) -> None:
    pool, reasons = STAGES[stage]
    name = apply(shared, pool)
    until(shared, name, *reasons)
    number = number_of(shared, name)
    cancel(shared, name, how)
    end = "completed" if stage == "ended" else "canceled"
    shared.wait_for(end, lambda: document(shared, number).finished_at)
    told = document(shared, number)
    assert (told.status, told.waiting) == (end, None)
    assert [attempt.status for attempt in told.attempts] == {
        "waiting": [],
        "ended": ["succeeded"],
    }.get(stage, ["canceled"])
    if how == "deleting it":
        assert name not in names(shared, f"{GROUP}/transcodejobs")
    else:
        recorded = ("Recorded",)
        shared.wait_for("recorded", lambda: reason(shared, name, "ResultRecorded") in recorded)
        shown = conditions(shared, name)["Succeeded"]
        assert (shown["status"], shown["reason"]) == (
            ("True", "Completed") if stage == "ended" else ("False", "Canceled")
        )
        assert shared.cluster.send("DELETE", f"{GROUP}/transcodejobs/{name}")[0] == 200
    shared.wait_for(
        "no Pod is left",
        lambda: not any(pod.startswith(f"{name}-a") for pod in names(shared, f"{CORE}/pods")),
    )
    once = {"Succeeded"} if stage == "ended" else {"Canceled"}
    if how != "deleting it":
        told_of_it = told_of(shared, name, *once)
        assert told_of_it.keys() & {"Succeeded", "Canceled", "Failed"} == once


# --- Stop and lower ------------------------------------------------------------------------------


def test_lowering_a_pool_ends_nothing_that_runs(shared: Rig) -> None:
    pool = fresh("lowered")
    shared.make_pool(pool, places=2, **pods_that("stays"))
    first, second = apply(shared, pool), apply(shared, pool)
    for name in (first, second):
        until(shared, name, "Running")
    shared.cluster.kubectl("-n", "work", "scale", f"tp/{pool}", "--replicas=1")
    shared.wait_for("over", lambda: shared.condition(pool, "OverLimit") == "True")
    third = apply(shared, pool)
    waits_saying(shared, third, f"Pool {pool} is full: 2 of 1 places taken.")
    assert [reason(shared, name) for name in (first, second)] == ["Running", "Running"]
    cancel(shared, first, "a patch")
    shared.wait_for("within", lambda: shared.condition(pool, "OverLimit") == "False")
    cancel(shared, second, "a patch")
    until(shared, third, "Running")
    told = told_of(shared, pool, "Scaled", "OverLimit")
    assert told["Scaled"] == "maxConcurrency 2 -> 1 by kubectl"


def test_hold_lets_run_what_runs_and_keeps_the_rest(shared: Rig) -> None:
    pool = fresh("held")
    shared.make_pool(pool, places=2, **pods_that("stays"))
    runs = apply(shared, pool)
    until(shared, runs, "Running")
    change_pool(shared, pool, {"stopPolicy": "Hold"})
    shared.wait_for("held", lambda: shared.condition(pool, "Held") == "True")
    waits = apply(shared, pool)
    waits_saying(shared, waits, f"Pool {pool} is held: nothing starts in it.")
    assert reason(shared, runs) == "Running"
    change_pool(shared, pool, {"stopPolicy": "None"})
    until(shared, waits, "Running")
    assert document(shared, number_of(shared, runs)).attempt == 1
    told_of(shared, pool, "Held", "Resumed")


def test_drain_sends_back_what_has_not_begun_and_charges_nobody(shared: Rig) -> None:
    pool = fresh("drained")
    shared.make_pool(pool, places=2, **pods_that("stays"))
    runs = apply(shared, pool)
    until(shared, runs, "Running")
    change_pool(shared, pool, pods_that("waits"))
    starts = apply(shared, pool)
    until(shared, starts, "Scheduling")
    change_pool(shared, pool, {"stopPolicy": "Drain"})
    waits_saying(shared, starts, f"Pool {pool} is drained: nothing starts in it.")
    assert reason(shared, runs) == "Running"
    assert f"{starts}-a1" not in names(shared, f"{CORE}/pods")
    (back,) = document(shared, number_of(shared, starts)).attempts
    assert back.failure is not None
    assert (back.failure.code, back.budget) == ("pool_drained", "capacity")
    change_pool(shared, pool, {"stopPolicy": "None", **pods_that("stays")})
    until(shared, starts, "Running")
    assert document(shared, number_of(shared, runs)).attempt == 1


def test_a_pool_that_is_deleted_holds_its_jobs_until_it_is_there_again(shared: Rig) -> None:
    pool = fresh("gone")
    shared.make_pool(pool, places=1, **pods_that("stays"))
    runs = apply(shared, pool)
    until(shared, runs, "Running")
    waits = apply(shared, pool)
    waits_saying(shared, waits, f"Pool {pool} is full")
    assert shared.cluster.send("DELETE", f"{GROUP}/transcodepools/{pool}")[0] == 200
    waits_saying(shared, waits, f"Pool {pool} is held: its TranscodePool was deleted.")
    assert reason(shared, runs) == "Running"
    shared.make_pool(pool, places=2, **pods_that("stays"))
    until(shared, waits, "Running")
