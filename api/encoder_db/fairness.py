"""Decide whose job is next. Pure: queue.py reads who waits, and leases what is decided here."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

STARVATION_TURN = 8  # so often a claim begins with the lowest class: low means later, not never


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A queue in which something is due."""

    queue: str
    pool: str
    owner: str
    priority: int
    """0 is served first."""
    weight: int
    in_flight: int
    """Places in the pool that the queue's owner holds."""
    last_served_at: datetime
    pool_free: int
    """Free places in the pool."""
    owner_free: int | None = None
    """How many more of them the owner may have; None is as many as there are."""

    @property
    def holder(self) -> Holder:
        return self.pool, self.owner


Holder = tuple[str, str]
"""A pool and an owner: whatever their jobs' priorities, their places count together."""


@dataclass(frozen=True, slots=True)
class Share:
    queue: str
    count: int


def share_out(
    waiting: Sequence[Waiting],
    limit: int,
    *,
    taken: Mapping[Holder, int],
    lowest_first: bool = False,
) -> list[Share]:
    """
    Divide up to `limit` places among the queues of the class that is served now.

    Each place goes to the owner who holds the fewest for their weight; among equals to the one
    who was served longest ago. `taken` are places given in this claim that `waiting` does not
    know of yet. A class whose pools are full lets the next class through.
    """
    free = {item.pool: item.pool_free for item in waiting}
    for (pool, _), count in taken.items():
        if pool in free:
            free[pool] -= count
    for priority in sorted({item.priority for item in waiting}, reverse=lowest_first):
        members = [item for item in waiting if item.priority == priority]
        shares = _share_class(members, limit, taken=taken, free=free)
        if shares:
            return shares
    return []


def _share_class(
    members: Sequence[Waiting], limit: int, *, taken: Mapping[Holder, int], free: Mapping[str, int]
) -> list[Share]:
    left = dict(free)
    counts: dict[str, int] = {}

    def entry(item: Waiting) -> tuple[float, datetime, str]:
        held = item.in_flight + taken.get(item.holder, 0) + counts.get(item.queue, 0)
        return held / item.weight, item.last_served_at, item.queue

    by_queue = {item.queue: item for item in members}
    heap = [entry(item) for item in members]
    heapq.heapify(heap)
    while heap and sum(counts.values()) < limit:
        _, _, queue = heapq.heappop(heap)
        item = by_queue[queue]
        given = taken.get(item.holder, 0) + counts.get(queue, 0)
        full = item.owner_free is not None and given >= item.owner_free
        if full or left[item.pool] <= 0:
            continue
        left[item.pool] -= 1
        counts[queue] = counts.get(queue, 0) + 1
        heapq.heappush(heap, entry(item))
    return [Share(queue, count) for queue, count in counts.items()]
