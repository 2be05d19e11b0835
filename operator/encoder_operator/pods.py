"""The Secret and the Pod of one attempt, as dictionaries. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from encoder_core.errors import JobError
from encoder_core.names import (
    ATTEMPT_LABEL,
    CREDENTIALS_PREFIX,
    GROUP,
    JOB_LABEL,
    POOL_LABEL,
    VERSION,
    pod_name,
    secret_name,
)
from encoder_operator.seen import JobSeen

WORKER_UID: Final = 10001
ORDER_PATH: Final = "/etc/encoder/order"
CREDENTIALS_PATH: Final = "/etc/encoder/credentials"
SCRATCH_PATH: Final = "/scratch"
SECRET_MODE: Final = 0o440  # root's, readable for the group that fsGroup makes ours
GRACE_S: Final = 60  # aborting uploads takes up to 10 s, a last word that finds no API up to 30


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSettings:
    """What is the same for all Pods of a pool."""

    image: str
    image_pull_policy: str = "IfNotPresent"
    cpu: str = "1"
    cpu_limit: str | None = None
    memory: str = "1Gi"
    scratch: str = "10Gi"
    deadline_s: int = 24 * 3600
    service_account: str = "encoder-worker"
    node_selector: Mapping[str, str] | None = None
    tolerations: tuple[Mapping[str, Any], ...] = ()


def labels_of(job: JobSeen, attempt: int) -> dict[str, str]:
    return {
        JOB_LABEL: job.name,
        ATTEMPT_LABEL: str(attempt),
        POOL_LABEL: job.pool,
        "app.kubernetes.io/name": "encoder",
        "app.kubernetes.io/component": "worker",
    }


def owned_by(job: JobSeen) -> list[dict[str, Any]]:
    """
    The job owns it, so it goes when the job goes.

    `blockOwnerDeletion` would need a right on finalizers, and holds up nothing we wait for.
    """
    return [
        {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "TranscodeJob",
            "name": job.name,
            "uid": job.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }
    ]


def build_secret(job: JobSeen, attempt: int, order: str) -> dict[str, Any]:
    """The work order with its credentials, for one attempt only."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": secret_name(job.name, attempt),
            "labels": labels_of(job, attempt),
            "ownerReferences": owned_by(job),
        },
        "type": "Opaque",
        "immutable": True,
        "data": {"order.json": base64.b64encode(order.encode()).decode()},
    }


def credentials_secret(job: JobSeen) -> str | None:
    """
    The Secret that a job applied by hand brings, for the kubelet to mount; we never read it.

    Raises JobError `request_impossible` for a foreign name. The schema refuses those already; a
    resource from before that rule, or a schema that somebody changed, must not open a Secret.
    """
    name = (job.spec.get("credentialsSecretRef") or {}).get("name")
    if name is None or job.job_uid is not None:
        return None  # a job of the API has its credentials in the record
    if not str(name).startswith(CREDENTIALS_PREFIX):
        raise JobError(
            "request_impossible",
            f"spec.credentialsSecretRef.name must begin with {CREDENTIALS_PREFIX}.",
        )
    return str(name)


def build_pod(job: JobSeen, attempt: int, settings: PodSettings) -> dict[str, Any]:
    """
    The worker's Pod, which the restricted Pod Security profile admits.

    Raises what `credentials_secret` raises.
    """
    mounts = [
        {"name": "order", "mountPath": ORDER_PATH, "readOnly": True},
        {"name": "scratch", "mountPath": SCRATCH_PATH},
    ]
    volumes = [
        _secret_volume("order", secret_name(job.name, attempt)),
        {"name": "scratch", "emptyDir": {"sizeLimit": settings.scratch}},
    ]
    args = [
        *("--order", f"{ORDER_PATH}/order.json"),
        *("--termination-log", "/dev/termination-log"),
    ]
    credentials = credentials_secret(job)
    if credentials is not None:
        mounts.append({"name": "credentials", "mountPath": CREDENTIALS_PATH, "readOnly": True})
        volumes.append(_secret_volume("credentials", credentials))
        args += ["--credentials", CREDENTIALS_PATH]
    limits = {"memory": settings.memory, "ephemeral-storage": settings.scratch}
    if settings.cpu_limit:
        limits["cpu"] = settings.cpu_limit
    placement: dict[str, Any] = {}
    if settings.node_selector:
        placement["nodeSelector"] = dict(settings.node_selector)
    if settings.tolerations:
        placement["tolerations"] = [dict(toleration) for toleration in settings.tolerations]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(job.name, attempt),
            "labels": labels_of(job, attempt),
            "ownerReferences": owned_by(job),
        },
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": settings.service_account,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": GRACE_S,
            "activeDeadlineSeconds": settings.deadline_s,
            **placement,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": WORKER_UID,
                "runAsGroup": WORKER_UID,
                # The group is what lets us read mounted Secrets.
                "fsGroup": WORKER_UID,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "worker",
                    "image": settings.image,
                    "imagePullPolicy": settings.image_pull_policy,
                    "args": args,
                    "resources": {
                        "requests": {
                            "cpu": settings.cpu,
                            "memory": settings.memory,
                            "ephemeral-storage": settings.scratch,
                        },
                        "limits": limits,
                    },
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "volumeMounts": mounts,
                }
            ],
            "volumes": volumes,
        },
    }


def _secret_volume(name: str, secret: str) -> dict[str, Any]:
    # Not optional: without it the worker would go on and fail for a reason nobody understands.
    return {
        "name": name,
        "secret": {"secretName": secret, "defaultMode": SECRET_MODE, "optional": False},
    }
