"""
A job's life in the operator's hands, and a reaper that ends the operator at one moment of it.

In one process: what the dead would have done next does not happen, what they had not committed is
rolled back, and another operator begins, with nothing of the first one's memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import event

from encoder_core.names import resource_name
from encoder_core.reports import Started
from encoder_core.states import FINAL_JOB, JobStatus
from encoder_db.jobs import cancel_job
from encoder_db.store import Store
from encoder_operator.kube import JOBS, PODS, SECRETS
from tests.db import builders as make
from tests.operator import invariants
from tests.operator.desk import BY_HAND, RUNNING, SUCCEEDED, Desk

CRASH_S: Final = 75.0
"""Longer than the lease of a claim and than the one of a Pod that is being made."""
ROUNDS: Final = 40
WRITE: Final = re.compile(r"\s*(INSERT INTO|UPDATE|DELETE FROM) (\w+)")


class Killed(BaseException):
    """The process is gone: whatever it would have done next does not happen."""


class Reaper:
    """Counts the moments, and kills at one of them. Dead is dead: every later call raises too."""

    def __init__(self, store: Store, *, at: int | None) -> None:
        self._store = store
        self._at = at
        self.count = 0
        self.dead = False
        self.armed = False
        self.moments: list[str] = []

    def pass_by(self, moment: str) -> None:
        if not self.armed:
            return
        if self.dead:
            raise Killed
        self.count += 1
        self.moments.append(moment)
        if self.count == self._at:
            self.dead = True
            raise Killed

    @contextmanager
    def watching(self, *, statements: bool) -> Iterator[None]:
        """Each commit, before it happens; and each write in it when `statements` says so."""

        def before_commit(_: Any) -> None:
            self.pass_by("commit")

        def after_statement(_: Any, __: Any, text: str, *___: Any) -> None:
            found = WRITE.match(text)
            if found is not None:
                self.pass_by(f"{found[1].partition(' ')[0]} {found[2]}")

        engine = self._store.engine
        event.listen(engine, "commit", before_commit)
        if statements:
            event.listen(engine, "after_cursor_execute", after_statement)
        try:
            yield
        finally:
            event.remove(engine, "commit", before_commit)
            if statements:
                event.remove(engine, "after_cursor_execute", after_statement)


@dataclass(frozen=True, slots=True)
class Story:
    """What a job comes to."""

    name: str
    ends: JobStatus = JobStatus.COMPLETED
    by_hand: bool = False
    dies: bool = False
    """The worker of its first attempt is killed."""


WELL: Final = Story("a life that goes well")
RETRIED: Final = Story("a worker that is killed, and a second attempt", dies=True)
CANCELED: Final = Story("a job that is canceled while it runs", ends=JobStatus.CANCELED)
BY_HANDS: Final = Story("a job that is applied with kubectl", by_hand=True)
STORIES: Final = (WELL, RETRIED, CANCELED, BY_HANDS)


class Life:
    """After the kill another operator goes on, some time later."""

    def __init__(self, store: Store, story: Story, *, at: int | None = None) -> None:
        self.store, self.story = store, story
        self.reaper = Reaper(store, at=at)
        self.pods = invariants.Pods()
        self._orders: dict[int, dict[str, Any]] = {}
        self.desk = Desk(store)
        if story.by_hand:
            self.name = "by-hand"
            self.desk.apply(self.name, BY_HAND)
        else:
            self.name = resource_name(self.desk.submit().uuid)

    def run(
        self, *, statements: bool = False, after_kill: Callable[[], None] = lambda: None
    ) -> None:
        """`after_kill` looks at what the dead one left."""
        self.desk.api.around_write = self._look_and_pass
        crashed = False
        with self.reaper.watching(statements=statements):
            for _ in range(ROUNDS):
                self.reaper.armed = True
                try:
                    if crashed:
                        self.desk.sweep()
                    self.desk.settle(self.name)
                    self.desk.dispatch()
                    self.desk.settle(self.name)
                except Killed:
                    pass
                self.reaper.armed = False
                if self.reaper.dead:
                    self.desk, self.reaper.dead, crashed = self.desk.another(), False, True
                    after_kill()
                    make.let_pass(self.store, CRASH_S)
                elif not self._move_on():
                    return

    def check(self) -> None:
        """It came to its end, once, and left nothing."""
        invariants.check(self.store, self.pods)
        left = [*self.desk.api.all(JOBS), *self.desk.api.all(PODS), *self.desk.api.all(SECRETS)]
        assert not left, [each["metadata"]["name"] for each in left]
        assert self.job is not None, "there is no job"
        status = make.status(self.store, self.job)
        assert status is self.story.ends, status

    @property
    def job(self) -> int | None:
        with self.store.read() as tx:
            found: int | None = tx.exec_driver_sql("SELECT MAX(id) FROM jobs").scalar()
        return found

    def _look_and_pass(self, moment: str) -> None:
        self.pods.look(self.desk.api.all(PODS))
        self.reaper.pass_by(moment)

    def _move_on(self) -> bool:
        """What node, worker, people and time do next. False when nothing is left."""
        desk, job = self.desk, self.job
        if job is None:
            return True
        document = make.read(self.store, job)
        if document.status in FINAL_JOB:
            make.let_pass(self.store, 3601)
            return bool(desk.api.all(JOBS))
        attempt = document.attempt
        pods = {pod["metadata"]["name"]: pod for pod in desk.api.all(PODS)}
        pod = pods.get(f"{self.name}-a{attempt}")
        if pod is None or pod.get("status", {}).get("phase") in ("Failed", "Succeeded"):
            make.let_pass(self.store, CRASH_S)
        elif "status" not in pod:
            desk.move_pod(self.name, RUNNING, attempt=attempt)
            self._orders[attempt] = order = desk.order(self.name, attempt)
            assert desk.say_by(order, Started()), "its token is void"
        else:
            self._end_worker(job, attempt)
        return True

    def _end_worker(self, job: int, attempt: int) -> None:
        desk = self.desk
        if self.story.ends is JobStatus.CANCELED:
            cancel_job(self.store, job, owner=None)
        elif self.story.dies and attempt == 1:
            desk.move_pod(self.name, DIED)
        else:
            for each in range(1, attempt + 1):  # the earlier ones live on somewhere, it seems
                self._succeed(each)
            desk.move_pod(self.name, SUCCEEDED, attempt=attempt)

    def _succeed(self, attempt: int) -> None:
        """What the worker of that attempt says, whether or not it is believed."""
        for report in (make.uploaded(sha256=invariants.mark(attempt)), make.succeeded()):
            if attempt in self._orders:
                self.desk.say_by(self._orders[attempt], report)


DIED: Final[dict[str, Any]] = {
    "phase": "Failed",
    "containerStatuses": [
        {"name": "worker", "state": {"terminated": {"exitCode": 137, "reason": "Error"}}}
    ],
}
