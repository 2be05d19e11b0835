"""The migrations make the very tables that the code speaks of, once, whoever comes first."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, event, insert, inspect, select, text
from sqlalchemy.exc import DBAPIError

from encoder_core.errors import ConfigurationError
from encoder_db.migrations import HEAD, alembic_config, migrate, schema_version
from encoder_db.store import Store
from encoder_db.tables import jobs, metadata, pools
from tests.db import builders as make
from tests.db.later import LATER, later_tables

PATIENCE_S = 60.0


@pytest.fixture(params=["sqlite", "mysql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Here: a database with nothing in it."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with Store.open(database_url) as store:
        yield store


def _tables(store: Store) -> dict[str, list[str]]:
    """Each table as the server describes it: its parts, in an order and in spaces of our own."""
    described = {}
    with store.read() as tx:
        for name in metadata.tables:
            if store.dialect == "mysql":
                sql = [tx.execute(text(f"SHOW CREATE TABLE {name}")).one()[1]]
            else:
                listed = text("SELECT sql FROM sqlite_master WHERE tbl_name = :name")
                sql = list(tx.execute(listed, {"name": name}).scalars())
            described[name] = sorted(part for each in sql if each for part in _parts(each))
    return described


def _parts(statement: str) -> list[str]:
    """A CREATE TABLE between its commas, without the number that its next row will get."""
    statement = re.sub(r"\s+", " ", re.sub(r" AUTO_INCREMENT=\d+", "", statement))
    if not statement.startswith("CREATE TABLE"):
        return [statement]
    parts, depth = [""], 0
    for character in statement:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if (character, depth) in ((",", 1), ("(", 1), (")", 0)):
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _rows(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """In the columns that this version knows."""
    with store.read() as tx:
        return {
            table.name: [
                tuple(row) for row in tx.execute(select(table).order_by(*table.primary_key))
            ]
            for table in metadata.sorted_tables
        }


def _made_at_once(store: Store, tables: MetaData) -> dict[str, list[str]]:
    """How the server describes these when nothing was there before."""
    with store.begin() as tx:
        tables.create_all(tx)
    described = _tables(store)
    with store.begin() as tx:
        tables.drop_all(tx)
    return described


@pytest.mark.parametrize("database_url", ["sqlite", "mysql", "mariadb"], indirect=True)
def test_the_migrations_make_the_tables_that_the_code_speaks_of(store: Store) -> None:
    wanted = _made_at_once(store, metadata)
    migrate(store)
    assert _tables(store) == wanted
    with store.read() as tx:
        assert set(inspect(tx).get_table_names()) == {*metadata.tables, "alembic_version"}


def test_a_later_version_upgrades_tables_that_are_in_use_and_keeps_what_is_in_them(
    store: Store,
) -> None:
    wanted = _made_at_once(store, later_tables())
    migrate(store)
    make.create(store, make.spec(2, source=make.s3()), owner="alice")
    make.complete(store, make.running(store))
    make.create(store, owner="bob")
    under_way = make.running(store)
    before = _rows(store)
    assert {name for name, rows in before.items() if rows} >= {"jobs", "job_outputs", "job_events"}
    missing = {name: set(wanted[name]) - set(parts) for name, parts in _tables(store).items()}
    assert [name for name, parts in missing.items() if parts] == ["jobs"]
    assert len(missing["jobs"]) >= 2
    assert all("motto" in part for part in missing["jobs"])

    migrate(store, revisions=LATER)
    assert _tables(store) == wanted
    assert _rows(store) == before
    with store.read() as tx:
        assert tx.execute(text("SELECT owner, motto FROM jobs ORDER BY id")).all() == [
            ("alice", "alice"),
            ("bob", "bob"),
        ]
        assert schema_version(tx) == LATER.head
    # A process of this version that still runs has no need to know.
    make.complete(store, under_way)
    make.create(store, owner="carol")


def test_migrating_again_changes_nothing(store: Store) -> None:
    migrate(store)
    with make.statements(store) as seen:
        migrate(store)
    assert not any(verb in sql for sql in seen for verb in ("CREATE", "INSERT", "UPDATE"))
    with store.read() as tx:
        assert schema_version(tx) == HEAD


def test_an_empty_database_has_no_version(store: Store) -> None:
    with store.read() as tx:
        assert schema_version(tx) is None


def test_processes_that_start_together_migrate_once(store: Store, database_url: str) -> None:
    failures: list[Exception] = []

    def boot() -> None:
        try:
            with Store.open(database_url) as own:
                migrate(own)
        except Exception as error:  # shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=boot) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with store.read() as tx:
        assert tx.execute(select(pools.c.name)).scalars().all() == ["default"]


class Killed(BaseException):
    """Nothing catches it. With their connections goes what was not committed."""


def test_a_first_boot_may_be_killed_anywhere_and_the_next_one_begins_anew(
    database_url: str,
) -> None:
    def boot(*, killed_at: str) -> None:
        def kill(_: Any, __: Any, statement: str, *rest: Any) -> None:
            if statement.lstrip().startswith(killed_at):
                raise Killed

        with Store.open(database_url) as own:
            event.listen(own.engine, "before_cursor_execute", kill)
            with pytest.raises(Killed):
                migrate(own)

    for statement in (
        "CREATE INDEX ix_jobs_by_status",
        "CREATE TABLE job_attempts",
        "DROP TABLE jobs" if database_url.startswith("mysql") else "CREATE TABLE jobs",
        "INSERT INTO pools",
        "INSERT INTO alembic_version",
    ):
        boot(killed_at=statement)
    with Store.open(database_url) as store:
        migrate(store)
        made = _tables(store)
        with store.read() as tx:
            assert tx.execute(select(pools.c.name)).scalars().all() == ["default"]
            assert schema_version(tx) == HEAD
        with store.begin() as tx:
            metadata.drop_all(tx)
        assert made == _made_at_once(store, metadata)


def test_tables_that_are_in_use_and_have_lost_their_version_stay(store: Store) -> None:
    migrate(store)
    make.create(store)
    with store.begin() as tx:
        tx.execute(text("DELETE FROM alembic_version"))
    before = _rows(store)
    with pytest.raises(ConfigurationError, match="alembic_version is empty"):
        migrate(store)
    assert _rows(store) == before


@contextmanager
def _told_of(message: str) -> Iterator[threading.Event]:
    """Set when the log says so, in whatever thread."""
    told = threading.Event()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == message:
                told.set()

    listener, root = Listener(), logging.getLogger("encoder_db.migrations")
    level = root.level
    root.addHandler(listener)
    root.setLevel(logging.INFO)
    try:
        yield told
    finally:
        root.removeHandler(listener)
        root.setLevel(level)


@pytest.mark.parametrize("database_url", ["mysql"], indirect=True)
def test_while_one_process_migrates_another_says_that_it_waits_and_goes_on_after_it(
    store: Store, database_url: str
) -> None:
    migrate(store)
    begun, may_end = threading.Event(), threading.Event()

    def hold(_: Any, __: Any, statement: str, *rest: Any) -> None:
        if statement.startswith("ALTER TABLE jobs"):
            begun.set()
            assert may_end.wait(PATIENCE_S)

    with (
        Store.open(database_url) as first,
        Store.open(database_url) as second,
        ThreadPoolExecutor() as processes,
        make.statements(second) as said_by_second,
        _told_of("schema_waited_for") as waits,
    ):
        event.listen(first.engine, "before_cursor_execute", hold)
        migrating = processes.submit(migrate, first, revisions=LATER)
        try:
            assert begun.wait(PATIENCE_S)
            waiting = processes.submit(migrate, second, revisions=LATER)
            assert waits.wait(PATIENCE_S)
            assert not waiting.done()
        finally:
            may_end.set()
        migrating.result(PATIENCE_S)
        waiting.result(PATIENCE_S)
    assert not any(sql.startswith(("ALTER", "UPDATE", "CREATE")) for sql in said_by_second)
    with store.read() as tx:
        assert schema_version(tx) == LATER.head


def test_tables_of_a_later_version_are_refused_in_a_sentence(store: Store) -> None:
    migrate(store, revisions=LATER)
    before = _tables(store)
    with pytest.raises(
        ConfigurationError, match=r"\(0002\) is newer than .* encoder \(0001\); upgrade the program"
    ):
        migrate(store)
    assert _tables(store) == before


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_version_that_the_code_names_is_the_latest_migration(store: Store) -> None:
    with store.begin() as tx:
        assert ScriptDirectory.from_config(alembic_config(tx)).get_current_head() == HEAD


def test_a_number_that_was_given_is_never_given_again(store: Store) -> None:
    migrate(store)
    job = make.create(store)
    with store.begin() as tx:
        tx.execute(text("DELETE FROM jobs"))
    assert make.create(store).id > job.id


def test_a_status_that_does_not_exist_is_refused_by_the_table(store: Store) -> None:
    migrate(store)
    job = make.create(store)
    with store.read() as tx:
        row = dict(tx.execute(select(jobs)).mappings().one())
    for wrong in ({"status": "dispatched"}, {"status": "completed"}):
        copy = {**row, "id": job.id + 1, "uuid": uuid4(), **wrong}
        with pytest.raises(DBAPIError, match="ck_jobs"), store.begin() as tx:
            tx.execute(insert(jobs).values(copy))
