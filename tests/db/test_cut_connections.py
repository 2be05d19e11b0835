"""What a transaction does whose connection is cut, or is refused what it asked for."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, func, insert, make_url, select
from sqlalchemy.exc import DBAPIError, OperationalError

from encoder_db.dialect import in_seconds
from encoder_db.fsck import fsck
from encoder_db.migrations import migrate
from encoder_db.store import TRIES, Store
from encoder_db.tables import instance_secrets
from tests.db import builders as make
from tests.db.conftest import KEYS
from tests.servers.database import Database
from tests.servers.mysql_way import Fault, MysqlWay

WRITE = "INSERT INTO instance_secrets"
DEADLOCK, LOCK_WAIT, CHANGED, READ_ONLY = 1213, 1205, 1020, 1290
PATIENCE_S = 3.0  # a statement takes milliseconds: long enough for a machine that is busy


@pytest.fixture
def database(mysql_database: Database) -> Database:
    with Store.open(mysql_database.url, keys=KEYS) as store:
        migrate(store)
    return mysql_database


@pytest.fixture
def way(database: Database) -> Iterator[MysqlWay]:
    with MysqlWay(database) as way:
        yield way


@pytest.fixture
def store(way: MysqlWay) -> Iterator[Store]:
    """Its connections go the troubled way, and are made by now."""
    with Store.open(way.url, keys=KEYS) as store:
        store.run(_count)
        yield store


@pytest.fixture
def retries(store: Store) -> Counter[str]:
    counted: Counter[str] = Counter()
    store.tell_of_retries(lambda reason: counted.update([reason]))
    return counted


class Leaving:
    """A transaction that leaves one row, and counts how often it was begun."""

    tries = 0

    def __call__(self, tx: Connection) -> None:
        self.tries += 1
        row = {"name": "left", "value": b"", "created_at": in_seconds(0)}
        tx.execute(insert(instance_secrets).values(row))


def _count(tx: Connection) -> int:
    mine = instance_secrets.c.name == "left"
    return tx.execute(select(func.count()).select_from(instance_secrets).where(mine)).scalar_one()


def _left(database: Database) -> int:
    """As the server has it, by a way that nobody troubles."""
    with Store.open(database.url, keys=KEYS) as store, store.read() as tx:
        return _count(tx)


# --- Cut -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cut before", "cut within", "answer lost", "answer cut"])
def test_what_lost_its_connection_before_its_commit_is_done_again_on_a_new_one(
    store: Store, way: MysqlWay, database: Database, retries: Counter[str], how: str
) -> None:
    leaving = Leaving()
    way.expect(Fault(at=WRITE, how=how))  # type: ignore[arg-type]  # parametrised
    store.run(leaving)
    assert (leaving.tries, len(way.met)) == (2, 1)
    assert _left(database) == 1
    assert retries == {"connection": 1}


def test_it_is_done_again_once(
    store: Store, way: MysqlWay, database: Database, retries: Counter[str]
) -> None:
    leaving = Leaving()
    way.expect(Fault(at=WRITE, how="cut before", times=2))
    with pytest.raises(OperationalError):
        store.run(leaving)
    assert leaving.tries == 2
    assert _left(database) == 0
    assert retries == {"connection": 1}


@pytest.mark.parametrize(
    ("how", "left"),
    [
        pytest.param("cut before", 0, id="before it reached the server"),
        pytest.param("cut within", 0, id="in the middle of it"),
        pytest.param("answer lost", 1, id="when it was done and before the answer"),
        pytest.param("answer cut", 1, id="in the middle of the answer"),
    ],
)
def test_a_commit_whose_connection_was_cut_is_not_sent_again(
    store: Store, way: MysqlWay, database: Database, retries: Counter[str], how: str, left: int
) -> None:
    """Nobody knows whether it is done: the caller looks, as every step of a job does."""
    leaving = Leaving()
    way.expect(Fault(at="COMMIT", how=how))  # type: ignore[arg-type]  # parametrised
    with pytest.raises(DBAPIError) as cut:
        store.run(leaving)
    assert cut.value.connection_invalidated
    assert leaving.tries == 1
    assert retries == {}
    assert _left(database) == left
    assert store.run(_count) == left, "the next transaction has a connection that works"


# --- Silent ----------------------------------------------------------------------------------


def test_a_statement_without_an_answer_holds_up_nobody_else(
    store: Store, way: MysqlWay, database: Database
) -> None:
    leaving = Leaving()
    way.expect(Fault(at=WRITE, how="silent"))
    waits = threading.Thread(target=lambda: store.run(leaving))
    waits.start()
    way.wait_until_met()
    job = make.create(store)
    make.complete(store, make.running(store))
    assert make.events(store, job)[-1][1] == "job.completed"
    way.end_silence()
    waits.join(60)
    assert leaving.tries == 2
    assert _left(database) == 1
    assert fsck(store).findings == []


def test_a_statement_that_is_not_answered_in_time_fails_and_is_not_asked_again(
    way: MysqlWay, database: Database
) -> None:
    """The server would be as slow the next time, and somebody waits for an answer."""
    leaving, retries = Leaving(), Counter[str]()
    with Store(make_url(way.url), keys=KEYS, statement_timeout_s=PATIENCE_S) as store:
        store.tell_of_retries(lambda reason: retries.update([reason]))
        way.expect(Fault(at=WRITE, how="silent"))
        with pytest.raises(OperationalError, match="timed out"):
            store.run(leaving)
        assert leaving.tries == 1
        assert retries == {}
        assert store.run(_count) == _left(database) == 0


# --- Refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        pytest.param(DEADLOCK, "deadlock", id="a deadlock"),
        pytest.param(LOCK_WAIT, "lock_wait", id="a wait for a lock"),
        pytest.param(CHANGED, "changed", id="a row that was changed since it was read"),
    ],
)
@pytest.mark.parametrize("at", [WRITE, "COMMIT"])
def test_what_locks_got_in_the_way_of_is_done_again_whole(
    store: Store,
    way: MysqlWay,
    database: Database,
    retries: Counter[str],
    code: int,
    reason: str,
    at: str,
) -> None:
    leaving = Leaving()
    way.expect(Fault(at=at, how="refused", code=code, times=TRIES - 1))
    store.run(leaving)
    assert leaving.tries == TRIES
    assert _left(database) == 1
    assert retries == {reason: TRIES - 1}


@pytest.mark.parametrize(
    ("code", "tries"),
    [
        pytest.param(DEADLOCK, TRIES, id="deadlocks without end"),
        pytest.param(READ_ONLY, 1, id="a server that only reads, after a fail-over"),
    ],
)
def test_what_does_not_come_through_leaves_nothing(
    store: Store, way: MysqlWay, database: Database, code: int, tries: int
) -> None:
    leaving = Leaving()
    way.expect(Fault(at="COMMIT", how="refused", code=code, times=tries))
    with pytest.raises(OperationalError):
        store.run(leaving)
    assert leaving.tries == tries
    assert _left(database) == 0
