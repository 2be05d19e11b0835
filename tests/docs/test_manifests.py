"""The manifests say what the command line, the settings, the code and good sense ask for."""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from encoder_api.endpoints import OPERATIONS
from encoder_cli.__main__ import app
from encoder_core.egress import Dialler
from encoder_core.names import (
    ATTEMPT_LABEL,
    CREDENTIALS_PREFIX,
    GROUP,
    JOB_LABEL,
    POOL_LABEL,
    VERSION,
)
from encoder_operator import kube
from encoder_operator.settings import OperatorSettings
from tests.docs.render import ROOT, all_variables
from tests.harness.policies import matches
from tests.harness.project_images import NATIVE, RECIPES

K8S = ROOT / "k8s"
COMMANDS = {
    "encoder-app": "up",
    "encoder-api": "api",
    "encoder-worker": "worker",
    "encoder-retention": "retention",
    "encoder-webhooks": "webhooks",
}
STANDALONE = (*COMMANDS, "encoder-operator")
Manifest = dict[str, Any]


def documents(name: str) -> list[Manifest]:
    return list(yaml.safe_load_all((K8S / f"{name}.yaml").read_text()))


def pod_template(name: str) -> Manifest:
    (template,) = (found for document in documents(name) for found in templates(document["spec"]))
    return template


def templates(spec: Manifest) -> Iterator[Manifest]:
    if "jobTemplate" in spec:
        yield from templates(spec["jobTemplate"]["spec"])
    if "template" in spec:
        yield spec["template"]


def container(name: str) -> Manifest:
    (only,) = pod_template(name)["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def environment(name: str) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container(name).get("env", [])}


def test_every_file_is_one_that_a_test_reads() -> None:
    of_the_base = {Path(name).stem for name in kustomization()["resources"]}
    files = {path.stem for path in K8S.glob("*.yaml")}
    assert files == {*STANDALONE, *of_the_base, "kustomization"}
    assert {path.name for path in K8S.iterdir() if path.is_dir()} == {"monitoring"}


@pytest.mark.parametrize("name", COMMANDS)
def test_it_runs_a_command_that_exists(name: str) -> None:
    commands = {
        command.name or command.callback.__name__
        for command in app.registered_commands
        if command.callback
    }
    assert container(name)["command"] == ["encoder"]
    assert container(name)["args"] == [COMMANDS[name]]
    assert COMMANDS[name] in commands


def test_the_operator_runs_what_its_image_runs() -> None:
    assert not {"command", "args"} & set(container("encoder-operator"))


@pytest.mark.parametrize("name", STANDALONE)
def test_its_image_is_one_that_this_tree_builds(name: str) -> None:
    images = {container(name)["image"], *environment(name).values()}
    ours = [image.partition("/") for image in images if image.startswith("your-registry/")]
    assert ours
    assert {rest.partition(":")[0] for _, _, rest in ours} <= set(RECIPES)


@pytest.mark.parametrize("name", STANDALONE)
def test_it_takes_its_settings_from_the_one_secret_and_shows_how_to_make_it(name: str) -> None:
    assert container(name)["envFrom"] == [{"secretRef": {"name": "encoder-env"}}]
    assert "kubectl create secret generic encoder-env" in (K8S / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", STANDALONE)
def test_it_sets_only_variables_that_exist(name: str) -> None:
    assert set(environment(name)) <= set(all_variables())


@pytest.mark.parametrize("name", STANDALONE)
def test_services_of_the_namespace_set_no_variables(name: str) -> None:
    """A Service called `mysql` would set MYSQL_PORT to a URL."""
    assert pod_template(name)["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("name", STANDALONE)
def test_it_runs_under_the_restricted_profile_with_a_read_only_root(name: str) -> None:
    pod = pod_template(name)["spec"]
    # The operator alone talks to the API server.
    has_token = pod.get("automountServiceAccountToken", True)
    assert has_token == (name == "encoder-operator") == ("serviceAccountName" in pod)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("name", STANDALONE)
def test_what_it_writes_to_is_mounted_and_bounded(name: str) -> None:
    volumes = {volume["name"]: volume for volume in pod_template(name)["spec"]["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container(name)["volumeMounts"]}
    assert "/tmp" in mounts
    assert environment(name).get("ENCODER_DATA_DIR", "/tmp") in mounts
    assert all(volumes[mounted]["emptyDir"]["sizeLimit"] for mounted in mounts.values())


@pytest.mark.parametrize("name", STANDALONE)
def test_it_says_what_it_needs(name: str) -> None:
    resources = container(name)["resources"]
    assert {"cpu", "memory"} <= set(resources["requests"])
    assert "memory" in resources["limits"]


@pytest.mark.parametrize("name", ["encoder-app", "encoder-api"])
def test_what_listens_is_probed_and_says_aloud_that_it_is_open(name: str) -> None:
    only = container(name)
    assert only["startupProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
    assert only["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
    assert only["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    told = environment(name)
    assert (told["ENCODER_HOST"], told["ENCODER_AUTH"]) == ("0.0.0.0", "off")
    assert int(told["PORT"]) == only["ports"][0]["containerPort"]
    assert "ENCODER_API_KEY" in (K8S / f"{name}.yaml").read_text()


def test_the_operator_is_started_anew_for_its_watches_and_not_for_the_database() -> None:
    only = container("encoder-operator")
    assert only["startupProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    assert only["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    assert only["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}


def test_the_webhook_sender_is_started_anew_when_it_stands_still_and_not_for_the_database() -> None:
    only = container("encoder-webhooks")
    assert only["startupProbe"]["httpGet"] == {"path": "/livez", "port": "health"}
    assert only["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "health"}
    assert only["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    port = int(environment("encoder-webhooks")["ENCODER_WEBHOOK_HEALTH_PORT"])
    assert only["ports"] == [{"name": "health", "containerPort": port}]


@pytest.mark.parametrize("name", ["encoder-app", "encoder-api"])
def test_the_service_finds_its_pods(name: str) -> None:
    deployment, service = documents(name)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert service["spec"]["selector"].items() <= labels.items()
    assert service["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]


@pytest.mark.parametrize("name", ["encoder-app", "encoder-api", "encoder-worker"])
def test_there_are_two_of_each_that_serves(name: str) -> None:
    assert documents(name)[0]["spec"]["replicas"] == 2


def test_retention_runs_one_at_a_time() -> None:
    (cron,) = documents("encoder-retention")
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"
    assert pod_template("encoder-retention")["spec"]["restartPolicy"] == "Never"


# --- The Kubernetes-native set-up --------------------------------------------------------------


def kustomization() -> Manifest:
    (document,) = documents("kustomization")
    return document


def base() -> list[Manifest]:
    files = [Path(name).stem for name in kustomization()["resources"]]
    return [document for name in files for document in documents(name)]


def named(kind: str, name: str) -> Manifest:
    (found,) = (d for d in base() if (d["kind"], d["metadata"]["name"]) == (kind, name))
    return found


def test_the_base_has_all_but_the_one_machine_engine() -> None:
    held = {Path(name).stem for name in kustomization()["resources"]}
    assert set(STANDALONE) - held == {"encoder-app", "encoder-worker"}


def test_everything_is_in_the_namespace_that_is_made_and_restricted() -> None:
    namespace = named("Namespace", kustomization()["namespace"])
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {d["metadata"].get("namespace") for d in base()} == {None}


def test_the_commands_that_bring_it_are_about_files_and_settings_that_exist() -> None:
    text = (K8S / "kustomization.yaml").read_text()
    commands = re.findall(r"^#     kubectl (\w+) -[fk] (\S+)$", text, re.MULTILINE)
    assert [path for _, path in commands] == ["crds", "k8s/namespace.yaml", "k8s"]
    assert all((ROOT / path).exists() for _, path in commands)
    assert set(re.findall(r"\b(?:MYSQL|ENCODER)_[A-Z_]+", text)) <= set(all_variables())


def test_the_readme_says_the_same_commands() -> None:
    wanted = re.findall(r"^#     (kubectl .+)$", (K8S / "kustomization.yaml").read_text(), re.M)
    assert len(wanted) == 4
    assert "\n".join(wanted) in (ROOT / "README.md").read_text()


def test_what_the_commands_bring_the_commands_take_away() -> None:
    brought = re.findall(r"^#     (kubectl .+)$", (K8S / "kustomization.yaml").read_text(), re.M)
    _, _, removal = (ROOT / "docs" / "operations.md").read_text().partition("## Remove it\n")
    taken = re.findall(r"^(kubectl delete .+?)(?: +#.*)?$", removal.partition("\n## ")[0], re.M)
    assert {line.split()[1] for line in brought} == {"apply", "create"}
    objects = {one for line in brought for one in objects_of(line)}
    gone = {one for line in taken for one in objects_of(line)}
    within = {namespace for kind, namespace, _ in gone if kind == "Namespace"}
    left = {one for one in objects - gone if one[1] not in within or one[0] == "Namespace"}
    assert left == set()
    assert {kind for kind, namespace, _ in objects if namespace is None} == CLUSTER_SCOPED


CLUSTER_SCOPED = {
    *("CustomResourceDefinition", "PriorityClass"),
    *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
}


def objects_of(command: str) -> Iterator[tuple[str, str | None, str]]:
    """Kind, namespace and name of what a command brings or takes away; a namespace is in itself."""
    _, _, *words = command.split()
    if words[:2] == ["secret", "generic"]:
        yield "Secret", words[words.index("-n") + 1], words[2]
    elif words[0] == "namespace":
        yield "Namespace", words[1], words[1]
    elif words[0] == "-f":
        found = ROOT / words[1]
        files = sorted(found.glob("*.yaml")) if found.is_dir() else [found]
        for each in [one for file in files for one in yaml.safe_load_all(file.read_text())]:
            yield named_object(each)
    else:
        assert words[:2] == ["-k", "k8s"], command
        yield from map(named_object, base())


def named_object(document: Manifest) -> tuple[str, str | None, str]:
    kind, name = document["kind"], document["metadata"]["name"]
    if kind == "Namespace":
        return kind, name, name
    assert not kind.startswith("Cluster"), "it belongs into the list above"
    return kind, None if kind in CLUSTER_SCOPED else kustomization()["namespace"], name


def test_keys_are_on_in_the_base() -> None:
    keys, _ = kustomization()["patches"]
    target = named(keys["target"]["kind"], keys["target"]["name"])
    changed = yaml.safe_load(keys["patch"])
    (before,) = target["spec"]["template"]["spec"]["containers"]
    (after,) = changed["spec"]["template"]["spec"]["containers"]
    assert changed["metadata"]["name"] == target["metadata"]["name"]
    assert after == {"name": before["name"], "env": [{"name": "ENCODER_AUTH", "value": "keys"}]}


def test_the_service_comes_before_its_workers_where_nodes_are_full() -> None:
    _, priority = kustomization()["patches"]
    ((change),) = yaml.safe_load(priority["patch"])
    service = named("PriorityClass", change["value"])
    pool = named("TranscodePool", "default")["spec"]["podTemplate"]["priorityClassName"]
    worker = named("PriorityClass", pool)
    assert service["value"] > worker["value"]
    assert worker["preemptionPolicy"] == "Never"


def test_a_drain_leaves_an_api() -> None:
    budget = named("PodDisruptionBudget", "encoder-api")["spec"]
    labels = pod_template("encoder-api")["metadata"]["labels"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    assert 0 < budget["minAvailable"] < documents("encoder-api")[0]["spec"]["replicas"]


def test_the_native_set_up_needs_no_image_but_three() -> None:
    images = {
        container(Path(name).stem)["image"]
        for name in kustomization()["resources"]
        if Path(name).stem in STANDALONE
    }
    images.add(environment("encoder-operator")["ENCODER_OPERATOR_WORKER_IMAGE"])
    assert {image.partition("/")[2].partition(":")[0] for image in images} == set(NATIVE)


def test_the_policy_allows_the_image_that_the_operator_starts() -> None:
    prefixes = named("ConfigMap", "encoder-worker-images")["data"]["prefixes"].split()
    image = environment("encoder-operator")["ENCODER_OPERATOR_WORKER_IMAGE"]
    assert any(image.startswith(prefix) for prefix in prefixes)


@pytest.mark.parametrize("policy", ["encoder-worker-pods", "encoder-transcodejobs"])
def test_a_policy_is_bound_where_the_namespace_says_so_and_fails_closed(policy: str) -> None:
    binding = named("ValidatingAdmissionPolicyBinding", policy)["spec"]
    assert binding["policyName"] == policy
    assert binding["validationActions"] == ["Deny"]
    wanted = binding["matchResources"]["namespaceSelector"]["matchLabels"]
    namespace = named("Namespace", kustomization()["namespace"])
    assert wanted.items() <= namespace["metadata"]["labels"].items()
    assert named("ValidatingAdmissionPolicy", policy)["spec"]["failurePolicy"] == "Fail"


def test_policies_know_the_names_of_the_code() -> None:
    text = (K8S / "policies.yaml").read_text()
    accounts = {pod_template("encoder-operator")["spec"]["serviceAccountName"]}
    accounts.add(OperatorSettings.model_fields["worker_service_account"].default)
    assert set(re.findall(r"'(?::?)(encoder-(?:operator|worker))'", text)) <= accounts
    labels = set(re.findall(r"'(encoder\.dev/\w+)'", text)) - {"encoder.dev/"}
    assert labels == {JOB_LABEL, ATTEMPT_LABEL, POOL_LABEL}
    assert CREDENTIALS_PREFIX in text


# --- The network ---------------------------------------------------------------------------------


def network_policies() -> list[Manifest]:
    return [d for d in base() if d["kind"] == "NetworkPolicy"]


def speaks_of(policy: Manifest, labels: dict[str, str]) -> bool:
    return matches(policy["spec"]["podSelector"], labels)


def test_nothing_is_allowed_that_no_policy_allows() -> None:
    assert named("NetworkPolicy", "default-deny")["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
    }


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("encoder-api", {"default-deny", "dns", "database", "encoder-api"}),
        ("encoder-operator", {"default-deny", "dns", "database", "encoder-operator"}),
        ("encoder-webhooks", {"default-deny", "dns", "database", "webhooks-internet"}),
        ("encoder-retention", {"default-deny", "dns", "database"}),
    ],
)
def test_each_part_has_its_policies(name: str, wanted: set[str]) -> None:
    labels = pod_template(name)["metadata"]["labels"]
    speaking = {p["metadata"]["name"] for p in network_policies() if speaks_of(p, labels)}
    assert speaking == wanted


def test_workers_have_theirs() -> None:
    labels = {JOB_LABEL: "tj-x", "app.kubernetes.io/name": "encoder"}
    speaking = {p["metadata"]["name"] for p in network_policies() if speaks_of(p, labels)}
    assert speaking == {"default-deny", "dns", "worker-reports", "worker-internet"}


@pytest.mark.parametrize("name", ["worker-internet", "webhooks-internet"])
def test_the_internet_is_what_the_dialler_takes_for_it(name: str) -> None:
    (rule,) = named("NetworkPolicy", name)["spec"]["egress"]
    blocks = [peer["ipBlock"] for peer in rule["to"]]
    allowed = [ip_network(block["cidr"]) for block in blocks]
    refused = [ip_network(cidr) for block in blocks for cidr in block["except"]]

    def reached(address: str) -> bool:
        one = ip_address(address)
        return any(one in net for net in allowed) and not any(one in net for net in refused)

    public = ("1.1.1.1", "52.95.110.1", "2606:4700::1111")
    private = (
        "10.0.0.1",
        "172.20.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "127.0.0.1",
        "224.0.0.1",
        "fd00:ec2::254",
        "fe80::1",
        "::1",
        "::ffff:10.0.0.1",
    )
    assert [address for address in public if not reached(address)] == []
    assert [address for address in private if reached(address)] == []
    dialler = Dialler()
    assert all(dialler.is_allowed(address) for address in public)
    assert not any(dialler.is_allowed(address) for address in private)


# --- The pool and the accounts -------------------------------------------------------------------


def test_the_pool_is_one_of_ours_and_the_one_that_jobs_name_by_default() -> None:
    pool = named("TranscodePool", "default")
    assert pool["apiVersion"] == f"{GROUP}/{VERSION}"
    assert pool["spec"]["maxConcurrency"] > 0


def test_workers_report_to_the_service_of_the_api() -> None:
    url = environment("encoder-operator")["ENCODER_OPERATOR_REPORT_URL"]
    service = named("Service", "encoder-api")
    (port,) = service["spec"]["ports"]
    host, _, path = url.removeprefix("http://").partition("/")
    assert (host, port["port"]) == (service["metadata"]["name"], 80)
    assert ("POST", f"/{path}") in {(each.method, each.path) for each in OPERATIONS}


def test_the_operator_and_the_workers_have_accounts_and_the_workers_have_no_token() -> None:
    operator = pod_template("encoder-operator")["spec"]["serviceAccountName"]
    assert named("ServiceAccount", operator)
    worker = OperatorSettings.model_fields["worker_service_account"].default
    assert named("ServiceAccount", worker)["automountServiceAccountToken"] is False


def test_only_one_operator_runs_at_a_time() -> None:
    spec = named("Deployment", "encoder-operator")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


# --- Rights --------------------------------------------------------------------------------------

OPERATOR = ROOT / "operator" / "encoder_operator"
VERBS: Final = {
    "list_all": ("list", ""),
    "get": ("get", ""),
    "create": ("create", ""),
    "create_once": ("create", ""),
    "apply_status": ("patch", "/status"),
    "delete": ("delete", ""),
}
"""What each door of `kube.Kube` asks for: a verb, and the subresource it is about."""
FREE: Final = {"check_served"}
"""Which kinds there are is told to everybody who may log in."""
Rights = dict[tuple[str, str], set[str]]
"""By API group and resource."""


def calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node


def used_rights() -> Rights:
    """Every call of a door with a kind, and every watch, which lists first."""
    used: Rights = defaultdict(set)
    for path in sorted(OPERATOR.glob("*.py")):
        for call in calls(path):
            door = ast.unparse(call.func)
            if re.fullmatch(r".*\b_?kube\.\w+", door) and isinstance(call.args[0], ast.Name):
                if door.rpartition(".")[2] in FREE:
                    continue
                kind = getattr(kube, call.args[0].id)
                verb, subresource = VERBS[door.rpartition(".")[2]]
                used[group_of(kind), kind.plural + subresource].add(verb)
            if door == "kopf.on.event":
                group, _, plural = (ast.unparse(argument) for argument in call.args)
                key = (GROUP if group == "GROUP" else ast.literal_eval(group), plural.strip("'"))
                used[key] |= {"list", "watch"}
    return dict(used)


def group_of(kind: kube.Kind) -> str:
    return kind.prefix.split("/")[2] if kind.prefix.startswith("/apis/") else ""


def granted_rights() -> Rights:
    granted: Rights = defaultdict(set)
    for rule in named("Role", "encoder-operator")["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                granted[group, resource] |= set(rule["verbs"])
    return dict(granted)


def test_every_door_to_the_api_server_asks_for_a_known_right() -> None:
    doors = {name for name, _ in inspect.getmembers(kube.Kube, inspect.iscoroutinefunction)}
    assert {door for door in doors if not door.startswith("_")} == {*VERBS, *FREE}


def test_the_operator_has_the_rights_that_its_code_uses_and_no_other() -> None:
    assert used_rights() == granted_rights()


def test_rights_are_those_of_one_namespace() -> None:
    kinds = {d["kind"] for d in base() if d["apiVersion"].startswith("rbac.")}
    assert kinds == {"Role", "RoleBinding"}
