"""
A process is killed at each step of what it does to a job, and the job still ends.

Right after the kill every rule of the record holds (`encoder fsck` finds nothing): no step leaves
half a change. Then whoever owns that crash goes on: the next claim, the operator's list at its
start, or the caller who got no answer and asks again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from encoder_core.states import JobStatus
from encoder_db.fsck import fsck
from encoder_db.jobs import read_job
from encoder_db.rows import JobRow
from encoder_db.store import Store
from tests.db import builders as make
from tests.figures import tell_figure
from tests.kill import lives
from tests.kill.actors import Act, run_act
from tests.kill.conftest import steps_of

J = JobStatus
GONE = None

LIVES = [
    pytest.param(lives.waits, lives.local_life, J.COMPLETED, id="a life in the local engine"),
    pytest.param(lives.waits_for_a_pod, lives.life_in_a_pod, J.COMPLETED, id="a life in a Pod"),
    pytest.param(lives.waits, lives.cancel, J.CANCELED, id="canceling what waits"),
    pytest.param(lives.runs, lives.cancel, J.CANCELED, id="canceling what runs"),
    pytest.param(lives.runs_in_a_pod, lives.cancel, J.CANCELED, id="canceling what runs in a Pod"),
    pytest.param(lives.runs, lives.delete, GONE, id="deleting what runs"),
    pytest.param(lives.failed, lives.retry, J.COMPLETED, id="a retry by request"),
    pytest.param(lives.failed, lives.redrive, J.COMPLETED, id="redriving by failure"),
    pytest.param(lives.waits, lives.bump, J.COMPLETED, id="a bump"),
    pytest.param(lives.is_old, lives.retain, GONE, id="retention"),
    pytest.param(lives.runs, lives.take_over, J.COMPLETED, id="a take-over"),
]


@pytest.mark.parametrize(("made", "act", "ends"), LIVES)
def test_killed_at_each_step_the_job_ends_and_ends_once(
    store: Store,
    url: str,
    request: pytest.FixtureRequest,
    made: Callable[[Store], JobRow],
    act: Callable[[Store, int], None],
    ends: JobStatus | None,
) -> None:
    make.kubernetes_pool(store)

    def bound(job: JobRow) -> Act:
        return partial(lives.on_job, act, job.id)

    count = run_act(url, bound(made(store)))
    assert count
    lives.recover(store)
    steps = steps_of(count, sample=5)
    lost, doubled = [], []
    for step in steps:
        job = made(store)
        died = run_act(url, bound(job), kill_at=step) is None
        assert died, f"step {step} of {count} never came"
        assert fsck(store).findings == [], f"after step {step} of {count}"
        if _is_there(store, job):
            act(store, job.id)  # who got no answer asks again
        lives.recover(store)
        assert fsck(store).findings == [], f"after step {step} of {count} and recovering"
        if _end_of(store, job) is not ends:
            lost.append((step, _end_of(store, job)))
        said = [kind for _, kind in make.events(store, job)]
        wanted = {"output.uploaded": 2, "job.completed": 1} if ends is J.COMPLETED else {}
        if any(said.count(kind) != times for kind, times in wanted.items()):
            doubled.append((step, said))
    name = request.node.callspec.id
    tell_figure(
        f"{name}: killed at {len(steps)} of {count} steps, lost {len(lost)}, doubled {len(doubled)}"
    )
    assert (lost, doubled) == ([], [])


def _is_there(store: Store, job: JobRow) -> bool:
    return _end_of(store, job) is not GONE


def _end_of(store: Store, job: JobRow) -> JobStatus | None:
    with store.read() as tx:
        found = read_job(tx, job.id, owner=None)
    return GONE if found is None else found.status
