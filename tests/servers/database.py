"""What a MySQL or MariaDB server of the tests gives: an address, and fresh databases on it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pymysql

USER = "encoder"
PASSWORD = "only-for-tests"

# Every account starts here: the tests connect over TCP as one user that may create databases.
INIT_SQL = f"""\
CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{PASSWORD}';
GRANT ALL ON *.* TO '{USER}'@'%' WITH GRANT OPTION;
"""

# The data is thrown away at the end of the run, so nothing waits for a disk. Never for real data.
# 64 MB are plenty for test data; 500 connections because worker threads of two runners add up.
THROW_AWAY_OPTIONS = (
    "--innodb-flush-method=nosync",
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-doublewrite=OFF",
    "--innodb-buffer-pool-size=64M",
    "--max-connections=500",
    "--skip-log-bin",
)

# As root both servers start only when told so.
AS_ROOT = ("--user=root",) if os.getuid() == 0 else ()

DROP_WAIT_S = 10  # a test that leaves a transaction open would otherwise stop the run for a year

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Database:
    """One empty database, with what a client must know."""

    host: str
    port: int
    user: str
    password: str
    database: str

    @property
    def url(self) -> str:
        """For SQLAlchemy."""
        return (
            f"mysql+pymysql://{self.user}:{self.password}@{self.host}:{self.port}/{self.database}"
        )

    @property
    def environment(self) -> dict[str, str]:
        """The product's own variables for it."""
        return {
            "MYSQL_HOST": self.host,
            "MYSQL_PORT": str(self.port),
            "MYSQL_USER": self.user,
            "MYSQL_PASSWORD": self.password,
            "MYSQL_DATABASE": self.database,
        }


@dataclass(frozen=True, slots=True)
class DatabaseServer:
    """A running server. Plain values: test processes pass it to one another."""

    host: str
    port: int
    version: str

    @contextmanager
    def fresh_database(self) -> Iterator[Database]:
        # Several test processes share the server: the process id keeps their names apart.
        name = f"test_{os.getpid()}_{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield Database(self.host, self.port, USER, PASSWORD, name)
        finally:
            self.execute(f"SET lock_wait_timeout = {DROP_WAIT_S}", f"DROP DATABASE {name}")

    def execute(self, *statements: str) -> None:
        with connect(self.host, self.port) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


def connect(host: str, port: int) -> pymysql.Connection[pymysql.cursors.Cursor]:
    return pymysql.connect(
        host=host, port=port, user=USER, password=PASSWORD, connect_timeout=5, autocommit=True
    )


def version_of(host: str, port: int) -> str:
    """Ask the server who it is. Raises OSError while it does not answer."""
    try:
        with connect(host, port) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT VERSION()")
            row = cursor.fetchone()
    except pymysql.err.OperationalError as error:
        raise ConnectionError(str(error)) from error
    assert row is not None
    return str(row[0])
