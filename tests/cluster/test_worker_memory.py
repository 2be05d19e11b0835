"""A worker in a control group of its own, made here: which is why this is in the ring of root."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from encoder_core.exits import Exit
from encoder_worker.cpu import CGROUP_ROOT
from encoder_worker.memory import MemoryBooks
from tests.worker.driver import Worker, last_of_output, make_order, to_file

CLIP = "h264_640x360_25p_20s_stereo.mp4"
LIMIT_BYTES = 160 * 1024**2  # the worker has room; x264 at 1080p with a long look-ahead has not


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with the limit, in whichever version this machine limits memory with."""
    is_v1 = (CGROUP_ROOT / "memory" / "memory.limit_in_bytes").exists()
    folder = (CGROUP_ROOT / "memory" if is_v1 else CGROUP_ROOT) / f"encoder-test-{os.getpid()}"
    folder.mkdir()
    limit = folder / ("memory.limit_in_bytes" if is_v1 else "memory.max")
    limit.write_text(str(LIMIT_BYTES))
    yield folder
    folder.rmdir()


def test_an_ffmpeg_that_runs_out_of_memory_is_told_as_such(
    tmp_path: Path, clip: Callable[[str], Path], group: Path
) -> None:
    (tmp_path / "files").mkdir()
    shutil.copy(clip(CLIP), tmp_path / "files" / "in.mp4")
    output = to_file("o.mp4", container="mp4", preset="veryslow", width=1920, upscale=True)
    order = make_order(tmp_path, {"kind": "file", "path": "in.mp4"}, output)

    def limit(pid: int) -> None:
        (group / "cgroup.procs").write_text(str(pid))

    with Worker(order, before_order=limit) as worker:
        code, reports = worker.finish()
    failure = last_of_output(reports, 0)["failure"]
    assert (code, failure["code"]) == (Exit.MEMORY, "capacity_memory")
    assert "160 MiB" in failure["message"]
    is_v1 = (group / "memory.oom_control").exists()
    assert MemoryBooks((group,), version=1 if is_v1 else 2).count_kills() == 1
    assert not (tmp_path / "files" / "o.mp4").exists()
