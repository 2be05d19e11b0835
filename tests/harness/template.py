"""
The images that nodes start with: unpacked by a containerd once, linked into every node after.

Importing the images of the project takes a node a minute; linking what another containerd imported
takes 1 to 2 s for all of them. The folder is brought up to date in place: only layers that changed
are unpacked, and what no tag names any more containerd drops by itself.
"""

from __future__ import annotations

import fcntl
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.harness.commands import CommandFailed, run
from tests.harness.images import Image
from tests.servers.cache import cache_root
from tests.servers.process import ServerProcess


@contextmanager
def images_in_place(images: Sequence[Image]) -> Iterator[Path]:
    """A containerd root that holds these images and stays as it is during the block."""
    folder = cache_root() / "node-images"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = _known(folder)
        missing = [image for image in images if known.get(image.tag) != image.id]
        if missing:
            _import(folder, missing)
            known |= {image.tag: image.id for image in missing}
            (folder / "known.json").write_text(json.dumps(known))
        yield folder / "containerd"


def _known(folder: Path) -> dict[str, str]:
    try:
        known: dict[str, str] = json.loads((folder / "known.json").read_text())
    except FileNotFoundError:
        return {}
    return known


def _import(folder: Path, images: Sequence[Image]) -> None:
    with TemporaryDirectory(prefix=".import-", dir=folder) as name:
        archive = _pack_what_is_new(folder / "containerd", images, Path(name))
        with _containerd(folder / "containerd") as ctr:
            run(*ctr, "images", "import", archive)
            # Only a deletion that waits for it makes containerd drop what was replaced.
            run(*ctr, "images", "tag", images[0].tag, "obsolete")
            run(*ctr, "images", "rm", "--sync", "obsolete")


def _pack_what_is_new(root: Path, images: Sequence[Image], folder: Path) -> Path:
    """
    An archive of these images without the blobs that containerd has.

    Blobs that are there already need not be packed again by buildah either: a worker image is
    900 MB, and what changes of it from run to run is one.
    """
    layout = folder / "layout"
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    old = set()
    for blob in root.glob("io.containerd.content.v1.content/blobs/sha256/*"):
        os.link(blob, blobs / blob.name)
        old.add(blob.name)
    for image in images:
        image.save(layout)
    index = json.loads((layout / "index.json").read_text())
    for manifest in index["manifests"]:
        notes = manifest["annotations"]
        # Without this ctr puts a prefix of its own before the name.
        notes["io.containerd.image.name"] = notes["org.opencontainers.image.ref.name"]
    (layout / "index.json").write_text(json.dumps(index))
    archive = folder / "images.tar"
    with tarfile.open(archive, "w") as packed:
        for name in ("oci-layout", "index.json"):
            packed.add(layout / name, name)
        for blob in blobs.iterdir():
            if blob.name not in old:
                packed.add(blob, f"blobs/sha256/{blob.name}")
    return archive


@contextmanager
def _containerd(root: Path) -> Iterator[tuple[str | Path, ...]]:
    """A containerd over `root`, as the beginning of a ctr command that speaks to it."""
    # A folder with a short name: paths of sockets end at 107 characters.
    with TemporaryDirectory(prefix="encoder-") as name:
        state = Path(name)
        config = state / "containerd.toml"
        config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        socket = state / "containerd.sock"
        argv: list[str | Path] = [
            # Layers are mounted while they are unpacked: a namespace takes those mounts along.
            *("unshare", "--mount", "--propagation=private"),
            *("containerd", "--config", config, "--log-level=warn"),
            *("--root", root, "--state", state / "state", "--address", socket),
        ]
        ctr = ("ctr", "--address", socket, "-n", "k8s.io")
        with ServerProcess(argv, log=state / "containerd.log") as containerd:
            containerd.wait_until(lambda: _answers(*ctr, "version"))
            yield ctr


def _answers(*argv: str | Path) -> bool:
    try:
        run(*argv)
    except CommandFailed:
        return False
    return True
