"""
The life of one job, from the request to the last webhook, as one walk of eight parts.

Each part is what one process does in one go, and may be done again: what a part had to show for
itself when its database went away, its own repetition makes good. So does its owner.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from encoder_core.states import JobStatus
from encoder_db.deliveries import claim_deliveries, finish_delivery
from encoder_db.idempotency import Idempotency, Replayed
from encoder_db.intake import create_job
from encoder_db.queue import Engine, QueueMessage
from encoder_db.store import Store
from tests.db import builders as make

OUTPUTS = 1


@dataclass
class Life:
    """What everybody who takes part in it knows. `heard` is what arrived at the receiver."""

    store: Store
    engine: Engine
    name: str
    job: int = 0
    acknowledged: bool = False
    message: QueueMessage | None = None
    claimed: make.Claimed | None = None
    heard: list[tuple[int, UUID]] = field(default_factory=list)


def submit(life: Life) -> None:
    """The caller, who sends the same request until there is an answer."""
    asked = make.spec(
        OUTPUTS,
        source=make.s3(),
        pool="k8s" if life.engine == "kubernetes" else "default",
        externalId=life.name,
        notificationUrl="https://example.com/hook",
    )
    once = Idempotency(key=life.name, fingerprints=(hashlib.sha256(life.name.encode()).digest(),))
    try:
        job = life.store.run(
            lambda tx: create_job(
                tx, spec=asked, owner=make.OWNER, keys=life.store.keys, idempotency=once
            )
        )
        life.job = job.id
    except Replayed as earlier:
        life.job = earlier.response["id"]
    life.acknowledged = True


def claim(life: Life) -> None:
    """A claimer. One whose answer was lost has leased the message to nobody."""
    [life.message] = make.claim_some(life.store, 1, engine=life.engine)


def open_attempt(life: Life) -> None:
    """The executor takes a place. Done again under the same lease, it is the same place."""
    assert life.message is not None
    opened = make.open_attempt(
        life.store, life.message, executor=life.engine, worker=make.WORKER, limits=make.LIMITS
    )
    assert isinstance(opened, make.Claimed), opened
    life.claimed = opened


def start(life: Life) -> None:
    """What it had begun is kept when this is true, also the second time."""
    assert make.mark_starting(life.store, _of(life))


def report(life: Life) -> None:
    """The worker, which says each thing until it is taken."""
    worker = _of(life)
    reports: list[make.Report] = [make.Started(), make.progress()]
    reports += [make.uploaded(index) for index in range(OUTPUTS)]
    for said in [*reports, make.succeeded()]:
        assert make.say(life.store, worker, said).accepted


def finish(life: Life) -> None:
    """None is the answer when an earlier try had ended it."""
    assert make.finish(life.store, _of(life)) in (JobStatus.COMPLETED, None)


def deliver(life: Life) -> None:
    """The sender. What it had leased when it lost its database goes out again."""
    while found := claim_deliveries(life.store, worker="sender", limit=5, lease_s=make.LEASE_S):
        for delivery in found:
            life.heard.append((delivery.seq, delivery.event_uuid))
            assert finish_delivery(life.store, delivery, outcome="delivered", status=200)


def look(life: Life) -> None:
    """The caller asks how it ended."""
    assert make.status(life.store, life.job) is JobStatus.COMPLETED


def _of(life: Life) -> make.Claimed:
    assert life.claimed is not None
    return life.claimed


PARTS: tuple[Callable[[Life], None], ...] = (
    submit,
    claim,
    open_attempt,
    start,
    report,
    finish,
    deliver,
    look,
)
LEASING = (claim, deliver)
"""Done again when the lease of the first time has lapsed."""
