"""The one door to the database: transactions, their retry, and the installation's keys."""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Final, Self, TypeVar

from sqlalchemy import URL, Connection, Engine, make_url, select
from sqlalchemy.exc import DBAPIError

from encoder_core.clock import Clock, SystemClock
from encoder_core.errors import ConfigurationError
from encoder_core.sealing import KeyRing, key_id_of
from encoder_db import instance
from encoder_db.dialect import (
    CUT,
    STATEMENT_TIMEOUT_S,
    Dialect,
    db_now,
    make_engines,
    retry_reason,
)
from encoder_db.settings import DatabaseSettings, SecretSettings

T = TypeVar("T")
log = logging.getLogger(__name__)

TRIES: Final = 5
PAUSE_S: Final = (0.005, 0.2)  # full jitter: those that collided must not meet again

WRONG_KEY: Final = (
    "ENCODER_SECRET_KEY does not open the credentials in this database, which were sealed with "
    "another key (id {}): put that one behind the new one, separated by a comma, and run `encoder "
    "keys rewrap`; if it is lost, `encoder keys rewrap --forget-lost` deletes what it sealed"
)


class Store:
    """
    One database, used from any thread.

    Functions that take a `Connection` named `tx` run in the caller's transaction; functions that
    take a `Store` own theirs and try them again.
    """

    def __init__(
        self,
        url: URL,
        *,
        keys: KeyRing | None = None,
        webhook_secret: str | None = None,
        lock: IO[bytes] | None = None,
        clock: Clock | None = None,
        statement_timeout_s: float = STATEMENT_TIMEOUT_S,
    ) -> None:
        self._clock = clock or SystemClock()
        self.engine, self._reads = make_engines(
            url, self._clock, statement_timeout_s=statement_timeout_s
        )
        self.dialect: Dialect = "sqlite" if self.engine.dialect.name == "sqlite" else "mysql"
        self.turns = itertools.count(1)
        """Counts claims, for the guard that lets low priorities through now and then."""
        self._given_keys = keys
        self._given_webhook_secret = webhook_secret
        self._lock = lock
        self._told_of_retries: list[Callable[[str], object]] = []
        # SQLite's own wait for another writer is a sleep that grows; ours ends with the writer.
        self._writer = threading.Lock() if self.dialect == "sqlite" else None
        self._writing: int | None = None

    @classmethod
    def open(
        cls,
        url: str | URL,
        *,
        keys: KeyRing | None = None,
        webhook_secret: str | None = None,
        exclusive: bool = False,
    ) -> Self:
        """
        Open a database; nothing is asked of it yet.

        `exclusive` is for the process that owns a SQLite file alone. Raises ConfigurationError
        when another has it.
        """
        parsed = make_url(url)
        lock = None
        if parsed.get_backend_name() == "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise ConfigurationError("SQLite needs a file")
            path = Path(parsed.database)
            make_folder(path.parent)
            lock = take_file_lock(path.with_name(f"{path.name}.lock")) if exclusive else None
        return cls(parsed, keys=keys, webhook_secret=webhook_secret, lock=lock)

    @property
    def reads(self) -> Engine:
        """For plain reads: every statement sees what is committed, and none keeps a view open."""
        return self._reads

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction. Tried once: `run` tries again."""
        if self._writer is None:
            with self.engine.begin() as tx:
                yield tx
            return
        if self._writing == threading.get_ident():
            raise RuntimeError("a transaction inside a transaction would wait for itself")
        with self._writer, self.engine.begin() as tx:
            self._writing = threading.get_ident()
            try:
                yield tx
            finally:
                self._writing = None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self._reads.connect() as tx:
            yield tx

    def run(self, work: Callable[[Connection], T]) -> T:
        """
        Do the work in one transaction, and the whole of it again when locks got in the way.

        `work` may therefore run several times and must do nothing but talk to the database. One
        that lost its connection is done again once, on a new one, unless the connection ended with
        COMMIT: then nobody knows whether it is done, and the caller has to find out.
        """
        for attempt in itertools.count(1):
            committing = False
            try:
                with self.begin() as tx:
                    result = work(tx)
                    committing = True
            except DBAPIError as error:
                reason = retry_reason(error)
                if reason is None or attempt == TRIES:
                    raise
                if reason == CUT and (committing or attempt > 1):
                    raise
                log.info("transaction_retried", extra={"attempt": attempt, "reason": reason})
                for tell in self._told_of_retries:
                    tell(reason)
            else:
                return result
            self._clock.sleep(random.uniform(*PAUSE_S))
        raise AssertionError("unreachable")

    def tell_of_retries(self, tell: Callable[[str], object]) -> None:
        """From now on call this, in any thread, for each retried transaction, with its reason."""
        self._told_of_retries.append(tell)

    @cached_property
    def keys(self) -> KeyRing:
        """
        The given keys, or one that is made once and kept in the database.

        What that one sealed can still be opened after keys were given. Making it takes a
        transaction of its own: `migrate` sees to it, so that nobody does it inside another.
        """
        with self.read() as tx:
            key = instance.read_key(tx)
        if self._given_keys is not None:
            return self._given_keys if key is None else self._given_keys.and_earlier(key)
        instance.warn_of_generated_key()
        return KeyRing([key or self.run(instance.make_key)])

    def check_keys(self) -> None:
        """
        Refuse to work with keys that do not open what this database holds.

        They would fail every job that has credentials, one by one. Raises ConfigurationError.
        """
        keys = self.keys
        with self.read() as tx:
            sealed = instance.read_check(tx)
        if sealed is None:
            sealed = self.run(lambda tx: instance.make_check(tx, keys))
        if not keys.opens(sealed):
            raise ConfigurationError(WRONG_KEY.format(key_id_of(sealed).hex()))

    @cached_property
    def webhook_secret(self) -> str:
        """The given secret, or one that is made once and kept sealed."""
        if self._given_webhook_secret is not None:
            return self._given_webhook_secret
        keys = self.keys
        return self.run(lambda tx: instance.generated_webhook_secret(tx, keys))

    def close(self) -> None:
        self.engine.dispose()
        self._reads.dispose()
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_store(
    database: DatabaseSettings, secrets: SecretSettings, *, exclusive: bool = False
) -> Store:
    """The store that the settings describe."""
    key, webhook = secrets.secret_key, secrets.webhook_secret
    return Store.open(
        database.url,
        keys=None if key is None else KeyRing.from_text(key.get_secret_value()),
        webhook_secret=None if webhook is None else webhook.get_secret_value(),
        exclusive=exclusive,
    )


def now(tx: Connection) -> datetime:
    moment: datetime = tx.execute(select(db_now())).scalar_one()
    return moment


def make_folder(path: Path) -> Path:
    """The data folder, made if it is missing. Raises ConfigurationError when it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"cannot make {path}: {error.strerror}; choose another folder with ENCODER_DATA_DIR"
        ) from error
    return path


def take_file_lock(path: Path) -> IO[bytes]:
    """Lock a file for as long as it stays open. Raises ConfigurationError when it is taken."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ConfigurationError(
            f"another process works with {path.parent}; stop it, choose another folder with "
            "ENCODER_DATA_DIR, or set MYSQL_HOST to let several processes share one database"
        ) from None
    os.set_inheritable(file.fileno(), False)  # a child that lives on must not hold it
    return file
