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
    before = {type_: condition["reason"] for type_, condition in job.conditions.items()}
    held = {type_: condition["status"] for type_, condition in job.conditions.items()}
    after = {c["type"]: c for c in status["conditions"]}
    return list(_of_job(before, held, after, job.status, status, document))


def _of_job(
    before: Mapping[str, str],
    held: Mapping[str, str],
    after: Mapping[str, Mapping[str, Any]],
    shown: Mapping[str, Any],
    status: Mapping[str, Any],
    document: JobDocument | None,
) -> Iterator[Note]:
    attempt = status.get("attempt", 0)
    succeeded = after["Succeeded"]
    if document is None:
        if before.get("Succeeded") != succeeded["reason"] and succeeded["status"] == "False":
            yield Note("Warning", "Refused", succeeded["message"], succeeded["reason"])
        return
    disrupted = after["Disrupted"]
    if disrupted["status"] == "True":
        # One for each attempt that was taken away, also when the one before it was, too.
        told = disrupted["message"].partition(":")[0]
        if before.get("Disrupted") != disrupted["reason"] or shown.get("attempt") != attempt:
            yield Note(
                "Warning",
                "DisruptionObserved",
                f"{disrupted['reason']}: {disrupted['message']}",
                told,
            )
    if after["Admitted"]["status"] == "True" and document.attempt:
        pod = status.get("podName")
        if pod is not None and shown.get("podName") != pod:
            place = f"Attempt {attempt} has a place in pool {document.pool}; its Pod is {pod}"
            yield Note("Normal", "PodCreated", place, f"{attempt}")
        elif pod is None and held.get("Admitted") != "True" and succeeded["status"] == "Unknown":
            place = f"Attempt {attempt} has a place in pool {document.pool}"
            yield Note("Normal", "Admitted", place, f"{attempt}")
    if before.get("Succeeded") == succeeded["reason"] and succeeded["status"] == held["Succeeded"]:
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


def notes_of_pool(pool: PoolSeen, status: Mapping[str, Any]) -> list[Note]:
    """Held, Resumed, OverLimit, and what blocks it."""
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
