"""A migrated, empty record for each test, on SQLite and on MySQL; where asked for on MariaDB."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, delete, update

from encoder_core.sealing import KeyRing
from encoder_db.migrations import migrate
from encoder_db.store import Store
from encoder_db.tables import metadata, pools
from tests.servers.database import DatabaseServer

KEYS = KeyRing([b"k" * 32])


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("record") / "encoder.db"
    with Store.open(f"sqlite:///{path}", keys=KEYS) as store:
        migrate(store)
    return path


@pytest.fixture(scope="session")
def migrated_mysql(mysql_server: DatabaseServer) -> Iterator[str]:
    """Migrating takes most of a second, emptying the tables a few milliseconds."""
    yield from _migrated(mysql_server)


@pytest.fixture(scope="session")
def migrated_mariadb(mariadb_server: DatabaseServer) -> Iterator[str]:
    yield from _migrated(mariadb_server)


def _migrated(server: DatabaseServer) -> Iterator[str]:
    with server.fresh_database() as database:
        with Store.open(database.url, keys=KEYS) as store:
            migrate(store)
        yield database.url


@pytest.fixture(params=["sqlite", "mysql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Here: a database with its tables, and nothing in them but the default pool."""
    return empty_record(request, tmp_path)


def empty_record(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """One of the kind that the parameter names."""
    if request.param == "sqlite":
        path = tmp_path / "encoder.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        return f"sqlite:///{path}"
    url: str = request.getfixturevalue(f"migrated_{request.param}")
    engine = create_engine(url)
    empty(engine)
    engine.dispose()
    return url


def empty(engine: Engine) -> None:
    with engine.begin() as tx:
        for table in metadata.sorted_tables:
            if table is not pools:
                tx.execute(delete(table))
        tx.execute(delete(pools).where(pools.c.name != "default"))
        as_new = {"engine": "local", "max_concurrency": 1000, "stop_policy": "None"}
        tx.execute(update(pools).values(max_per_owner=None, blocked=None, **as_new))


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with Store.open(database_url, keys=KEYS) as store:
        yield store
