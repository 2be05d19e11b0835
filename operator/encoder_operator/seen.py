"""What the operator remembers of the cluster's objects: projections, never whole objects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal
from uuid import UUID

from encoder_core.names import (
    ATTEMPT_LABEL,
    GROUP,
    JOB_LABEL,
    POOL_LABEL,
    job_of_resource,
    pod_name,
)

WORKER: Final = "worker"
"""The name of the container that is ours."""


class PodPhase(StrEnum):
    PENDING = "Pending"  #: Not scheduled, or its containers do not run yet.
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSeen:
    """One worker Pod."""

    name: str
    uid: str
    resource_version: str = ""
    resource: str
    """The TranscodeJob it belongs to."""
    owner: str
    """That one's uid: another of the same name may have followed it."""
    attempt: int
    pool: str
    phase: PodPhase
    reason: str | None = None
    """The Pod's own, such as Evicted or DeadlineExceeded."""
    message: str | None = None
    scheduled: bool = False
    unschedulable: str | None = None
    """The scheduler's words."""
    disruption: str | None = None
    """The reason of DisruptionTarget=True."""
    waiting: str | None = None
    """Why its container does not run, such as ImagePullBackOff."""
    waiting_message: str | None = None
    running: bool = False
    exit_code: int | None = None
    init_failed: bool = False
    """The worker never ran; the exit code is that of an init container, which others added."""
    container_reason: str | None = None
    """Why its container ended, such as OOMKilled."""
    termination_message: str | None = None
    node: str | None = None
    gone: bool = False
    """Deleted after it had ended: kept until its end is recorded."""
    deleting: bool = False
    delete_at: datetime | None = None
    """When its grace is over, once it is being deleted."""
    created_at: datetime | None = None
    scheduled_at: datetime | None = None
    sandbox_at: datetime | None = None
    """When its volumes and its network were ready."""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    """When its container ran, as the kubelet says."""

    @property
    def ended(self) -> bool:
        return self.phase in (PodPhase.SUCCEEDED, PodPhase.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSeen:
    """One TranscodeJob."""

    name: str
    uid: str
    generation: int
    resource_version: str
    job_uid: UUID | None
    """`spec.jobUID`, or what its name says: set when it came through the API."""
    pool: str
    cancel: bool
    priority: str
    observed: int
    """The generation of which its status already tells."""
    deleting: bool
    created_at: datetime | None = None
    done: bool = False
    """The record is known to be final: only then may evidence be deleted."""
    over: bool = False
    """It says that it failed: of one that never was a job, nothing else ever says so."""
    spec_json: str = "{}"
    status_json: str = "{}"
    """
    Both are kept as text: as dicts they would take five times the room, for as long as it exists.
    """

    @property
    def spec(self) -> dict[str, Any]:
        """Read anew each time."""
        return _read(self.spec_json)

    @property
    def status(self) -> dict[str, Any]:
        """Read anew each time."""
        return _read(self.status_json)

    @property
    def conditions(self) -> dict[str, dict[str, Any]]:
        """By type. Read anew each time."""
        return {c["type"]: c for c in self.status.get("conditions") or []}

    @classmethod
    def known(cls, name: str, uid: str) -> JobSeen:
        """One of which no more is known than that it exists."""
        return cls(
            name=name,
            uid=uid,
            generation=0,
            resource_version="",
            job_uid=None,
            pool="",
            cancel=False,
            priority="",
            observed=0,
            deleting=False,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSeen:
    """One TranscodePool."""

    name: str
    uid: str = ""
    generation: int
    resource_version: str = ""
    max_concurrency: int
    stop_policy: Literal["None", "Hold", "Drain"]
    spec: Mapping[str, Any]
    status: Mapping[str, Any]
    changed_by: str | None = None
    """Which program set its limit, as far as the API server knows: `kubectl` and the like."""


def parse_time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


def parse_pod(body: Mapping[str, Any]) -> PodSeen | None:
    """
    A Pod of ours; None when its labels, its name and its owner do not agree on whose it is.

    Labels alone are anybody's to write, and how a Pod ends decides what becomes of a job.
    """
    metadata, status = body["metadata"], body.get("status") or {}
    labels = metadata.get("labels") or {}
    resource, attempt = labels.get(JOB_LABEL, ""), str(labels.get(ATTEMPT_LABEL, ""))
    owner = _owner(metadata, resource)
    if (
        owner is None
        or not attempt.isdigit()
        or metadata["name"] != pod_name(resource, int(attempt))
    ):
        return None
    conditions = {c["type"]: c for c in status.get("conditions") or []}
    scheduled = conditions.get("PodScheduled", {})
    disrupted = conditions.get("DisruptionTarget", {})
    state, waiting, ended = _container_state(status)
    return PodSeen(
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata.get("resourceVersion", ""),
        resource=resource,
        owner=owner,
        attempt=int(attempt),
        pool=labels.get(POOL_LABEL, ""),
        phase=PodPhase(status.get("phase") or "Pending"),
        reason=status.get("reason"),
        message=status.get("message"),
        scheduled=scheduled.get("status") == "True",
        unschedulable=(
            scheduled.get("message") if scheduled.get("reason") == "Unschedulable" else None
        ),
        disruption=disrupted.get("reason") if disrupted.get("status") == "True" else None,
        waiting=waiting.get("reason"),
        waiting_message=waiting.get("message"),
        running="running" in state,
        exit_code=ended.get("exitCode"),
        init_failed=bool(ended) and not _is_main(status, state),
        container_reason=ended.get("reason"),
        termination_message=ended.get("message"),
        node=(body.get("spec") or {}).get("nodeName"),
        deleting=metadata.get("deletionTimestamp") is not None,
        delete_at=parse_time(metadata.get("deletionTimestamp")),
        created_at=parse_time(metadata.get("creationTimestamp")),
        scheduled_at=_since(scheduled),
        sandbox_at=_since(conditions.get("PodReadyToStartContainers", {})),
        started_at=parse_time((state.get("running") or ended).get("startedAt")),
        finished_at=parse_time(ended.get("finishedAt")),
    )


def _since(condition: Mapping[str, Any]) -> datetime | None:
    """Since when it is true; None when it is not."""
    return (
        parse_time(condition.get("lastTransitionTime"))
        if condition.get("status") == "True"
        else None
    )


def _owner(metadata: Mapping[str, Any], resource: str) -> str | None:
    for owner in metadata.get("ownerReferences") or []:
        group = owner.get("apiVersion", "").partition("/")[0]
        if (group, owner.get("kind"), owner.get("name")) == (GROUP, "TranscodeJob", resource):
            return str(owner.get("uid"))
    return None


def _container_state(
    status: Mapping[str, Any],
) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]:
    """
    The state that says how the Pod is, why something waits, and how it ended.

    The worker's own, or, when that never ran, the init container's that kept it from running. What
    becomes of containers that others add beside it says nothing of the job.
    """
    init = [c.get("state") or {} for c in status.get("initContainerStatuses") or []]
    named = {c.get("name"): c.get("state") or {} for c in status.get("containerStatuses") or []}
    main: Mapping[str, Any] = named.get(WORKER) or next(iter(named.values()), {})
    if "running" not in main and "terminated" not in main:
        failed = (s for s in init if (s.get("terminated") or {}).get("exitCode") not in (None, 0))
        main = next(failed, main)
    states = (*init, main)
    waiting: Mapping[str, Any] = next((s["waiting"] for s in states if s.get("waiting")), {})
    return main, waiting, main.get("terminated") or {}


def _is_main(status: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
    return any(each.get("state") is state for each in status.get("containerStatuses") or [])


def parse_job(body: Mapping[str, Any]) -> JobSeen:
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    uid = spec.get("jobUID")
    said = {c["type"]: c["status"] for c in status.get("conditions") or []}
    return JobSeen(
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        resource_version=metadata.get("resourceVersion", ""),
        job_uid=UUID(uid) if uid else job_of_resource(metadata["name"]),
        pool=(spec.get("poolRef") or {}).get("name", "default"),
        cancel=spec.get("desiredState") == "Cancel",
        priority=spec.get("priority", ""),
        observed=status.get("observedGeneration", 0),
        deleting=metadata.get("deletionTimestamp") is not None,
        created_at=parse_time(metadata.get("creationTimestamp")),
        done=said.get("ResultRecorded") == "True",
        over=said.get("Succeeded") == "False",
        spec_json=_text(spec),
        status_json=_text(status),
    )


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _read(text: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(text)
    return value


def parse_pool(body: Mapping[str, Any]) -> PoolSeen:
    metadata, spec = body["metadata"], body.get("spec") or {}
    return PoolSeen(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 1),
        resource_version=metadata.get("resourceVersion", ""),
        max_concurrency=spec.get("maxConcurrency", 1),
        stop_policy=spec.get("stopPolicy", "None"),
        spec=spec,
        status=body.get("status") or {},
        changed_by=_last_writer(metadata.get("managedFields") or []),
    )


def _last_writer(fields: Sequence[Mapping[str, Any]]) -> str | None:
    """Of the limit: whoever changes a field owns it from then on. Times are of whole seconds."""
    owners = [entry for entry in fields if "f:maxConcurrency" in _of_spec(entry)]
    last = max(owners, key=lambda entry: str(entry.get("time", "")), default=None)
    return None if last is None else str(last.get("manager"))


def _of_spec(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    return (entry.get("fieldsV1") or {}).get("f:spec") or {}
