"""Kubernetes Events: one for each transition of a job or a pool, never for progress. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from encoder_core.documents import JobDocument
from encoder_core.names import GROUP, VERSION
from encoder_operator.seen import JobSeen, PoolSeen

COMPONENT: Final = "encoder-operator"
_NOTE_LENGTH: Final = 1024  # the API server refuses longer ones


@dataclass(frozen=True, slots=True)
class Note:
    """What an Event says. `once` makes it one of its kind: the same transition is told once."""

    type: str
    """Normal or Warning."""
    reason: str
    message: str
    once: str


def notes_of_job(
    job: JobSeen, status: Mapping[str, Any], document: JobDocument | None
) -> list[Note]:
    """What has changed between the status that the resource shows and the one to be written."""
    after = {c["type"]: c for c in status["conditions"]}
    return list(_of_job(job, after, status, document))


def _of_job(
    job: JobSeen,
    after: Mapping[str, Mapping[str, Any]],
    status: Mapping[str, Any],
    document: JobDocument | None,
) -> Iterator[Note]:
    conditions, before = job.conditions, job.status

    def shown(type_: str) -> Mapping[str, Any]:
        return conditions.get(type_, {})

    attempt = status.get("attempt", 0)
    succeeded = after["Succeeded"]
    if document is None:
        is_news = shown("Succeeded").get("reason") != succeeded["reason"]
        if is_news and succeeded["status"] == "False":
            yield Note("Warning", "Refused", succeeded["message"], succeeded["reason"])
        return
    disrupted = after["Disrupted"]
    if disrupted["status"] == "True":
        # One for each attempt that was taken away, also when the one before it was, too.
        which = _attempt_in(disrupted)
        if shown("Disrupted").get("status") != "True" or _attempt_in(shown("Disrupted")) != which:
            said = f"{disrupted['reason']}: {disrupted['message']}"
            yield Note("Warning", "DisruptionObserved", said, which)
    if after["Admitted"]["status"] == "True" and document.attempt:
        pod = status.get("podName")
        had_place = shown("Admitted").get("status") == "True"
        if pod is not None and before.get("podName") != pod:
            place = f"Attempt {attempt} has a place in pool {document.pool}; its Pod is {pod}"
            yield Note("Normal", "PodCreated", place, f"{attempt}")
        elif pod is None and not had_place and succeeded["status"] == "Unknown":
            place = f"Attempt {attempt} has a place in pool {document.pool}"
            yield Note("Normal", "Admitted", place, f"{attempt}")
    # Of one attempt: where the next one has no Pod, nothing is shown between two that failed.
    told = (shown("Succeeded").get("reason"), shown("Succeeded").get("status"))
    if told == (succeeded["reason"], succeeded["status"]) and before.get("attempt") == attempt:
        return
    match succeeded["reason"], succeeded["status"]:
        case "Running", _:
            at = f"Attempt {attempt} runs on {status.get('nodeName', 'a node')}"
            yield Note("Normal", "Started", at, f"{attempt}")
        case "Retrying", _:
            yield Note("Warning", "RetryScheduled", succeeded["message"], f"{attempt}")
        case _, "True":
            yield Note("Normal", "Succeeded", succeeded["message"], f"{attempt}")
        case "Canceled", _:
            yield Note("Normal", "Canceled", succeeded["message"], f"{attempt}")
        case _, "False":
            said = f"{succeeded['reason']}: {succeeded['message']}"
            yield Note("Warning", "Failed", said, f"{attempt}")


def _attempt_in(disrupted: Mapping[str, Any]) -> str:
    """Which attempt the condition tells of, as its message begins."""
    return str(disrupted["message"]).partition(":")[0]


def notes_of_pool(pool: PoolSeen, status: Mapping[str, Any], *, limit_before: int) -> list[Note]:
    """Held, Resumed, OverLimit, what blocks it, and from which limit it was scaled."""
    before = {c["type"]: c["status"] for c in pool.status.get("conditions") or []}
    notes = []
    for condition in status["conditions"]:
        was = before.get(condition["type"])
        if was == condition["status"]:
            continue
        once = f"{condition['reason']} {condition['lastTransitionTime']}"
        match condition["type"], condition["status"]:
            case "Held", "True":
                notes.append(Note("Normal", "Held", condition["message"], once))
            case "Held", "False" if was is not None:
                notes.append(Note("Normal", "Resumed", condition["message"], once))
            case "OverLimit" | "CapacityBlocked" | "ImageUnavailable" | "Throttled", "True":
                notes.append(Note("Warning", condition["type"], condition["message"], once))
    if limit_before != pool.max_concurrency:
        by = f" by {pool.changed_by}" if pool.changed_by else ""
        said = f"maxConcurrency {limit_before} -> {pool.max_concurrency}{by}"
        notes.append(Note("Normal", "Scaled", said, f"{pool.generation}"))
    return notes


def build_event(
    note: Note, *, kind: str, name: str, uid: str, namespace: str, now: datetime
) -> dict[str, Any]:
    """Its name says what it is about, so that writing it twice makes one."""
    key = hashlib.sha256(f"{uid}/{note.reason}/{note.once}".encode()).hexdigest()[:16]
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{key}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": kind,
            "name": name,
            "namespace": namespace,
            "uid": uid,
        },
        "type": note.type,
        "reason": note.reason,
        "message": note.message[:_NOTE_LENGTH],
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": COMPONENT,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }
