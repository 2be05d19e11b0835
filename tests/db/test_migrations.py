"""The migrations make the very tables that the code speaks of, once, whoever comes first."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from uuid import uuid4

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import insert, inspect, select, text
from sqlalchemy.exc import DBAPIError

from encoder_core.errors import ConfigurationError
from encoder_db.migrations import HEAD, alembic_config, migrate, schema_version
from encoder_db.store import Store
from encoder_db.tables import jobs, metadata, pools
from tests.db import builders as make


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
    """Each table as the server describes it: its lines, in an order of our own."""
    described = {}
    with store.read() as tx:
        for name in metadata.tables:
            if store.dialect == "mysql":
                sql = [tx.execute(text(f"SHOW CREATE TABLE {name}")).one()[1]]
            else:
                listed = text("SELECT sql FROM sqlite_master WHERE tbl_name = :name")
                sql = list(tx.execute(listed, {"name": name}).scalars())
            lines = "\n".join(part for part in sql if part).splitlines()
            described[name] = sorted(line.strip().rstrip(",") for line in lines)
    return described


def test_the_migrations_make_the_tables_that_the_code_speaks_of(store: Store) -> None:
    with store.begin() as tx:
        metadata.create_all(tx)
    wanted = _tables(store)
    with store.begin() as tx:
        metadata.drop_all(tx)
    migrate(store)
    assert _tables(store) == wanted
    with store.read() as tx:
        assert set(inspect(tx).get_table_names()) == {*metadata.tables, "alembic_version"}


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


def test_a_schema_from_the_future_is_refused_in_a_sentence(store: Store) -> None:
    migrate(store)
    with store.begin() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match=r"\(9999\) is newer than this version"):
        migrate(store)


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
