"""The only module that knows what MySQL, MariaDB and SQLite do differently."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final, Literal

import pymysql
from pymysql.constants.SERVER_STATUS import SERVER_STATUS_IN_TRANS
from sqlalchemy import (
    URL,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Integer,
    Select,
    Table,
    bindparam,
    create_engine,
    event,
    insert,
    literal,
    select,
)
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

from encoder_core.clock import Clock
from encoder_db.types import Timestamp

Dialect = Literal["mysql", "sqlite"]

CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 30  # a half-open connection would hold its thread for 15 minutes
RECYCLE_S = 1800  # well below MySQL's wait_timeout of 8 hours and most proxies' limits
LOCK_WAIT_S = 5  # longer waits are better spent by rolling back and trying again
POOL_SIZE, POOL_OVERFLOW = 10, 20
TRUSTED_S: Final = 1.0
"""For so long after its last use a connection is taken for alive; later it is asked first."""

SESSION_SQL = (
    "SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', "
    f"innodb_lock_wait_timeout = {LOCK_WAIT_S}"
)
WAL = "PRAGMA journal_mode = WAL"  # readers do not wait for the writer
WAL_PAUSES_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SQLITE_PRAGMAS = (
    "PRAGMA synchronous = FULL",  # what was answered 202 survives a power cut
    f"PRAGMA busy_timeout = {LOCK_WAIT_S * 1000}",
)

_LOCK_WAIT_MYSQL = 1205
CUT: Final = "connection"
_RETRIED_MYSQL: Final = {
    1213: "deadlock",
    _LOCK_WAIT_MYSQL: "lock_wait",
    1020: "changed",  # MariaDB: the record has changed since it was read
}
_BUSY_SQLITE: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
RETRY_REASONS: Final = (*_RETRIED_MYSQL.values(), "busy", CUT)
"""What gets in the way of a transaction that is then tried again; `busy` is SQLite's lock."""


# --- Time ------------------------------------------------------------------------------------


class db_now(FunctionElement[Any]):
    """The database's clock, in UTC. No other clock is ever written or compared."""

    type = Timestamp()
    inherit_cache = True
    name = "db_now"


class _in_seconds(FunctionElement[Any]):
    type = Timestamp()
    inherit_cache = True
    name = "in_seconds"


def in_seconds(seconds: float) -> ColumnElement[Any]:
    """The database's clock, so many seconds from now; negative for the past."""
    return _in_seconds(literal(float(seconds)))


@compiles(db_now, "mysql")
def _now_mysql(element: Any, compiler: Any, **kw: Any) -> str:
    return "UTC_TIMESTAMP(6)"


@compiles(db_now, "sqlite")
def _now_sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    # Padded to microseconds: times are compared as text, so all must have the same width.
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


@compiles(_in_seconds, "mysql")
def _in_seconds_mysql(element: Any, compiler: Any, **kw: Any) -> str:
    return f"(UTC_TIMESTAMP(6) + INTERVAL {compiler.process(element.clauses, **kw)} SECOND)"


@compiles(_in_seconds, "sqlite")
def _in_seconds_sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%+.3f seconds', {seconds}))"


# --- Sizes -----------------------------------------------------------------------------------


class byte_length(FunctionElement[int]):
    """How many bytes a text or a JSON has: `length` alone counts characters in SQLite."""

    type = Integer()
    inherit_cache = True
    name = "byte_length"


@compiles(byte_length, "mysql")
def _byte_length_mysql(element: Any, compiler: Any, **kw: Any) -> str:
    return f"OCTET_LENGTH({compiler.process(element.clauses, **kw)})"


@compiles(byte_length, "sqlite")
def _byte_length_sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    return f"length(CAST({compiler.process(element.clauses, **kw)} AS BLOB))"


# --- Engines ---------------------------------------------------------------------------------


def make_engines(
    url: URL, clock: Clock, *, statement_timeout_s: float = STATEMENT_TIMEOUT_S
) -> tuple[Engine, Engine]:
    """
    An engine for transactions and one for plain reads.

    Reads are their own engine so that no idle connection keeps a read view open: an old view
    makes every claim slower. Both have their own pool, so neither switches modes per use.
    """
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url, reads=False), _sqlite_engine(url, reads=True)
    return (
        _mysql_engine(url, "READ COMMITTED", clock, statement_timeout_s),
        _mysql_engine(url, "AUTOCOMMIT", clock, statement_timeout_s),
    )


def to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _mysql_engine(
    url: URL,
    isolation: Literal["READ COMMITTED", "AUTOCOMMIT"],
    clock: Clock,
    statement_timeout_s: float,
) -> Engine:
    # MariaDB speaks the same SQL here; one dialect name keeps hints and variants in one place.
    engine = create_engine(
        url.set(drivername="mysql+pymysql"),
        isolation_level=isolation,
        pool_reset_on_return=None,  # _spare_round_trips sees to it
        skip_autocommit_rollback=True,  # outside of transactions there is nothing to roll back
        pool_recycle=RECYCLE_S,
        pool_use_lifo=True,  # the one that was used last is surely alive; the others may end
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        json_serializer=to_json,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": statement_timeout_s,
            "write_timeout": statement_timeout_s,
            "charset": "utf8mb4",
            "init_command": SESSION_SQL,
        },
    )
    _spare_round_trips(engine, clock)
    return engine


def _spare_round_trips(engine: Engine, clock: Clock) -> None:
    """
    Ask a connection whether it lives, and roll back what it left open, only when there is doubt.

    SQLAlchemy by itself asks before each use and rolls back after each, also what was committed:
    two round trips more for every transaction.
    """

    @event.listens_for(engine, "checkout")
    def _ping(connection: Any, record: Any, _: Any) -> None:
        used_s: float | None = record.info.get("used_s")
        if used_s is None or clock.monotonic() - used_s < TRUSTED_S:
            return
        try:
            connection.ping(reconnect=False)
        except (pymysql.MySQLError, OSError) as error:
            raise InvalidatePoolError from error  # the others are as old: a new one is made

    @event.listens_for(engine, "reset")
    def _roll_back(connection: Any, record: Any, _: Any) -> None:
        # What the server said with its last answer, so that nobody has to ask.
        if connection.server_status & SERVER_STATUS_IN_TRANS:
            connection.rollback()
        record.info["used_s"] = clock.monotonic()


def _sqlite_engine(url: URL, *, reads: bool) -> Engine:
    engine = create_engine(
        url,
        json_serializer=to_json,
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        **({"isolation_level": "AUTOCOMMIT"} if reads else {}),
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # or Python's driver begins transactions of its own
        for pragma in SQLITE_PRAGMAS:
            connection.execute(pragma).close()
        # SQLite's own knows the case of ASCII only.
        connection.create_function("lower", 1, _lower, deterministic=True)
        _enter_wal(connection)

    if not reads:

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            # A deferred transaction that reads before it writes fails without waiting.
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _enter_wal(connection: sqlite3.Connection) -> None:
    """While another makes a new file's first change, SQLite refuses this without waiting."""
    for pause_s in WAL_PAUSES_S:
        try:
            connection.execute(WAL).close()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _BUSY_SQLITE:
                raise
            time.sleep(pause_s)
        else:
            return
    connection.execute(WAL).close()


def _lower(value: object) -> str | None:
    return None if value is None else str(value).lower()


def retry_reason(error: DBAPIError) -> str | None:
    """
    What got in the way, when the whole transaction may simply be tried again; else None.

    After `CUT` only where its COMMIT was not sent yet: otherwise nobody knows whether it is done. A
    server that did not answer in time is none: it would not the next time, and somebody waits.
    """
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        return "busy" if getattr(cause, "sqlite_errorcode", 0) & 0xFF in _BUSY_SQLITE else None
    if not isinstance(cause, pymysql.MySQLError) or not cause.args:
        return None
    if error.connection_invalidated:
        return None if isinstance(cause.__context__, TimeoutError) else CUT
    return _RETRIED_MYSQL.get(cause.args[0])


def is_lock_wait(error: DBAPIError) -> bool:
    """Whether another transaction held what this one wants for longer than is waited."""
    cause = error.orig
    return isinstance(cause, pymysql.MySQLError) and cause.args[:1] == (_LOCK_WAIT_MYSQL,)


# --- Statements ------------------------------------------------------------------------------


def claimable(statement: Select[Any], table: Table, index: str) -> Select[Any]:
    """
    Lock what the statement finds and pass over what others have locked, reading by this index.

    SQLite has one writer at a time and needs neither. The index is forced because an index that
    does not give the order makes the server sort, and a sorting locking read locks every row.
    """
    return by_index(statement, table, index).with_for_update(skip_locked=True)


def by_index(statement: Select[Any], table: Table, index: str) -> Select[Any]:
    return statement.with_hint(table, f"FORCE INDEX ({index})", "mysql")


def by_number(statement: Select[Any], table: Table) -> Select[Any]:
    """Read by the primary key: in a small table the server would look at, and lock, every row."""
    return by_index(statement, table, "PRIMARY")


def upsert(
    tx: Connection,
    table: Table,
    key: Mapping[str, Any],
    values: Mapping[str, Any],
    *,
    on_insert: Mapping[str, Any] | None = None,
) -> None:
    """Insert the row, or give these values to the one with this key."""
    row = {**key, **values, **(on_insert or {})}
    if tx.dialect.name == "sqlite":
        missing = sqlite.insert(table).values(row)
        tx.execute(missing.on_conflict_do_update(index_elements=list(key), set_=dict(values)))
        return
    tx.execute(mysql.insert(table).values(row).on_duplicate_key_update(dict(values)))


def insert_missing(tx: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Insert the row unless one with its key exists."""
    if tx.dialect.name == "sqlite":
        tx.execute(sqlite.insert(table).values(row).on_conflict_do_nothing())
        return
    # Not INSERT IGNORE, which would also let values through that do not fit.
    first = next(iter(table.primary_key.columns))
    tx.execute(mysql.insert(table).values(row).on_duplicate_key_update({first.name: first}))


def inserted_id(result: Any) -> int:
    key: Sequence[Any] = result.inserted_primary_key
    return int(key[0])


def insert_all(
    tx: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *, key: Column[Any]
) -> list[int]:
    """
    Insert rows in one statement and return their numbers in the same order.

    `key` is a unique column of theirs by which they are found again: where several rows are
    written at once, no server promises which number each of them got.
    """
    if len(rows) == 1:
        return [inserted_id(tx.execute(insert(table), dict(rows[0])))]
    tx.execute(insert(table), [dict(row) for row in rows])
    wanted = [row[key.name] for row in rows]
    found = {row[0]: row[1] for row in tx.execute(_numbers_by(key), {"keys": wanted})}
    return [found[value] for value in wanted]


@cache
def _numbers_by(key: Column[Any]) -> Select[Any]:
    (number,) = key.table.primary_key.columns
    return select(key, number).where(key.in_(bindparam("keys", expanding=True)))
