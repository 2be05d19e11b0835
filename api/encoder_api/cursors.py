"""
Cursors of lists: opaque, and bound to who asked for what.

A cursor is sealed with the owner and the filters as its purpose, so that one of another list or
another owner does not open, and nobody can make one up.
"""

from __future__ import annotations

import base64
import binascii

from encoder_api.problems import Problem
from encoder_core.sealing import CannotOpen, KeyRing, key_id_of


def make_cursor(keys: KeyRing, before_id: int, *, binding: str) -> str:
    sealed = keys.seal(str(before_id).encode(), purpose=f"cursor:{binding}")
    return base64.urlsafe_b64encode(sealed).decode().rstrip("=")


def read_cursor(keys: KeyRing, cursor: str, *, binding: str) -> int:
    """Where the next page begins. Raises Problem (400)."""
    try:
        return int(keys.open(_sealed(cursor), purpose=f"cursor:{binding}"))
    except (CannotOpen, binascii.Error, ValueError):
        raise Problem(
            "invalid_cursor",
            "Use nextCursor as the list gave it, with the same filters, or begin without one.",
        ) from None


def made_with(cursor: str) -> bytes:
    """Which key: a cursor opens for as long as that one is known."""
    return key_id_of(_sealed(cursor))


def _sealed(cursor: str) -> bytes:
    return base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4))
