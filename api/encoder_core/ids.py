"""Identifiers: UUIDs of version 7 for jobs and events, random tokens for attempts."""

from __future__ import annotations

import hashlib
import secrets
import time
import uuid


def new_uuid(*, unix_ms: int | None = None) -> uuid.UUID:
    """A UUID of version 7: sorts by the time it was made, which keeps indexes compact."""
    milliseconds = time.time_ns() // 1_000_000 if unix_ms is None else unix_ms
    value = (milliseconds & (1 << 48) - 1) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)


def new_token() -> str:
    """A secret of 256 bits that proves who speaks for an attempt."""
    return secrets.token_urlsafe(32)


def hash_token(token: str) -> bytes:
    """What is stored of a token. The token is random, so no slow hash is needed."""
    return hashlib.sha256(token.encode()).digest()
