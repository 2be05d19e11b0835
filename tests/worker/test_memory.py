"""What the kernel says of processes that it killed for memory, and how ends are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from encoder_worker.endings import explain_end
from encoder_worker.memory import find_memory_books
from encoder_worker.tools import Ended

V1_LIMIT_NONE = "9223372036854771712\n"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("membership", "files", "want"),
    [
        pytest.param(
            "0::/pod/worker\n",
            {
                "pod/memory.max": "1073741824\n",
                "pod/worker/memory.max": "max\n",
                "pod/worker/memory.events": "low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\n",
            },
            (1, 1073741824),
            id="version 2: the group's own kills, and the limit of the one above",
        ),
        pytest.param(
            "0::/\n",
            {"memory.max": "536870912\n", "memory.events": "oom 0\noom_kill 0\n"},
            (0, 536870912),
            id="version 2 as a container sees it: the group is the root",
        ),
        pytest.param(
            "4:memory:/pod\n1:cpu:/\n0::/\n",
            {
                "memory/memory.limit_in_bytes": V1_LIMIT_NONE,
                "memory/pod/memory.limit_in_bytes": "268435456\n",
                "memory/pod/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
            },
            (3, 268435456),
            id="version 1, though version 2 is mounted beside it",
        ),
        pytest.param(
            "4:memory:/kubepods/pod1/abc\n",
            {
                "memory/memory.limit_in_bytes": "268435456\n",
                "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            },
            (2, 268435456),
            id="version 1 as a container sees it: its path is the machine's",
        ),
        pytest.param(
            "4:memory:/pod\n",
            {
                "memory/pod/memory.limit_in_bytes": V1_LIMIT_NONE,
                "memory/pod/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n",
            },
            (None, None),
            id="an old kernel that counts no kills, without a limit",
        ),
        pytest.param("", {}, (None, None), id="a machine without control groups"),
    ],
)
def test_the_books(
    tmp_path: Path, membership: str, files: dict[str, str], want: tuple[int | None, int | None]
) -> None:
    write(tmp_path / "fs", {**files, ".keep": ""})
    write(tmp_path, {"cgroup": membership})
    books = find_memory_books(tmp_path / "fs", tmp_path / "cgroup")
    assert (books.count_kills(), books.read_limit()) == want


def test_this_process_finds_its_own() -> None:
    books = find_memory_books()
    assert books.folders
    assert all(folder.is_dir() for folder in books.folders)


@pytest.mark.parametrize(
    ("ended", "want"),
    [
        pytest.param(Ended(0, False, ""), None, id="it ended well"),
        pytest.param(Ended(-9, True, ""), "encode_stalled", id="we killed it: it stood still"),
        pytest.param(
            Ended(-9, False, "", True, 2**30), "capacity_memory", id="the kernel killed it"
        ),
        pytest.param(
            Ended(-9, False, "", None), "capacity_memory", id="killed, and nobody knows by whom"
        ),
        pytest.param(Ended(-9, False, "", False, 2**30), "encode_failed", id="somebody killed it"),
        pytest.param(Ended(-11, False, ""), "encode_failed", id="it crashed"),
        pytest.param(Ended(-25, False, ""), "encode_failed", id="its file grew too large"),
        pytest.param(
            Ended(1, False, "av_interleaved_write_frame(): No space left on device"),
            "capacity_disk",
            id="the disk is full",
        ),
        pytest.param(
            Ended(0, False, "Error writing trailer: No space left on device"),
            "capacity_disk",
            id="the disk is full, and ffmpeg says 0",
        ),
        pytest.param(
            Ended(0, False, "", disk_full=True), "capacity_disk", id="the disk is full, unsaid"
        ),
        pytest.param(
            Ended(1, False, "Cannot allocate memory"), "capacity_memory", id="it got no memory"
        ),
        pytest.param(Ended(1, False, "Conversion failed!"), "encode_failed", id="it failed"),
    ],
)
def test_how_an_end_is_told(ended: Ended, want: str | None) -> None:
    error = explain_end(ended)
    assert (error and error.code) == want


def test_the_limit_is_told_with_it() -> None:
    error = explain_end(Ended(-9, False, "", True, 512 * 1024**2))
    assert error is not None
    assert "512 MiB" in error.failure.message


def test_a_crash_names_its_signal_and_keeps_the_last_lines() -> None:
    error = explain_end(Ended(-11, False, "first line\nlast line"))
    assert error is not None
    assert "SIGSEGV" in error.failure.message
    assert error.failure.detail == "first line\nlast line"
