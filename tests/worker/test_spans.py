"""Which bytes of a file are there."""

from __future__ import annotations

import pytest

from encoder_worker.spans import Spans


def spans(*pairs: tuple[int, int]) -> Spans:
    found = Spans()
    for pair in pairs:
        found.add(*pair)
    return found


@pytest.mark.parametrize(
    ("added", "want"),
    [
        pytest.param([(0, 5), (5, 9)], [(0, 9)], id="neighbours become one"),
        pytest.param([(6, 9), (0, 5)], [(0, 5), (6, 9)], id="others stay apart, in order"),
        pytest.param([(0, 5), (3, 9)], [(0, 9)], id="what is there twice is there once"),
        pytest.param([(0, 2), (4, 6), (1, 5)], [(0, 6)], id="a bridge joins"),
        pytest.param([(3, 3)], [], id="nothing is nothing"),
    ],
)
def test_add(added: list[tuple[int, int]], want: list[tuple[int, int]]) -> None:
    assert spans(*added) == Spans(want)


def test_remove_leaves_what_is_on_both_sides() -> None:
    found = spans((0, 10), (20, 30))
    found.remove(5, 22)
    assert found == Spans([(0, 5), (22, 30)])
    assert (found.total, found.first) == (13, (0, 5))


@pytest.mark.parametrize(("at", "end"), [(0, 5), (4, 5), (5, 5), (6, 6), (7, 9), (9, 9)])
def test_end_from(at: int, end: int) -> None:
    assert spans((0, 5), (7, 9)).end_from(at) == end
