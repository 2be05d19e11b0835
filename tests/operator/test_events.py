"""Which Events tell of what, on a job and on a pool: each that the guide names, and no other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from encoder_core.documents import JobDocument
from encoder_core.failures import failure
from encoder_core.states import AttemptStatus, JobStatus
from encoder_operator.events import Note, notes_of_job, notes_of_pool
from encoder_operator.poolstatus import Blocked, build_pool_status
from encoder_operator.seen import JobSeen, PodSeen, PoolSeen
from encoder_operator.status import build_refused_status, conditions_of_refused
from tests.docs.render import DOCS
from tests.operator.builders import NAME, NOW, a_job, a_pod
from tests.operator.test_poolstatus import NO_ROOM, a_pool, a_row
from tests.operator.test_status import (
    COMPLETED,
    NOT_FOUND,
    NOT_THERE,
    RETRY,
    RETRYING,
    STARTING,
    UNREACHABLE,
    WAITING,
    a_document,
    an_attempt,
    encoding,
    showing,
    status_of,
)

J = JobStatus
EVICTED = failure("pod_evicted", "The node was low on resource: memory.")


def lost(*numbers: int) -> list[Any]:
    """Attempts that the cluster took away."""
    ended = {"status": AttemptStatus.LOST, "failure": EVICTED, "finished_at": NOW}
    return [an_attempt(number=number, **ended) for number in numbers]


def failed_again(attempt: int) -> JobDocument:
    return a_document(
        J.QUEUED,
        attempt=attempt,
        attempts=[
            an_attempt(
                number=number, status=AttemptStatus.FAILED, failure=UNREACHABLE, finished_at=NOW
            )
            for number in range(1, attempt + 1)
        ],
        waiting=RETRYING.waiting,
    )


HAS_PLACE = a_document(J.QUEUED, attempts=[an_attempt(status=AttemptStatus.CREATED)])
RUNNING = a_document(progress=encoding(10))
CANCELED = a_document(J.CANCELED, finished_at=NOW)
TAKEN = a_document(J.QUEUED, attempts=lost(1), waiting=RETRYING.waiting)
TAKEN_TWICE = a_document(J.QUEUED, attempt=2, attempts=lost(1, 2), waiting=RETRYING.waiting)
AT_WORK_AGAIN = a_document(attempt=2, attempts=[*lost(1), an_attempt(number=2)])
SECOND_POD = a_pod(name=f"{NAME}-a2", attempt=2)
NEW = a_job()

PLACE = "Attempt 1 has a place in pool default"
EVICTION = "Evicted: Attempt {}: The node was low on resource: memory."
AGAIN = Note("Warning", "RetryScheduled", RETRY, "1")


def shown(document: JobDocument, pod: PodSeen | None = None) -> JobSeen:
    """The resource once that was told of it."""
    return showing(status_of(document, pod))


OF_A_JOB: Mapping[str, tuple[JobSeen, JobDocument, PodSeen | None, list[Note]]] = {
    "nothing of one that is new and waits": (NEW, WAITING, None, []),
    "a place, and no Pod yet": (
        *(shown(WAITING), HAS_PLACE, None),
        [Note("Normal", "Admitted", PLACE, "1")],
    ),
    "the Pod, once it is there": (
        *(shown(HAS_PLACE), STARTING, a_pod()),
        [Note("Normal", "PodCreated", f"{PLACE}; its Pod is {NAME}-a1", "1")],
    ),
    "that it runs": (
        *(shown(STARTING, a_pod()), RUNNING, a_pod()),
        [Note("Normal", "Started", "Attempt 1 runs on node-1", "1")],
    ),
    "nothing of progress": (
        *(shown(RUNNING, a_pod()), a_document(progress=encoding(60)), a_pod(), []),
    ),
    "that it is completed": (
        *(shown(RUNNING, a_pod()), COMPLETED, None),
        [Note("Normal", "Succeeded", "0 of 0 uploaded", "1")],
    ),
    "that it is canceled": (
        *(shown(RUNNING, a_pod()), CANCELED, None),
        [Note("Normal", "Canceled", "Canceled by request", "1")],
    ),
    "that it failed, and what to do": (
        *(shown(RUNNING, a_pod()), NOT_THERE, None),
        [Note("Warning", "Failed", f"SourceNotFound: {NOT_FOUND.message} {NOT_FOUND.hint}", "1")],
    ),
    "an attempt that failed": (shown(RUNNING, a_pod()), RETRYING, None, [AGAIN]),
    "nothing of one that was told": (shown(RETRYING), RETRYING, None, []),
    "the next that failed, though it showed nothing in between": (
        *(shown(failed_again(1)), failed_again(2), None),
        [Note("Warning", "RetryScheduled", RETRY, "2")],
    ),
    "an attempt that the cluster took": (
        *(shown(RUNNING, a_pod()), TAKEN, None),
        [Note("Warning", "DisruptionObserved", EVICTION.format(1), "Attempt 1"), AGAIN],
    ),
    "the next one's Pod, and nothing of that again": (
        *(shown(TAKEN), AT_WORK_AGAIN, SECOND_POD),
        [
            Note(
                *("Normal", "PodCreated"),
                *(f"Attempt 2 has a place in pool default; its Pod is {NAME}-a2", "2"),
            ),
            Note("Normal", "Started", "Attempt 2 runs on node-1", "2"),
        ],
    ),
    "the next that the cluster took": (
        *(shown(AT_WORK_AGAIN, SECOND_POD), TAKEN_TWICE, None),
        [
            Note("Warning", "DisruptionObserved", EVICTION.format(2), "Attempt 2"),
            Note("Warning", "RetryScheduled", RETRY, "2"),
        ],
    ),
}


@pytest.mark.parametrize(("job", "document", "pod", "want"), OF_A_JOB.values(), ids=OF_A_JOB)
def test_events_of_a_job_tell(
    job: JobSeen, document: JobDocument, pod: PodSeen | None, want: list[Note]
) -> None:
    assert notes_of_job(job, status_of(document, pod, job), document) == want


REFUSED = Note("Warning", "Refused", "spec.source: is none", "SpecInvalid")
HOPES = Note("Warning", "Refused", "There is no TranscodePool film.", "PoolNotFound")
OF_NO_JOB: Mapping[str, tuple[Note, bool, list[Note]]] = {
    "why it will never be one": (REFUSED, True, [REFUSED]),
    "nothing while it may become one": (HOPES, False, []),
}


@pytest.mark.parametrize(("said", "final", "want"), OF_NO_JOB.values(), ids=OF_NO_JOB)
def test_events_of_a_resource_that_is_no_job_tell(
    said: Note, final: bool, want: list[Note]
) -> None:
    conditions = conditions_of_refused(said.once, said.message, final=final)
    status = build_refused_status(NEW, conditions, now=NOW)
    assert notes_of_job(NEW, status, None) == want
    assert notes_of_job(showing(status), status, None) == []


NO_IMAGE = Blocked("ImageUnavailable", "ErrImagePull", "3 Pods cannot pull: not found", "image")
State = dict[str, Any]
OF_A_POOL: Mapping[str, tuple[State | None, State, list[tuple[str, str, str]]]] = {
    "nothing of one that is new and open": (None, {}, []),
    "nothing of one that stays so": ({}, {}, []),
    "nothing of what is over": ({"blocked": NO_ROOM}, {}, []),
    "that it is held": (
        {},
        {"stop_policy": "Hold"},
        [("Normal", "Held", "stopPolicy is Hold: nothing starts")],
    ),
    "that it is not any more": (
        {"stop_policy": "Hold"},
        {},
        [("Normal", "Resumed", "Up to 4 jobs run at once")],
    ),
    "that it was scaled, and by whom": (
        {},
        {"max_concurrency": 8, "changed_by": "kubectl"},
        [("Normal", "Scaled", "maxConcurrency 4 -> 8 by kubectl")],
    ),
    "that more run than it was lowered to": (
        {},
        {"max_concurrency": 1},
        [
            ("Warning", "OverLimit", "2 of 1 run; they may run to their end"),
            ("Normal", "Scaled", "maxConcurrency 4 -> 1"),
        ],
    ),
    "that no node has room": (
        {},
        {"blocked": NO_ROOM},
        [("Warning", "CapacityBlocked", "0/3 nodes")],
    ),
    "that its image cannot be pulled": (
        {},
        {"blocked": NO_IMAGE},
        [("Warning", "ImageUnavailable", "3 Pods cannot pull: not found")],
    ),
    "that the API server asks for patience": (
        {},
        {"throttled": True},
        [("Warning", "Throttled", "The API server asked for fewer writes")],
    ),
}


@pytest.mark.parametrize(("before", "after", "want"), OF_A_POOL.values(), ids=OF_A_POOL)
def test_events_of_a_pool_tell(
    before: State | None, after: State, want: list[tuple[str, str, str]]
) -> None:
    known = {} if before is None else pool_that_is(before, {})[1]
    pool, status = pool_that_is(after, known)
    notes = notes_of_pool(pool, status, limit_before=4)
    assert [(note.type, note.reason, note.message) for note in notes] == want


def pool_that_is(state: State, known: dict[str, Any]) -> tuple[PoolSeen, dict[str, Any]]:
    """The pool, and the status that follows the one that is known."""
    of_cluster = {key: state[key] for key in ("blocked", "throttled") if key in state}
    spec = {key: state[key] for key in state.keys() - of_cluster.keys()}
    pool = a_pool(**spec, status=known)
    return pool, build_pool_status(pool, a_row(), now=NOW, **of_cluster)


def test_the_guide_names_each_of_these_and_no_other() -> None:
    table = (DOCS / "kubernetes.md").read_text().partition("## Events")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| a (\w+) \| (.*) \| (.*) \|$", table, re.MULTILINE)
    named = {
        (kind, type_, reason)
        for kind, *cells in rows
        for type_, cell in zip(("Normal", "Warning"), cells, strict=True)
        for reason in re.findall(r"`([A-Z]\w+)`", cell)
    }
    notes = [note for *_, wanted in OF_A_JOB.values() for note in wanted]
    notes += [note for *_, wanted in OF_NO_JOB.values() for note in wanted]
    of_pools = [told for *_, wanted in OF_A_POOL.values() for told in wanted]
    assert named == {
        *(("TranscodeJob", note.type, note.reason) for note in notes),
        *(("TranscodePool", type_, reason) for type_, reason, _ in of_pools),
    }
