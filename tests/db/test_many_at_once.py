"""
Everybody at once, each on connections of their own: what was accepted ends, and no rule is broken.

Every actor does so much and no more; only those that work off the queue go on until it is empty.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import cycle, islice

import pytest
from sqlalchemy import func, select, update

from encoder_core.errors import Refused
from encoder_core.failures import failure
from encoder_core.sealing import KeyRing
from encoder_core.specs import Priority
from encoder_core.states import FINAL_JOB, OPEN_ATTEMPT
from encoder_db.bump import bump_job
from encoder_db.dialect import in_seconds
from encoder_db.fsck import fsck
from encoder_db.jobs import cancel_job, delete_job, list_jobs, retry_job
from encoder_db.migrations import migrate
from encoder_db.pools import set_pool
from encoder_db.redrive import redrive_jobs
from encoder_db.retention import HOUR_S, delete_old_jobs
from encoder_db.rewrap import rewrap
from encoder_db.secrets import sealing_purpose
from encoder_db.store import Store
from encoder_db.sweep import sweep
from encoder_db.tables import job_attempts, job_events, job_secrets, jobs, webhook_deliveries
from tests.db import builders as make
from tests.figures import tell_figure

PRODUCERS, CLAIMERS, JOBS_EACH = 2, 3, 20
PLACES, PER_OWNER = 4, 2
OWNERS = ("acme", "beta", "corp")
ACTS: Mapping[str, int] = {
    "cancel": 15,
    "retry": 15,
    "bump": 15,
    "delete": 8,
    "redrive": 6,
    "rewrap": 8,
}
OLD, NEW = b"o" * 32, b"n" * 32
KEPT_H, FORGOTTEN = 24.0, 8
SECRETS = {"/source/access_key_id": "AKIA", "/source/access_key_secret": "another"}
PAUSE_S = 0.02  # who found nothing asks again
PATIENCE_S = 240.0
SPOILED = "source_invalid"


@pytest.fixture(params=["mysql", "mariadb"])
def database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with Store.open(database_url, keys=KeyRing([OLD])) as store:
        migrate(store)
        store.run(
            lambda tx: set_pool(tx, "default", max_concurrency=PLACES, max_per_owner=PER_OWNER)
        )
        yield store


class Crowd:
    """
    Threads, each with a store of its own; what went wrong in any of them is in `problems`.

    The key is being changed: all can open both, and the first producer still seals with the old.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._threads: list[threading.Thread] = []
        self.problems: list[BaseException] = []
        self.retries: Counter[str] = Counter()
        self.accepted: set[int] = set()
        self.deleted: set[int] = set()
        self.aged: set[int] = set()
        self.forgotten = 0
        self.begun, self.over = threading.Event(), threading.Event()

    def start(self, name: str, act: Callable[[Store, random.Random], None]) -> threading.Thread:
        keys = [OLD, NEW] if name == "producer-0" else [NEW, OLD]

        def run() -> None:
            try:
                with Store.open(self._url, keys=KeyRing(keys)) as store:
                    store.tell_of_retries(lambda reason: self.retries.update([reason]))
                    act(store, random.Random(name))
            except BaseException as error:  # shown by the test
                self.problems.append(error)

        thread = threading.Thread(target=run, name=name)
        thread.start()
        self._threads.append(thread)
        return thread

    def join(self) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    # --- Who takes part --------------------------------------------------------------------------

    def produce(self, store: Store, chance: random.Random) -> None:
        for owner in islice(cycle(OWNERS), JOBS_EACH):
            asked = make.spec(
                2,
                source=make.s3(),
                notificationUrl="https://example.com/",
                priority=chance.choice(list(Priority)).value,
            )
            self.accepted.add(make.create(store, asked, owner=owner).id)
            self.begun.set()

    def consume(self, store: Store, chance: random.Random) -> None:
        """Until it is said to be over, and nothing is left."""
        worker = threading.current_thread().name
        while not (self.over.is_set() and _all_have_ended(store)):
            for message in make.claim_some(store, 3, worker=worker):
                _live(store, message, worker, chance)
            self.over.wait(PAUSE_S)

    def meddle(self, verb: str) -> Callable[[Store, random.Random], None]:
        """Some of it comes too early or too late: then it is refused, and that is an answer."""

        def act(store: Store, chance: random.Random) -> None:
            assert self.begun.wait(PATIENCE_S)
            for _ in range(ACTS[verb]):
                with store.read() as tx:
                    found = list_jobs(tx, owner=None, limit=60)
                try:
                    self._do(store, verb, chance.choice(found).id)
                except Refused as refused:
                    assert refused.status in (404, 409), refused  # noqa: PT017  # an answer

        return act

    def _do(self, store: Store, verb: str, job: int) -> None:
        if verb == "cancel":
            cancel_job(store, job, owner=None)
        elif verb == "retry":
            retry_job(store, job, owner=None, secrets=SECRETS)
        elif verb == "bump":
            bump_job(store, job, owner=None, priority=Priority.HIGH)
        elif verb == "redrive":
            redrive_jobs(store, owner=None, failure_code=SPOILED)
        elif verb == "rewrap":
            assert rewrap(store).lost == 0
        elif delete_job(store, job, owner=None):
            self.deleted.add(job)

    def forget(self, store: Store, chance: random.Random) -> None:
        """Jobs that are over become old, and go, unless they are retried just then."""
        while self.forgotten < FORGOTTEN and not self.over.wait(PAUSE_S):
            with store.read() as tx:
                ended = list_jobs(tx, owner=None, limit=60, status=FINAL_JOB)
            if ended:
                self._let_it_be_old(store, chance.choice(ended).id)
                self.forgotten += delete_old_jobs(store, older_than_h=KEPT_H, batch=2)

    def _let_it_be_old(self, store: Store, job: int) -> None:
        over = (jobs.c.id == job) & jobs.c.status.in_(sorted(FINAL_JOB))
        long_ago = in_seconds(-2 * KEPT_H * HOUR_S)
        self.aged.add(job)
        store.run(lambda tx: tx.execute(update(jobs).where(over).values(finished_at=long_ago)))

    def watch(self, store: Store, _: random.Random) -> None:
        """The limits hold at each moment, and nothing is ever to be mended."""
        opened = select(job_attempts.c.owner, func.count()).where(
            job_attempts.c.status.in_(sorted(OPEN_ATTEMPT))
        )
        while not self.over.wait(PAUSE_S):
            with store.read() as tx:
                rows = tx.execute(opened.group_by(job_attempts.c.owner)).all()
            taken = {row[0]: row[1] for row in rows}
            assert sum(taken.values()) <= PLACES, taken
            assert max(taken.values(), default=0) <= PER_OWNER, taken
            assert sweep(store).places == 0
            assert fsck(store).findings == []


def _live(store: Store, message: make.QueueMessage, worker: str, chance: random.Random) -> None:
    """What an executor and its worker do; one in four fails for good, one in ten disappears."""
    claimed = make.open_attempt(store, message, executor="local", worker=worker)
    if not isinstance(claimed, make.Claimed):
        return
    fate = chance.random()
    if fate < 0.1 and claimed.attempt == 1:
        make.finish(store, claimed, exit_code=None, lost=True)
        return
    make.mark_starting(store, claimed)
    make.say(store, claimed, make.Started())
    make.say(store, claimed, make.progress())
    make.say(store, claimed, make.uploaded(0))
    if fate < 0.35:
        make.say(store, claimed, make.failed(failure(SPOILED)))
        make.finish(store, claimed, exit_code=20)
        return
    make.say(store, claimed, make.uploaded(1))
    make.say(store, claimed, make.succeeded())
    make.finish(store, claimed)


def _all_have_ended(store: Store) -> bool:
    open_job = select(jobs.c.id).where(jobs.c.status.not_in(sorted(FINAL_JOB))).limit(1)
    with store.read() as tx:
        return tx.execute(open_job).first() is None


def _open_all_with_the_new_key(url: str) -> int:
    """How many sealed values there are. Raises CannotOpen."""
    new = KeyRing([NEW])
    secrets = select(job_secrets.c.purpose, jobs.c.uuid, job_secrets.c.sealed).join(
        jobs, jobs.c.id == job_secrets.c.job_id
    )
    with Store.open(url, keys=new) as store:
        migrate(store)
        with store.read() as tx:
            sealed = [(row.purpose, row.uuid, row.sealed) for row in tx.execute(secrets)]
            sealed += [
                ("webhook", row.job_uuid, row.target)
                for row in tx.execute(select(webhook_deliveries))
            ]
    for purpose, uuid, value in sealed:
        assert new.open(bytes(value), purpose=sealing_purpose(purpose, uuid))
    return len(sealed)


def test_all_that_happens_to_jobs_and_keys_at_once_breaks_no_rule(
    store: Store, database_url: str
) -> None:
    crowd = Crowd(database_url)
    finite = [crowd.start(f"producer-{n}", crowd.produce) for n in range(PRODUCERS)]
    for n in range(CLAIMERS):
        crowd.start(f"claimer-{n}", crowd.consume)
    finite += [crowd.start(verb, crowd.meddle(verb)) for verb in ACTS]
    finite.append(crowd.start("forget", crowd.forget))
    crowd.start("watch", crowd.watch)
    for thread in finite:
        thread.join(PATIENCE_S)
    crowd.join()
    assert crowd.problems == []
    assert len(crowd.accepted) == PRODUCERS * JOBS_EACH
    with store.read() as tx:
        ends = {row.id: row.status for row in tx.execute(select(jobs.c.id, jobs.c.status))}
        succeeded = Counter(
            tx.execute(
                select(job_attempts.c.job_id).where(job_attempts.c.status == "succeeded")
            ).scalars()
        )
        completed = Counter(
            tx.execute(
                select(job_events.c.job_id).where(job_events.c.type == "job.completed")
            ).scalars()
        )
    gone = crowd.accepted - crowd.deleted - set(ends)
    tell_figure(
        f"ends {Counter(ends.values())}, deleted {len(crowd.deleted)}, forgotten {len(gone)}, "
        f"{crowd.retries}"
    )
    assert set(ends) <= crowd.accepted - crowd.deleted
    assert gone <= crowd.aged
    assert len(gone) == crowd.forgotten
    assert set(ends.values()) <= FINAL_JOB
    assert max(completed.values()) == 1
    assert max(succeeded.values()) == 1
    assert make.count(store, "queue_jobs") == 0
    assert fsck(store).findings == []
    with Store.open(database_url, keys=KeyRing([NEW, OLD])) as rotating:
        assert rewrap(rotating).lost == 0
    assert _open_all_with_the_new_key(database_url) > 0
