"""A server of its own for each test that kills one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from encoder_db.migrations import migrate
from encoder_db.store import Store
from tests.kill.actors import opened
from tests.servers.mysqld import Mysqld

FULL = os.environ.get("KILL_RUN") == "full"
"""`make test-kill-full`: every step, and larger crowds. The short run samples the steps."""


def steps_of(count: int, *, sample: int) -> list[int]:
    """The steps to be killed at: all of them, or so many, evenly, with the first and the last."""
    if FULL or count <= sample:
        return list(range(1, count + 1))
    return sorted({1 + round(place * (count - 1) / (sample - 1)) for place in range(sample)})


@pytest.fixture(scope="module")
def mysqld(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mysqld]:
    server = Mysqld(tmp_path_factory.mktemp("mysqld"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def url(mysqld: Mysqld) -> Iterator[str]:
    with mysqld.server.fresh_database() as database:
        yield database.url


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with opened(url) as store:
        migrate(store)
        yield store
