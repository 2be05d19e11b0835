"""Say why a job that is queued does not run: in the same words to the API and to kubectl."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

from sqlalchemy import Connection, func, select

from encoder_core.documents import JobDocument, Waiting
from encoder_core.states import OPEN_ATTEMPT, JobStatus
from encoder_db.pools import DELETED, PoolRow, is_operator_full, read_places
from encoder_db.tables import job_attempts

Document = TypeVar("Document", bound=JobDocument)


def with_waiting(tx: Connection, document: Document) -> Document:
    """
    The document with the reason for which its job is not admitted, for one that is queued.

    Read when somebody asks, and stored nowhere: a pool that fills up changes the answer of a
    hundred thousand jobs.
    """
    if document.status is not JobStatus.QUEUED:
        return document
    found = read_places(tx, document.pool)
    if found is None:
        return document.model_copy(update={"waiting": _no_pool(document.pool)})
    pool, now = found
    held = _held_by_owner(tx, document) if pool.max_per_owner is not None else 0
    waiting = explain_queued(document, pool, now=now, held_by_owner=held)
    return document.model_copy(update={"waiting": waiting})


def _no_pool(name: str) -> Waiting:
    return Waiting(reason="PoolNotFound", message=f"There is no pool {name}.")


def _held_by_owner(tx: Connection, document: JobDocument) -> int:
    query = select(func.count()).where(
        job_attempts.c.pool == document.pool,
        job_attempts.c.status.in_(sorted(OPEN_ATTEMPT)),
        job_attempts.c.owner == document.owner,
    )
    return tx.execute(query).scalar_one()


def explain_queued(
    document: JobDocument, pool: PoolRow, *, now: datetime, held_by_owner: int = 0
) -> Waiting:
    """Pure. The first reason that would have to go away comes first."""
    name = document.pool
    if pool.blocked == DELETED and pool.engine == "kubernetes":
        return Waiting(reason="PoolHeld", message=f"Pool {name} is held: {DELETED}.")
    if pool.stop_policy != "None":
        word = "held" if pool.stop_policy == "Hold" else "drained"
        return Waiting(reason="PoolHeld", message=f"Pool {name} is {word}: nothing starts in it.")
    if pool.max_concurrency == 0:
        return Waiting(reason="PoolHeld", message=f"Pool {name} is scaled to 0: nothing starts.")
    if document.due_at is not None and document.due_at > now:
        return _not_due(document, document.due_at)
    if pool.active >= pool.max_concurrency:
        places = f"{pool.active} of {pool.max_concurrency} places taken"
        return Waiting(reason="PoolFull", message=f"Pool {name} is full: {places}.")
    if pool.max_per_owner is not None and held_by_owner >= pool.max_per_owner:
        return Waiting(
            reason="OwnerFull",
            message=f"{document.owner} holds {held_by_owner} of the {pool.max_per_owner} places "
            f"that one owner may have in pool {name}.",
        )
    if pool.engine == "kubernetes" and pool.blocked is not None:
        if is_operator_full(pool.blocked):
            return Waiting(reason="OperatorFull", message=pool.blocked)
        return Waiting(reason="PoolBlocked", message=f"Pool {name}: {pool.blocked}")
    return Waiting(reason="Queued", message=f"Its turn comes next or soon in pool {name}.")


def _not_due(document: JobDocument, due_at: datetime) -> Waiting:
    last = document.attempts[-1].failure if document.attempts else None
    why = f" after {last.code}: {last.message}" if last else ""
    if not document.attempt:
        return Waiting(reason="NotDue", message=f"Due at {due_at:%H:%M:%S} UTC.")
    again = f"Attempt {document.attempt + 1} follows at {due_at:%H:%M:%S} UTC{why}"
    return Waiting(reason="Retrying", message=again)
