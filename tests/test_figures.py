"""Figures are printed at the end of a run, whether its tests pass or fail, and by any worker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import figures

ROOT = Path(__file__).parents[1]
TESTS = """
from tests.figures import tell_figure

def test_one():
    tell_figure("one: 1 s")
    tell_figure("one: 2 s")

def test_two():
    tell_figure("two: 3 s")
    assert False

def test_of_the_second_worker():
    tell_figure("three: 4 s")

def test_that_has_none():
    print("not this")
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_the_figures_of_all_tests_are_told(tmp_path: Path, workers: int) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.figures", "-n", str(workers)]
    ran = subprocess.run(
        [*command, "-p", "no:cacheprovider", "test_it.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "3 passed" in ran.stdout, ran.stdout + ran.stderr
    _, _, summary = ran.stdout.partition("= figures =")
    told = summary.splitlines()[1:5]
    assert sorted(told) == ["one: 1 s", "one: 2 s", "three: 4 s", "two: 3 s"], ran.stdout
    assert summary.splitlines()[5].startswith("="), ran.stdout


def test_every_run_here_tells_them(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.pluginmanager.is_registered(figures)
