"""The door to the database: what a transaction is on each of them, and when it is tried again."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pymysql
import pytest
from sqlalchemy import Connection, insert, make_url, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from encoder_core.errors import ConfigurationError
from encoder_db.dialect import TRUSTED_S, in_seconds, retry_reason
from encoder_db.store import PAUSE_S, TRIES, Store, now
from encoder_db.tables import instance_secrets, pools, workers


class Sleeps:
    """A clock that only notes for how long it was asked to sleep."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def clock() -> Sleeps:
    return Sleeps()


@pytest.fixture
def timed(database_url: str, clock: Sleeps) -> Iterator[Store]:
    with Store(make_url(database_url), clock=clock) as store:
        yield store


# --- Trying again ----------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1205, 1213], ids=["a lock wait", "a deadlock"])
def test_a_transaction_that_met_a_lock_is_tried_again_and_not_for_ever(
    timed: Store, clock: Sleeps, code: int
) -> None:
    tries = 0

    def work(tx: Connection) -> NoReturn:
        nonlocal tries
        tries += 1
        _leave(tx, "begun")
        raise OperationalError("", {}, pymysql.err.OperationalError(code, "no"))

    with pytest.raises(OperationalError):
        timed.run(work)
    assert tries == TRIES
    assert len(clock.slept) == TRIES - 1
    assert all(PAUSE_S[0] <= pause <= PAUSE_S[1] for pause in clock.slept)
    assert _left(timed) == []


def test_what_succeeds_later_is_done_once(timed: Store) -> None:
    tries = iter([True, True, False])

    def work(tx: Connection) -> str:
        _leave(tx, "done")
        if next(tries):
            raise OperationalError("", {}, pymysql.err.OperationalError(1213, "no"))
        return "yes"

    assert timed.run(work) == "yes"
    assert _left(timed) == ["done"]


def test_a_mistake_is_not_tried_again(timed: Store, clock: Sleeps) -> None:
    def work(tx: Connection) -> None:
        _leave(tx, "twice")
        _leave(tx, "twice")

    with pytest.raises(IntegrityError):
        timed.run(work)
    assert clock.slept == []
    assert _left(timed) == []


def _leave(tx: Connection, name: str) -> None:
    tx.execute(insert(instance_secrets).values(name=name, value=b"", created_at=in_seconds(0)))


def _left(where: Store | Connection) -> list[str]:
    if isinstance(where, Store):
        with where.read() as tx:
            return _left(tx)
    mine = instance_secrets.c.name != "key_check"  # which the start of a store leaves there
    return list(where.execute(select(instance_secrets.c.name).where(mine)).scalars())


@pytest.mark.parametrize("database_url", ["mysql"], indirect=True)
def test_a_real_deadlock_is_survived_by_both(store: Store) -> None:
    for name in ("a", "b"):
        store.run(lambda tx, name=name: _leave(tx, name))  # type: ignore[misc]  # a default binds the loop's value
    meet = threading.Barrier(2, timeout=10)
    tries = {"ab": 0, "ba": 0}

    def work(tx: Connection, order: str) -> None:
        tries[order] += 1
        for place, name in enumerate(order):
            row = instance_secrets.c.name == name
            tx.execute(update(instance_secrets).where(row).values(value=order.encode()))
            if place == 0 and tries[order] == 1:
                meet.wait()

    def run(order: str) -> None:
        store.run(lambda tx: work(tx, order))

    threads = [threading.Thread(target=run, args=(order,)) for order in tries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(tries.values()) == [1, 2]


def test_a_busy_file_is_worth_another_try(tmp_path: Path) -> None:
    path = tmp_path / "busy.db"
    holder = sqlite3.connect(path, isolation_level=None)
    other = sqlite3.connect(path, isolation_level=None, timeout=0)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError) as busy:
        other.execute("BEGIN IMMEDIATE")
    assert retry_reason(DBAPIError("", {}, busy.value)) == "busy"
    holder.close()
    other.close()


# --- Transactions ----------------------------------------------------------------------------


@pytest.mark.parametrize("database_url", ["mysql"], indirect=True)
def test_a_transaction_reads_what_was_committed_while_it_was_open(store: Store) -> None:
    with store.begin() as tx:
        assert _left(tx) == []
        store.run(lambda other: _leave(other, "meanwhile"))
        assert _left(tx) == ["meanwhile"]


def test_a_plain_read_keeps_no_view_open(store: Store) -> None:
    with store.read() as tx:
        assert _left(tx) == []
        store.run(lambda other: _leave(other, "meanwhile"))
        assert _left(tx) == ["meanwhile"]


@pytest.mark.parametrize("database_url", ["mysql"], indirect=True)
def test_a_transaction_costs_its_statements_and_a_commit_and_a_read_itself(store: Store) -> None:
    """Neither a question whether the server is there, nor a rollback of what was committed."""
    began = store.run(_asked)
    assert store.run(_asked) - began == 2
    with store.read() as tx:
        began = _asked(tx)
    with store.read() as tx:
        assert _asked(tx) - began == 1


def _asked(tx: Connection) -> int:
    """How often this connection has asked the server anything, without this time."""
    counts = "performance_schema.events_statements_summary_by_thread_by_event_name"
    mine = "thread_id = ps_current_thread_id()"
    query = text(f"SELECT CAST(SUM(count_star) AS SIGNED) FROM {counts} WHERE {mine}")
    asked: int = tx.execute(query).scalar_one()
    return asked


@pytest.mark.parametrize("database_url", ["mysql"], indirect=True)
def test_a_connection_is_given_back_without_what_it_left_open(store: Store) -> None:
    raw = store.engine.raw_connection()
    raw.cursor().execute("UPDATE pools SET max_concurrency = 1")
    raw.close()
    with store.read() as tx:
        assert tx.execute(select(pools.c.max_concurrency)).scalars().all() == [1000]
    store.run(lambda tx: tx.execute(update(pools).values(max_concurrency=1000)))


@pytest.mark.parametrize("database_url", ["mysql"], indirect=True)
def test_a_connection_that_lay_idle_is_replaced_when_it_is_dead(
    timed: Store, clock: Sleeps
) -> None:
    _kill(timed)
    clock.now_s += TRUSTED_S
    assert timed.run(lambda tx: _left(tx)) == []


@pytest.mark.parametrize("database_url", ["mysql"], indirect=True)
def test_one_that_died_a_moment_after_its_last_use_costs_a_second_try(timed: Store) -> None:
    _kill(timed)
    assert timed.run(lambda tx: _left(tx)) == []


def _kill(store: Store) -> None:
    """The server ends the connection that transactions use."""
    number = store.run(lambda tx: tx.execute(text("SELECT CONNECTION_ID()")).scalar_one())
    with store.read() as tx:
        tx.execute(text(f"KILL {number}"))


def test_writers_wait_for_one_another_and_all_get_through(store: Store) -> None:
    store.run(lambda tx: _leave(tx, "count"))

    def add(tx: Connection) -> None:
        row = instance_secrets.c.name == "count"
        value = tx.execute(select(instance_secrets.c.value).where(row).with_for_update())
        more = bytes(value.scalar_one()) + b"."
        tx.execute(update(instance_secrets).where(row).values(value=more))

    def work() -> None:
        for _ in range(5):
            store.run(add)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as tx:
        row = instance_secrets.c.name == "count"
        assert tx.execute(select(instance_secrets.c.value).where(row)).scalar_one() == b"." * 20


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_transaction_inside_a_transaction_is_a_mistake_and_not_a_wait(store: Store) -> None:
    with store.begin(), pytest.raises(RuntimeError, match="inside a transaction"), store.begin():
        pass
    store.run(lambda tx: _leave(tx, "after"))


def test_the_row_count_of_an_update_is_what_matched_not_what_changed(store: Store) -> None:
    same = update(pools).where(pools.c.name == "default").values(engine="local")
    assert store.run(lambda tx: tx.execute(same).rowcount) == 1
    assert store.run(lambda tx: tx.execute(same).rowcount) == 1
    none = update(pools).where(pools.c.name == "no-such").values(engine="local")
    assert store.run(lambda tx: tx.execute(none).rowcount) == 0


@pytest.mark.parametrize("database_url", ["mysql"], indirect=True)
def test_what_does_not_fit_is_refused_and_never_cut(store: Store) -> None:
    row = {"kind": "app", "pid": 1, "capacity": 1, "running": [], "host": "h"}
    times = {"started_at": in_seconds(0), "heartbeat_at": in_seconds(0)}
    with pytest.raises(DBAPIError):
        store.run(lambda tx: tx.execute(insert(workers).values(name="x" * 300, **row, **times)))


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_record_in_memory_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        Store.open(url)


def test_a_new_file_is_opened_also_while_another_writes_its_first_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite refuses the change to WAL then, however long it is told to wait for a lock."""
    path = tmp_path / "new.db"
    first = sqlite3.connect(path, isolation_level=None)
    first.execute("BEGIN IMMEDIATE")
    first.execute("CREATE TABLE one (id INTEGER)")
    waited = []

    def sleep(pause_s: float) -> None:
        waited.append(pause_s)
        if len(waited) == 3:
            first.execute("COMMIT")

    monkeypatch.setattr("encoder_db.dialect.time.sleep", sleep)
    with Store.open(f"sqlite:///{path}") as store, store.read() as tx:
        assert tx.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
    first.close()
    assert len(waited) == 3


# --- Time ------------------------------------------------------------------------------------


def test_the_databases_clock_is_utc_whatever_its_zone(store: Store) -> None:
    with store.read() as tx:
        if store.dialect == "mysql":
            tx.execute(text("SET SESSION time_zone = '+09:00'"))
        moment = now(tx)
        utc = "UTC_TIMESTAMP(6)" if store.dialect == "mysql" else "datetime('now')"
        said = str(tx.execute(text(f"SELECT {utc}")).scalar_one())
        if store.dialect == "mysql":
            tx.execute(text("SET SESSION time_zone = '+00:00'"))
    assert moment.utcoffset() is not None
    assert f"{moment:%Y-%m-%d %H:%M}" == said[:16]


@pytest.mark.parametrize("seconds", [0.5, 90.25, -3600.0])
def test_moments_are_counted_from_the_databases_now(store: Store, seconds: float) -> None:
    with store.begin() as tx:
        tx.execute(
            insert(instance_secrets).values(name="t", value=b"", created_at=in_seconds(seconds))
        )
        row = instance_secrets.c.name == "t"
        stored = tx.execute(select(instance_secrets.c.created_at).where(row)).scalar_one()
        apart = (stored - now(tx)).total_seconds()
    assert apart == pytest.approx(seconds, abs=2)
