"""The container's limit, not the machine's cores."""

from __future__ import annotations

from pathlib import Path

import pytest

from encoder_worker.cpu import parse_cfs, parse_cpu_max, read_cpu_limit, usable_threads


@pytest.mark.parametrize(
    ("text", "want"),
    [
        pytest.param("150000 100000\n", 1.5, id="one and a half"),
        pytest.param("max 100000\n", None, id="no limit"),
        pytest.param("50000", 0.5, id="without a period"),
    ],
)
def test_cgroup_v2(text: str, want: float | None) -> None:
    assert parse_cpu_max(text) == want


@pytest.mark.parametrize(("quota", "want"), [("200000\n", 2.0), ("-1\n", None)])
def test_cgroup_v1(quota: str, want: float | None) -> None:
    assert parse_cfs(quota, "100000\n") == want


@pytest.mark.parametrize(
    ("limit", "affinity", "want"),
    [
        pytest.param(None, 8, 8, id="no limit"),
        pytest.param(1.5, 48, 2, id="rounded up"),
        pytest.param(0.2, 48, 1, id="at least one"),
        pytest.param(8.0, 2, 2, id="no more than it may run on"),
        pytest.param(None, 96, 32, id="no more than help"),
    ],
)
def test_threads(limit: float | None, affinity: int, want: int) -> None:
    assert usable_threads(limit, affinity) == want


def test_the_tightest_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("0::/pods/this\n")
    root = tmp_path / "fs"
    for path, text in (("pods", "200000 100000"), ("pods/this", "max 100000")):
        (root / path).mkdir(parents=True, exist_ok=True)
        (root / path / "cpu.max").write_text(text)
    assert read_cpu_limit(root, membership) == 2.0


def test_version_1_is_read_too(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("4:cpu,cpuacct:/job\n3:memory:/job\n")
    folder = tmp_path / "fs" / "cpu,cpuacct" / "job"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("300000\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert read_cpu_limit(tmp_path / "fs", membership) == 3.0


def test_a_machine_without_cgroups_has_no_limit(tmp_path: Path) -> None:
    assert read_cpu_limit(tmp_path, tmp_path / "missing") is None
