"""The Secret and the Pod of one attempt, as dictionaries. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
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
from encoder_operator.identity import build_identity
from encoder_operator.policy import PoolPolicy
from encoder_operator.quantity import format_bytes
from encoder_operator.seen import WORKER, JobSeen
from encoder_operator.sizing import Sizes

WORKER_UID: Final = 10001
ORDER_PATH: Final = "/etc/encoder/order"
CREDENTIALS_PATH: Final = "/etc/encoder/credentials"
SCRATCH_PATH: Final = "/scratch"
SECRET_MODE: Final = 0o440  # root's, readable for the group that fsGroup makes ours
GRACE_S: Final = 60  # aborting uploads takes up to 10 s, a last word that finds no API up to 30


NODE_GONE_S: Final = 60
"""
How long a Pod outlives the contact to its node. By default it is five minutes; our workers lose the
right to publish sooner, so waiting buys nothing.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSettings:
    """What is the same for the Pods of all pools."""

    image: str
    image_pull_policy: str = "IfNotPresent"
    service_account: str = "encoder-worker"


def labels_of(job: JobSeen, attempt: int, more: Mapping[str, str] | None = None) -> dict[str, str]:
    return {
        **(more or {}),
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


def build_pod(
    job: JobSeen,
    attempt: int,
    settings: PodSettings,
    policy: PoolPolicy,
    sizes: Sizes,
    *,
    owner: str,
    avoid_nodes: Sequence[str] = (),
) -> dict[str, Any]:
    """
    The worker's Pod, which the restricted Pod Security profile admits.

    A pool's template chooses image, place and priority; command, user, volumes and security are
    not for it to change. `owner` is whose job it is. `avoid_nodes` are nodes that failed the job
    before: not again if another will do. Raises what `credentials_secret` and `build_identity` do.
    """
    template = policy.template
    identity = build_identity(policy.lending, owner, pod=pod_name(job.name, attempt))
    mounts = [
        {"name": "order", "mountPath": ORDER_PATH, "readOnly": True},
        {"name": "scratch", "mountPath": SCRATCH_PATH},
        *identity.mounts,
    ]
    volumes = [
        _secret_volume("order", secret_name(job.name, attempt)),
        {"name": "scratch", "emptyDir": {"sizeLimit": format_bytes(sizes.scratch)}},
        *identity.volumes,
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
    resources = sizes.as_resources()
    resources["limits"] |= {k: str(v) for k, v in (template.get("extendedResources") or {}).items()}
    metadata: dict[str, Any] = {
        "name": pod_name(job.name, attempt),
        "labels": labels_of(job, attempt, template.get("labels")),
        "ownerReferences": owned_by(job),
    }
    if template.get("annotations"):
        metadata["annotations"] = dict(template["annotations"])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            **_placement(template, avoid_nodes),
            "restartPolicy": "Never",
            "serviceAccountName": identity.account or settings.service_account,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": GRACE_S,
            "activeDeadlineSeconds": deadline_s(job, policy),
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
                    "name": WORKER,
                    "image": template.get("image", settings.image),
                    "imagePullPolicy": settings.image_pull_policy,
                    "args": args,
                    **({"env": list(identity.env)} if identity.env else {}),
                    "resources": resources,
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


def deadline_s(job: JobSeen, policy: PoolPolicy) -> int:
    """How long the attempt may run: what the job asks for, and no longer than its pool allows."""
    asked: int = job.spec.get("activeDeadlineSeconds", policy.active_deadline_s)
    return min(asked, policy.active_deadline_s)


_PLACING: Final = (
    *("imagePullSecrets", "nodeSelector", "topologySpreadConstraints"),
    *("priorityClassName", "runtimeClassName", "schedulerName"),
)


def _placement(template: Mapping[str, Any], avoid_nodes: Sequence[str]) -> dict[str, Any]:
    chosen = {key: template[key] for key in _PLACING if template.get(key)}
    chosen["tolerations"] = [
        *template.get("tolerations", []),
        *(
            {
                "key": f"node.kubernetes.io/{why}",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": NODE_GONE_S,
            }
            for why in ("not-ready", "unreachable")
        ),
    ]
    affinity = _avoiding(avoid_nodes, template.get("affinity") or {})
    if affinity:
        chosen["affinity"] = affinity
    return chosen


_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"


def _avoiding(nodes: Sequence[str], affinity: Mapping[str, Any]) -> Mapping[str, Any]:
    node = affinity.get("nodeAffinity") or {}
    wishes = node.get(_PREFERRED) or [] if isinstance(node, dict) else None
    if not nodes or not isinstance(wishes, list):
        return affinity  # what is no affinity, the API server refuses, and says why
    others = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": sorted(set(nodes))}
    wish = {"weight": 100, "preference": {"matchExpressions": [others]}}
    return {**affinity, "nodeAffinity": {**node, _PREFERRED: [*wishes, wish]}}


def _secret_volume(name: str, secret: str) -> dict[str, Any]:
    # Not optional: without it the worker would go on and fail for a reason nobody understands.
    return {
        "name": name,
        "secret": {"secretName": secret, "defaultMode": SECRET_MODE, "optional": False},
    }
