"""One thing to many items, several at a time."""

from __future__ import annotations

import threading

import pytest

from encoder_core.parallel import each

WAIT_S = 60


def test_results_come_in_the_order_of_the_items() -> None:
    last_is_done = threading.Event()

    def work(number: int) -> int:
        if number == 3:
            last_is_done.set()
        else:
            assert last_is_done.wait(WAIT_S)
        return number * 10

    assert each(work, [1, 2, 3], at_once=3) == [10, 20, 30]


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_each_item_is_done_once(at_once: int) -> None:
    done: list[int] = []
    each(done.append, range(20), at_once=at_once)
    assert sorted(done) == list(range(20))


def test_no_items_are_no_work() -> None:
    assert each(str, list[int](), at_once=4) == []


def test_after_a_failure_nothing_is_begun_and_what_had_begun_is_waited_for() -> None:
    began: list[int] = []
    ended: list[int] = []
    failed = threading.Event()

    def work(number: int) -> None:
        began.append(number)
        if number == 0:
            failed.set()
            raise ValueError("the first one")
        assert failed.wait(WAIT_S)
        ended.append(number)

    with pytest.raises(ValueError, match="the first one"):
        each(work, range(100_000), at_once=2)
    assert sorted(began) == [0, *sorted(ended)]
    assert len(began) < 100_000
