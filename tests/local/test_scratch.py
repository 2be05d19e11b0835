"""What attempts leave behind for those after them."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

from encoder_local.scratch import Scratch

JOB = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


def leave_encoded(folder: Path, *indexes: int) -> None:
    """As a worker does that encoded some outputs and could not deliver them."""
    entries = {}
    for index in indexes:
        path = folder / f"{index}.mp4"
        path.write_bytes(b"encoded")
        entries[str(index)] = {"path": str(path), "files": [{"path": str(path)}]}
    (folder / "encoded.json").write_text(json.dumps(entries))


def test_an_attempt_finds_what_the_latest_before_it_encoded(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    first, second = scratch.make(JOB, 1), scratch.make(JOB, 2)
    leave_encoded(first, 0, 1)
    leave_encoded(second, 1)
    assert scratch.encoded_earlier(JOB, 3) == {0: first / "0.mp4", 1: second / "1.mp4"}
    assert scratch.encoded_earlier(JOB, 1) == {}


def test_the_source_of_an_ended_attempt_is_dropped_and_what_it_encoded_is_kept(
    tmp_path: Path,
) -> None:
    scratch = Scratch(tmp_path)
    folder = scratch.make(JOB, 1)
    leave_encoded(folder, 0)
    (folder / "source").write_bytes(b"large")
    scratch.keep_encoded(JOB, 1)
    assert sorted(path.name for path in folder.iterdir()) == ["0.mp4", "encoded.json"]


def test_an_attempt_that_encoded_nothing_leaves_nothing(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    folder = scratch.make(JOB, 1)
    (folder / "source").write_bytes(b"large")
    scratch.keep_encoded(JOB, 1)
    assert not folder.exists()


def test_a_manifest_that_was_not_finished_counts_for_nothing(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    (scratch.make(JOB, 1) / "encoded.json").write_text('{"0": {"pa')
    assert scratch.encoded_earlier(JOB, 2) == {}


def test_jobs_are_found_and_removed_and_other_folders_left_alone(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    scratch.make(JOB, 1)
    (tmp_path / "lost+found").mkdir()
    assert scratch.jobs() == [JOB]
    scratch.remove(JOB)
    assert scratch.jobs() == []
    assert (tmp_path / "lost+found").is_dir()
