"""Bring the schema up to date on boot: one process does it, the others wait for it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, inspect, literal, select, text

from encoder_core.errors import ConfigurationError
from encoder_db.store import Store
from encoder_db.tables import metadata

if TYPE_CHECKING:
    from alembic.config import Config

log = logging.getLogger(__name__)

HEAD: Final = "0001"
"""The revision that this code works with."""

_FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Revisions:
    """The migrations of a program: the last of them, and the folders that they are in."""

    head: str
    folders: tuple[Path, ...]


OURS: Final = Revisions(head=HEAD, folders=(_FOLDER / "versions",))

LOCK_WAIT_S: Final = 300  # a migration of large tables takes minutes; a boot may wait for it
LOCK_TURN_S: Final = 10
_VERSION_TABLE: Final = "alembic_version"


def migrate(store: Store, *, keys_may_be_lost: bool = False, revisions: Revisions = OURS) -> None:
    """
    Create or upgrade the tables, and make the installation's key when none was given.

    Does nothing when all is as it should be. Raises ConfigurationError when the schema is newer
    than this code, or when the given keys do not open what the database holds:
    `keys_may_be_lost` is for who has come to mend that.
    """
    with store.read() as tx:
        found = schema_version(tx)
    if found != revisions.head:
        _migrate_alone(store, revisions)
    if not keys_may_be_lost:
        store.check_keys()


def _migrate_alone(store: Store, revisions: Revisions) -> None:
    with _alone(store) as connection:
        found = schema_version(connection)
        if found != revisions.head:
            if found is None:
                _clear_unfinished(connection)
            _upgrade(connection, found, revisions)
            said = {"from_version": found, "to_version": revisions.head}
            log.info("schema_migrated", extra=said)


def schema_version(tx: Connection) -> str | None:
    """The revision of the schema; None before the first migration."""
    if not inspect(tx).has_table(_VERSION_TABLE):
        return None
    return tx.execute(text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar_one_or_none()


@contextmanager
def _alone(store: Store) -> Iterator[Connection]:
    """A transaction while which no other process migrates."""
    if store.dialect == "sqlite":
        with store.begin() as tx:  # the write lock of the file: tables are part of transactions
            yield tx
        return
    # MySQL commits around each table, so the lock is the session's and not the transaction's.
    with store.reads.connect() as holder:
        name = f"encoder-migrate:{store.engine.url.database}"[:64]
        _wait_for_lock(holder, name)
        try:
            with store.begin() as tx:
                yield tx
        finally:
            holder.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": name})


def _wait_for_lock(holder: Connection, name: str) -> None:
    # The connection's read time-out is shorter than the wait: ask again and again.
    for turn in range(1 + LOCK_WAIT_S // LOCK_TURN_S):
        given = {"name": name, "wait": LOCK_TURN_S if turn else 0}
        if holder.execute(text("SELECT GET_LOCK(:name, :wait)"), given).scalar_one() == 1:
            return
        if not turn:
            log.info("schema_waited_for", extra={"at_most_s": LOCK_WAIT_S})
    raise ConfigurationError("another process has been migrating the schema for minutes")


def _clear_unfinished(connection: Connection) -> None:
    """
    Drop what a first migration left that was ended before it was over: MySQL keeps each table.

    Nobody works with them before their version is written, so they are empty. Raises
    ConfigurationError when they are not.
    """
    existing = inspect(connection)
    if not existing.has_table(_VERSION_TABLE):
        return  # tables of the same names are not ours to drop
    left = [table for table in metadata.sorted_tables if existing.has_table(table.name)]
    for table in left:
        if connection.execute(select(literal(1)).select_from(table).limit(1)).first():
            raise ConfigurationError(
                f"the database has no version of its schema ({_VERSION_TABLE} is empty), but rows "
                f"in {table.name}: restore it from a copy, or name another database"
            )
    if left:
        log.warning("unfinished_schema_dropped", extra={"tables": len(left)})
        metadata.drop_all(connection, tables=left)


def _upgrade(connection: Connection, found: str | None, revisions: Revisions) -> None:
    # Imported here: it takes as long as the rest of a start, and is needed once a version.
    from alembic import command
    from alembic.script import ScriptDirectory

    config = alembic_config(connection, revisions)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise ConfigurationError(
            f"the database's schema ({found}) is newer than this version of encoder "
            f"({revisions.head}); upgrade the program"
        )
    command.upgrade(config, "head")


def alembic_config(connection: Connection, revisions: Revisions = OURS) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.set_main_option("path_separator", "os")
    config.set_main_option("version_locations", os.pathsep.join(map(str, revisions.folders)))
    config.attributes["connection"] = connection
    return config
