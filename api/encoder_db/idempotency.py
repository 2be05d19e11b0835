"""Requests that may be sent twice: the first answer is kept a day, under the caller's own key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError, OperationalError

from encoder_core.errors import EncoderError, Refused
from encoder_db.dialect import db_now, in_seconds, is_lock_wait
from encoder_db.tables import idempotency_keys

KEEP_S: Final = 24 * 3600
AGAIN_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Idempotency:
    key: str
    """What the caller sent as Idempotency-Key: at most 255 characters of ASCII."""
    fingerprints: tuple[bytes, ...]
    """
    32 bytes each: an HMAC over method, path and canonical body. Keyed, as the body holds secrets:
    under the current key, and under the earlier ones that are loaded.
    """


class Replayed(EncoderError):
    """
    The request was answered before: give `response` again.

    Raised out of the transaction that would have created a second job, which is rolled back.
    """

    def __init__(self, response: dict[str, Any]) -> None:
        super().__init__("this request was answered before")
        self.response = response


def read_idempotent(
    tx: Connection, *, owner: str, idempotency: Idempotency
) -> dict[str, Any] | None:
    """
    The answer that was given to this request, or None when it is new.

    Raises Refused with 422 when the key belongs to another request.
    """
    query = select(idempotency_keys.c.fingerprint, idempotency_keys.c.response).where(
        idempotency_keys.c.owner == owner,
        idempotency_keys.c.key == idempotency.key,
        idempotency_keys.c.expires_at > db_now(),
    )
    row = tx.execute(query).one_or_none()
    if row is None:
        return None
    if bytes(row.fingerprint) not in idempotency.fingerprints:
        raise Refused(
            "idempotency_key_reused",
            "this Idempotency-Key was used for another request; choose a new one",
            status=422,
        )
    response: dict[str, Any] = row.response
    return response


def keep_answer(
    tx: Connection,
    *,
    owner: str,
    idempotency: Idempotency,
    job_id: int,
    response: dict[str, Any],
) -> None:
    """
    Keep the answer, in the transaction that creates the job.

    A duplicate waits here for the first one's transaction, not for ever. Raises Replayed, or
    Refused as `read_idempotent` does, or with 409 when the first one is not done yet.
    """
    values = {
        "fingerprint": idempotency.fingerprints[0],
        "job_id": job_id,
        "response": response,
        "created_at": db_now(),
        "expires_at": in_seconds(KEEP_S),
    }
    row = {"owner": owner, "key": idempotency.key, **values}
    try:
        tx.execute(insert(idempotency_keys).values(row))
    except OperationalError as error:
        if not is_lock_wait(error):
            raise
        raise Refused(
            "idempotency_in_progress",
            "the first request with this Idempotency-Key is still worked on; send it again later",
            status=409,
            retry_after_s=AGAIN_S,
        ) from error
    except IntegrityError:
        earlier = read_idempotent(tx, owner=owner, idempotency=idempotency)
        if earlier is not None:
            raise Replayed(earlier) from None
        expired = (
            (idempotency_keys.c.owner == owner)
            & (idempotency_keys.c.key == idempotency.key)
            & (idempotency_keys.c.expires_at <= db_now())
        )
        if tx.execute(update(idempotency_keys).where(expired).values(values)).rowcount == 0:
            return keep_answer(
                tx, owner=owner, idempotency=idempotency, job_id=job_id, response=response
            )
