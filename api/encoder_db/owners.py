"""Owners of jobs: what waits and runs for each, and how large a share of the places is theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, func, select, update

from encoder_core.specs import DEFAULT_POOL, Priority
from encoder_core.states import OPEN_ATTEMPT, JobStatus
from encoder_db.messages import register_owner
from encoder_db.tables import job_attempts, jobs, queue_owners


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerRow:
    owner: str
    weight: int
    waiting: int
    """Jobs in the queue, also those whose back-off is not over."""
    running: int
    """Places held, in all pools."""

    def to_json(self) -> dict[str, Any]:
        return {
            "owner": self.owner,
            "weight": self.weight,
            "waiting": self.waiting,
            "running": self.running,
        }


def list_owners(tx: Connection) -> list[OwnerRow]:
    """Who has a job in a queue, had one in the last day, or was given a weight; by name."""
    waiting = _count(tx, jobs.c.owner, jobs.c.status == JobStatus.QUEUED)
    holds_a_place = job_attempts.c.status.in_(sorted(OPEN_ATTEMPT))
    running = _count(tx, job_attempts.c.owner, holds_a_place)
    known = (
        select(queue_owners.c.owner, func.max(queue_owners.c.weight).label("weight"))
        .group_by(queue_owners.c.owner)
        .order_by(queue_owners.c.owner)
    )
    return [
        OwnerRow(**row, waiting=waiting.get(row["owner"], 0), running=running.get(row["owner"], 0))
        for row in tx.execute(known).mappings()
    ]


def _count(tx: Connection, owner: Column[str], which: ColumnElement[bool]) -> dict[str, int]:
    query = select(owner.label("owner"), func.count().label("rows")).where(which).group_by(owner)
    return {row.owner: row.rows for row in tx.execute(query)}


def set_weight(tx: Connection, owner: str, weight: int) -> bool:
    """
    Give an owner so many times the share of one with the weight 1, from the next claim on.

    It holds for every queue of theirs, also for those to come. False when the owner was not known,
    which is no mistake before the first job, nor when the last one is long over.
    """
    known = _weigh(tx, owner, weight)
    if not known:
        register_owner(tx, pool=DEFAULT_POOL, priority=Priority.NORMAL, owner=owner)
        _weigh(tx, owner, weight)
    return known


def _weigh(tx: Connection, owner: str, weight: int) -> bool:
    """Whether the owner has a queue, also now that its weight is written."""
    of_owner = select(queue_owners.c.queue).where(queue_owners.c.owner == owner)
    weighed = 0
    # By primary key: an update by the owner would lock every row that it looks at.
    for queue in tx.execute(of_owner).scalars().all():
        change = update(queue_owners).where(queue_owners.c.queue == queue)
        weighed += tx.execute(change.values(weight=weight)).rowcount
    return weighed > 0
