"""The rest of what can be done in any order: with leases, with pools, and by receivers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from sqlalchemy import RowMapping, select

from encoder_core.states import OPEN_ATTEMPT, JobStatus
from encoder_db.attempts import withdraw
from encoder_db.deliveries import (
    Delivery,
    claim_deliveries,
    finish_delivery,
    reschedule_delivery,
)
from encoder_db.events import list_events
from encoder_db.messages import extend, nack, release
from encoder_db.pools import StopPolicy, read_pool
from encoder_db.queue import Engine, dead_letter
from encoder_db.redelivery import redeliver
from encoder_db.tables import dead_letters, job_attempts, jobs, queue_jobs
from tests.db import builders as make
from tests.db.machine import A_JOB, A_WORKER, HOUR_S, POOLS, WORKERS, AnyOrder, Fresh, PoolRules

Rows = Mapping[int, RowMapping]

A_POOL = st.sampled_from(sorted(POOLS))
A_LEASE = st.integers(min_value=0, max_value=7)


class AnyOrderOfQueue(AnyOrder):
    """
    `leases` are messages that somebody was handed, some of them long ago; `sending` deliveries.

    What a lease may do is said by the row before: with its number everything, without it nothing.
    """

    def __init__(self, fresh: Fresh) -> None:
        super().__init__(fresh)
        self.leases: list[make.QueueMessage] = []
        self.taken: Counter[tuple[str, ...]] = Counter()
        self.sending: list[Delivery] = []
        self.told: dict[int, int] = {}

    # --- Leases ----------------------------------------------------------------------------------

    @rule(
        worker=st.sampled_from(WORKERS),
        limit=st.integers(1, 3),
        engine=st.sampled_from(sorted(set(POOLS.values()))),
    )
    def lease(self, worker: str, limit: int, engine: Engine) -> None:
        """From no stopped pool, and no more than it and its owners have room for."""
        before = self._queue()
        found = make.claim_some(self.store, limit, worker=worker, engine=engine)
        self.leases += found
        assert len(found) <= limit
        assert len({message.job_id for message in found}) == len(found)
        wanted: Counter[tuple[str, ...]] = Counter()
        for message in found:
            owner = message.queue.rpartition("/")[2]
            wanted.update([(message.pool,), (message.pool, owner)])
            assert message.lease_seq == before[message.id]["lease_seq"] + 1
            assert POOLS[message.pool] == engine
        for place, count in wanted.items():
            rules = self.pools[place[0]]
            assert rules.policy == "None"
            most = rules.places if len(place) == 1 else rules.per_owner
            assert most is None or count <= max(0, most - self.taken[place])

    @rule(which=A_LEASE, worker=st.sampled_from(WORKERS))
    @precondition(lambda self: self.leases)
    def open_late(self, which: int, worker: str) -> None:
        """Long after the claim, or twice."""
        message = self._lease(which)
        is_held, opened = self._is_held(message), self.begin(message, worker)
        if isinstance(opened, make.Claimed):
            assert is_held

    @rule(which=A_LEASE, backoff_s=st.sampled_from([0.0, 90.0]))
    @precondition(lambda self: self.leases)
    def give_back_with_an_error(self, which: int, backoff_s: float) -> None:
        def is_charged(before: RowMapping, after: RowMapping | None) -> bool:
            return (
                after is not None
                and after["failures"] == before["failures"] + 1
                and after["deliveries"] == before["deliveries"]
                and after["lease_seq"] == before["lease_seq"] + 1
                and (after["leased_by"], after["last_error"]) == (None, "no room")
            )

        self._use(
            which,
            lambda held: self.store.run(lambda tx: nack(tx, held, backoff_s, "no room")),
            is_charged,
        )

    @rule(which=A_LEASE)
    @precondition(lambda self: self.leases)
    def extend(self, which: int) -> None:
        def lasts_longer(before: RowMapping, after: RowMapping | None) -> bool:
            names = set(before) - {"visible_at"}
            return after is not None and {n: after[n] for n in names} == {
                n: before[n] for n in names
            }

        self._use(which, lambda held: extend(self.store, held, HOUR_S), lasts_longer)

    @rule(which=A_LEASE)
    @precondition(lambda self: self.leases)
    def release(self, which: int) -> None:
        def is_as_if_never_handed_out(before: RowMapping, after: RowMapping | None) -> bool:
            return (
                after is not None
                and after["deliveries"] == max(0, before["deliveries"] - 1)
                and after["failures"] == before["failures"]
                and after["lease_seq"] == before["lease_seq"] + 1
                and after["leased_by"] is None
            )

        self._use(which, lambda held: release(self.store, held), is_as_if_never_handed_out)

    @rule(which=A_LEASE)
    @precondition(lambda self: self.leases)
    def give_up(self, which: int) -> None:
        message = self._lease(which)
        letters = self._letters()

        def is_a_dead_letter(before: RowMapping, after: RowMapping | None) -> bool:
            return after is None and self._ended_as_given_up(message.job_id, before, letters)

        self._use(which, lambda held: dead_letter(self.store, held, "poison"), is_a_dead_letter)

    @rule(which=A_WORKER)
    @precondition(lambda self: self.open)
    def withdraw(self, which: int) -> None:
        claimed = self.held(which)
        taken = self._count_taken()
        if withdraw(self.store, claimed, delay_s=0.0):
            assert (taken - self._count_taken()).total() == 2  # of its pool, and of its owner

    # --- Pools -----------------------------------------------------------------------------------

    @rule(name=A_POOL, policy=st.sampled_from(["None", "Hold", "Drain"]))
    def stop_or_open(self, name: str, policy: StopPolicy) -> None:
        rules = self.pools[name]
        self.pools[name] = PoolRules(places=rules.places, per_owner=rules.per_owner, policy=policy)
        self.say_pool(name)

    @rule(name=A_POOL, places=st.integers(0, 4), per_owner=st.sampled_from([None, 1, 2]))
    def scale(self, name: str, places: int, per_owner: int | None) -> None:
        policy = self.pools[name].policy
        self.pools[name] = PoolRules(places=places, per_owner=per_owner, policy=policy)
        self.say_pool(name)

    @invariant()
    def places_are_given_within_the_limits_and_never_in_a_stopped_pool(self) -> None:
        """Lowering a limit ends nothing: then there are more, and not one comes."""
        taken = self._count_taken()
        for place, count in taken.items():
            rules = self.pools[place[0]]
            most = rules.places if len(place) == 1 else rules.per_owner
            if rules.policy != "None":
                most = 0
            assert most is None or count <= max(most, self.taken[place]), place
        self.taken = taken

    @invariant()
    def a_pool_tells_how_many_places_are_taken(self) -> None:
        with self.store.read() as tx:
            rows = {name: read_pool(tx, name) for name in POOLS}
        for name, row in rows.items():
            assert row is not None
            assert row.active == self._count_taken()[name,]

    # --- Receivers -------------------------------------------------------------------------------

    @rule(limit=st.integers(1, 3))
    def take_deliveries(self, limit: int) -> None:
        self.sending += claim_deliveries(self.store, worker="sender", limit=limit, lease_s=60)

    @rule(which=A_LEASE)
    @precondition(lambda self: self.sending)
    def deliver(self, which: int) -> None:
        self._deliver(self.sending[which % len(self.sending)])

    @rule(which=A_LEASE)
    @precondition(lambda self: self.sending)
    def fail_to_deliver(self, which: int) -> None:
        delivery = self.sending[which % len(self.sending)]
        reschedule_delivery(self.store, delivery, delay_s=30, outcome="server_error")

    @rule(which=A_JOB, event=st.integers(0, 4))
    @precondition(lambda self: self.jobs)
    def deliver_again(self, which: int, event: int) -> None:
        with self.store.read() as tx:
            events = list_events(tx, self.job(which))
        if events:
            redeliver(self.store, self.job(which), events[event % len(events)].id)

    def _deliver(self, delivery: Delivery) -> None:
        """What counts as delivered came in the order of its job's versions, and once."""
        is_ours = finish_delivery(self.store, delivery, outcome="delivered", status=200)
        if is_ours and delivery.trigger_kind == "auto":
            assert delivery.seq > self.told.get(delivery.job_id, 0)
            self.told[delivery.job_id] = delivery.seq

    def go_on_for_an_hour(self) -> None:
        super().go_on_for_an_hour()
        while due := claim_deliveries(self.store, worker="sender", limit=20, lease_s=60):
            for delivery in due:
                self._deliver(delivery)

    def everything_is_over(self) -> None:
        super().everything_is_over()
        assert make.count(self.store, "webhook_deliveries") == 0

    # --- What the rules share --------------------------------------------------------------------

    def _lease(self, which: int) -> make.QueueMessage:
        return self.leases[which % len(self.leases)]

    def _queue(self) -> Rows:
        with self.store.read() as tx:
            rows = tx.execute(select(queue_jobs)).mappings().all()
        return {row["id"]: row for row in rows}

    def _is_held(self, message: make.QueueMessage) -> bool:
        row = self._queue().get(message.id)
        return row is not None and row["lease_seq"] == message.lease_seq

    def _use(
        self,
        which: int,
        act: Callable[[make.QueueMessage], bool],
        is_right: Callable[[RowMapping, RowMapping | None], bool],
    ) -> None:
        """Who holds the lease changes this message and no other; who lost it changes nothing."""
        message = self._lease(which)
        is_held, before = self._is_held(message), self._queue()
        assert act(message) is is_held
        after = self._queue()
        changed = {number for number in before if after.get(number) != before[number]}
        assert set(after) <= set(before)
        assert changed <= ({message.id} if is_held else set())
        if is_held:
            row = before[message.id]
            assert is_right(row, after.get(message.id)), (row, after.get(message.id))

    def _letters(self) -> Mapping[int, Any]:
        with self.store.read() as tx:
            rows = tx.execute(select(dead_letters)).mappings().all()
        return {row["id"]: row for row in rows}

    def _ended_as_given_up(self, job: int, before: RowMapping, letters: Mapping[int, Any]) -> bool:
        """Failed, or canceled as it was asked to be; and one letter says where it came from."""
        with self.store.read() as tx:
            status = tx.execute(select(jobs.c.status).where(jobs.c.id == job)).scalar()
        new = [row for number, row in self._letters().items() if number not in letters]
        if status is None:
            return not new  # it was deleted, and its rows waited for this end
        told = ("job_id", "queue", "deliveries", "failures", "enqueued_at")
        return (
            status in (JobStatus.FAILED, JobStatus.CANCELED)
            and len(new) == 1
            and all(new[0][name] == before[name] for name in told)
        )

    def _count_taken(self) -> Counter[tuple[str, ...]]:
        query = select(job_attempts.c.pool, job_attempts.c.owner).where(
            job_attempts.c.status.in_(sorted(OPEN_ATTEMPT))
        )
        counted: Counter[tuple[str, ...]] = Counter()
        with self.store.read() as tx:
            for row in tx.execute(query):
                counted.update([(row.pool,), (row.pool, row.owner)])
        return counted
