"""
Build container images with buildah, from ordinary Dockerfiles and with nothing from a registry.

`debian:bookworm-slim` is made here by mmdebstrap, under the name that Docker Hub gives its own, so
a Dockerfile that starts from it builds unchanged. All of it is kept in the cache of the tests.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.harness.commands import CommandFailed, run
from tests.harness.node import SANDBOX_IMAGE
from tests.servers.cache import built, cache_root
from tests.servers.mysql import KEYRING, debian_mirror

SUITE = "bookworm"
BASE_IMAGE = "docker.io/library/debian:bookworm-slim"
BOOTSTRAP = (
    *("mmdebstrap", "--variant=minbase"),
    # Otherwise a package that merges /usr afterwards is chosen, and brings all of Perl.
    *("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", "--include=usr-is-merged"),
    # As in Docker's slim image: nobody reads manuals in a container.
    *("--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"),
    *("--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/info/*"),
    "--aptopt=APT::Install-Recommends false",
)
OFFICIAL_SOURCES = (
    f"deb http://deb.debian.org/debian {SUITE} main",
    f"deb http://deb.debian.org/debian {SUITE}-updates main",
    f"deb http://deb.debian.org/debian-security {SUITE}-security main",
)
RUNNING = Path("/run/encoder-buildah")  # locks and mount points; empty when nothing is built
MANY_IMAGES = 300  # every step of a Dockerfile counts as one; 120 took 3.6 GB
MARK = "encoder.test.mark"
BUILD_AUTHORITIES = "/run/build-ca.crt"


@dataclass(frozen=True, slots=True)
class Image:
    tag: str
    #: Hash of its configuration, which names all its layers: the same image has the same.
    id: str

    def save(self, layout: Path) -> None:
        """Put it into a folder of OCI blobs, which may hold some of its layers already."""
        _buildah("push", "--quiet", "--disable-compression", self.id, f"oci:{layout}:{self.tag}")

    @property
    def size(self) -> str:
        """For people: `133 MB`."""
        return _buildah("images", "--noheading", "--format", "{{.Size}}", self.id).strip()


def base_image() -> Image:
    """Debian bookworm, as small as it gets with apt in it. Made once per machine: 30 s."""
    archive = built("debian-bookworm", repr((SUITE, BOOTSTRAP)), _bootstrap) / "root.tar"
    # The folder's name holds the hash of the recipe, so it says whether this is the same base.
    return _made(BASE_IMAGE, start="scratch", mark=archive.parent.name, add=archive)


def sandbox_image() -> Image:
    """What holds a Pod's network while its containers run: it has only to sleep."""
    base = base_image()
    entry = '["/bin/sleep", "infinity"]'
    return _made(SANDBOX_IMAGE, start=base.id, mark=base.id, options=("--entrypoint", entry))


def build_image(
    dockerfile: Path,
    tag: str,
    *,
    context: Path,
    target: str | None = None,
    arguments: Mapping[str, str] | None = None,
) -> Image:
    """
    Build an image. What did not change since the last time comes from buildah's own cache.

    A Dockerfile that runs pip declares `ARG PIP_CERT` before it: pip knows only the authorities
    that it brings, which is not enough behind a private one. `docker build` needs no such argument.
    """
    base_image()
    with TemporaryDirectory(prefix="encoder-build-") as folder:
        values = {"PIP_CERT": BUILD_AUTHORITIES, **(arguments or {})}
        if "PIP_INDEX_URL" in os.environ:
            values.setdefault("PIP_INDEX_URL", os.environ["PIP_INDEX_URL"])
        image_id = Path(folder) / "id"
        _buildah(
            *("build", "--isolation=chroot", "--pull-never", "--layers", "--quiet"),
            *_machine_mounts(Path(folder)),
            *(f"--build-arg={name}={value}" for name, value in values.items()),
            *([f"--target={target}"] if target else []),
            *("--iidfile", image_id, "--tag", tag, "--file", dockerfile, context),
        )
        return Image(tag, image_id.read_text().strip().removeprefix("sha256:"))


def forget_old_builds() -> None:
    """
    Drop what no image is made of any more, once there is a lot of it.

    Not each time: first stages of Dockerfiles are such too, and make the next build quick.
    """
    if len(_buildah("images", "--all", "--quiet").split()) > MANY_IMAGES:
        _buildah("rmi", "--prune", "--force")


def _bootstrap(folder: Path) -> None:
    source = f"deb [signed-by={KEYRING}] {debian_mirror()} {SUITE} main"
    # The machine's mirror is nobody else's: the image says what Docker's says.
    official = "\\n".join(OFFICIAL_SOURCES)
    hook = f"--customize-hook=printf '{official}\\n' > \"$1/etc/apt/sources.list\""
    run(*BOOTSTRAP, hook, SUITE, folder / "root.tar", source)


def _made(
    tag: str, *, start: str, mark: str, add: Path | None = None, options: tuple[str, ...] = ()
) -> Image:
    """The image with this tag, made again unless it carries the same mark."""
    if _label(tag) == mark:
        return _image(tag)
    container = _buildah("from", "--pull-never", start).strip()
    try:
        if add is not None:
            _buildah("add", "--quiet", container, add, "/")
        _buildah("config", "--label", f"{MARK}={mark}", *options, container)
        _buildah("commit", "--quiet", container, tag)
    finally:
        _buildah("rm", container)
    return _image(tag)


def _label(tag: str) -> str:
    try:
        return _buildah(
            "inspect",
            "--type=image",
            "--format",
            f'{{{{index .OCIv1.Config.Labels "{MARK}"}}}}',
            tag,
        ).strip()
    except CommandFailed:
        return ""  # there is no such image


def _image(tag: str) -> Image:
    return Image(
        tag, _buildah("images", "--no-trunc", "--quiet", tag).strip().removeprefix("sha256:")
    )


def _machine_mounts(folder: Path) -> list[str]:
    """What makes pip and apt inside a build go where those of the machine go."""
    mounts = {_authorities(): BUILD_AUTHORITIES}
    settings = [
        line
        for line in run("apt-config", "dump").splitlines()
        if re.match(r"Acquire::https?::(?!CA)", line)
    ]
    if settings:
        (folder / "apt.conf").write_text("\n".join(settings))
        mounts[folder / "apt.conf"] = "/etc/apt/apt.conf.d/00machine"
    if not OFFICIAL_SOURCES[0].startswith(f"deb {debian_mirror()} "):
        (folder / "sources.list").write_text(f"deb {debian_mirror()} {SUITE} main\n")
        mounts[folder / "sources.list"] = "/etc/apt/sources.list"
    return [f"--volume={source}:{target}:ro" for source, target in mounts.items()]


def _authorities() -> Path:
    """The certificate authorities that this machine trusts."""
    named = os.environ.get("SSL_CERT_FILE")
    return Path(
        named or ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    )


def _buildah(*arguments: str | Path) -> str:
    storage = cache_root() / "buildah"
    config = storage / "containers.conf"
    storage.mkdir(parents=True, exist_ok=True)
    # Its default is a folder of the machine, which it makes when it is missing.
    config.write_text(f'[network]\nnetwork_config_dir = "{storage / "networks"}"\n')
    env = {**os.environ, "CONTAINERS_CONF": str(config)}
    where = ("--root", storage, "--runroot", RUNNING, "--storage-driver=overlay")
    return run("buildah", *where, *arguments, env=env)
