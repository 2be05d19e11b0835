"""What the base lets whom do, by a real API server: rights, Pod Security, admission policies."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from encoder_operator.identity import Lender, Lending
from encoder_operator.pods import PodSettings, build_pod
from encoder_operator.policy import PoolPolicy
from encoder_operator.seen import JobSeen
from encoder_operator.sizing import Sizes
from tests.harness.cluster import Cluster
from tests.harness.commands import CommandFailed
from tests.harness.processes import REPOSITORY

NAMESPACE = "encoder"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:encoder-operator"
IMAGE = "your-registry/encoder-worker:v0.1.0"
SIZES = Sizes(cpu_m=1000, memory=2**30, memory_limit=2**31, scratch=2**32)
UUID = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
NOTHING_LENT = Lending(lender=Lender.NOBODY)
JOB = {
    "source": {"kind": "https", "url": "https://media.example/clip.mov"},
    "outputs": [
        {
            "container": "mp4",
            "destination": {"kind": "s3", "bucket": "out", "path": "clip.mp4"},
        }
    ],
}

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def base(api: Cluster) -> Iterator[Cluster]:
    """An API server with the base in it. No controllers: what is admitted stays as it is."""
    api.kubectl("apply", "-k", REPOSITORY / "k8s")
    account = {"name": "someone", "namespace": NAMESPACE}
    body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}
    api.kubectl("apply", "-f", "-", text=json.dumps(body))
    wait_for_policies(api)
    yield api
    api.kubectl("delete", "-k", REPOSITORY / "k8s", "--wait=false")


def wait_for_policies(cluster: Cluster) -> None:
    """A policy counts a second or so after it was applied; then a bare Pod is refused by each."""

    def counts() -> bool:
        refused = []
        for body in (worker(), resource(jobUID=UUID)):
            try:
                cluster.kubectl("create", "--dry-run=server", "-f", "-", text=json.dumps(body))
            except CommandFailed as error:
                refused.append("ValidatingAdmissionPolicy" in str(error))
        return refused == [True, True]

    cluster.api_server.wait_until(counts)


MEDIA = Lending(
    lender=Lender.SERVICE_ACCOUNT,
    account="encoder-worker-media",
    role_arn="arn:aws:iam::123456789012:role/media",
)


def worker(
    *,
    by_hand: bool = False,
    lending: Lending = NOTHING_LENT,
    template: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The Pod that the operator makes."""
    job = replace(JobSeen.known("mine", "4a8f7a4e-0000-4000-8000-000000000000"), pool="default")
    if by_hand:
        spec = {"credentialsSecretRef": {"name": "encoder-creds-media"}}
        job = replace(job, spec_json=json.dumps(spec))
    policy = PoolPolicy(lending=lending, template=template or {})
    pod = build_pod(job, 1, PodSettings(image=IMAGE), policy, SIZES, owner="default")
    pod["metadata"]["namespace"] = NAMESPACE
    return pod


def resource(name: str = "", **spec: Any) -> dict[str, Any]:
    name = name or (f"tj-{spec['jobUID']}" if "jobUID" in spec else "by-hand")
    return {
        "apiVersion": "encoder.dev/v1alpha1",
        "kind": "TranscodeJob",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {**JOB, **spec},
    }


def try_to_create(cluster: Cluster, body: dict[str, Any], *, by: str | None = None) -> None:
    who = [f"--as={by}"] if by else []
    cluster.kubectl("create", "--dry-run=server", "-f", "-", *who, text=json.dumps(body))


def is_admitted(cluster: Cluster, body: dict[str, Any], *, by: str) -> bool:
    """Rights and lists that were just given count a moment later."""
    try:
        try_to_create(cluster, body, by=by)
    except CommandFailed:
        return False
    return True


def is_refused(
    cluster: Cluster, body: dict[str, Any], words: str, *, by: str | None = None
) -> bool:
    try:
        try_to_create(cluster, body, by=by)
    except CommandFailed as error:
        return words in str(error)
    return False


# --- Pods of workers -----------------------------------------------------------------------------


@pytest.mark.parametrize("by_hand", [False, True], ids=["of the API", "with a Secret of its own"])
def test_the_operator_makes_the_pod_of_a_worker(base: Cluster, *, by_hand: bool) -> None:
    try_to_create(base, worker(by_hand=by_hand), by=OPERATOR)


def test_with_the_account_that_its_pool_names(base: Cluster) -> None:
    """Of which the API server knows: it adds to the Pod what the account says."""
    metadata = {"name": MEDIA.account, "namespace": NAMESPACE}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    base.kubectl("apply", "-f", "-", text=json.dumps(account))
    try_to_create(base, worker(lending=MEDIA), by=OPERATOR)


def test_nobody_else_uses_such_an_account(base: Cluster) -> None:
    pod = worker(lending=MEDIA)
    pod["metadata"] = {"name": "pretends", "namespace": NAMESPACE}
    with pytest.raises(CommandFailed, match="only the operator makes Pods of workers"):
        try_to_create(base, pod)


GPU_ON_SPOT: dict[str, Any] = {
    "labels": {"team": "film"},
    "annotations": {"cost-centre": "9"},
    "image": "your-registry/encoder-worker:v0.1.0-gpu",
    "imagePullSecrets": [{"name": "registry"}],
    "resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "8Gi"}},
    "extendedResources": {"nvidia.com/gpu": 1},
    "nodeSelector": {"cloud.example/gpu": "true"},
    "tolerations": [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Equal", "value": "yes", "effect": "NoExecute",
         "tolerationSeconds": 30},
    ],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}
                ]
            }
        }
    },
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
         "labelSelector": {"matchLabels": {"encoder.dev/pool": "gpu"}}},
    ],
    "priorityClassName": "encoder-worker",
    "runtimeClassName": "nvidia",
    "schedulerName": "bin-packer",
}  # fmt: skip
CORE = (
    *(
        "securityContext",
        "automountServiceAccountToken",
        "serviceAccountName",
        "enableServiceLinks",
    ),
    *("volumes", "restartPolicy", "hostNetwork", "hostPID", "hostIPC", "initContainers"),
)
CORE_OF_A_CONTAINER = ("securityContext", "args", "command", "env", "envFrom", "volumeMounts")


@pytest.fixture(scope="module")
def gpu_nodes(base: Cluster) -> None:
    """What a cluster with GPUs has, for admission looks it up."""
    runtime = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": "nvidia"}
    body = {**runtime, "metadata": {"name": "nvidia"}}
    base.kubectl("apply", "-f", "-", text=json.dumps(body))


def pool(template: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "encoder.dev/v1alpha1",
        "kind": "TranscodePool",
        "metadata": {"name": "gpu", "namespace": NAMESPACE},
        "spec": {"maxConcurrency": 1, "podTemplate": template},
    }


def dry_run(cluster: Cluster, body: Mapping[str, Any], *who: str) -> dict[str, Any]:
    """The object as the API server would store it."""
    command = ("create", "--dry-run=server", "--output=json", "-f", "-", *who)
    stored: dict[str, Any] = json.loads(cluster.kubectl(*command, text=json.dumps(body)))
    return stored


@pytest.mark.usefixtures("gpu_nodes")
def test_all_that_a_pool_may_say_of_its_pods_is_admitted_around_the_same_core(
    base: Cluster,
) -> None:
    template = dry_run(base, pool(GPU_ON_SPOT))["spec"]["podTemplate"]
    assert template == GPU_ON_SPOT
    made = dry_run(base, worker(template=template), f"--as={OPERATOR}")
    plain = dry_run(base, worker(), f"--as={OPERATOR}")
    assert [made["spec"].get(key) for key in CORE] == [plain["spec"].get(key) for key in CORE]
    (one,), (other,) = made["spec"]["containers"], plain["spec"]["containers"]
    for key in CORE_OF_A_CONTAINER:
        assert one.get(key) == other.get(key)
    same = ("nodeSelector", "affinity", "runtimeClassName", "schedulerName", "priorityClassName")
    assert {key: made["spec"][key] for key in same} == {key: GPU_ON_SPOT[key] for key in same}
    assert made["spec"]["tolerations"][:2] == GPU_ON_SPOT["tolerations"]
    assert one["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert one["image"] == GPU_ON_SPOT["image"]


@pytest.mark.parametrize(
    ("abuse", "why"),
    [
        ({"securityContext": {"runAsUser": 0}}, "unknown field"),
        ({"hostNetwork": True}, "unknown field"),
        ({"serviceAccountName": "encoder-operator"}, "unknown field"),
        ({"automountServiceAccountToken": True}, "unknown field"),
        ({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, "unknown field"),
        ({"containers": [{"name": "miner", "image": "miner"}]}, "unknown field"),
        ({"initContainers": [{"name": "first", "image": "miner"}]}, "unknown field"),
        ({"command": ["sh"]}, "unknown field"),
        ({"env": [{"name": "LD_PRELOAD", "value": "/scratch/x.so"}]}, "unknown field"),
        ({"labels": {"encoder.dev/job": "other"}}, "set by the operator"),
        ({"extendedResources": {"nvidia.com/gpu": "-1"}}, "should match"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_pool_cannot_ask_for_another_core(base: Cluster, abuse: dict[str, Any], why: str) -> None:
    with pytest.raises(CommandFailed, match=why):
        dry_run(base, pool(abuse))


def test_an_image_of_a_pool_has_to_be_one_of_the_list(base: Cluster) -> None:
    """Who may change pools chooses among the images that the cluster's admin allowed."""
    with pytest.raises(CommandFailed, match="must begin with one of the prefixes"):
        try_to_create(base, worker(template={"image": "miner:latest"}), by=OPERATOR)


def container(pod: dict[str, Any]) -> dict[str, Any]:
    only: dict[str, Any] = pod["spec"]["containers"][0]
    return only


def mount(pod: dict[str, Any], volume: dict[str, Any]) -> None:
    pod["spec"]["volumes"].append({"name": "more", **volume})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(
            lambda pod: container(pod).update(image="docker.io/someone/miner:latest"),
            "the image of a worker must begin with one of the prefixes in the ConfigMap "
            "encoder-worker-images: your-registry/encoder-worker:",
            id="a foreign image",
        ),
        pytest.param(
            lambda pod: pod["metadata"].pop("labels"),
            "a worker's Pod has the labels",
            id="no labels",
        ),
        pytest.param(
            lambda pod: pod["metadata"].update(name="something"),
            "a worker's Pod has the labels",
            id="another name",
        ),
        pytest.param(
            lambda pod: pod["metadata"].pop("ownerReferences"),
            "owned by its TranscodeJob",
            id="no owner",
        ),
        pytest.param(
            lambda pod: pod["spec"].update(automountServiceAccountToken=True),
            "no token for the API server",
            id="a token",
        ),
        pytest.param(
            lambda pod: pod["spec"].update(serviceAccountName="encoder-operator"),
            "an account without rights",
            id="the operator's own account",
        ),
        pytest.param(
            lambda pod: pod["spec"].update(serviceAccountName="someone"),
            "an account without rights",
            id="an account of the namespace that is not a worker's",
        ),
        pytest.param(
            lambda pod: container(pod)["securityContext"].update(readOnlyRootFilesystem=False),
            "a worker runs restricted",
            id="a root that can be written to",
        ),
        pytest.param(
            lambda pod: mount(pod, {"secret": {"secretName": "encoder-env"}}),
            "no other Secret",
            id="the Secret of the service",
        ),
        pytest.param(
            lambda pod: mount(
                pod, {"projected": {"sources": [{"secret": {"name": "encoder-env"}}]}}
            ),
            "no other Secret",
            id="the Secret of the service, projected",
        ),
        pytest.param(
            lambda pod: mount(
                pod, {"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
            ),
            "no other Secret",
            id="a projected token for the API server",
        ),
        pytest.param(
            lambda pod: container(pod).update(envFrom=[{"secretRef": {"name": "encoder-env"}}]),
            "no other Secret",
            id="the Secret of the service as variables",
        ),
        pytest.param(
            lambda pod: mount(pod, {"hostPath": {"path": "/"}}),
            "restricted volume types|no other Secret",
            id="the node's disk",
        ),
        pytest.param(
            lambda pod: container(pod)["securityContext"].update(privileged=True),
            "privileged",
            id="privileges",
        ),
        pytest.param(
            lambda pod: pod["spec"].update(hostNetwork=True),
            "hostNetwork|a worker runs restricted",
            id="the node's network",
        ),
    ],
)
def test_not_even_the_operator_makes_another_pod(base: Cluster, change: Change, why: str) -> None:
    pod = worker()
    change(pod)
    with pytest.raises(CommandFailed, match=re.escape(why).replace(r"\|", "|")):
        try_to_create(base, pod, by=OPERATOR)


def test_nobody_else_makes_the_pod_of_a_worker(base: Cluster) -> None:
    with pytest.raises(CommandFailed, match="only the operator makes Pods of workers"):
        try_to_create(base, worker())


def test_nobody_else_uses_the_account_of_workers(base: Cluster) -> None:
    pod = worker()
    pod["metadata"] = {"name": "pretends", "namespace": NAMESPACE}
    with pytest.raises(CommandFailed, match="only the operator makes Pods of workers"):
        try_to_create(base, pod)


def test_a_worker_stays_what_it_is(base: Cluster) -> None:
    body = json.dumps(worker())
    base.kubectl("create", "-f", "-", f"--as={OPERATOR}", text=body)
    say = ("-n", NAMESPACE, "pod/mine-a1")
    base.kubectl("annotate", *say, "note=looked-at")
    with pytest.raises(CommandFailed, match=re.escape("labels of encoder.dev stay as they are")):
        base.kubectl("label", "--overwrite", *say, "encoder.dev/pool=other")
    with pytest.raises(CommandFailed, match="the image of a worker must begin with"):
        base.kubectl("set", "image", *say, "worker=docker.io/someone/miner:latest")
    base.kubectl("delete", *say, "--force", "--grace-period=0")


def test_what_is_added_to_a_worker_later_is_held_to_the_same(base: Cluster) -> None:
    """As `kubectl debug` does, for whoever may patch that subresource."""
    base.kubectl("create", "-f", "-", f"--as={OPERATOR}", text=json.dumps(worker()))
    pod = f"/api/v1/namespaces/{NAMESPACE}/pods/mine-a1"
    restricted: dict[str, Any] = container(worker())["securityContext"]
    core = {"name": "added", "image": IMAGE, "securityContext": restricted}

    def add(**changes: Any) -> tuple[int, str]:
        body = {"spec": {"ephemeralContainers": [{**core, **changes}]}}
        status, said = base.send(
            *("PATCH", f"{pod}/ephemeralcontainers?dryRun=All", body),
            content_type="application/strategic-merge-patch+json",
        )
        return status, str(said.get("message", ""))

    def is_refused_for(words: str, **changes: Any) -> bool:
        status, said = add(**changes)
        return (status, words in said) == (403, True)

    writable = {**restricted, "readOnlyRootFilesystem": False}
    foreign = {"name": "X", "valueFrom": {"secretKeyRef": {"name": "encoder-env", "key": "X"}}}
    try:
        assert add()[0] == 200
        assert is_refused_for("the image of a worker must begin with", image="docker.io/miner")
        assert is_refused_for("a worker runs restricted", securityContext=writable)
        assert is_refused_for("no other Secret", env=[foreign])
    finally:
        base.kubectl("delete", "-n", NAMESPACE, "pod/mine-a1", "--force", "--grace-period=0")


def pod_of_the_api() -> dict[str, Any]:
    deployment, _ = yaml.safe_load_all((REPOSITORY / "k8s" / "encoder-api.yaml").read_text())
    template = copy.deepcopy(deployment["spec"]["template"])
    metadata = {**template["metadata"], "name": "encoder-api-x", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Pod", **template, "metadata": metadata}


@pytest.fixture(scope="module")
def other_pod() -> dict[str, Any]:
    """A Pod of the API, with an account of its own as a controller would have given it by now."""
    pod = pod_of_the_api()
    pod["spec"]["serviceAccountName"] = "someone"
    return pod


def test_pods_that_are_no_workers_are_not_asked(base: Cluster, other_pod: dict[str, Any]) -> None:
    try_to_create(base, other_pod)


def test_no_pod_becomes_a_worker_later(base: Cluster, other_pod: dict[str, Any]) -> None:
    base.kubectl("create", "-f", "-", text=json.dumps(other_pod))
    with pytest.raises(CommandFailed, match=r"a worker's Pod has the labels|stay as they are"):
        base.kubectl("label", "-n", NAMESPACE, "pod/encoder-api-x", "encoder.dev/job=mine")
    base.kubectl("delete", "-n", NAMESPACE, "pod/encoder-api-x", "--force", "--grace-period=0")


def test_the_namespace_runs_nothing_that_is_not_restricted(
    base: Cluster, other_pod: dict[str, Any]
) -> None:
    pod = copy.deepcopy(other_pod)
    pod["spec"]["securityContext"] = {"runAsUser": 0}
    with pytest.raises(CommandFailed, match='violates PodSecurity "restricted:latest"'):
        try_to_create(base, pod)


def test_without_the_list_of_images_no_worker_starts(base: Cluster) -> None:
    """The policy learns of its list a moment after it goes, and comes."""
    base.kubectl("delete", "-n", NAMESPACE, "configmap/encoder-worker-images")
    try:
        refused = partial(is_refused, base, worker(), "encoder-worker-pods", by=OPERATOR)
        base.api_server.wait_until(refused)
    finally:
        base.kubectl("apply", "-n", NAMESPACE, "-f", REPOSITORY / "k8s" / "policies.yaml")
        base.api_server.wait_until(lambda: is_admitted(base, worker(), by=OPERATOR))


# --- TranscodeJobs -------------------------------------------------------------------------------


def test_a_job_by_hand_and_one_of_the_operator_are_admitted(base: Cluster) -> None:
    try_to_create(base, resource())
    try_to_create(base, resource(credentialsSecretRef={"name": "encoder-creds-media"}))
    try_to_create(base, resource(jobUID=UUID), by=OPERATOR)


def test_who_may_not_read_a_secret_cannot_have_it_used(base: Cluster) -> None:
    """A job sends what is in it to where its author says."""
    role = ("create", "role", "-n", NAMESPACE)
    base.kubectl(*role, "apply-jobs", "--verb=create", "--resource=transcodejobs.encoder.dev")
    base.kubectl(
        *(*role, "read-hers", "--verb=get", "--resource=secrets"),
        "--resource-name=encoder-creds-hers",
    )
    for name in ("apply-jobs", "read-hers"):
        base.kubectl(
            *("create", "rolebinding", "-n", NAMESPACE, f"berta-{name}", f"--role={name}"),
            "--user=berta",
        )
    hers, his = (
        resource(credentialsSecretRef={"name": f"encoder-creds-{whose}"})
        for whose in ("hers", "his")
    )
    base.api_server.wait_until(lambda: is_admitted(base, resource(), by="berta"))
    base.api_server.wait_until(lambda: is_admitted(base, hers, by="berta"))
    with pytest.raises(CommandFailed, match="you may not read the Secret encoder-creds-his"):
        try_to_create(base, his, by="berta")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        pytest.param(
            resource(jobUID=UUID), "spec.jobUID is set by the operator", id="a job of the API"
        ),
        pytest.param(
            resource(name=f"tj-{UUID}"), "names that begin with tj-", id="the name of such a job"
        ),
        pytest.param(
            resource(credentialsSecretRef={"name": "encoder-env"}),
            "encoder-creds-",
            id="credentials that are somebody else's",
        ),
        pytest.param(
            resource(serviceAccountName="encoder-worker-media"),
            'unknown field "spec.serviceAccountName"',
            id="an account: only a pool names one",
        ),
        pytest.param(
            resource(ambientCredentials={"from": "Operator"}),
            'unknown field "spec.ambientCredentials"',
            id="credentials of the service",
        ),
    ],
)
def test_a_job_by_hand_is_refused_what_is_not_its_own(
    base: Cluster, body: dict[str, Any], why: str
) -> None:
    with pytest.raises(CommandFailed, match=why):
        try_to_create(base, body)


def test_the_policy_alone_refuses_foreign_credentials(base: Cluster) -> None:
    """Also with the resources of a day when their schema did not."""
    crd = yaml.safe_load((REPOSITORY / "crds" / "transcodejobs.yaml").read_text())
    loose = copy.deepcopy(crd)
    reference = loose["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    name = reference["properties"]["credentialsSecretRef"]["properties"]["name"]
    del name["pattern"]
    foreign = resource(credentialsSecretRef={"name": "encoder-env"})
    policy = "ValidatingAdmissionPolicy 'encoder-transcodejobs'"
    base.kubectl("apply", "-f", "-", text=json.dumps(loose))
    try:
        base.api_server.wait_until(lambda: is_refused(base, foreign, policy))
    finally:
        base.kubectl("apply", "-f", "-", text=json.dumps(crd))
        schema = "spec.credentialsSecretRef.name"
        base.api_server.wait_until(lambda: is_refused(base, foreign, schema))


def test_policies_hold_only_where_a_namespace_says_so(base: Cluster) -> None:
    base.kubectl("create", "namespace", "elsewhere")
    body = resource(jobUID=UUID)
    body["metadata"]["namespace"] = "elsewhere"
    try_to_create(base, body)


# --- People --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_call(base: Cluster) -> Callable[..., str]:
    """kubectl as somebody who has the Role for being on call, bound as rbac.yaml says."""
    text = (REPOSITORY / "k8s" / "rbac.yaml").read_text()
    command = re.search(r"kubectl (create rolebinding on-call .+)--group=your-group", text)
    assert command is not None
    base.kubectl(*command[1].split(), "--group=the-on-call")
    base.kubectl("create", "-f", "-", text=json.dumps(resource()))  # kubectl deletes what it finds
    kubeconfig = base.kubeconfig_for("anna", "the-on-call")

    def kubectl(*arguments: str) -> str:
        return base.kubectl(f"--kubeconfig={kubeconfig}", "-n", NAMESPACE, *arguments)

    def may() -> bool:
        """Rights that were just given count a moment later."""
        try:
            kubectl("get", "tp")
        except CommandFailed:
            return False
        return True

    base.api_server.wait_until(may)
    return kubectl


def test_who_is_on_call_scales_pools_and_looks(base: Cluster, on_call: Callable[..., str]) -> None:
    on_call("scale", "tp/default", "--replicas=9")
    path = f"/apis/encoder.dev/v1alpha1/namespaces/{NAMESPACE}/transcodepools/default"
    assert base.get(path)["spec"]["maxConcurrency"] == 9
    on_call("get", "tj,tp")


@pytest.mark.parametrize(
    "command",
    [
        'patch tp/default --type=merge -p {"spec":{"stopPolicy":"Hold"}}',
        "delete tp/default",
        "create -f job.json --dry-run=server",
        "delete tj --all",
        "get secrets",
        "get pods",
        "create rolebinding more --role=encoder-operator --user=anna",
    ],
)
def test_who_is_on_call_may_nothing_else(
    on_call: Callable[..., str], command: str, tmp_path: Path
) -> None:
    (tmp_path / "job.json").write_text(json.dumps(resource()))
    words = command.replace("job.json", str(tmp_path / "job.json")).split()
    with pytest.raises(CommandFailed, match="forbidden"):
        on_call(*words)


# --- Overlays ------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", ["production", "development"])
def test_an_overlay_is_admitted_as_it_is(base: Cluster, overlay: str) -> None:
    base.kubectl("apply", "--dry-run=server", "-k", REPOSITORY / "overlays" / overlay)
