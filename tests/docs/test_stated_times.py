"""The times that docs/failures.md states: of failures of the catalogue, and tried on real nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from encoder_core.failures import Budget, kind_of
from tests.cluster.test_failures import ENDS
from tests.cluster.times import FAILS, MOVED, WAITS

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
