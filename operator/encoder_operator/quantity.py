"""Kubernetes quantities as whole numbers: bytes, and thousandths of a core."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Final

from kubernetes.utils.quantity import parse_quantity

MIB = 1024**2


MOST: Final = 200
"""Digits of the largest number that is read: what a CRD takes has fewer. To make a whole number of
`1e1000000` takes minutes."""


def parse_bytes(quantity: str | int) -> int:
    return math.ceil(_parse(quantity))


def parse_millicores(quantity: str | int) -> int:
    return math.ceil(_parse(quantity) * 1000)


def _parse(quantity: str | int) -> Decimal:
    """Raises ValueError for what is no quantity of anything."""
    try:
        parsed: Decimal = parse_quantity(quantity)  # type: ignore[no-untyped-call]  # has no types
    except ArithmeticError:
        raise ValueError(f"{quantity} is out of range") from None
    if not parsed.is_finite() or parsed.adjusted() > MOST:
        raise ValueError(f"{quantity} is out of range")
    return parsed


def format_bytes(count: int) -> str:
    """In the largest unit that says it exactly: `1Gi`, `1536Mi`, else bytes."""
    for unit, size in (("Gi", 1024**3), ("Mi", MIB), ("Ki", 1024)):
        if count and count % size == 0:
            return f"{count // size}{unit}"
    return str(count)


def format_millicores(count: int) -> str:
    return str(count // 1000) if count % 1000 == 0 else f"{count}m"
