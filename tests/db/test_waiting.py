"""Why a queued job does not run, as the API and kubectl say it."""

from __future__ import annotations

import pytest

from encoder_core.failures import failure
from encoder_core.states import JobStatus
from encoder_db import cluster
from encoder_db.jobs import cancel_job
from encoder_db.pools import StopPolicy, operator_full
from encoder_db.rows import JobRow
from encoder_db.store import Store
from tests.db import builders as make

POOL = "k8s"


def mirror(
    store: Store, *, places: int = 4, stop: StopPolicy = "None", per_owner: int | None = None
) -> None:
    store.run(
        lambda tx: cluster.mirror_pool(
            tx, POOL, max_concurrency=places, stop_policy=stop, max_per_owner=per_owner
        )
    )


def why(store: Store, job: JobRow) -> tuple[str, str]:
    waiting = make.read(store, job).waiting
    assert waiting is not None
    return waiting.reason, waiting.message


@pytest.mark.parametrize(
    ("stop", "places", "want"),
    [
        pytest.param("Hold", 4, "Pool k8s is held: nothing starts in it.", id="held"),
        pytest.param("Drain", 4, "Pool k8s is drained: nothing starts in it.", id="drained"),
        pytest.param("None", 0, "Pool k8s is scaled to 0: nothing starts.", id="scaled to zero"),
    ],
)
def test_its_pool_is_stopped(store: Store, stop: StopPolicy, places: int, want: str) -> None:
    mirror(store)
    job = make.create(store, make.spec(pool=POOL))
    mirror(store, stop=stop, places=places)
    assert why(store, job) == ("PoolHeld", want)


def test_its_pool_is_full(store: Store) -> None:
    mirror(store, places=1)
    make.create(store, make.spec(pool=POOL))
    make.claimed(store, engine="kubernetes")
    second = make.create(store, make.spec(pool=POOL))
    assert why(store, second) == ("PoolFull", "Pool k8s is full: 1 of 1 places taken.")


def test_its_owner_has_all_he_may_have(store: Store) -> None:
    mirror(store, per_owner=1)
    make.create(store, make.spec(pool=POOL))
    make.claimed(store, engine="kubernetes")
    second = make.create(store, make.spec(pool=POOL))
    reason, message = why(store, second)
    assert reason == "OwnerFull"
    assert message == "default holds 1 of the 1 places that one owner may have in pool k8s."


def test_it_is_not_due_again_yet(store: Store) -> None:
    mirror(store)
    job = make.create(store, make.spec(pool=POOL))
    attempt = make.starting(store, engine="kubernetes")
    make.finish(store, attempt, exit_code=1, failure=failure("source_unreachable", "No answer."))
    reason, message = why(store, job)
    assert reason == "Retrying"
    assert message.startswith("Attempt 2 follows at ")
    assert message.endswith(" UTC after source_unreachable: No answer.")


def test_the_cluster_starts_nothing_in_its_pool(store: Store) -> None:
    mirror(store)
    store.run(lambda tx: cluster.note_blocked(tx, POOL, "0/2 nodes are available."))
    job = make.create(store, make.spec(pool=POOL))
    assert why(store, job) == ("PoolBlocked", "Pool k8s: 0/2 nodes are available.")


@pytest.mark.parametrize(
    ("running", "most", "want"),
    [
        pytest.param(100, 100, "The operator runs 100 of at most 100 jobs", id="full"),
        pytest.param(120, 100, "The operator runs 120 of at most 100 jobs", id="lowered"),
        pytest.param(0, 0, "The operator starts nothing: it may run 0 jobs", id="stopped"),
    ],
)
def test_the_operator_runs_as_many_as_it_may(
    store: Store, running: int, most: int, want: str
) -> None:
    mirror(store)
    said = operator_full(running=running, most=most)
    store.run(lambda tx: cluster.note_blocked(tx, POOL, said))
    job = make.create(store, make.spec(pool=POOL))
    assert why(store, job) == ("OperatorFull", f"{want} (ENCODER_OPERATOR_MAX_RUNNING).")


def test_it_is_next(store: Store) -> None:
    mirror(store)
    job = make.create(store, make.spec(pool=POOL))
    assert why(store, job) == ("Queued", "Its turn comes next or soon in pool k8s.")


def test_what_its_engine_noted_is_gone_with_the_next_change(store: Store) -> None:
    mirror(store)
    job = make.create(store, make.spec(pool=POOL))
    attempt = make.starting(store, engine="kubernetes")

    def note() -> bool:
        return store.run(
            lambda tx: cluster.note_waiting(
                tx, job.id, reason="PodUnschedulable", message="0/2 nodes are available."
            )
        )

    assert note()
    assert why(store, job) == ("PodUnschedulable", "0/2 nodes are available.")
    make.say(store, attempt, make.Started())
    assert make.status(store, job) is JobStatus.RUNNING
    assert make.read(store, job).waiting is None
    assert not note()  # late: it runs


def test_who_runs_waits_for_nothing(store: Store) -> None:
    mirror(store)
    job = make.create(store, make.spec(pool=POOL))
    make.starting(store, engine="kubernetes")
    assert make.read(store, job).waiting is None


def test_resources_are_told_of_a_job_that_was_stopped_just_now(store: Store) -> None:
    """Of one that waits there is no Pod whose end would tell."""
    mirror(store, places=0)
    asked = make.spec(pool=POOL)
    applied = store.run(
        lambda tx: cluster.adopt_job(tx, spec=asked, name="by-hand", uid="u", keys=store.keys)
    )
    assert applied is not None
    other = make.create(store, asked)
    cancel_job(store, other.id, owner=None)  # no resource stands for it
    with store.read() as tx:
        assert cluster.lately_stopped_resources(tx, lately_s=10) == []
    cancel_job(store, applied.id, owner=None)
    with store.read() as tx:
        assert cluster.lately_stopped_resources(tx, lately_s=10) == ["by-hand"]
        assert cluster.lately_stopped_resources(tx, lately_s=-10) == []
