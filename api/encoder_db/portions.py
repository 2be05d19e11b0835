"""Pages of rows that end after so many bytes as well as after so many rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeVar

from sqlalchemy import Select, Subquery, func, select

Item = TypeVar("Item")

PAGE_BYTES: Final = 4 * 1024 * 1024  # what an answer is made of takes some times as much memory


class Page(list[Item]):
    """What fits into one answer; at least one item, if there is any."""

    def __init__(self, items: Iterable[Item] = (), *, more: bool = False) -> None:
        super().__init__(items)
        self.more = more
        """Whether there is something behind it."""


def begin_within(rows: Select[Any], most_bytes: int, *, latest_first: bool = False) -> Subquery:
    """
    The keys of those rows that begin within so many bytes, the first one always among them.

    `rows` has a `key`, by which they are in order, and a `size`. `found` is how many there were.
    """
    sized = rows.subquery()
    order = sized.c.key.desc() if latest_first else sized.c.key
    before = func.sum(sized.c.size).over(order_by=order) - sized.c.size
    counted = select(
        sized.c.key, before.label("before"), func.count().over().label("found")
    ).subquery()
    within = counted.c.before <= most_bytes
    return select(counted.c.key, counted.c.found).where(within).subquery()
