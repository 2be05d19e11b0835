"""Valid by default; one argument changes one thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from encoder_core.names import resource_name
from encoder_core.specs import Priority
from encoder_core.states import JobStatus
from encoder_operator.decide import Observed, RowSeen
from encoder_operator.policy import PoolPolicy
from encoder_operator.seen import JobSeen, PodPhase, PodSeen, parse_job

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
JOB = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
NAME = resource_name(JOB)
NONE: Mapping[str, Any] = {}


def a_pod(**changes: Any) -> PodSeen:
    values: dict[str, Any] = {
        "name": f"{NAME}-a1",
        "uid": "pod-1",
        "resource": NAME,
        "owner": "job-1",
        "attempt": 1,
        "pool": "default",
        "phase": PodPhase.RUNNING,
        "scheduled": True,
        "running": True,
        "node": "node-1",
        "created_at": NOW,
    }
    return PodSeen(**{**values, **changes})


def an_ended_pod(exit_code: int | None = 0, **changes: Any) -> PodSeen:
    phase = PodPhase.SUCCEEDED if exit_code == 0 else PodPhase.FAILED
    return a_pod(**{"phase": phase, "running": False, "exit_code": exit_code, **changes})


def a_job(
    spec: Mapping[str, Any] = NONE,
    status: Mapping[str, Any] = NONE,
    conditions: Mapping[str, Mapping[str, Any]] = NONE,
    **changes: Any,
) -> JobSeen:
    """`conditions` by type, besides those of `status`."""
    values: dict[str, Any] = {
        "name": NAME,
        "uid": "job-1",
        "generation": 1,
        "resource_version": "7",
        "job_uid": JOB,
        "pool": "default",
        "cancel": False,
        "priority": "normal",
        "observed": 1,
        "deleting": False,
    }
    body = {
        "metadata": {"name": values["name"], "uid": values["uid"]},
        "spec": spec,
        "status": {
            **status,
            "conditions": [
                *status.get("conditions", []),
                *({"type": type_, **condition} for type_, condition in conditions.items()),
            ],
        },
    }
    return replace(parse_job(body), **{**values, **changes})


def a_row(status: JobStatus = JobStatus.RUNNING, **changes: Any) -> RowSeen:
    values: dict[str, Any] = {
        "id": 1,
        "uuid": JOB,
        "status": status,
        "priority": Priority.NORMAL,
        "attempt": 1,
        "attempt_open": True,
        "resource_name": NAME,
        "resource_uid": "job-1",
        "pod_created": True,
        "finished_at": None,
    }
    return RowSeen(**{**values, **changes})


def observed(**changes: Any) -> Observed:
    values: dict[str, Any] = {
        "name": NAME,
        "now": NOW,
        "job": a_job(),
        "row": a_row(),
        "pods": {1: a_pod()},
        "policy": PoolPolicy(),
    }
    return Observed(**{**values, **changes})
