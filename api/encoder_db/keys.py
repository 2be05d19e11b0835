"""API keys: shown once, stored as a hash, found by their public part."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, exists, insert, select, update

from encoder_db.dialect import db_now, in_seconds
from encoder_db.store import Store
from encoder_db.tables import api_keys

_ALPHABET: Final = string.ascii_letters + string.digits
_KEY: Final = re.compile(r"enc_([A-Za-z0-9]{8})_([A-Za-z0-9]{32})")
USED_EVERY_S: Final = 60.0  # the use of a key is noted, but not with each request


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks, and what they may do."""

    name: str
    owner: str
    scopes: frozenset[str]
    key: str = ""
    """What the key is recognised by; empty for who asks without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """A key as it may be shown: without its secret, which nobody knows any more."""

    public: str
    name: str
    owner: str
    scopes: list[str]
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None

    @property
    def prefix(self) -> str:
        """How the key begins, by which it is recognised and revoked."""
        return f"enc_{self.public}"

    def to_json(self) -> dict[str, Any]:
        return {
            "key": self.prefix,
            "name": self.name,
            "owner": self.owner,
            "scopes": self.scopes,
            "createdAt": self.created_at.isoformat(),
            "lastUsedAt": self.last_used_at.isoformat() if self.last_used_at else None,
            "revokedAt": self.revoked_at.isoformat() if self.revoked_at else None,
        }


def create_key(tx: Connection, *, name: str, owner: str, scopes: Sequence[str]) -> str:
    """Make a key. What is returned is the only copy of it."""
    public, secret = _random(8), _random(32)
    tx.execute(
        insert(api_keys).values(
            public=public,
            secret_hash=_hash(secret),
            name=name,
            owner=owner,
            scopes=sorted(set(scopes)),
            created_at=db_now(),
        )
    )
    return f"enc_{public}_{secret}"


def authenticate_key(store: Store, presented: str) -> Principal | None:
    """
    Whose key it is; None when it is malformed, unknown or revoked.

    Asked with every request, so it is a plain read; only the note of its use is a transaction.
    """
    match = _KEY.fullmatch(presented)
    if match is None:
        return None
    public, secret = match.groups()
    recently = api_keys.c.last_used_at > in_seconds(-USED_EVERY_S)
    query = select(api_keys, recently.label("used_recently")).where(
        api_keys.c.public == public, api_keys.c.revoked_at.is_(None)
    )
    with store.read() as tx:
        row = tx.execute(query).mappings().one_or_none()
    # Compared in any case, so that the time taken does not tell which public parts exist.
    known = bytes(32) if row is None else bytes(row["secret_hash"])
    if not hmac.compare_digest(known, _hash(secret)) or row is None:
        return None
    if not row["used_recently"]:
        used = update(api_keys).where(api_keys.c.id == row["id"]).values(last_used_at=db_now())
        store.run(lambda tx: tx.execute(used))
    return Principal(
        name=row["name"], owner=row["owner"], scopes=frozenset(row["scopes"]), key=public
    )


def has_keys(tx: Connection) -> bool:
    """Whether any key works: then everybody needs one."""
    live = exists().where(api_keys.c.revoked_at.is_(None))
    return bool(tx.execute(select(live)).scalar_one())


def list_keys(tx: Connection) -> list[KeyRow]:
    names = KeyRow.__dataclass_fields__
    query = select(api_keys).order_by(api_keys.c.id)
    return [KeyRow(**{name: row[name] for name in names}) for row in tx.execute(query).mappings()]


def revoke_key(tx: Connection, key: str) -> bool:
    """Revoke a key by its beginning (`enc_` and eight characters); False when none is live."""
    public = key.removeprefix("enc_")[:8]
    if not public.isascii():  # MySQL refuses the comparison
        return False
    live = (api_keys.c.public == public) & api_keys.c.revoked_at.is_(None)
    revoked = update(api_keys).where(live).values(revoked_at=db_now())
    return tx.execute(revoked).rowcount == 1


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
