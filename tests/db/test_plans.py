"""Each look-up that happens all the time reads an index, however many rows there are. On MySQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, event, insert, text, update

from encoder_db import census, cluster, jobs, pools, positions, sweep
from encoder_db.deliveries import LOOK_AHEAD, claim_deliveries, lock_due
from encoder_db.migrations import migrate
from encoder_db.store import Store
from encoder_db.tables import job_attempts, metadata, queue_jobs, webhook_deliveries
from encoder_db.tables import jobs as job_rows
from tests.db import builders as make
from tests.servers.database import DatabaseServer

ROWS = 2_000
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
NEVER = datetime(2900, 1, 1, tzinfo=UTC)
IN_ORDER = None
"""Any index that brings the latest first: it is read until the page is full."""
Asked = tuple[str, Any]
LookUp = Callable[[Store], object]


@pytest.fixture(scope="module")
def store(mysql_server: DatabaseServer) -> Iterator[Store]:
    """Many jobs wait, many attempts are over, and many deliveries wait for another time."""
    with mysql_server.fresh_database() as database, Store.open(database.url) as store:
        migrate(store)
        make.create(store)
        with store.begin() as tx:
            known = dict(tx.execute(job_rows.select()).mappings().one())
            numbers = range(10, 10 + ROWS)
            tx.execute(
                insert(job_rows),
                [
                    {
                        **known,
                        "id": number,
                        "uuid": uuid4(),
                        "external_id": f"mine-{number}",
                        "resource_name": f"tj-{number}",
                        "resource_uid": f"uid-{number}",
                        "created_at": NOON + timedelta(seconds=number),
                    }
                    for number in numbers
                ],
            )
            attempt = {"number": 1, "status": "succeeded", "executor": "local", "worker": "w"}
            attempt |= {"pool": "default", "owner": "default", "token_hash": bytes(32)}
            attempt |= {"created_at": NOON, "finished_at": NOON}
            tx.execute(
                insert(job_attempts),
                [{**attempt, "job_id": number} for number in numbers],
            )
            queued = {"queue": "default/p1/default", "visible_at": NEVER, "enqueued_at": NOON}
            queued |= {"deliveries": 0, "failures": 0, "lease_seq": 0}
            tx.execute(insert(queue_jobs), [{**queued, "job_id": number} for number in numbers])
            waiting = {"event_type": "job.completed", "seq": 1, "trigger_kind": "auto"}
            waiting |= {"target": b"", "host_hash": bytes(16), "attempts": 1, "lease_seq": 0}
            tx.execute(
                insert(webhook_deliveries),
                [
                    {
                        **waiting,
                        "event_id": number,
                        "event_uuid": uuid4(),
                        "job_id": number,
                        "job_uuid": uuid4(),
                        "next_attempt_at": NEVER,
                    }
                    for number in numbers
                ],
            )
        with store.read() as tx:
            for table in metadata.sorted_tables:
                tx.execute(text(f"ANALYZE TABLE {table.name}"))
        yield store


def reading(**filters: Any) -> LookUp:
    def look_up(store: Store) -> object:
        with store.read() as tx:
            return jobs.list_jobs(tx, **{"owner": None, "limit": 50, **filters})

    return look_up


def by_resource(**names: Any) -> LookUp:
    def look_up(store: Store) -> object:
        with store.read() as tx:
            return cluster.read_resource(tx, **{"uuid": None, "resource_uid": None, **names})

    return look_up


def due(store: Store) -> object:
    return claim_deliveries(store, worker="sender", limit=10, lease_s=60)


@pytest.mark.parametrize(
    ("look_up", "table", "index"),
    [
        pytest.param(
            reading(owner="default", external_id="mine-70"), "jobs", "uq_jobs_external_id",
            id="a job of an owner by its own name",
        ),
        pytest.param(reading(owner="default", created_after=NOON), "jobs", IN_ORDER,
                     id="an owner's jobs since a moment"),
        pytest.param(reading(external_id="mine-70"), "jobs", IN_ORDER,
                     id="a job of anybody by its own name"),
        pytest.param(reading(created_before=NOON), "jobs", IN_ORDER,
                     id="everybody's jobs until a moment"),
        pytest.param(
            by_resource(resource_uid="uid-70"), "jobs", "uq_jobs_resource_uid",
            id="the job of a resource by its uid",
        ),
        pytest.param(
            by_resource(resource_name="tj-70"), "jobs", "ix_jobs_resource_name",
            id="the job of a resource by its name alone",
        ),
        pytest.param(
            by_resource(uuid=uuid4(), resource_uid="uid-70", resource_name="tj-70"), "jobs",
            "ix_jobs_resource_name", id="the job of a resource by any of its names",
        ),
        pytest.param(sweep._give_back_places, "job_attempts", "ix_job_attempts_slots",
                     id="places that nobody gave back"),
        pytest.param(due, "webhook_deliveries", "ix_webhook_deliveries_claim",
                     id="deliveries that are due"),
    ],
)  # fmt: skip
def test_a_look_up_reads_an_index(
    store: Store, look_up: LookUp, table: str, index: str | None
) -> None:
    plans = {
        row["table"]: row for row in explained(store, look_up)[0] if row["table"] in metadata.tables
    }
    if index is IN_ORDER:
        assert "filesort" not in str(plans[table]["Extra"])
    else:
        assert index in str(plans[table]["key"]), plans
    assert [name for name, row in plans.items() if row["type"] == "ALL"] == []


def test_a_claim_that_passes_over_hosts_reads_an_index_at_each_step(store: Store) -> None:
    """The first that are due; then each host's oldest; then those of the hosts that it names."""
    ahead, hosts, deliveries = (rows[0] for rows in explained(store, passing_over_a_host))
    assert (ahead["key"], ahead["type"]) == ("ix_webhook_deliveries_claim", "range")
    assert hosts["key"] == "ix_webhook_deliveries_of_host"
    assert "Using index" in str(hosts["Extra"]), "the rows themselves are not read"
    assert (deliveries["key"], deliveries["type"]) == ("ix_webhook_deliveries_of_host", "range")
    assert "filesort" not in str(ahead["Extra"]) + str(deliveries["Extra"])


def passing_over_a_host(store: Store) -> object:
    """Of one host more is due than is looked through; something is due for another."""
    full, other = b"full" * 4, b"some" * 4
    with store.engine.connect() as tx:
        for row_id, host in enumerate([*[full] * (LOOK_AHEAD + 1), other], start=11):
            is_due = {"next_attempt_at": NOON, "host_hash": host}
            event = webhook_deliveries.c.event_id == row_id
            tx.execute(update(webhook_deliveries).where(event).values(is_due))
        found = lock_due(tx, limit=8, skip_hosts=frozenset({full}))
        assert len(found) == 1
        tx.rollback()
    return found


@pytest.mark.parametrize(
    ("look_up", "most"),
    [
        pytest.param(lambda tx: tx.execute(census.pool_counts()).all(), 100, id="metrics of pools"),
        pytest.param(lambda tx: positions.read_position(tx, 1), 100, id="a job's position"),
        pytest.param(pools.list_pools, 100 + ROWS, id="pools, with the number of jobs that wait"),
    ],
)
def test_places_and_the_first_of_a_queue_are_read_without_what_is_over_or_behind(
    store: Store, look_up: Callable[[Connection], object], most: int
) -> None:
    with store.begin() as tx:
        before = _rows_read(tx)
        assert look_up(tx)
        assert _rows_read(tx) - before < most


def _rows_read(tx: Connection) -> int:
    reads = tx.execute(text("SHOW SESSION STATUS LIKE 'Handler_read%'"))
    return sum(int(row[1]) for row in reads)


def explained(store: Store, look_up: LookUp) -> list[list[dict[str, Any]]]:
    """How the server would carry out each query that is asked."""
    asked: list[Asked] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, parameters))

    for engine in (store.engine, store.reads):
        event.listen(engine, "before_cursor_execute", note)
    look_up(store)
    for engine in (store.engine, store.reads):
        event.remove(engine, "before_cursor_execute", note)
    with store.read() as tx:
        return [
            [
                dict(row)
                for row in tx.exec_driver_sql(
                    f"EXPLAIN FORMAT=TRADITIONAL {statement}", parameters
                ).mappings()
            ]
            for statement, parameters in asked
        ]
