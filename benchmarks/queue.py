"""
From claimed to acknowledged with an executor that does nothing: what the record alone allows.

One claimer in a pool of the Kubernetes engine, whose messages are acknowledged when an attempt
starts: job by job, and as the operator does it, which opens the attempts of a whole claim at once.
Both are done with few and with many jobs queued, in turn: the ratio says whether a long queue costs
anything. What it costs to choose among many owners is shown by claims of one job.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sqlalchemy import Connection, text

from benchmarks.report import Figure, Options, Series, say
from encoder_core.retries import RetryLimits
from encoder_core.sealing import KeyRing
from encoder_core.specs import DEFAULT_OWNER, JobSpec
from encoder_db.attempts import finish_attempt, mark_starting, open_attempt, open_attempts_of
from encoder_db.intake import create_job
from encoder_db.migrations import migrate
from encoder_db.pools import create_pool
from encoder_db.queue import claim, release
from encoder_db.rows import Claimed, QueueMessage, Refusal, Resource
from encoder_db.store import Store
from encoder_db.tables import job_outputs, jobs, queue_jobs
from encoder_operator.dispatch import BATCH as OPERATOR_BATCH
from tests.servers.mysql import mysql_server

ROUNDS = 5
FEW, MANY, QUICK_MANY = 1_000, 100_000, 10_000
BATCH, QUICK_BATCH = 100, 50
AT_ONCE = 10  # messages a claim asks for: what becomes free between two looks of a busy engine
OWNERS, QUICK_OWNERS = 1_000, 100
RUNNING = 0.3  # jobs under way for each owner who waits
FILL = 10_000  # jobs a transaction: one of 100,000 would be undone for minutes if it failed
POOL, PLACES = "bench", 1000
LEASE_S = 600.0

SPEC = JobSpec.model_validate(
    {
        "source": {"kind": "file", "path": "in.mp4"},
        "outputs": [{"destination": {"kind": "file", "path": "out.mp4"}}],
        "pool": POOL,
    }
)


def run(options: Options, folder: Path) -> Iterable[Figure]:
    few, many = FEW, QUICK_MANY if options.quick else MANY
    batch = QUICK_BATCH if options.quick else BATCH
    names = {
        (count, way): f"{count:,} queued, {says}"
        for way, says in WAYS.items()
        for count in (few, many)
    }
    ratios = {way: f"rate at {many:,} ÷ rate at {few:,}, {says}" for way, says in WAYS.items()}
    owners = QUICK_OWNERS if options.quick else OWNERS
    running = int(owners * RUNNING)
    among = f"claims of one among {owners:,} owners while {running} jobs run"
    series = Series(
        goals={names[many, way]: "≥ 50" for way in WAYS} | dict.fromkeys(ratios.values(), "≥ 0.8")
    )
    (folder / "mysql").mkdir()
    with (
        mysql_server(folder / "mysql") as server,
        server.fresh_database() as short,
        server.fresh_database() as long,
        server.fresh_database() as wide,
        opened(short.url) as few_store,
        opened(long.url) as many_store,
        opened(wide.url) as owners_store,
    ):
        say(f"  {server.version}, which waits for no disk")
        stores = {few: few_store, many: many_store}
        for count, store in stores.items():
            say(f"  filling in {count:,} jobs")
            fill(store, count)
            for way in WAYS:
                hand_off(store, AT_ONCE, way)  # statements are compiled once a process
        say(f"  filling in {owners:,} owners")
        fill_owners(owners_store, owners + running)
        take(owners_store, running, in_batches)
        claims_a_second(owners_store, AT_ONCE)
        for number in range(options.rounds_or(ROUNDS)):
            say(f"  round {number + 1}")
            alone = claims_a_second(few_store, batch)
            crowded = claims_a_second(owners_store, batch)
            series.add(among, crowded, unit="/s")
            series.add(f"{among} ÷ those of one owner", crowded / alone)
            for way, ratio in ratios.items():
                rates = {}
                for count in sorted(stores, reverse=bool(number % 2)):
                    rates[count] = hand_off(stores[count], batch, way)
                    fill(stores[count], batch)
                    series.add(names[count, way], rates[count], unit="/s")
                series.add(ratio, rates[many] / rates[few])
    return series.figures()


def opened(url: str) -> Store:
    store = Store.open(url, keys=KeyRing([bytes(32)]))
    migrate(store)
    store.run(lambda tx: create_pool(tx, POOL, engine="kubernetes", max_concurrency=PLACES))
    return store


def hand_off(store: Store, count: int, way: Way) -> float:
    """Take so many jobs to `starting`; how many a second. What frees their places is not timed."""
    began = time.perf_counter()
    done = take(store, count, way)
    took_s = time.perf_counter() - began
    for claimed in done:
        finish_attempt(
            store, claimed.job.id, claimed.attempt, exit_code=0, limits=RetryLimits(), jitter=0.0
        )
    return len(done) / took_s


def take(store: Store, count: int, way: Way) -> list[Claimed]:
    done: list[Claimed] = []
    while len(done) < count:
        limit = min(count - len(done), OPERATOR_BATCH if way is in_batches else AT_ONCE)
        messages = claim(store, engine="kubernetes", worker="bench", limit=limit, lease_s=LEASE_S)
        done += way(store, messages)
    return done


def claims_a_second(store: Store, count: int) -> float:
    """Claims of one job each, which is given back; that is not timed."""
    took_s = 0.0
    for _ in range(count):
        began = time.perf_counter()
        (message,) = claim(store, engine="kubernetes", worker="bench", limit=1, lease_s=LEASE_S)
        took_s += time.perf_counter() - began
        release(store, message)
    return count / took_s


def job_by_job(store: Store, messages: Sequence[QueueMessage]) -> list[Claimed]:
    """As an engine does it that takes a job whenever a place becomes free."""
    return [
        start(store, open_attempt(store, message, executor="kubernetes", worker="bench"))
        for message in messages
    ]


def in_batches(store: Store, messages: Sequence[QueueMessage]) -> list[Claimed]:
    """As the operator does it: one transaction gives all the places, each job starts by itself."""
    opened = open_attempts_of(store, messages, executor="kubernetes", worker="bench", total=PLACES)
    return [start(store, one) for one in opened]


def start(store: Store, opened: Claimed | Refusal) -> Claimed:
    resource = Resource(f"tj-{uuid.uuid4()}", str(uuid.uuid4()))
    if not isinstance(opened, Claimed) or not mark_starting(store, opened, resource=resource):
        raise RuntimeError(f"not handed off: {opened}")
    return opened


Way = Callable[[Store, Sequence[QueueMessage]], list[Claimed]]
WAYS: dict[Way, str] = {job_by_job: "job by job", in_batches: "in the operator's batches"}


def fill(store: Store, count: int) -> None:
    """Queue so many jobs: one as the API does it, the others as copies made by the server."""
    job = store.run(lambda tx: create_job(tx, spec=SPEC, owner=DEFAULT_OWNER, keys=store.keys))
    left = count - 1
    while left > 0:
        copy_job(store, job.id, min(left, FILL))
        left -= FILL


def fill_owners(store: Store, count: int) -> None:
    """Queue one job for each of so many."""

    def work(tx: Connection) -> None:
        for number in range(count):
            create_job(tx, spec=SPEC, owner=f"owner-{number}", keys=store.keys)

    store.run(work)


def copy_job(store: Store, job_id: int, count: int) -> None:
    numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)"

    def copied(table: str, names: Iterable[str], **instead: str) -> str:
        columns = [name for name in names if name != "id"]
        values = ", ".join(instead.get(name, f"o.{name}") for name in columns)
        return f"INSERT INTO {table} ({', '.join(columns)}) {{}} SELECT {values} "

    job = copied("jobs", jobs.c.keys(), uuid="RANDOM_BYTES(16)")
    output = copied("job_outputs", job_outputs.c.keys(), job_id="j.id")
    message = copied("queue_jobs", queue_jobs.c.keys(), job_id="j.id")
    new = "JOIN jobs j ON j.id > :last WHERE o.job_id = :job"
    with store.begin() as tx:
        tx.execute(text(f"SET SESSION cte_max_recursion_depth = {FILL}"))
        last = tx.execute(text("SELECT MAX(id) FROM jobs")).scalar_one()
        given = {"job": job_id, "count": count, "last": last}
        tx.execute(text(f"{job.format(numbers)} FROM n JOIN jobs o WHERE o.id = :job"), given)
        tx.execute(text(f"{output.format('')} FROM job_outputs o {new}"), given)
        tx.execute(text(f"{message.format('')} FROM queue_jobs o {new}"), given)
