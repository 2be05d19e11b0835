"""
Whatever is done to jobs, in any order: every rule holds after each step, and every job ends.

Hypothesis chooses the steps over the real record. A failure is shrunk to the shortest way that
leads there.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import create_engine

from encoder_db.store import Store
from tests.db.conftest import KEYS, empty
from tests.db.machine import Fresh
from tests.db.machine_queue import AnyOrderOfQueue


@pytest.fixture(params=["sqlite", "mysql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Here: the kind; each example gets a record of its own."""
    kind: str = request.param
    return kind


@pytest.fixture
def fresh(database_url: str, request: pytest.FixtureRequest, tmp_path: Path) -> Fresh:
    if database_url == "mysql":
        url: str = request.getfixturevalue("migrated_mysql")

        def emptied() -> Store:
            engine = create_engine(url)
            empty(engine)
            engine.dispose()
            return Store.open(url, keys=KEYS)

        return emptied
    template: Path = request.getfixturevalue("sqlite_template")
    numbers = iter(range(1_000_000))

    def copied() -> Store:
        path = tmp_path / f"{next(numbers)}.db"
        shutil.copy(template, path)
        return Store.open(f"sqlite:///{path}", keys=KEYS)

    return copied


EXAMPLES = {"sqlite": 12, "mysql": 3}
FUZZ_EXAMPLES = os.environ.get("FUZZ_EXAMPLES")
"""`make fuzz`: so many, and others each time that it gives another seed."""


def test_in_any_order_every_rule_holds_and_every_job_ends(fresh: Fresh, database_url: str) -> None:
    def machine() -> AnyOrderOfQueue:
        return AnyOrderOfQueue(fresh)

    if FUZZ_EXAMPLES:
        machine = seed(int(os.environ["FUZZ_SEED"]))(machine)
    run_state_machine_as_test(
        machine,  # type: ignore[arg-type]  # a factory is fine, says its docstring
        settings=settings(
            max_examples=int(FUZZ_EXAMPLES or EXAMPLES[database_url]),
            stateful_step_count=40,
            deadline=None,
            derandomize=not FUZZ_EXAMPLES,  # the same steps in each run of the suite
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
