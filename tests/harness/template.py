"""
The images that nodes start with: unpacked by a containerd once, linked into every node after.

Importing takes a node a second per 50 MB; linking what another containerd imported takes 0.3 s for
everything. The folder is brought up to date in place: only layers that changed are unpacked, and
what no tag names any more containerd drops by itself.
"""

from __future__ import annotations

import fcntl
import json
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
    with TemporaryDirectory(prefix="encoder-images-") as name:
        state = Path(name)
        config = state / "containerd.toml"
        config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        socket = state / "containerd.sock"
        argv: list[str | Path] = [
            # Layers are mounted while they are unpacked: a namespace takes those mounts along.
            *("unshare", "--mount", "--propagation=private"),
            *("containerd", "--config", config, "--log-level=warn"),
            *("--root", folder / "containerd", "--state", state / "state", "--address", socket),
        ]
        ctr = ("ctr", "--address", socket, "-n", "k8s.io")
        with ServerProcess(argv, log=state / "containerd.log") as containerd:
            containerd.wait_until(lambda: _answers(*ctr, "version"))
            for image in images:
                archive = state / "image.tar"
                image.save(archive)
                run(*ctr, "images", "import", archive)
                archive.unlink()
            # Only a deletion that waits for it makes containerd drop what was replaced.
            run(*ctr, "images", "tag", images[0].tag, "obsolete")
            run(*ctr, "images", "rm", "--sync", "obsolete")


def _answers(*argv: str | Path) -> bool:
    try:
        run(*argv)
    except CommandFailed:
        return False
    return True
