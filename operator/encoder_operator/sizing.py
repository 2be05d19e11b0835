"""
Decide what a worker's Pod asks of its node. Pure.

What the job itself says counts first, then the pool's template, then the operator's settings, then
the estimate of the planner. After an attempt that ran out of memory or disk the next one gets more,
up to what the pool allows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from encoder_core.errors import JobError
from encoder_operator.policy import PoolPolicy
from encoder_operator.quantity import (
    MIB,
    format_bytes,
    format_millicores,
    parse_bytes,
    parse_millicores,
)

STEP: Final = 128 * MIB  # sizes of Pods that differ by less only make nodes harder to fill
LEAST_MEMORY: Final = 384 * MIB  # the worker, and ffmpeg before its first frame
UNKNOWN: Final = ("1", "1Gi", "10Gi")
"""Cores, memory and scratch of a job of which nothing is known."""
CPU_RANGE_M: Final = (500, 2000)
"""An estimate asks for no more: what is idle on a node is used anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What a Pod is given: thousandths of a core, bytes."""

    cpu_m: int
    cpu_limit_m: int | None = None
    """None: idle cores of the node are used."""
    memory: int
    memory_limit: int
    scratch: int

    def as_resources(self) -> dict[str, dict[str, str]]:
        limits = {
            "memory": format_bytes(self.memory_limit),
            "ephemeral-storage": format_bytes(self.scratch),
        }
        if self.cpu_limit_m is not None:
            limits["cpu"] = format_millicores(self.cpu_limit_m)
        requests = {
            "cpu": format_millicores(self.cpu_m),
            "memory": format_bytes(self.memory),
            "ephemeral-storage": format_bytes(self.scratch),
        }
        return {"requests": requests, "limits": limits}

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> Self:
        return cls(**stored)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What the planner expects a job to need."""

    cpu_m: int
    memory: int
    scratch: int | None = None

    @classmethod
    def of_plan(
        cls, *, cpu_s_per_second: float, memory_bytes: int, scratch_bytes: int | None
    ) -> Self:
        lowest, highest = CPU_RANGE_M
        cpu_m = math.ceil(cpu_s_per_second * 2) * 500
        memory = math.ceil(memory_bytes / STEP) * STEP
        return cls(
            cpu_m=min(max(cpu_m, lowest), highest),
            memory=max(memory, LEAST_MEMORY),
            scratch=None if scratch_bytes is None else math.ceil(scratch_bytes / STEP) * STEP,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """An earlier attempt: what its Pod had, and how it failed."""

    sizes: Sizes
    failure: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the operator's settings say for all pools; None is by the estimate."""

    cpu: str | None = None
    cpu_limit: str | None = None
    memory: str | None = None
    scratch: str | None = None

    def as_resources(self) -> dict[str, dict[str, str | None]]:
        return {
            "requests": {
                "cpu": self.cpu,
                "memory": self.memory,
                "ephemeral-storage": self.scratch,
            },
            "limits": {"cpu": self.cpu_limit},
        }


def size_pod(
    asked: Mapping[str, Any] | None,
    policy: PoolPolicy,
    wanted: Wanted,
    *,
    estimate: Estimate | None = None,
    tried: Sequence[Tried] = (),
) -> Sizes:
    """
    `asked` is `spec.resources` of the job.

    Raises JobError `never_fits` when the job asks for more than its pool gives to any.
    """
    for where in ("requests", "limits"):
        _check(asked or {}, where, policy)
    sources = (asked or {}, policy.template.get("resources") or {}, wanted.as_resources())
    cpu, memory, scratch = (
        parse(q)
        for parse, q in zip((parse_millicores, parse_bytes, parse_bytes), UNKNOWN, strict=True)
    )
    if estimate is not None:
        cpu, memory, scratch = estimate.cpu_m, estimate.memory, estimate.scratch or scratch
    cpu_m, cpu_limit = _agreed("cpu", sources)
    memory_m, memory_limit = _agreed("memory", sources)
    memory_m = memory_m or memory_limit or memory
    grown = _grown(
        Sizes(
            cpu_m=cpu_m or min(cpu, cpu_limit or cpu),
            cpu_limit_m=cpu_limit,
            memory=memory_m,
            # One that is killed for memory is better than a node that is: what was promised.
            memory_limit=memory_limit or memory_m,
            scratch=_scratch(sources) or scratch,
        ),
        policy,
        tried,
    )
    return _capped(grown, policy)


Resources = Mapping[str, Any]
"""`requests` and `limits` as a container has them."""


def _agreed(name: str, sources: Sequence[Resources]) -> tuple[int | None, int | None]:
    """
    Request and limit of what counts first; a later source fills in what is open, and no more.

    So a limit holds the requests that come after it, and a request lifts their limits: each of
    them may be right, and a Pod with a request above its limit is refused all the same.
    """
    request = limit = None
    for source in sources:
        asked, most = _quantity(source, "requests", name), _quantity(source, "limits", name)
        if limit is None and most is not None:
            limit = max(most, request or 0)
        if request is None and asked is not None:
            request = asked if limit is None else min(asked, limit)
    return request, limit


def _scratch(sources: Sequence[Resources]) -> int | None:
    """Request and limit are one: it is the size of the volume."""
    for source in sources:
        for where in ("limits", "requests"):
            size = _quantity(source, where, "ephemeral-storage")
            if size is not None:
                return size
    return None


def _quantity(source: Resources, where: str, name: str) -> int | None:
    quantity = (source.get(where) or {}).get(name)
    if quantity is None:
        return None
    return parse_millicores(quantity) if name == "cpu" else parse_bytes(quantity)


def has_room_to_grow(sizes: Sizes, policy: PoolPolicy, failure: str) -> bool:
    """Whether another attempt after this failure would get more than this one had."""
    if failure == "capacity_memory":
        return policy.most_memory is None or sizes.memory_limit < policy.most_memory
    if failure == "capacity_disk":
        return policy.caps.scratch is None or sizes.scratch < policy.caps.scratch
    return True


def _check(asked: Mapping[str, Any], where: str, policy: PoolPolicy) -> None:
    caps = policy.caps
    for name, most in (
        ("cpu", caps.cpu_m),
        ("memory", caps.memory),
        ("ephemeral-storage", caps.scratch),
    ):
        try:
            count = _quantity(asked, where, name)
        except ValueError as error:
            raise JobError("never_fits", f"spec.resources.{where}.{name}: {error}.") from None
        if count is not None and most is not None and count > most:
            quantity = asked[where][name]
            shown = format_millicores(most) if name == "cpu" else format_bytes(most)
            raise JobError(
                "never_fits",
                f"spec.resources.{where}.{name} is {quantity}; pool {policy.name} gives at most "
                f"{shown}.",
            )


def _grown(sizes: Sizes, policy: PoolPolicy, tried: Sequence[Tried]) -> Sizes:
    memory, limit, scratch = sizes.memory, sizes.memory_limit, sizes.scratch
    for attempt in tried:
        # What was given once is given again: a machine that failed is no reason for less.
        limit, scratch = max(limit, attempt.sizes.memory_limit), max(scratch, attempt.sizes.scratch)
        if attempt.failure == "capacity_memory":
            limit = max(limit, _more(attempt.sizes.memory_limit, policy))
        if attempt.failure == "capacity_disk":
            scratch = max(scratch, _more(attempt.sizes.scratch, policy))
    if policy.most_memory is not None:
        limit = max(sizes.memory_limit, min(limit, policy.most_memory))
    if limit > sizes.memory_limit:
        memory = limit
    return Sizes(
        cpu_m=sizes.cpu_m,
        cpu_limit_m=sizes.cpu_limit_m,
        memory=memory,
        memory_limit=limit,
        scratch=scratch,
    )


def _more(count: int, policy: PoolPolicy) -> int:
    return math.ceil(count * policy.growth_percent / 100 / MIB) * MIB


def _capped(sizes: Sizes, policy: PoolPolicy) -> Sizes:
    def cap(count: int, most: int | None) -> int:
        return count if most is None else min(count, most)

    caps = policy.caps
    limit = sizes.cpu_limit_m
    return Sizes(
        cpu_m=cap(sizes.cpu_m, caps.cpu_m),
        cpu_limit_m=caps.cpu_m if limit is None else cap(limit, caps.cpu_m),
        memory=cap(sizes.memory, caps.memory),
        memory_limit=cap(sizes.memory_limit, caps.memory),
        scratch=cap(sizes.scratch, caps.scratch),
    )
