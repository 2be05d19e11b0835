"""The event loop never waits for the database: every statement runs in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from encoder_db.store import Store
from tests.operator.lives import STORIES, Life, Story
from tests.operator.test_health import a_cluster_with_a_job, an_operator


class Asked:
    """Statements: all, and those of a thread that runs an event loop."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self.on_loop: list[str] = []

    def note(self, _: Any, __: Any, text: str, *___: Any) -> None:
        self.all.append(text)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        self.on_loop.append(text)


@contextmanager
def statements(store: Store) -> Iterator[Asked]:
    asked = Asked()
    for engine in (store.engine, store.reads):
        event.listen(engine, "before_cursor_execute", asked.note)
    try:
        yield asked
    finally:
        for engine in (store.engine, store.reads):
            event.remove(engine, "before_cursor_execute", asked.note)


def test_one_that_does_would_be_noticed(store: Store) -> None:
    async def wrong() -> None:
        with store.read() as tx:
            tx.exec_driver_sql("SELECT 1")

    with statements(store) as asked:
        asyncio.run(wrong())
    assert "SELECT 1" in asked.on_loop


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_none_of(store: Store, story: Story) -> None:
    with statements(store) as asked:
        Life(store, story).run()
    assert len(asked.all) > 20
    assert asked.on_loop == []


def test_none_of_what_runs_beside_the_jobs(store: Store) -> None:
    """Lists, sweeps, polls, the dispatcher and the keeper of the pools."""
    api = a_cluster_with_a_job(store)

    async def run() -> None:
        operator = an_operator(store, api, lambda: 0.0, resync_s=0.05, progress_s=0.05)
        made = asyncio.Event()
        api.around_write = lambda said: made.set() if "pods" in said else None
        running = asyncio.create_task(operator.run())
        await asyncio.wait_for(made.wait(), timeout=60)
        running.cancel()
        await asyncio.wait([running])

    with statements(store) as asked:
        asyncio.run(run())
    assert asked.on_loop == []
    assert len(asked.all) > 10
