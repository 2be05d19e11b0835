"""What is done about jobs besides running them, each with who goes on when it dies halfway. No
pytest here: the children of a killed process load this module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import delete, select, update

from encoder_core.sealing import KeyRing
from encoder_core.states import JobStatus
from encoder_db.attempts import finish_attempt
from encoder_db.deliveries import claim_deliveries, finish_delivery
from encoder_db.fsck import fsck
from encoder_db.jobs import read_job, renew_credentials
from encoder_db.outbox import redeliver
from encoder_db.retention import delete_old_jobs
from encoder_db.rewrap import rewrap
from encoder_db.rows import JobRow
from encoder_db.secrets import read_credentials
from encoder_db.store import Store
from encoder_db.sweep import sweep
from encoder_db.tables import job_attempts, job_events, queue_jobs
from encoder_db.takeover import end_abandoned
from tests.db import builders as make
from tests.kill import lives
from tests.kill.actors import KEYS, SECRET_KEY, SECRETS, work_off

EARLIER_KEY = b"e" * 32
HOOK = "https://example.com/hook"
NEW = {pointer: f"new-{value}" for pointer, value in SECRETS.items()}


@dataclass(frozen=True)
class Chore:
    name: str
    """As docs/architecture.md has it, in its table of what may die halfway."""
    made: Callable[[Store], JobRow]
    act: Callable[[Store, int], None]
    owner: Callable[[Store, int], None]
    """Who goes on, and nobody else."""
    is_done: Callable[[Store, int], bool]


# --- Sweep and repair ----------------------------------------------------------------------------


def _in_no_queue(store: Store) -> JobRow:
    job = lives.waits(store)
    with store.begin() as tx:
        tx.execute(delete(queue_jobs).where(queue_jobs.c.job_id == job.id))
    make.let_pass(store, 120)
    return job


def _run_by_nobody(store: Store) -> JobRow:
    job = lives.runs(store)
    lost = {"status": "lost", "finished_at": job.created_at}
    with store.begin() as tx:
        tx.execute(update(job_attempts).where(job_attempts.c.job_id == job.id).values(lost))
    make.let_pass(store, 120)
    return job


def _sweep(store: Store, job: int) -> None:
    sweep(store)


def _broken_twice(store: Store) -> JobRow:
    job = _in_no_queue(store)
    with store.begin() as tx:
        tx.execute(delete(job_events).where(job_events.c.job_id == job.id))
    return job


def _repair(store: Store, job: int) -> None:
    fsck(store, repair=True)


def _runs_to_its_end(store: Store, job: int) -> bool:
    work_off(store, "survivor")
    return make.status(store, job) is JobStatus.COMPLETED


# --- A failed attempt, and the next --------------------------------------------------------------


def _fail(store: Store, job: int) -> None:
    finish_attempt(store, job, 1, exit_code=40, lost=False, limits=make.LIMITS, jitter=0.0)


def _let_its_lease_lapse(store: Store, job: int) -> None:
    make.let_pass(store, lives.LAPSED_S)
    end_abandoned(store, worker="survivor", limits=make.LIMITS)
    make.let_pass(store, 600)


def _runs_to_its_end_once(store: Store, job: int) -> bool:
    ended = _runs_to_its_end(store, job)
    [first, second] = make.attempt_statuses(store, job)
    return ended and first in ("failed", "lost") and second == "succeeded"


# --- New credentials -----------------------------------------------------------------------------


def _give_new(store: Store, job: int) -> None:
    renew_credentials(store, job, owner=None, secrets=NEW)


def _has_new(store: Store, job: int) -> bool:
    return _credentials(store, job) == NEW and _runs_to_its_end(store, job)


def _credentials(store: Store, job: int) -> dict[str, str] | None:
    uuid = make.read(store, job).uuid
    with store.read() as tx:
        return read_credentials(tx, job, uuid, keys=store.keys)


# --- A webhook once more -------------------------------------------------------------------------


def _told(store: Store) -> JobRow:
    _arrivals(store)  # of the jobs before
    job = make.create(store, make.spec(notificationUrl=HOOK))
    assert _arrivals(store) == [1]
    return job


def _redeliver(store: Store, job: int) -> None:
    with store.read() as tx:
        first = tx.execute(select(job_events.c.uuid).where(job_events.c.job_id == job)).scalar_one()
    assert redeliver(store, job, first)


def _arrives_once(store: Store, job: int) -> bool:
    return _arrivals(store) == [1]


def _arrivals(store: Store) -> list[int]:
    found = claim_deliveries(store, worker="sender", limit=9, lease_s=60)
    for delivery in found:
        finish_delivery(store, delivery, outcome="delivered", status=200)
    return [delivery.seq for delivery in found]


# --- A new key -----------------------------------------------------------------------------------


@contextmanager
def _with_keys(store: Store, *keys: bytes) -> Iterator[Store]:
    with Store.open(store.engine.url, keys=KeyRing(list(keys))) as other:
        yield other


def _sealed_before(store: Store) -> JobRow:
    with _with_keys(store, EARLIER_KEY) as earlier:
        return make.create(earlier, make.spec(source=make.s3(), notificationUrl=HOOK))


def _rewrap(store: Store, job: int) -> None:
    with _with_keys(store, SECRET_KEY, EARLIER_KEY) as both:
        rewrap(both)


def _opens_with_the_new_key(store: Store, job: int) -> bool:
    assert store.keys.current_key_id == KEYS.current_key_id
    return rewrap(store).lost == 0 and _credentials(store, job) is not None


# --- Retention -----------------------------------------------------------------------------------


def _retain(store: Store, job: int) -> None:
    delete_old_jobs(store, older_than_h=24)


def _is_gone(store: Store, job: int) -> bool:
    with store.read() as tx:
        return read_job(tx, job, owner=None) is None


CHORES = (
    Chore("the sweep, a job in no queue", _in_no_queue, _sweep, _sweep, _runs_to_its_end),
    Chore("the sweep, a job that nobody runs", _run_by_nobody, _sweep, _sweep, _runs_to_its_end),
    Chore("the sweep, after `fsck --repair`", _in_no_queue, _repair, _sweep, _runs_to_its_end),
    Chore("`encoder fsck --repair`", _broken_twice, _repair, _repair, _runs_to_its_end),
    Chore(
        "the end of a failed attempt",
        lives.runs,
        _fail,
        _let_its_lease_lapse,
        _runs_to_its_end_once,
    ),
    Chore("new credentials for a waiting job", lives.waits, _give_new, _give_new, _has_new),
    Chore("a redelivery", _told, _redeliver, _redeliver, _arrives_once),
    Chore("`encoder keys rewrap`", _sealed_before, _rewrap, _rewrap, _opens_with_the_new_key),
    Chore("retention", lives.is_old, _retain, _retain, _is_gone),
)


def do(name: str, job: int, store: Store) -> None:
    [chore] = [one for one in CHORES if one.name == name]
    chore.act(store, job)
