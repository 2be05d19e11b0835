"""What people see of a job in its TranscodeJob, by its status and its Pod."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from encoder_core.documents import AttemptDocument, JobDocument, Progress, Waiting
from encoder_core.failures import failure
from encoder_core.reports import Phase
from encoder_core.specs import Priority
from encoder_core.states import AttemptStatus, JobStatus
from encoder_operator.exits import DISRUPTED, classify_waiting
from encoder_operator.policy import PoolPolicy
from encoder_operator.seen import JobSeen, PodPhase, PodSeen
from encoder_operator.status import Condition, build_conditions, build_status, is_changed
from tests.operator.builders import JOB, NAME, NOW, a_job, a_pod, an_ended_pod

FULL = "Pool default is full (4 of 4)"
NOT_FOUND = failure("source_not_found", "There is no such object.")
UNREACHABLE = failure("source_unreachable", "a.example did not answer.")
LATER = NOW + timedelta(minutes=1)


def an_attempt(**changes: Any) -> AttemptDocument:
    values: dict[str, Any] = {
        "number": 1,
        "status": AttemptStatus.RUNNING,
        "executor": "kubernetes",
        "worker": f"{NAME}-a1",
        "created_at": NOW,
        "started_at": NOW,
    }
    return AttemptDocument(**{**values, **changes})


FAILED = an_attempt(status=AttemptStatus.FAILED, failure=UNREACHABLE, finished_at=NOW)


def a_document(status: JobStatus = JobStatus.RUNNING, **changes: Any) -> JobDocument:
    values: dict[str, Any] = {
        "id": 7,
        "uuid": JOB,
        "status": status,
        "owner": "default",
        "pool": "default",
        "priority": Priority.NORMAL,
        "attempt": 1,
        "version": 3,
        "source": {},
        "outputs": [],
        "created_at": NOW,
        "updated_at": NOW,
    }
    return JobDocument(**{**values, **changes})


def encoding(percent: float) -> Progress:
    return Progress(phase=Phase.ENCODING, percent=percent, updated_at=NOW)


RETRY = (
    "Attempt 2 follows after source_unreachable: a.example did not answer., "
    "due 2026-01-02T03:05:05Z"
)
WAITING = a_document(JobStatus.QUEUED, attempt=0, waiting=Waiting(reason="PoolFull", message=FULL))
RETRYING = a_document(
    JobStatus.QUEUED, attempts=[FAILED], waiting=Waiting(reason="Retrying", message=RETRY)
)
SOON = "Its turn comes next or soon in pool default."
PUT_OFF = a_document(
    JobStatus.QUEUED,
    attempts=[an_attempt(status=AttemptStatus.LOST, finished_at=NOW)],
    waiting=Waiting(reason="Queued", message=SOON),
)
ADMITTED = a_document(
    JobStatus.QUEUED,
    attempts=[FAILED, an_attempt(number=2, status=AttemptStatus.CREATED)],
    waiting=Waiting(reason="Queued", message=SOON),
)
STARTING = a_document(JobStatus.STARTING)
PENDING_POD = a_pod(phase=PodPhase.PENDING, running=False, scheduled=False)
PULLING = a_pod(phase=PodPhase.PENDING, running=False, waiting="ImagePullBackOff")
CREATING = a_pod(phase=PodPhase.PENDING, running=False, waiting="ContainerCreating")
COMPLETED = a_document(JobStatus.COMPLETED, finished_at=NOW)
NOT_THERE = a_document(JobStatus.FAILED, finished_at=NOW, failure=NOT_FOUND)


NONE_ENDED = Condition("Disrupted", "False", "NotDisrupted", "No attempt has ended")
UNDISTURBED = Condition(
    "Disrupted", "False", "NotDisrupted", "The cluster did not cut its last attempt short"
)


GRANTED = ("True", "SlotGranted", "A place in pool default was granted")
NO_POD = ("False", "NoPod", "Attempt 1 has no Pod")
NEVER_A_POD = ("False", "NoPod", "It has no Pod")


def conditions_of(document: JobDocument, pod: PodSeen | None) -> list[Condition]:
    stuck = None if pod is None else classify_waiting(pod, PoolPolicy())
    return build_conditions(document, pod, stuck)


def unfinished(
    succeeded: tuple[str, str],
    admitted: tuple[str, ...],
    ready: tuple[str, ...],
    disrupted: Condition = NONE_ENDED,
) -> list[Condition]:
    return [
        Condition("Succeeded", "Unknown", *succeeded),
        Condition("Admitted", *admitted),
        Condition("PodReady", *ready),
        disrupted,
        Condition("ResultRecorded", "False", "NotFinal", "There is no result yet"),
    ]


def finished(
    succeeded: tuple[str, str, str],
    ready: tuple[str, ...] = ("False", "NoPod", "Attempt 1 has no Pod"),
    admitted: tuple[str, ...] = GRANTED,
) -> list[Condition]:
    return [
        Condition("Succeeded", *succeeded),
        Condition("Admitted", *admitted),
        Condition("PodReady", *ready),
        NONE_ENDED,
        Condition("ResultRecorded", "True", "Recorded", "The result is in the database"),
    ]


@pytest.mark.parametrize(
    ("document", "pod", "want"),
    [
        pytest.param(
            WAITING, None, unfinished(("Pending", FULL), ("False", "PoolFull", FULL), NEVER_A_POD),
            id="waits for a place",
        ),
        pytest.param(
            RETRYING, None,
            unfinished(
                ("Retrying", RETRY), ("False", "Retrying", RETRY), NO_POD, UNDISTURBED
            ),
            id="waits for its next attempt",
        ),
        pytest.param(
            PUT_OFF, None,
            unfinished(("Pending", SOON), ("False", "Queued", SOON), NO_POD, UNDISTURBED),
            id="waits, after a try that was nobody's fault",
        ),
        pytest.param(
            ADMITTED, None,
            unfinished(("Starting", "Creating the Pod"), GRANTED, NO_POD, UNDISTURBED),
            id="has a place since a moment",
        ),
        pytest.param(
            STARTING, None, unfinished(("Starting", "Creating the Pod"), GRANTED, NO_POD),
            id="has no Pod yet",
        ),
        pytest.param(
            STARTING, PENDING_POD,
            unfinished(
                ("Scheduling", "Waiting for a node"), GRANTED,
                ("False", "Starting", f"{NAME}-a1"),
            ),
            id="has no node yet",
        ),
        pytest.param(
            STARTING, CREATING,
            unfinished(
                ("PullingImage", "Preparing the container"), GRANTED,
                ("False", "Starting", f"{NAME}-a1"),
            ),
            id="its container is being prepared",
        ),
        pytest.param(
            STARTING, PULLING,
            unfinished(
                ("ImageUnavailable", "ImagePullBackOff"), GRANTED,
                ("False", "ImageUnavailable", "ImagePullBackOff"),
            ),
            id="its image does not come",
        ),
        pytest.param(
            STARTING, a_pod(),
            unfinished(
                ("Starting", "The worker is starting"), GRANTED,
                ("True", "Running", f"{NAME}-a1 on node-1"),
            ),
            id="its worker has not reported",
        ),
        pytest.param(
            a_document(progress=encoding(47)), a_pod(),
            unfinished(
                ("Running", "The worker is encoding"), GRANTED,
                ("True", "Running", f"{NAME}-a1 on node-1"),
            ),
            id="runs",
        ),
        pytest.param(
            a_document(JobStatus.CANCELING), a_pod(),
            unfinished(
                ("Canceling", "Stopping the worker"), GRANTED,
                ("True", "Running", f"{NAME}-a1 on node-1"),
            ),
            id="is being canceled",
        ),
        pytest.param(
            COMPLETED, an_ended_pod(0),
            finished(
                ("True", "Completed", "0 of 0 uploaded"),
                ("False", "PodEnded", f"{NAME}-a1 Succeeded"),
            ),
            id="is completed",
        ),
        pytest.param(
            NOT_THERE, None,
            finished(
                ("False", "SourceNotFound", f"There is no such object. {NOT_FOUND.hint}")
            ),
            id="failed, and the reason is the failure's code",
        ),
        pytest.param(
            a_document(
                JobStatus.FAILED, finished_at=NOW,
                failure=failure("pod_invalid", "exec /worker: exec format error"),
            ), None,
            finished(
                ("False", "PodInvalid", "exec /worker: exec format error. "
                 + failure("pod_invalid").hint)
            ),
            id="failed with words of a kubelet, which are no sentence",
        ),
        pytest.param(
            a_document(JobStatus.FAILED, finished_at=NOW), None,
            finished(("False", "Failed", "The job failed")),
            id="failed without a word",
        ),
        pytest.param(
            a_document(JobStatus.CANCELED, finished_at=NOW), None,
            finished(("False", "Canceled", "Canceled by request")),
            id="is canceled",
        ),
        pytest.param(
            a_document(JobStatus.CANCELED, finished_at=NOW, attempt=0), None,
            finished(
                ("False", "Canceled", "Canceled by request"),
                NEVER_A_POD,
                ("False", "NotAdmitted", "It ended before it had a place"),
            ),
            id="is canceled before it had a place",
        ),
    ],
)  # fmt: skip
def test_conditions_of_a_job_that(
    document: JobDocument, pod: PodSeen | None, want: list[Condition]
) -> None:
    assert conditions_of(document, pod) == want


@pytest.mark.parametrize(("code", "reason"), DISRUPTED.items())
def test_what_the_cluster_did_to_the_last_attempt_is_a_condition(code: str, reason: str) -> None:
    lost = an_attempt(status=AttemptStatus.LOST, failure=failure(code, "Words."), finished_at=NOW)
    after = a_document(attempt=2, attempts=[lost, an_attempt(number=2)])
    assert Condition("Disrupted", "True", reason, "Attempt 1: Words.") in build_conditions(
        after, None
    )
    fine = an_attempt(number=2, status=AttemptStatus.SUCCEEDED, finished_at=NOW)
    over = a_document(JobStatus.COMPLETED, finished_at=NOW, attempts=[lost, fine])
    assert UNDISTURBED in build_conditions(over, None)


# --- The whole of it, and when it is written -------------------------------------------------


def status_of(
    document: JobDocument, pod: PodSeen | None = None, job: JobSeen | None = None
) -> dict[str, Any]:
    conditions = conditions_of(document, pod)
    return build_status(job or a_job(), document, conditions, pod=pod, now=NOW)


def with_theirs(status: dict[str, Any]) -> dict[str, Any]:
    """The status as it is where somebody else adds a condition."""
    theirs = {"type": "Theirs", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"}
    return {**status, "conditions": [theirs, *status["conditions"]]}


def showing(status: dict[str, Any]) -> JobSeen:
    """The resource after that status was written."""
    return a_job(status=status)


def test_the_whole_status() -> None:
    progress = encoding(47)
    document = a_document(attempts=[FAILED], progress=progress, started_at=NOW, attempt=2)
    status = status_of(document, a_pod(name=f"{NAME}-a2", attempt=2))
    conditions = status.pop("conditions")
    assert status == {
        "observedGeneration": 1,
        "jobUID": str(JOB),
        "jobID": 7,
        "owner": "default",
        "attempt": 2,
        "attempts": [
            {
                "number": 1,
                "status": "failed",
                "podName": f"{NAME}-a1",
                "startTime": "2026-01-02T03:04:05Z",
                "finishTime": "2026-01-02T03:04:05Z",
                "failure": "source_unreachable",
                "message": "a.example did not answer.",
            }
        ],
        "progress": "45%",
        "startTime": "2026-01-02T03:04:05Z",
        "podName": f"{NAME}-a2",
        "nodeName": "node-1",
        "outputs": [],
    }
    assert conditions[0] == {
        "type": "Succeeded",
        "status": "Unknown",
        "reason": "Running",
        "message": "The worker is encoding",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }


def test_an_attempt_without_a_pod_names_none() -> None:
    document = a_document(attempts=[an_attempt(worker="operator-host-1")])
    assert "podName" not in status_of(document)["attempts"][0]


def test_the_latest_twenty_attempts_are_shown() -> None:
    attempts = [an_attempt(number=number) for number in range(1, 31)]
    shown = status_of(a_document(attempts=attempts))["attempts"]
    assert [attempt["number"] for attempt in shown] == list(range(11, 31))


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    before = showing(status_of(STARTING))
    conditions = build_conditions(NOT_THERE, None)
    status = build_status(before, NOT_THERE, conditions, pod=None, now=LATER)
    times = {
        condition["type"]: condition["lastTransitionTime"] for condition in status["conditions"]
    }
    old, new = "2026-01-02T03:04:05Z", "2026-01-02T03:05:05Z"
    assert times == {
        "Succeeded": new,
        "Admitted": old,
        "PodReady": old,
        "Disrupted": old,
        "ResultRecorded": new,
    }


@pytest.mark.parametrize(
    ("shown", "wanted", "changed"),
    [
        pytest.param(a_job(), status_of(WAITING), True, id="nothing is shown yet"),
        pytest.param(showing(status_of(WAITING)), status_of(WAITING), False, id="all is shown"),
        pytest.param(
            showing(status_of(WAITING)), status_of(STARTING), True, id="a condition changed"
        ),
        pytest.param(
            showing(status_of(a_document(progress=encoding(45)))),
            status_of(a_document(progress=encoding(49.9))),
            False,
            id="too little progress",
        ),
        pytest.param(
            showing(status_of(a_document(progress=encoding(45)))),
            status_of(a_document(progress=encoding(50))),
            True,
            id="enough of it",
        ),
        pytest.param(
            showing({**status_of(WAITING), "retryTime": "2026-01-02T03:04:05Z"}),
            status_of(WAITING),
            True,
            id="something has to disappear",
        ),
        pytest.param(
            showing(with_theirs({**status_of(WAITING), "theirs": 1})),
            status_of(WAITING),
            False,
            id="what others wrote is theirs",
        ),
    ],
)
def test_it_is_written_when(shown: JobSeen, wanted: dict[str, Any], changed: bool) -> None:
    assert is_changed(shown, wanted) is changed
