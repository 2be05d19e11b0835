"""What the operator writes into a status, the resources' schemas know: the API server is strict."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from encoder_core.documents import AttemptDocument, JobDocument
from encoder_core.failures import failure
from encoder_core.reports import FinalReport, Outcome
from encoder_core.specs import Priority
from encoder_core.states import AttemptStatus, JobStatus
from encoder_db.pools import PoolRow
from encoder_db.store import Store
from encoder_operator.kube import JOBS
from encoder_operator.poolstatus import build_pool_status
from encoder_operator.seen import PoolSeen
from encoder_operator.status import build_conditions, build_status
from tests.operator.builders import JOB, NOW, a_job, a_pod
from tests.operator.desk import RUNNING, Desk

CRDS = Path(__file__).parents[2] / "crds"


def schema_of(plural: str) -> dict[str, Any]:
    crd = yaml.safe_load((CRDS / f"{plural}.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    status: dict[str, Any] = schema["properties"]["status"]
    return status


def unknown_fields(value: Any, schema: dict[str, Any], path: str = "status") -> list[str]:
    if isinstance(value, dict):
        known = schema.get("properties", {})
        return [
            problem
            for key, item in value.items()
            for problem in (
                unknown_fields(item, known[key], f"{path}.{key}")
                if key in known
                else [f"{path}.{key}"]
            )
        ]
    if isinstance(value, list):
        return [p for item in value for p in unknown_fields(item, schema["items"], f"{path}[]")]
    return []


def too_long(value: Any, schema: dict[str, Any], path: str = "status") -> list[str]:
    if isinstance(value, dict):
        fields = schema["properties"]
        return [p for key, item in value.items() for p in too_long(item, fields[key], key)]
    if isinstance(value, list):
        return [p for item in value for p in too_long(item, schema["items"], path)]
    is_it = isinstance(value, str) and len(value) > schema.get("maxLength", len(value))
    return [path] if is_it else []


def test_what_a_worker_says_at_length_fits_into_its_jobs_status(store: Store) -> None:
    desk = Desk(store)
    job, name = desk.admitted()
    desk.move_pod(name, RUNNING)
    said = failure("worker_failed").model_copy(update={"message": "x" * 5000})
    assert desk.say(job, FinalReport(outcome=Outcome.FAILED, failure=said))
    ended = {"terminated": {"exitCode": 1}}
    worker = {"name": "worker", "state": ended}
    desk.move_pod(name, {"phase": "Failed", "containerStatuses": [worker]})
    desk.settle(name)
    status = desk.api.objects[JOBS.path("work", name)]["status"]
    assert status["attempts"][0]["message"].startswith("xxx")
    assert too_long(status, schema_of("transcodejobs")) == []


@pytest.mark.parametrize("status", list(JobStatus))
def test_a_jobs_status(status: JobStatus) -> None:
    attempt = AttemptDocument(
        number=1,
        status=AttemptStatus.FAILED,
        executor="kubernetes",
        worker="tj-x-a1",
        failure=failure("source_unreachable"),
        created_at=NOW,
        started_at=NOW,
        finished_at=NOW,
    )
    document = JobDocument(
        id=7,
        uuid=JOB,
        status=status,
        owner="default",
        pool="default",
        priority=Priority.NORMAL,
        attempt=1,
        version=3,
        source={},
        outputs=[],
        failure=failure("source_unreachable"),
        created_at=NOW,
        updated_at=NOW,
        started_at=NOW,
        finished_at=NOW,
        due_at=NOW,
        attempts=[attempt],
    )
    pod = a_pod()
    conditions = build_conditions(document, pod)
    written = build_status(a_job(), document, conditions, pod=pod, now=NOW)
    assert unknown_fields(written, schema_of("transcodejobs")) == []


def test_a_pools_status() -> None:
    pool = PoolSeen(
        name="default", generation=1, max_concurrency=4, stop_policy="None", spec={}, status={}
    )
    row = PoolRow(
        name="default",
        engine="kubernetes",
        max_concurrency=4,
        max_per_owner=None,
        blocked=None,
        pending=0,
        oldest_queued_at=NOW,
        stop_policy="None",
        active=1,
        queued=2,
        created_at=NOW,
        updated_at=NOW,
    )
    written = build_pool_status(pool, row, now=datetime(2026, 1, 1, tzinfo=UTC))
    assert unknown_fields(written, schema_of("transcodepools")) == []


def undescribed(schema: dict[str, Any], path: str = "") -> list[str]:
    found = []
    for key, field in schema.get("properties", {}).items():
        if not field.get("description"):
            found.append(f"{path}.{key}")
        found += undescribed(field, f"{path}.{key}")
    return found + (undescribed(schema["items"], f"{path}[]") if "items" in schema else [])


@pytest.mark.parametrize("plural", ["transcodejobs", "transcodepools"])
def test_kubectl_explain_has_something_to_say_of_every_field(plural: str) -> None:
    crd = yaml.safe_load((CRDS / f"{plural}.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    given_by_kubernetes = [".apiVersion", ".kind", ".metadata"]
    assert undescribed(schema) == given_by_kubernetes
