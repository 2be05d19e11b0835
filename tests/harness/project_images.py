"""Build the project's own images: with docker where it runs, with buildah where it does not."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tests.harness.commands import run
from tests.harness.images import Image, build_image, forget_old_builds
from tests.harness.processes import REPOSITORY

# Names the machine itself as the registry, so that nobody pulls a stranger's image by mistake.
PREFIX = "localhost"
TAG = "dev"


class Recipe(NamedTuple):
    """The context is always the whole repository."""

    dockerfile: str
    target: str | None = None


RECIPES: Mapping[str, Recipe] = {
    "encoder-api": Recipe("Dockerfile", "api"),
    "encoder-operator": Recipe("operator/Dockerfile"),
    "encoder-worker": Recipe("worker-image/Dockerfile"),
    "encoder": Recipe("Dockerfile"),
    "encoder-trial": Recipe("overlays/development/Dockerfile"),
}
"""Every image of the project."""
NATIVE = ("encoder-api", "encoder-operator", "encoder-worker")
"""What the Kubernetes-native set-up needs of them."""
TRIAL = (*NATIVE, "encoder-trial")
"""And what overlays/development needs."""


def build_for_cluster(names: Sequence[str] = NATIVE) -> list[Image]:
    """With buildah always, because it is buildah's images that nodes of the tests are given."""
    return list(_with_buildah(names))


def build_for_people() -> Iterator[str]:
    """Build all; a line for each: its tag, its size, and who holds it."""
    if not _docker_runs():
        for image in _with_buildah(tuple(RECIPES)):
            yield f"{image.tag}  {image.size}  (buildah)"
        return
    for name, recipe in RECIPES.items():
        tag = _tag(name)
        target = ["--target", recipe.target] if recipe.target else []
        file = REPOSITORY / recipe.dockerfile
        run("docker", "build", "--file", file, *target, "--tag", tag, REPOSITORY)
        size = run("docker", "image", "inspect", "--format", "{{.Size}}", tag)
        yield f"{tag}  {int(size) / 1e6:.0f} MB  (docker)"


def _with_buildah(names: Sequence[str]) -> Iterator[Image]:
    for name in names:
        recipe = RECIPES[name]
        yield build_image(
            REPOSITORY / recipe.dockerfile, _tag(name), context=REPOSITORY, target=recipe.target
        )
    forget_old_builds()


def _tag(name: str) -> str:
    return f"{PREFIX}/{name}:{TAG}"


def _docker_runs() -> bool:
    """The client alone is not enough: the daemon must answer."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0
