"""The status of a TranscodeJob: conditions with machine reasons and sentences for people. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from encoder_core.documents import AttemptDocument, JobDocument, OutputDocument
from encoder_core.failures import Failure
from encoder_core.names import pod_name
from encoder_core.states import JobStatus
from encoder_operator.exits import DISRUPTED, Stuck
from encoder_operator.seen import JobSeen, PodSeen

PROGRESS_STEP: Final = 5  # percent: the API server is no place for a progress bar
ATTEMPTS_SHOWN: Final = 20
_OURS: Final = (
    *("observedGeneration", "jobUID", "jobID", "owner", "attempt", "attempts", "progress"),
    *("startTime", "completionTime", "retryTime", "podName", "nodeName", "outputs"),
)
"""What `build_status` fills, besides the conditions. What it leaves out is to disappear."""


@dataclass(frozen=True, slots=True)
class Condition:
    type: str
    status: str
    """True, False or Unknown."""
    reason: str
    message: str
    """A sentence for people, also of what is as it should be: `kubectl describe` shows it. It
    changes only with what it tells of: a time in it would cost a write each time."""


def reason_of(code: str) -> str:
    """A failure's code as Kubernetes writes reasons: `source_not_found` → `SourceNotFound`."""
    return "".join(word.capitalize() for word in code.split("_"))


def build_conditions(
    document: JobDocument, pod: PodSeen | None, stuck: Stuck | None = None
) -> list[Condition]:
    """`stuck` is what keeps the Pod of the current attempt from running."""
    return [
        _succeeded(document, pod, stuck),
        _admitted(document),
        _pod_ready(document, pod, stuck),
        _disrupted(document),
        _result_recorded(document),
    ]


def conditions_of_refused(reason: str, message: str, *, final: bool) -> list[Condition]:
    """Of a resource that is no job: it is not in the record, so nothing else can be said of it."""
    return [
        Condition("Succeeded", "False" if final else "Unknown", reason, message),
        Condition("Admitted", "False", reason, message),
    ]


def _succeeded(document: JobDocument, pod: PodSeen | None, stuck: Stuck | None) -> Condition:
    match document.status:
        case JobStatus.COMPLETED:
            count = len(document.outputs)
            return Condition("Succeeded", "True", "Completed", f"{count} of {count} uploaded")
        case JobStatus.FAILED:
            return Condition("Succeeded", "False", *_failure(document.failure))
        case JobStatus.CANCELED:
            return Condition("Succeeded", "False", "Canceled", "Canceled by request")
        case JobStatus.CANCELING:
            return Condition("Succeeded", "Unknown", "Canceling", "Stopping the worker")
        case JobStatus.RUNNING:
            phase = document.progress.phase.value if document.progress else "starting"
            return Condition("Succeeded", "Unknown", "Running", f"The worker is {phase}")
        case JobStatus.STARTING:
            return Condition("Succeeded", "Unknown", *_starting(pod, stuck))
        case JobStatus.QUEUED if _has_place(document):
            return Condition("Succeeded", "Unknown", *_starting(None, None))
        case JobStatus.QUEUED if any(attempt.failure for attempt in document.attempts):
            return Condition("Succeeded", "Unknown", "Retrying", _waits(document)[1])
    return Condition("Succeeded", "Unknown", "Pending", _waits(document)[1])


def _failure(failure: Failure | None) -> tuple[str, str]:
    if failure is None:
        return "Failed", "The job failed"
    # Of kubelets and policies, which end in anything.
    stop = "" if failure.message.endswith((".", "!", "?")) else "."
    return reason_of(failure.code), f"{failure.message}{stop} {failure.hint}"


def _starting(pod: PodSeen | None, stuck: Stuck | None) -> tuple[str, str]:
    if pod is None:
        return "Starting", "Creating the Pod"
    if stuck is not None:
        return reason_of(stuck.code), stuck.message
    if not pod.scheduled:
        return "Scheduling", "Waiting for a node"
    if pod.running:
        return "Starting", "The worker is starting"
    return "PullingImage", "Preparing the container"


def _waits(document: JobDocument) -> tuple[str, str]:
    """Reason and words for which it is not admitted, as `GET /jobs/{id}` says them too."""
    if document.waiting is None:
        return "Pending", "Waits for a place."
    return document.waiting.reason, document.waiting.message


def _has_place(document: JobDocument) -> bool:
    """Between the step that opens an attempt and the one that announces it, too."""
    return bool(document.attempts) and document.attempts[-1].finished_at is None


def _admitted(document: JobDocument) -> Condition:
    if document.finished_at is not None and document.attempt == 0:
        return Condition("Admitted", "False", "NotAdmitted", "It ended before it had a place")
    if document.status is not JobStatus.QUEUED or _has_place(document):
        granted = f"A place in pool {document.pool} was granted"
        return Condition("Admitted", "True", "SlotGranted", granted)
    return Condition("Admitted", "False", *_waits(document))


def _pod_ready(document: JobDocument, pod: PodSeen | None, stuck: Stuck | None) -> Condition:
    if pod is None:
        whose = f"Attempt {document.attempt}" if document.attempt else "It"
        return Condition("PodReady", "False", "NoPod", f"{whose} has no Pod")
    if pod.ended:
        return Condition("PodReady", "False", "PodEnded", f"{pod.name} {pod.phase.value}")
    if pod.running:
        return Condition("PodReady", "True", "Running", f"{pod.name} on {pod.node}")
    if stuck is not None:
        return Condition("PodReady", "False", reason_of(stuck.code), stuck.message)
    return Condition("PodReady", "False", "Starting", pod.name)


def _disrupted(document: JobDocument) -> Condition:
    """Whether the cluster took the last attempt that ended; its own failures are no disruption."""
    ended = [attempt for attempt in document.attempts if attempt.finished_at is not None]
    last = ended[-1] if ended else None
    reason = DISRUPTED.get(last.failure.code) if last and last.failure else None
    if reason is None or last is None or last.failure is None:
        kept = "The cluster did not cut its last attempt short" if last else "No attempt has ended"
        return Condition("Disrupted", "False", "NotDisrupted", kept)
    said = f"Attempt {last.number}: {last.failure.message}"
    return Condition("Disrupted", "True", reason, said)


def _result_recorded(document: JobDocument) -> Condition:
    # The document was read from the record: if it is final there, the record has it.
    if document.finished_at is not None:
        return Condition("ResultRecorded", "True", "Recorded", "The result is in the database")
    return Condition("ResultRecorded", "False", "NotFinal", "There is no result yet")


def build_status(
    job: JobSeen,
    document: JobDocument,
    conditions: Sequence[Condition],
    *,
    pod: PodSeen | None,
    now: datetime,
) -> dict[str, Any]:
    """The whole status that the operator owns, for server-side apply."""
    status: dict[str, Any] = {
        "observedGeneration": job.generation,
        "jobUID": str(document.uuid),
        "jobID": document.id,
        "owner": document.owner,
        "attempt": document.attempt,
        "attempts": [_attempt(a, job.name) for a in document.attempts[-ATTEMPTS_SHOWN:]],
        "progress": progress_text(document),
        "startTime": stamp(document.started_at),
        "completionTime": stamp(document.finished_at),
        "retryTime": stamp(document.due_at) if document.attempt else None,
        "podName": pod.name if pod else None,
        "nodeName": pod.node if pod else None,
        "outputs": [_output(output) for output in document.outputs],
        "conditions": _dated(conditions, job, now),
    }
    return {key: value for key, value in status.items() if value is not None}


def build_refused_status(
    job: JobSeen, conditions: Sequence[Condition], *, now: datetime
) -> dict[str, Any]:
    return {
        "observedGeneration": job.generation,
        "conditions": _dated(conditions, job, now),
    }


def status_without_store(job: JobSeen, *, now: datetime) -> dict[str, Any]:
    """What was last known of it, and that the database does not answer."""
    said = "The database does not answer; what runs goes on, and is recorded later"
    told = [Condition("ResultRecorded", "False", "StoreUnavailable", said)]
    before = job.status
    known = {c["type"]: c for c in before.get("conditions") or []}
    if known.get("Admitted", {}).get("status") != "True":
        waits = "The database does not answer: nothing starts"
        told.append(Condition("Admitted", "False", "StoreUnavailable", waits))
        told.append(Condition("Succeeded", "Unknown", "StoreUnavailable", waits))
    conditions = known | {c["type"]: c for c in _dated(told, job, now)}
    status: dict[str, Any] = {key: before[key] for key in _OURS if key in before}
    return {**status, "conditions": list(conditions.values())}


def progress_text(document: JobDocument) -> str:
    if document.status is JobStatus.COMPLETED:
        return "100%"
    percent = document.progress.percent if document.progress else 0
    return f"{int(percent // PROGRESS_STEP * PROGRESS_STEP)}%"


def is_changed(job: JobSeen, status: Mapping[str, Any]) -> bool:
    """Whether applying `status` would change what the resource shows of ours."""
    return differs(job.status, status, fields=_OURS)


def differs(
    shown: Mapping[str, Any], wanted: Mapping[str, Any], *, fields: Collection[str]
) -> bool:
    """
    Whether these fields do, or any of the conditions that are wanted.

    Others may add conditions of their own, which a write of ours would not change.
    """
    before = {c["type"]: c for c in shown.get("conditions") or []}
    return any(shown.get(key) != wanted.get(key) for key in fields) or any(
        before.get(c["type"]) != c for c in wanted["conditions"]
    )


def _output(output: OutputDocument) -> dict[str, Any]:
    shown = {
        "index": output.index,
        "status": output.status.value,
        "url": output.result.files[0].url if output.result and output.result.files else None,
        "sizeBytes": output.result.size_bytes if output.result else None,
        "failure": output.error.code if output.error else None,
    }
    return {key: value for key, value in shown.items() if value is not None}


def _attempt(attempt: AttemptDocument, resource: str) -> dict[str, Any]:
    # Until the Pod is made, its place is held by the operator's own name.
    has_pod = attempt.worker == pod_name(resource, attempt.number)
    shown = {
        "number": attempt.number,
        "status": attempt.status.value,
        "podName": attempt.worker if has_pod else None,
        "nodeName": attempt.node,
        "exitCode": attempt.exit_code,
        "budget": attempt.budget,
        "startTime": stamp(attempt.started_at),
        "finishTime": stamp(attempt.finished_at),
        "failure": attempt.failure.code if attempt.failure else None,
        "message": attempt.failure.message if attempt.failure else None,
    }
    return {key: value for key, value in shown.items() if value is not None}


def _dated(conditions: Sequence[Condition], job: JobSeen, now: datetime) -> list[dict[str, Any]]:
    before = job.conditions
    return [_with_time(c, before.get(c.type), job, now) for c in conditions]


def _with_time(
    condition: Condition, before: Mapping[str, Any] | None, job: JobSeen, now: datetime
) -> dict[str, Any]:
    unchanged = before is not None and before.get("status") == condition.status
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message[:1024],
        "observedGeneration": job.generation,
        # The moment of the last change of status, as the API conventions want it.
        "lastTransitionTime": before["lastTransitionTime"] if unchanged and before else stamp(now),
    }


def stamp(time: datetime | None) -> str | None:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ") if time else None
