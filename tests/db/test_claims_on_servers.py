"""What only a server can show: which index a claim reads, what it locks, and who waits for whom."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Column, Connection, delete, event, func, insert, select, text

from encoder_core.specs import Priority
from encoder_core.states import AttemptStatus, JobStatus
from encoder_db.deliveries import lock_due
from encoder_db.dialect import in_seconds
from encoder_db.jobs import create_job
from encoder_db.messages import IDLE_S, forget_idle_queues, register_owner
from encoder_db.migrations import migrate
from encoder_db.pools import set_pool
from encoder_db.queue import due_messages, waiting_queues
from encoder_db.retention import delete_old_jobs
from encoder_db.rows import JobRow
from encoder_db.store import Store
from encoder_db.tables import job_attempts, queue_jobs, queue_owners, webhook_deliveries
from tests.db import builders as make

QUEUE = "default/p1/default"
ROWS = 10_000
CLAIM_INDEX = "ix_queue_jobs_claim"


@pytest.fixture(params=["mysql"])
def database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with Store.open(database_url) as store:
        migrate(store)
        yield store


def _fill(store: Store, due: int, *, later: int = 0, queues: Sequence[str] = (QUEUE,)) -> None:
    """Into each of the queues so many messages that are due and so many that are not yet."""
    ages = [(due, range(-9000, -10)), (later, range(1000, 9000))]
    rows = [
        {"queue": queue, "age": random.choice(spread)}
        for queue in queues
        for count, spread in ages
        for _ in range(count)
    ]
    age = text("UTC_TIMESTAMP(6) + INTERVAL :age SECOND")
    statement = insert(queue_jobs).values(
        visible_at=age,
        deliveries=0,
        failures=0,
        lease_seq=0,
        enqueued_at=in_seconds(0),
    )
    with store.begin() as tx:
        last = _last_number(tx, queue_jobs.c.job_id)
        tx.execute(statement, [{**row, "job_id": last + n} for n, row in enumerate(rows, 1)])
    with store.read() as tx:
        tx.execute(text("ANALYZE TABLE queue_jobs"))


def _last_number(tx: Connection, column: Column[int]) -> int:
    last: int = tx.execute(select(func.coalesce(func.max(column), 0))).scalar_one()
    return last


def _explain(store: Store, query: Any) -> list[dict[str, object]]:
    compiled = query.compile(store.engine, compile_kwargs={"literal_binds": True})
    with store.read() as tx:
        plan = tx.exec_driver_sql(f"EXPLAIN FORMAT=TRADITIONAL {compiled}".replace("%", "%%"))
        return [dict(row) for row in plan.mappings()]


@pytest.mark.parametrize(
    ("database_url", "rows"),
    [("mysql", 3), ("mysql", ROWS), ("mariadb", 3), ("mariadb", 300)],
    indirect=["database_url"],
)
def test_a_claim_reads_its_index_in_order_and_sorts_nothing(store: Store, rows: int) -> None:
    _fill(store, rows, later=rows)
    (plan,) = _explain(store, due_messages(QUEUE, 10))
    assert (plan["key"], plan["type"]) == (CLAIM_INDEX, "range")
    assert "filesort" not in str(plan["Extra"])
    assert "temporary" not in str(plan["Extra"])


def test_each_claimer_locks_what_it_takes_and_nobody_waits(store: Store) -> None:
    _fill(store, ROWS, later=ROWS)
    with store.begin() as first, store.begin() as second:
        ours = _take(first, 10)
        theirs = _take(second, 10)
        assert len(ours) == len(theirs) == 10
        assert not ours & theirs
        # A row and its entry in the claim index: two records for each message.
        assert _locked(store) == {CLAIM_INDEX: 20, "PRIMARY": 20}
    assert _locked(store) == {}


def _take(tx: Connection, count: int) -> set[int]:
    return {row.id for row in tx.execute(due_messages(QUEUE, count))}


def _locked(store: Store, table: str = "queue_jobs") -> dict[str, int]:
    """How many records of the table are locked, by index."""
    query = text(
        "SELECT index_name, COUNT(*) FROM performance_schema.data_locks "
        "WHERE object_schema = DATABASE() AND object_name = :table "
        "AND lock_type = 'RECORD' GROUP BY index_name"
    )
    with store.read() as tx:
        return {row[0]: row[1] for row in tx.execute(query, {"table": table})}


@pytest.mark.parametrize("rows", [30, ROWS], ids="among {0} rows".format)
def test_two_claims_that_are_about_to_commit_hold_what_they_take_and_nothing_else(
    store: Store, rows: int
) -> None:
    store.run(
        lambda tx: register_owner(tx, pool="default", priority=Priority.NORMAL, owner="default")
    )
    store.run(lambda tx: set_pool(tx, "default", max_concurrency=100))
    _fill(store, rows, later=rows)
    with ThreadPoolExecutor(2) as crowd, _stopped_before_commit(store) as one_more_has_stopped:
        claims = []
        for worker in ("first", "second"):
            claims.append(crowd.submit(make.claim_some, store, 10, worker=worker))
            assert one_more_has_stopped(), f"the {worker} waits for a lock"
        locked = _locked_by_each(store)
    a_row = "X,REC_NOT_GAP"
    holds = {("queue_jobs", CLAIM_INDEX, a_row): 10, ("queue_jobs", "PRIMARY", a_row): 10}
    assert locked == [holds, holds]
    taken = [message.id for claimed in claims for message in claimed.result()]
    assert len(set(taken)) == len(taken) == 20


@contextmanager
def _stopped_before_commit(store: Store) -> Iterator[Callable[[], bool]]:
    """Every transaction stops before its COMMIT until the end; what is given waits for the next."""
    stopped, go_on = threading.Semaphore(0), threading.Event()

    def stop(_: Connection) -> None:
        stopped.release()
        go_on.wait(120)

    event.listen(store.engine, "commit", stop)
    try:
        yield lambda: stopped.acquire(timeout=60)
    finally:
        go_on.set()


def _locked_by_each(store: Store) -> list[dict[tuple[str, str, str], int]]:
    """For each transaction how many records it holds or waits for: by table, index and mode."""
    query = text(
        "SELECT engine_transaction_id, object_name, index_name, lock_mode, COUNT(*) "
        "FROM performance_schema.data_locks "
        "WHERE object_schema = DATABASE() AND lock_type = 'RECORD' GROUP BY 1, 2, 3, 4"
    )
    found: dict[int, dict[tuple[str, str, str], int]] = {}
    with store.read() as tx:
        for transaction, table, index, mode, count in tx.execute(query):
            found.setdefault(transaction, {})[table, index, mode] = count
    return list(found.values())


def test_who_adds_a_job_does_not_wait_for_who_found_nothing(store: Store) -> None:
    with store.begin() as claimer:
        assert _take(claimer, 10) == set()
        job = make.create(store)  # would end in a lock wait time-out
    assert make.claim_one(store).job_id == job.id


def test_what_is_leased_or_delayed_costs_a_claim_nothing(store: Store) -> None:
    _fill(store, 3, later=ROWS)
    with store.begin() as tx:
        before = _rows_read(tx)
        assert len(_take(tx, 10)) == 3
        assert _rows_read(tx) - before <= 10


def _rows_read(tx: Connection) -> int:
    """Rows that this connection asked the storage engine for."""
    reads = tx.execute(text("SHOW SESSION STATUS LIKE 'Handler_read%'"))
    return sum(int(row[1]) for row in reads)


# --- Who waits, and who holds what -----------------------------------------------------------


class TestWhoWaits:
    """A claim asks first which queues have something due, and what their owners hold already."""

    @pytest.fixture(params=["mysql", "mariadb"])
    def database_url(self, request: pytest.FixtureRequest) -> str:
        url: str = request.getfixturevalue(f"{request.param}_url")
        return url

    @pytest.mark.usefixtures("mariadb_server")
    def test_the_more_owners_and_places_the_more_is_read_and_not_their_product(
        self, store: Store
    ) -> None:
        _owners_with_places(store, range(30))
        few = _read_to_see_who_waits(store)
        _owners_with_places(store, range(30, 300))
        assert _read_to_see_who_waits(store) <= 20 * few

    @pytest.mark.usefixtures("mariadb_server")
    def test_what_is_over_and_what_is_queued_behind_others_is_not_read(self, store: Store) -> None:
        _owners_with_places(store, range(30))
        before = _read_to_see_who_waits(store)
        _attempts(store, ["owner-1"] * 3000, AttemptStatus.SUCCEEDED)
        _fill(store, 3000, later=3000, queues=["default/p1/owner-1"])
        assert _read_to_see_who_waits(store) <= before + 100


def test_who_waits_is_read_from_the_indexes_of_claims_and_places(store: Store) -> None:
    _owners_with_places(store, range(30))
    _attempts(store, ["owner-1"] * 3000, AttemptStatus.SUCCEEDED)
    plan = {row["table"]: row for row in _explain(store, waiting_queues("local"))}
    places, first_due = plan["job_attempts"], plan["queue_jobs"]
    assert (places["key"], places["type"]) == ("ix_job_attempts_slots", "ref")
    assert str(places["ref"]).endswith("pools.name,holding.status")
    assert (first_due["key"], first_due["type"]) == (CLAIM_INDEX, "ref")
    for row in (places, first_due):
        assert "Using index" in str(row["Extra"])
        assert "filesort" not in str(row["Extra"])


def _owners_with_places(store: Store, numbers: range) -> None:
    """Each has one job in the queue and one under way."""
    names = [f"owner-{number}" for number in numbers]
    queues = [{"queue": f"default/p1/{name}", "owner": name} for name in names]
    shared = {"pool": "default", "priority": 1, "weight": 1, "last_served_at": in_seconds(0)}
    with store.begin() as tx:
        tx.execute(insert(queue_owners).values(shared), queues)
    _fill(store, 1, queues=[queue["queue"] for queue in queues])
    _attempts(store, names, AttemptStatus.RUNNING)


def _attempts(store: Store, owners: Sequence[str], status: AttemptStatus) -> None:
    shared = {"number": 1, "status": status, "executor": "local", "worker": "w", "pool": "default"}
    shared |= {"token_hash": bytes(32), "created_at": in_seconds(0)}
    with store.begin() as tx:
        last = _last_number(tx, job_attempts.c.job_id)
        rows = [{"job_id": last + number, "owner": owner} for number, owner in enumerate(owners, 1)]
        tx.execute(insert(job_attempts).values(shared), rows)
    with store.read() as tx:
        tx.execute(text("ANALYZE TABLE job_attempts, queue_owners"))


def _read_to_see_who_waits(store: Store) -> int:
    with store.begin() as tx:
        before = _rows_read(tx)
        assert tx.execute(waiting_queues("local")).all()
        return _rows_read(tx) - before


# --- Queues that are forgotten ---------------------------------------------------------------


class TestIdleQueues:
    """Retention forgets them; whoever puts something in meanwhile is not forgotten with them."""

    @pytest.fixture(params=["mysql", "mariadb"])
    def database_url(self, request: pytest.FixtureRequest) -> str:
        url: str = request.getfixturevalue(f"{request.param}_url")
        return url

    @pytest.mark.usefixtures("mariadb_server")
    def test_a_claim_reads_nothing_of_them_any_more(self, store: Store) -> None:
        _owners_with_places(store, range(30))
        before = _read_to_see_who_waits(store)
        _idle_queues(store, 1200)
        assert _read_to_see_who_waits(store) > before + 1200
        delete_old_jobs(store, older_than_h=48)
        assert make.count(store, "queue_owners") == 30
        with store.read() as tx:
            tx.execute(text("ANALYZE TABLE queue_owners"))
        assert _read_to_see_who_waits(store) <= before + 10

    @pytest.mark.usefixtures("mariadb_server")
    def test_a_queue_stays_into_which_a_job_is_being_put(self, store: Store) -> None:
        _idle_queues(store, 3)
        idle = [f"default/p1/idle-{number}" for number in range(3)]
        with store.begin() as tx:
            create_job(tx, spec=make.spec(), owner="idle-1", keys=store.keys)
            assert store.run(lambda other: forget_idle_queues(other, idle)) == 2
        assert store.run(lambda tx: forget_idle_queues(tx, idle)) == 0
        assert make.claim_one(store).queue == idle[1]

    @pytest.mark.usefixtures("mariadb_server")
    def test_who_puts_a_job_into_one_that_is_being_forgotten_waits_and_makes_it_anew(
        self, store: Store
    ) -> None:
        _idle_queues(store, 1)
        asked = threading.Event()

        def note(_: Any, __: Any, statement: str, *rest: Any) -> None:
            if "FROM queue_owners" in statement and " SHARE" in statement:
                asked.set()

        event.listen(store.engine, "before_cursor_execute", note)
        with ThreadPoolExecutor(1) as crowd:
            with store.begin() as tx:
                assert forget_idle_queues(tx, ["default/p1/idle-0"]) == 1
                putting = crowd.submit(make.create, store, owner="idle-0")
                assert asked.wait(60)
            job = putting.result(60)
        assert make.claim_one(store).job_id == job.id

    @pytest.mark.usefixtures("mariadb_server")
    def test_whoever_comes_first_every_job_is_in_a_queue_that_claims_know(
        self, store: Store
    ) -> None:
        rounds, names = 15, ["idle-0", "idle-1", "idle-2"]
        queues = [f"default/p1/{name}" for name in names]
        together = threading.Barrier(len(names) + 1)
        with ThreadPoolExecutor(len(names) + 1) as crowd:

            def put(name: str) -> None:
                together.wait(60)
                make.create(store, owner=name)

            def forget() -> None:
                together.wait(60)
                store.run(lambda tx: forget_idle_queues(tx, queues))

            for _ in range(rounds):
                with store.begin() as tx:
                    tx.execute(delete(queue_jobs))
                    tx.execute(delete(queue_owners))
                _idle_queues(store, len(names))
                for done in [crowd.submit(forget), *(crowd.submit(put, name) for name in names)]:
                    done.result(60)
                claimed = make.claim_some(store, 10)
                assert sorted(message.queue for message in claimed) == queues


def _idle_queues(store: Store, count: int) -> None:
    """Served two days ago, and empty."""
    rows = [{"queue": f"default/p1/idle-{n}", "owner": f"idle-{n}"} for n in range(count)]
    shared = {"pool": "default", "priority": 1, "weight": 1}
    with store.begin() as tx:
        long_ago = insert(queue_owners).values(last_served_at=in_seconds(-2 * IDLE_S), **shared)
        tx.execute(long_ago, rows)


# --- Webhooks ---------------------------------------------------------------------------------


DEAD, QUICK = b"d" * 16, b"q" * 16


@pytest.mark.parametrize("rows", [100, ROWS], ids="{0} of its deliveries are due".format)
def test_a_host_that_is_passed_over_costs_a_claim_the_same_however_much_waits(
    store: Store, rows: int
) -> None:
    _fill_deliveries(store, {DEAD: rows, QUICK: 3})
    with store.begin() as tx:
        before = _rows_read(tx)
        found = lock_due(tx, limit=8, skip_hosts=frozenset({DEAD}), most_of=lambda host: 2)
        assert _rows_read(tx) - before < 100
        assert [bytes(row["host_hash"]) for row in found] == [QUICK, QUICK]
        assert _locked(store, "webhook_deliveries") == {
            "PRIMARY": 2,
            "ix_webhook_deliveries_of_host": 2,
        }


def _fill_deliveries(store: Store, due: dict[bytes, int]) -> None:
    """So many for each host, those of the first one due first."""
    hosts = [host for host, count in due.items() for _ in range(count)]
    same = {"event_type": "job.queued", "seq": 1, "trigger_kind": "auto", "target": b""}
    statement = insert(webhook_deliveries).values(
        next_attempt_at=text("UTC_TIMESTAMP(6) - INTERVAL :age SECOND"), attempts=0, lease_seq=0
    )
    rows = [
        {
            **same,
            "event_id": number,
            "event_uuid": uuid4(),
            "job_id": number,
            "job_uuid": uuid4(),
            "host_hash": host,
            "age": len(hosts) - number,
        }
        for number, host in enumerate(hosts)
    ]
    with store.begin() as tx:
        tx.execute(statement, rows)


# --- Many at once, on every server that is promised ------------------------------------------


class TestManyAtOnce:
    """Producers, claimers and cancellers together: every job ends, and ends once."""

    JOBS = 24

    @pytest.fixture(params=["mysql", "mariadb"])
    def database_url(self, request: pytest.FixtureRequest) -> str:
        url: str = request.getfixturevalue(f"{request.param}_url")
        return url

    @pytest.mark.usefixtures("mariadb_server")
    def test_every_job_ends_once(self, store: Store) -> None:
        made: list[JobRow] = []
        produced = threading.Event()
        problems: list[BaseException] = []

        def guarded(work: object) -> threading.Thread:
            def run() -> None:
                try:
                    work()  # type: ignore[operator]  # one of the functions below
                except BaseException as error:  # shown by the assertion below
                    problems.append(error)

            return threading.Thread(target=run)

        def produce() -> None:
            made.extend(
                make.create(store, owner=f"owner-{number % 3}") for number in range(self.JOBS)
            )
            produced.set()

        def consume(name: str) -> None:
            while True:
                last = produced.is_set()
                messages = make.claim_some(store, 3, worker=name)
                for message in messages:
                    _do(store, message, name)
                if last and not messages and _all_over(store, made):
                    return

        threads = [guarded(produce), *(guarded(lambda n=n: consume(f"w{n}")) for n in range(3))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert problems == []
        assert [make.status(store, job) for job in made] == [JobStatus.COMPLETED] * self.JOBS
        with store.read() as tx:
            attempts = Counter(tx.execute(select(job_attempts.c.job_id)).scalars())
        assert set(attempts.values()) == {1}
        for job in made:
            assert [seq for seq, _ in make.events(store, job)] == [1, 2, 3, 4, 5]


def _do(store: Store, message: make.QueueMessage, worker: str) -> None:
    opened = make.open_attempt(store, message, executor="local", worker=worker)
    assert isinstance(opened, make.Claimed), opened
    assert make.mark_starting(store, opened)
    make.say(store, opened, make.Started())
    make.complete(store, opened)


def _all_over(store: Store, made: list[JobRow]) -> bool:
    return all(make.status(store, job) is JobStatus.COMPLETED for job in made)
