"""Do one thing to many items, several at a time, and stop at the first that fails."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TypeVar, cast

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(work: Callable[[Item], Result], items: Sequence[Item], *, at_once: int) -> list[Result]:
    """
    The results in the order of the items.

    The first failure is raised once what had begun has ended too, so that nothing is done behind
    the back of whoever tidies up. One who is stopped from outside meanwhile does not wait: the
    threads are daemons, which a pool's are not.
    """
    if at_once == 1 or len(items) == 1:
        return [work(item) for item in items]
    left = deque(enumerate(items))
    ended: SimpleQueue[tuple[int, Result | None, BaseException | None]] = SimpleQueue()

    def run() -> None:
        while True:
            try:
                number, item = left.popleft()
            except IndexError:
                return
            try:
                ended.put((number, work(item), None))
            except BaseException as error:  # whatever it is, it is the caller's
                left.clear()
                ended.put((number, None, error))

    threads = [threading.Thread(target=run, daemon=True) for _ in range(min(at_once, len(items)))]
    results: list[Result | None] = [None] * len(items)
    try:
        for thread in threads:
            thread.start()
        for _ in items:
            number, result, error = ended.get()
            if error is not None:
                for thread in threads:
                    thread.join()
                raise error
            results[number] = result
    finally:
        left.clear()
    return cast("list[Result]", results)
