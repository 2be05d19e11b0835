"""Build the project's own images: with docker where it runs, with buildah where it does not."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping

from tests.harness.commands import run
from tests.harness.images import Image, build_image, forget_old_builds
from tests.harness.processes import REPOSITORY

# Names the machine itself as the registry, so that nobody pulls a stranger's image by mistake.
PREFIX = "localhost"
TAG = "dev"
DOCKERFILES: Mapping[str, str] = {
    "encoder": "Dockerfile",
    "encoder-operator": "operator/Dockerfile",
    "encoder-worker": "worker-image/Dockerfile",
}
"""Every image and its Dockerfile; the context is always the whole repository."""


def build_for_cluster() -> list[Image]:
    """With buildah always, because it is buildah's images that nodes of the tests are given."""
    return list(_with_buildah())


def build_for_people() -> Iterator[str]:
    """Build all; a line for each: its tag, its size, and who holds it."""
    if not _docker_runs():
        for image in _with_buildah():
            yield f"{image.tag}  {image.size}  (buildah)"
        return
    for name, dockerfile in _existing().items():
        tag = _tag(name)
        run("docker", "build", "--file", REPOSITORY / dockerfile, "--tag", tag, REPOSITORY)
        size = run("docker", "image", "inspect", "--format", "{{.Size}}", tag)
        yield f"{tag}  {int(size) / 1e6:.0f} MB  (docker)"


def _with_buildah() -> Iterator[Image]:
    for name, dockerfile in _existing().items():
        yield build_image(REPOSITORY / dockerfile, _tag(name), context=REPOSITORY)
    forget_old_builds()


def _existing() -> dict[str, str]:
    return {name: file for name, file in DOCKERFILES.items() if (REPOSITORY / file).exists()}


def _tag(name: str) -> str:
    return f"{PREFIX}/{name}:{TAG}"


def _docker_runs() -> bool:
    """The client alone is not enough: the daemon must answer."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0
