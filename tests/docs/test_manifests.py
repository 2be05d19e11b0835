"""The manifests that stand alone say what the command line, the settings and good sense ask for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from encoder_cli.__main__ import app
from tests.docs.render import all_variables

K8S = Path(__file__).parents[2] / "k8s"
STANDALONE = ("encoder-app", "encoder-api", "encoder-worker", "encoder-retention")
COMMANDS = {
    "encoder-app": "up",
    "encoder-api": "api",
    "encoder-worker": "worker",
    "encoder-retention": "retention",
}
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


@pytest.mark.parametrize("name", STANDALONE)
def test_it_runs_a_command_that_exists(name: str) -> None:
    commands = {
        command.name or command.callback.__name__
        for command in app.registered_commands
        if command.callback
    }
    assert container(name)["command"] == ["encoder"]
    assert container(name)["args"] == [COMMANDS[name]]
    assert COMMANDS[name] in commands


@pytest.mark.parametrize("name", STANDALONE)
def test_it_takes_its_settings_from_the_one_secret_and_shows_how_to_make_it(name: str) -> None:
    assert container(name)["envFrom"] == [{"secretRef": {"name": "encoder-env"}}]
    assert "kubectl create secret generic encoder-env" in (K8S / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", STANDALONE)
def test_it_sets_only_variables_that_exist(name: str) -> None:
    assert set(environment(name)) <= set(all_variables())


@pytest.mark.parametrize("name", STANDALONE)
def test_it_runs_under_the_restricted_profile_with_a_read_only_root(name: str) -> None:
    pod = pod_template(name)["spec"]
    assert pod["automountServiceAccountToken"] is False
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
