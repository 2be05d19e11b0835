"""The times that docs/failures.md states: of failures of the catalogue, and tried on real nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from encoder_core.failures import Budget, kind_of
from tests.cluster.test_failures import ENDS
from tests.cluster.times import FAILS, MOVED, WAITS, Tries, tries_of

NODES = Path(__file__).parents[1] / "cluster"


def test_each_end_has_its_pool_on_real_nodes() -> None:
    assert {*FAILS} == {*ENDS}


@pytest.mark.parametrize("code", [*MOVED, *WAITS])
def test_each_other_is_asked_for_on_real_nodes(code: str) -> None:
    tried = "".join((NODES / f"test_{name}.py").read_text() for name in ("nodes", "failures"))
    assert f'"{code}"' in tried


def test_what_is_waited_for_costs_nothing_and_what_is_moved_has_another_try() -> None:
    assert {kind_of(code).budget for code in WAITS} == {Budget.CAPACITY}
    assert {kind_of(code).budget for code in MOVED} == {Budget.INFRA, Budget.APP}


@pytest.mark.parametrize(
    ("budget", "tries"),
    [
        pytest.param(Budget.NONE, Tries(1, 0), id="of which no other attempt helps"),
        pytest.param(Budget.APP, Tries(3, 30), id="of which another may"),
        pytest.param(Budget.CONFIG, Tries(5, 1260), id="that an admin may mend meanwhile"),
    ],
)
def test_a_job_ends_by_a_failure(budget: Budget, tries: Tries) -> None:
    codes = {each.code for each in FAILS.values() if kind_of(each.code).budget is budget}
    assert {tries_of(code) for code in codes} == {tries}


def test_what_is_waited_for_ends_no_job() -> None:
    for code in WAITS:
        with pytest.raises(AssertionError, match="ends no job"):
            tries_of(code)
