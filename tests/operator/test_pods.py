"""The Pod and the Secret of an attempt, whole, and what a job of one's own credentials adds."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from encoder_core.errors import JobError
from encoder_operator.pods import PodSettings, build_pod, build_secret
from encoder_operator.seen import parse_pod
from tests.operator.builders import NAME, a_job

SETTINGS = PodSettings(image="encoder-worker:1")
LABELS = {
    "encoder.dev/job": NAME,
    "encoder.dev/attempt": "1",
    "encoder.dev/pool": "default",
    "app.kubernetes.io/name": "encoder",
    "app.kubernetes.io/component": "worker",
}
OWNERS = [
    {
        "apiVersion": "encoder.dev/v1alpha1",
        "kind": "TranscodeJob",
        "name": NAME,
        "uid": "job-1",
        "controller": True,
        "blockOwnerDeletion": False,
    }
]
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": f"{NAME}-a1", "labels": LABELS, "ownerReferences": OWNERS},
    "spec": {
        "restartPolicy": "Never",
        "serviceAccountName": "encoder-worker",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 60,
        "activeDeadlineSeconds": 86400,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "worker",
                "image": "encoder-worker:1",
                "imagePullPolicy": "IfNotPresent",
                "args": [
                    *("--order", "/etc/encoder/order/order.json"),
                    *("--termination-log", "/dev/termination-log"),
                ],
                "resources": {
                    "requests": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "10Gi"},
                    "limits": {"memory": "1Gi", "ephemeral-storage": "10Gi"},
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [
                    {"name": "order", "mountPath": "/etc/encoder/order", "readOnly": True},
                    {"name": "scratch", "mountPath": "/scratch"},
                ],
            }
        ],
        "volumes": [
            {
                "name": "order",
                "secret": {"secretName": f"{NAME}-a1", "defaultMode": 0o440, "optional": False},
            },
            {"name": "scratch", "emptyDir": {"sizeLimit": "10Gi"}},
        ],
    },
}


def with_credentials(name: str) -> dict[str, Any]:
    return {"credentialsSecretRef": {"name": name}}


def test_the_pod_of_a_plain_job() -> None:
    assert build_pod(a_job(), 1, SETTINGS) == POD


def test_the_operator_recognises_it_as_its_own() -> None:
    body = build_pod(a_job(), 2, SETTINGS)
    seen = parse_pod({**body, "metadata": {**body["metadata"], "uid": "u"}})
    assert seen is not None
    assert (seen.name, seen.resource, seen.attempt) == (f"{NAME}-a2", NAME, 2)


def test_what_a_pool_settles() -> None:
    settings = PodSettings(
        image="i",
        cpu_limit="4",
        node_selector={"pool": "gpu"},
        tolerations=({"key": "spot", "operator": "Exists"},),
    )
    spec = build_pod(a_job(), 1, settings)["spec"]
    assert spec["containers"][0]["resources"]["limits"]["cpu"] == "4"
    assert spec["nodeSelector"] == {"pool": "gpu"}
    assert spec["tolerations"] == [{"key": "spot", "operator": "Exists"}]


def test_credentials_of_ones_own_add_a_volume_a_mount_and_an_argument_and_nothing_else() -> None:
    job = a_job(job_uid=None, spec=with_credentials("encoder-creds-mine"))
    pod = build_pod(job, 1, SETTINGS)
    container = pod["spec"]["containers"][0]
    assert pod["spec"]["volumes"].pop() == {
        "name": "credentials",
        "secret": {"secretName": "encoder-creds-mine", "defaultMode": 0o440, "optional": False},
    }
    assert container["volumeMounts"].pop() == {
        "name": "credentials",
        "mountPath": "/etc/encoder/credentials",
        "readOnly": True,
    }
    assert [container["args"].pop() for _ in range(2)] == [
        "/etc/encoder/credentials",
        "--credentials",
    ]
    assert pod == POD


@pytest.mark.parametrize("name", ["encoder-env", "creds-encoder-creds-", "", "Encoder-creds-x"])
def test_a_foreign_secret_is_not_mounted(name: str) -> None:
    with pytest.raises(JobError, match="must begin with encoder-creds-") as caught:
        build_pod(a_job(job_uid=None, spec=with_credentials(name)), 1, SETTINGS)
    assert caught.value.code == "request_impossible"


def test_a_job_of_the_api_mounts_none() -> None:
    assert build_pod(a_job(spec=with_credentials("encoder-creds-x")), 1, SETTINGS) == POD


def test_the_secret_of_an_attempt_goes_with_its_job() -> None:
    secret = build_secret(a_job(), 1, '{"token": "t"}')
    assert secret == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"{NAME}-a1", "labels": LABELS, "ownerReferences": OWNERS},
        "type": "Opaque",
        "immutable": True,
        "data": {"order.json": base64.b64encode(b'{"token": "t"}').decode()},
    }
