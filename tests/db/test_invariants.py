"""What no single test can show: rules about which module may write what."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import encoder_db

PACKAGE = Path(encoder_db.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def _source(module: str) -> str:
    return (PACKAGE / f"{module}.py").read_text()


def _writers(pattern: str) -> set[str]:
    return {module for module in MODULES if re.search(pattern, _source(module))}


def test_a_jobs_status_changes_in_one_module_only() -> None:
    writers = {m for m in _writers(r"update\(jobs\)") if re.search(r'"status": to\b', _source(m))}
    assert writers == {"transitions"}
    changes = r"update\(jobs\)(?:\s*\.where\([^)]*\))?\s*\.values\([^)]*\bstatus(=|\":)"
    assert _writers(changes) == set()


def test_jobs_begin_in_one_module_only() -> None:
    assert _writers(r"insert(_all\(tx, |\()jobs\b") == {"intake"}


def test_attempts_begin_in_one_module_only() -> None:
    assert _writers(r"insert\(job_attempts\)") == {"attempts"}


def test_events_are_written_in_one_module_only() -> None:
    assert _writers(r"insert\(job_events\)") == {"events"}


@pytest.mark.parametrize("module", MODULES)
def test_no_module_reads_the_machines_clock(module: str) -> None:
    """The record has one clock, the database's."""
    assert not re.search(r"datetime\.now|time\.time\b|utcnow", _source(module))


@pytest.mark.parametrize("module", MODULES)
def test_only_one_module_knows_the_servers_apart(module: str) -> None:
    if module in ("dialect", "types"):
        return
    assert "sqlalchemy.dialects" not in _source(module)
