"""A job that kills whoever takes it ends as a dead letter, and holds up those beside it once."""

from __future__ import annotations

from encoder_core.states import JobStatus
from encoder_db.fsck import fsck
from encoder_db.queue import MAX_ABANDONED
from encoder_db.redrive import list_dead_letters
from encoder_db.store import Store
from tests.db import builders as make
from tests.figures import tell_figure

BYSTANDERS, BATCH = 20, 3


def test_a_poison_job_is_given_up_and_its_neighbours_wait_for_one_lease_at_most(
    store: Store,
) -> None:
    poison = make.create(store)
    beside = [make.create(store) for _ in range(BYSTANDERS)]
    deaths, passed_s, delays_s = 0, 0.0, list[float]()
    while make.status(store, poison) is not JobStatus.FAILED:
        messages = make.claim_some(store, BATCH)
        if poison.id in {message.job_id for message in messages}:
            deaths += 1  # with all that it had taken
            continue
        for message in messages:
            opened = make.open_attempt(store, message, executor="local", worker=make.WORKER)
            assert isinstance(opened, make.Claimed)
            make.complete(store, opened)
            delays_s.append(passed_s)
        if not messages:
            make.let_pass(store, make.LEASE_S + 1)
            passed_s += make.LEASE_S + 1
    held_up = sum(delay > 0 for delay in delays_s)
    tell_figure(
        f"poison: given up after {deaths} deaths; of {BYSTANDERS} beside it {held_up} waited, "
        f"the longest {max(delays_s):.0f} s of a lease of {make.LEASE_S:.0f} s"
    )
    assert deaths == MAX_ABANDONED
    assert [make.status(store, job) for job in beside] == [JobStatus.COMPLETED] * BYSTANDERS
    assert held_up <= BATCH - 1
    assert max(delays_s) <= make.LEASE_S + 1
    with store.read() as tx:
        (letter,) = list_dead_letters(tx, owner=None)
    assert (letter.job_id, letter.deliveries) == (poison.id, MAX_ABANDONED)
    assert fsck(store).findings == []
