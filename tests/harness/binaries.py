"""The programs of Kubernetes, built by Go from two go.mod files and kept between runs."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from tests.servers.go import go_tools

MODULES = Path(__file__).parent / "gomod"


def kubernetes_version() -> str:
    found = re.search(r"k8s\.io/kubernetes (v\S+)", (MODULES / "k8s" / "go.mod").read_text())
    assert found is not None
    return found[1]


@cache
def kubernetes() -> Path:
    """
    The folder with kube-apiserver, kubelet and the rest, kubectl, and etcd under the name `server`.

    From nothing: ten minutes on two cores that others use too, and 3 GB of disk while it builds.
    """
    version = kubernetes_version()
    major, minor, _ = version.removeprefix("v").split(".")
    # Without them the servers call themselves v0.0.0, and kubectl and kopf believe it.
    facts = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    stamps = [f"-X k8s.io/component-base/version.{name}={value}" for name, value in facts.items()]
    return go_tools("kubernetes", MODULES / "k8s", ldflags=stamps)


@cache
def coredns() -> Path:
    # A module of its own: its dependencies cannot agree with those of Kubernetes.
    return go_tools("coredns", MODULES / "coredns") / "coredns"


@cache
def kwok() -> Path:
    """Plays nodes. Only the benchmark of the operator asks for it: two minutes to build."""
    return go_tools("kwok", MODULES / "kwok") / "kwok"
