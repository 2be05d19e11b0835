"""Producers, claimers and the server itself are killed while many work at once: nothing is lost."""

from __future__ import annotations

import signal
from collections import Counter
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess

from sqlalchemy import func, select

from encoder_core.states import JobStatus
from encoder_db.fsck import fsck
from encoder_db.store import Store
from encoder_db.tables import job_attempts, job_events, jobs
from tests.db import builders as make
from tests.figures import tell_figure
from tests.kill import lives
from tests.kill.actors import FORK, consume, disturb, opened, produce, spawn
from tests.kill.conftest import FULL
from tests.servers.mysqld import Mysqld

PRODUCERS, CLAIMERS = 2, 3
EACH = 150 if FULL else 30
KILLS = 12 if FULL else 3
"""Of `mysqld`; between two of them a claimer dies."""
PATIENCE_S = 120.0


class Crowd:
    """The processes at work, and what the producers heard: the name of each accepted job."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.accepted: list[str] = []
        self.claimers = [spawn(consume, url, f"claimer-{n}") for n in range(CLAIMERS)]
        self.producers: list[ForkServerProcess] = []
        self._open: list[Connection] = []
        for number in range(PRODUCERS):
            here, there = FORK.Pipe(duplex=False)
            self.producers.append(spawn(produce, url, f"p{number}", EACH, there))
            there.close()
            self._open.append(here)
        self._next = CLAIMERS
        self.killed = 0

    def listen_until(self, count: int) -> None:
        """Until so many jobs are accepted."""
        while len(self.accepted) < count:
            ready = wait(self._open, PATIENCE_S)
            assert ready, f"only {len(self.accepted)} of {count} accepted"
            for pipe in ready:
                assert isinstance(pipe, Connection)
                try:
                    self.accepted.append(pipe.recv())
                except EOFError:
                    self._open.remove(pipe)

    def kill_a_claimer(self) -> None:
        """And start another, of another name, as on another machine."""
        victim = self.claimers.pop(0)
        victim.kill()
        victim.join()
        assert victim.exitcode == -signal.SIGKILL, "it had ended by itself"
        self.killed += 1
        self.claimers.append(spawn(consume, self.url, f"claimer-{self._next}"))
        self._next += 1

    def stop(self) -> None:
        for process in [*self.claimers, *self.producers]:
            process.kill()
            process.join()


def test_mysqld_and_claimers_are_killed_under_load(mysqld: Mysqld, url: str, store: Store) -> None:
    crowd, total = Crowd(url), PRODUCERS * EACH
    before = mysqld.kills
    try:
        for moment in range(1, KILLS + 1):
            crowd.listen_until(moment * total // (KILLS + 1))
            mysqld.kill()
            crowd.kill_a_claimer()
            mysqld.start()
        crowd.listen_until(total)
    finally:
        crowd.stop()
    with opened(url) as survivor:
        assert fsck(survivor).findings == []
        for _ in range(3):
            lives.recover(survivor)
        assert fsck(survivor).findings == []
        present, doubled, unfinished = _count(survivor)
    lost = set(crowd.accepted) - set(present)
    tell_figure(
        f"mysqld killed {mysqld.kills - before} times, claimers {crowd.killed} times: "
        f"enqueues acknowledged {len(crowd.accepted)}, present {len(present)}, "
        f"lost {len(lost)}, doubled {len(doubled)}, not completed {len(unfinished)}"
    )
    assert (lost, doubled, unfinished) == (set(), [], [])
    assert len(crowd.accepted) == len(set(crowd.accepted)) == total


def _count(store: Store) -> tuple[Counter[str], list[str], list[str]]:
    """Jobs by name; the names that ran to an end twice; those that did not end well."""
    succeeded = (
        select(func.count())
        .where(job_attempts.c.job_id == jobs.c.id, job_attempts.c.status == "succeeded")
        .scalar_subquery()
    )
    announced = (
        select(func.count())
        .where(job_events.c.job_id == jobs.c.id, job_events.c.type == "job.completed")
        .scalar_subquery()
    )
    with store.read() as tx:
        rows = tx.execute(
            select(jobs.c.external_id, jobs.c.status, succeeded.label("s"), announced.label("a"))
        ).all()
    present = Counter(row.external_id for row in rows)
    doubled = [name for name, count in present.items() if count > 1]
    doubled += [row.external_id for row in rows if row.s > 1 or row.a > 1]
    unfinished = [row.external_id for row in rows if row.status != JobStatus.COMPLETED]
    return present, doubled, unfinished


def test_cancels_retries_and_deletes_by_others_break_no_rule(url: str, store: Store) -> None:
    crowd = Crowd(url)
    meddlers = [spawn(disturb, url, seed) for seed in range(2)]
    try:
        crowd.listen_until(PRODUCERS * EACH // 2)
        crowd.kill_a_claimer()
        crowd.listen_until(PRODUCERS * EACH)
    finally:
        for meddler in meddlers:
            meddler.kill()
            meddler.join()
        crowd.stop()
    assert fsck(store).findings == []
    for _ in range(3):
        lives.recover(store)
    report = fsck(store)
    with store.read() as tx:
        ends = Counter(tx.execute(select(jobs.c.status)).scalars())
    tell_figure(
        f"canceled, retried and deleted at random meanwhile: {dict(ends)}, "
        f"rules broken {len(report.findings)}"
    )
    assert report.findings == []
    assert set(ends) <= {JobStatus.COMPLETED, JobStatus.CANCELED}
    assert make.count(store, "queue_jobs") == 0
