"""A job's secrets: sealed when they are stored, destroyed when nobody needs them any more."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from encoder_core.sealing import KeyRing, key_id_of
from encoder_db.dialect import db_now, in_seconds
from encoder_db.tables import job_secrets

Purpose = Literal["job-secrets", "webhook"]
"""`job-secrets`: credentials by JSON pointer. `webhook`: the URL that is notified."""

FAILED_KEEP_S: Final = 24 * 3600  # long enough to notice a failure and ask for a retry


def sealing_purpose(purpose: Purpose, job: UUID) -> str:
    return f"{purpose}:{job}"


def seal_secrets(
    job: UUID, *, keys: KeyRing, credentials: Mapping[str, str], webhook_url: str | None
) -> dict[Purpose, bytes]:
    """What is given, sealed, by purpose."""
    plain: dict[Purpose, str] = {}
    if credentials:
        plain["job-secrets"] = json.dumps(dict(credentials))
    if webhook_url is not None:
        plain["webhook"] = webhook_url
    return {
        purpose: keys.seal(text.encode(), purpose=sealing_purpose(purpose, job))
        for purpose, text in plain.items()
    }


def insert_secrets(tx: Connection, sealed: Sequence[tuple[int, Mapping[Purpose, bytes]]]) -> None:
    """Store what was sealed, of any number of jobs in one statement."""
    rows = [
        {"job_id": job_id, "purpose": purpose, "sealed": value, "kek_id": key_id_of(value)}
        for job_id, values in sealed
        for purpose, value in values.items()
    ]
    if rows:
        tx.execute(insert(job_secrets), rows)


def read_credentials(
    tx: Connection, job_id: int, job: UUID, *, keys: KeyRing
) -> dict[str, str] | None:
    """The job's credentials by JSON pointer; None when they are gone or there never were any."""
    query = select(job_secrets.c.sealed).where(
        job_secrets.c.job_id == job_id,
        job_secrets.c.purpose == "job-secrets",
        job_secrets.c.expires_at.is_(None) | (job_secrets.c.expires_at > db_now()),
    )
    sealed = tx.execute(query).scalar_one_or_none()
    if sealed is None:
        return None
    text = keys.open(bytes(sealed), purpose=sealing_purpose("job-secrets", job))
    credentials: dict[str, str] = json.loads(text)
    return credentials


def replace_credentials(
    tx: Connection, job_id: int, job: UUID, *, keys: KeyRing, credentials: Mapping[str, str]
) -> None:
    destroy_credentials(tx, job_id)
    sealed = seal_secrets(job, keys=keys, credentials=credentials, webhook_url=None)
    insert_secrets(tx, [(job_id, sealed)])


def destroy_credentials(tx: Connection, job_id: int) -> None:
    tx.execute(
        delete(job_secrets).where(
            job_secrets.c.job_id == job_id, job_secrets.c.purpose == "job-secrets"
        )
    )


def expire_credentials(tx: Connection, job_id: int) -> None:
    """Keep them for a retry by request, for a day."""
    tx.execute(
        update(job_secrets)
        .where(job_secrets.c.job_id == job_id, job_secrets.c.purpose == "job-secrets")
        .values(expires_at=in_seconds(FAILED_KEEP_S))
    )


def keep_credentials(tx: Connection, job_id: int) -> None:
    tx.execute(
        update(job_secrets)
        .where(job_secrets.c.job_id == job_id, job_secrets.c.purpose == "job-secrets")
        .values(expires_at=None)
    )


def read_sealed_webhook(tx: Connection, job_id: int) -> bytes | None:
    """The URL as deliveries carry it: still sealed."""
    sealed = tx.execute(_WEBHOOK, {"job_id": job_id}).scalar_one_or_none()
    return None if sealed is None else bytes(sealed)


_WEBHOOK: Final = select(job_secrets.c.sealed).where(
    job_secrets.c.job_id == bindparam("job_id"), job_secrets.c.purpose == "webhook"
)


def destroy_webhook(tx: Connection, job_id: int) -> None:
    """Nothing is announced from now on: the receiver said that it is gone."""
    tx.execute(
        delete(job_secrets).where(
            job_secrets.c.job_id == job_id, job_secrets.c.purpose == "webhook"
        )
    )
