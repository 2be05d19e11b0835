"""The Pod and the Secret of an attempt, whole, and what a job of one's own credentials adds."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from encoder_core.errors import JobError
from encoder_operator.pods import PodSettings, build_pod, build_secret
from encoder_operator.policy import PoolPolicy
from encoder_operator.seen import JobSeen, parse_pod
from encoder_operator.sizing import Sizes
from tests.operator.builders import NAME, a_job

SETTINGS = PodSettings(image="encoder-worker:1")
GIB = 1024**3
SIZES = Sizes(cpu_m=1000, memory=GIB, memory_limit=GIB, scratch=10 * GIB)
GONE = [
    {
        "key": f"node.kubernetes.io/{why}",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 60,
    }
    for why in ("not-ready", "unreachable")
]
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
        "tolerations": GONE,
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
                "secret": {
                    "secretName": f"encoder-order-{NAME}-a1",
                    "defaultMode": 0o440,
                    "optional": False,
                },
            },
            {"name": "scratch", "emptyDir": {"sizeLimit": "10Gi"}},
        ],
    },
}


def with_credentials(name: str) -> dict[str, Any]:
    return {"credentialsSecretRef": {"name": name}}


def pod_of(job: JobSeen, attempt: int = 1, policy: PoolPolicy | None = None) -> dict[str, Any]:
    return build_pod(job, attempt, SETTINGS, policy or PoolPolicy(), SIZES, owner="default")


def test_the_pod_of_a_plain_job() -> None:
    assert pod_of(a_job()) == POD


def test_the_operator_recognises_it_as_its_own() -> None:
    body = pod_of(a_job(), 2)
    seen = parse_pod({**body, "metadata": {**body["metadata"], "uid": "u"}})
    assert seen is not None
    assert (seen.name, seen.resource, seen.attempt) == (f"{NAME}-a2", NAME, 2)


TEMPLATE: dict[str, Any] = {
    "labels": {"team": "film"},
    "annotations": {"cost": "9"},
    "image": "registry.example/gpu-worker:2",
    "imagePullSecrets": [{"name": "registry"}],
    "extendedResources": {"nvidia.com/gpu": 1},
    "nodeSelector": {"kind": "gpu"},
    "tolerations": [{"key": "spot", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {"x": 1}},
    "topologySpreadConstraints": [{"maxSkew": 1}],
    "priorityClassName": "low",
    "runtimeClassName": "nvidia",
    "schedulerName": "other",
}


def test_what_a_pools_template_adds_and_what_it_leaves_alone() -> None:
    pod = pod_of(a_job(), policy=PoolPolicy(template=TEMPLATE))
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    assert pod["metadata"]["labels"] == {**LABELS, "team": "film"}
    assert pod["metadata"]["annotations"] == {"cost": "9"}
    assert container["image"] == "registry.example/gpu-worker:2"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert spec["tolerations"] == [{"key": "spot", "operator": "Exists"}, *GONE]
    same = ("imagePullSecrets", "nodeSelector", "topologySpreadConstraints", "priorityClassName")
    more = ("runtimeClassName", "schedulerName", "affinity")
    assert {key: spec[key] for key in same + more} == {key: TEMPLATE[key] for key in same + more}
    core = ("securityContext", "automountServiceAccountToken", "volumes", "restartPolicy")
    assert {key: spec[key] for key in core} == {key: POD["spec"][key] for key in core}
    assert container["securityContext"] == POD["spec"]["containers"][0]["securityContext"]
    assert container["args"] == POD["spec"]["containers"][0]["args"]


@pytest.mark.parametrize(
    "abuse",
    [
        pytest.param({"securityContext": {"runAsUser": 0}}, id="another user"),
        pytest.param({"hostNetwork": True}, id="the node's network"),
        pytest.param({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, id="the node's disk"),
        pytest.param({"automountServiceAccountToken": True}, id="a token of the cluster"),
        pytest.param({"serviceAccountName": "encoder-operator"}, id="another account"),
        pytest.param({"command": ["sh"]}, id="another command"),
        pytest.param({"labels": {"encoder.dev/job": "other"}}, id="a label of ours"),
    ],
)
def test_a_template_cannot_loosen_the_core(abuse: dict[str, Any]) -> None:
    assert pod_of(a_job(), policy=PoolPolicy(template=abuse)) == POD


def test_a_node_that_failed_the_job_is_avoided_if_another_will_do() -> None:
    pod = build_pod(
        a_job(), 2, SETTINGS, PoolPolicy(), SIZES, owner="default", avoid_nodes=["bad", "bad"]
    )
    node = pod["spec"]["affinity"]["nodeAffinity"]
    [wish] = node[PREFERRED]
    [expression] = wish["preference"]["matchExpressions"]
    assert (expression["operator"], expression["values"]) == ("NotIn", ["bad"])
    assert "requiredDuringSchedulingIgnoredDuringExecution" not in node


PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


@pytest.mark.parametrize(
    "node",
    [
        pytest.param("x", id="a word"),
        pytest.param(["x"], id="a list"),
        pytest.param({PREFERRED: "x"}, id="a preference that is a word"),
        pytest.param({PREFERRED: {"weight": 1}}, id="a preference that is no list"),
    ],
)
def test_what_is_no_affinity_is_left_to_the_api_server_to_refuse_such_as(node: Any) -> None:
    """The schema lets it through, and in the first attempt the API server says what is wrong."""
    policy = PoolPolicy(template={"affinity": {"nodeAffinity": node}})
    pod = build_pod(a_job(), 2, SETTINGS, policy, SIZES, owner="default", avoid_nodes=["bad"])
    assert pod["spec"]["affinity"] == {"nodeAffinity": node}


@pytest.mark.parametrize(("asked", "want"), [(60, 60), (9000, 3600)], ids=["less", "more"])
def test_a_job_may_ask_for_a_shorter_deadline_than_its_pool_has(asked: int, want: int) -> None:
    policy = PoolPolicy(active_deadline_s=3600)
    pod = pod_of(a_job(spec={"activeDeadlineSeconds": asked}), policy=policy)
    assert pod["spec"]["activeDeadlineSeconds"] == want


def test_credentials_of_ones_own_add_a_volume_a_mount_and_an_argument_and_nothing_else() -> None:
    job = a_job(job_uid=None, spec=with_credentials("encoder-creds-mine"))
    pod = pod_of(job)
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
        pod_of(a_job(job_uid=None, spec=with_credentials(name)))
    assert caught.value.code == "request_impossible"


def test_a_job_of_the_api_mounts_none() -> None:
    assert pod_of(a_job(spec=with_credentials("encoder-creds-x"))) == POD


def test_the_secret_of_an_attempt_goes_with_its_job() -> None:
    secret = build_secret(a_job(), 1, '{"token": "t"}')
    assert secret == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": f"encoder-order-{NAME}-a1",
            "labels": LABELS,
            "ownerReferences": OWNERS,
        },
        "type": "Opaque",
        "immutable": True,
        "data": {"order.json": base64.b64encode(b'{"token": "t"}').decode()},
    }
