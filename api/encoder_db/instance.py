"""Secrets of the whole installation that nobody configured: made once, kept in the database."""

from __future__ import annotations

import base64
import logging
import os
from typing import Final

from sqlalchemy import Connection, select

from encoder_core.sealing import KeyRing
from encoder_db.dialect import db_now, insert_missing
from encoder_db.tables import instance_secrets

log = logging.getLogger(__name__)

_KEY, _WEBHOOK, _CHECK = "secret_key", "webhook_secret", "key_check"
SEALED: Final = {name: f"instance:{name}" for name in (_WEBHOOK, _CHECK)}
"""The values that are sealed, each with the purpose that it is sealed for."""


def read_key(tx: Connection) -> bytes | None:
    """The key-encryption key that was made while no ENCODER_SECRET_KEY was set, if any."""
    return _read(tx, _KEY)


def make_key(tx: Connection) -> bytes:
    return _kept(tx, _KEY, os.urandom(32))


def warn_of_generated_key() -> None:
    """It lies beside what it seals, so it protects nothing from who reads the database."""
    log.warning(
        "secret_key_generated",
        extra={"hint": "set ENCODER_SECRET_KEY so that the database alone opens no credential"},
    )


def generated_webhook_secret(tx: Connection, keys: KeyRing) -> str:
    fresh = f"whsec_{base64.b64encode(os.urandom(32)).decode()}"
    sealed = _kept(tx, _WEBHOOK, keys.seal(fresh.encode(), purpose=SEALED[_WEBHOOK]))
    return keys.open(sealed, purpose=SEALED[_WEBHOOK]).decode()


def read_check(tx: Connection) -> bytes | None:
    """A sealed word that was written by the first start, to try keys on."""
    return _read(tx, _CHECK)


def make_check(tx: Connection, keys: KeyRing) -> bytes:
    return _kept(tx, _CHECK, keys.seal(b"open", purpose=SEALED[_CHECK]))


def _kept(tx: Connection, name: str, fresh: bytes) -> bytes:
    """The stored value; `fresh` becomes it when there is none. Two processes agree on one."""
    insert_missing(tx, instance_secrets, {"name": name, "value": fresh, "created_at": db_now()})
    stored = _read(tx, name)
    assert stored is not None
    return stored


def _read(tx: Connection, name: str) -> bytes | None:
    query = select(instance_secrets.c.value).where(instance_secrets.c.name == name)
    value = tx.execute(query).scalar_one_or_none()
    return None if value is None else bytes(value)
