"""
`POST /jobs` through the real app over loopback: how many a second, and how long each takes.

The original's request, with credentials to seal and a webhook to write down, under an API key of
the database. Beside it, in the same round, what it cannot be faster than: an empty endpoint of the
framework, and the bare INSERTs of the rows that a job leaves, one connection and a commit for each
job.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, text

from benchmarks.load import Request, ask_for
from benchmarks.report import Figure, Options, Series, say
from encoder_core.specs import DEFAULT_OWNER, JobRequest
from encoder_db.intake import create_job
from encoder_db.keys import create_key
from encoder_db.migrations import migrate
from encoder_db.store import Store
from encoder_db.tables import jobs, metadata
from tests.servers.mysql import mysql_server

ROUNDS = 3
PHASE_S, QUICK_PHASE_S = 5.0, 1.0
HALF = 0.5  # the share of the highest rate at which latency is looked at

_S3 = {"kind": "s3", "access_key_id": "AKIAIOSFODNN7EXAMPLE", "access_key_secret": "w" * 40,
       "region": "us-east-1", "bucket": "my-bucket"}  # fmt: skip
BODY: dict[str, Any] = {
    "source": {**_S3, "path": "uploads/input/video.mp4"},
    "outputs": [
        {
            "container": "mp4",
            "videoCodec": "libx264",
            "videoBitrate": "2500k",
            "audioCodec": "aac",
            "audioBitrate": "128k",
            "width": 1280,
            "height": 720,
            "destination": {**_S3, "path": "processed/output/video_720p.mp4", "acl": "public-read"},
        }
    ],
    "notificationUrl": "https://example.com/webhook",
}


def run(options: Options, folder: Path) -> Iterable[Figure]:
    series = Series(
        goals={
            "MySQL: POST /jobs, 16 clients": "≥ 300",
            "MySQL: p99 at half that rate": "≤ 100",
        }
    )
    seconds = QUICK_PHASE_S if options.quick else PHASE_S
    (folder / "mysql").mkdir()
    with mysql_server(folder / "mysql") as server, server.fresh_database() as database:
        say(f"  {server.version}, which waits for no disk")
        urls = {"MySQL": database.url, "SQLite": f"sqlite:///{folder / 'encoder.db'}"}
        keys = {name: prepare(url) for name, url in urls.items()}
        for number in range(options.rounds_or(ROUNDS)):
            for name in sorted(urls, reverse=bool(number % 2)):
                say(f"  round {number + 1}, {name}")
                measure(series, name, urls[name], keys[name], seconds)
    return series.figures()


def prepare(url: str) -> str:
    """A migrated database, and an API key in it."""
    with Store.open(url) as store:
        migrate(store)
        return store.run(
            lambda tx: create_key(tx, name="bench", owner=DEFAULT_OWNER, scopes=["jobs:write"])
        )


def measure(series: Series, name: str, url: str, key: str, seconds: float) -> None:
    post = Request(
        *("POST", "/jobs", 202),
        body=json.dumps(BODY).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
    )
    with served("empty") as address:
        empty = ask_for(seconds / 2, address, post)
    with served(url) as address:
        ask_for(seconds / 4, address, post)  # statements are compiled once a process
        full = ask_for(seconds, address, post)
        half = ask_for(seconds, address, post, per_s=full.per_s * HALF)
    series.add(f"{name}: POST /jobs, 16 clients", full.per_s, unit="/s")
    series.add(f"{name}: POST /jobs ÷ an empty endpoint", full.per_s / empty.per_s)
    inserts = bare_inserts_per_s(url, seconds / 2)
    series.add(f"{name}: POST /jobs ÷ bare INSERTs of its rows", full.per_s / inserts)
    series.add(f"{name}: p50 at half that rate", half.percentile_ms(0.5), unit="ms")
    series.add(f"{name}: p99 at half that rate", half.percentile_ms(0.99), unit="ms")
    series.add(f"{name}: p99 at the full rate", full.percentile_ms(0.99), unit="ms")


def bare_inserts_per_s(url: str, seconds: float) -> float:
    """Jobs a second when somebody else has decided what their rows are, and only writes them."""
    engine = create_engine(url)
    with Store.open(url) as store, engine.connect() as connection:
        spec = JobRequest.model_validate(BODY)
        job = store.run(lambda tx: create_job(tx, spec=spec, owner=DEFAULT_OWNER, keys=store.keys))
        statements = [(text(statement), rows) for statement, rows in _rows_of(connection, job.id)]
        connection.rollback()
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            number: int | None = None
            for statement, rows in statements:
                fresh = {"fresh": os.urandom(16), "job": number, "event": random.getrandbits(60)}
                result = connection.execute(statement, [row | fresh for row in rows])
                number = number or result.lastrowid
            connection.commit()
            count += 1
        took_s = time.perf_counter() - began
    engine.dispose()
    return count / took_s


def _rows_of(connection: Connection, job_id: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """For each table, its INSERT and the rows of a job. `:fresh` is its new uuid."""
    others = [table for table in metadata.sorted_tables if "job_id" in table.columns]
    for table, key in [(jobs, "id"), *((table, "job_id") for table in others)]:
        found = connection.execute(text(f"SELECT * FROM {table.name} WHERE {key} = {job_id}"))
        rows = [{k: v for k, v in row.items() if k != "id"} for row in found.mappings()]
        if rows:
            given = {"uuid": ":fresh", "job_id": ":job", "event_id": ":event"}
            values = [given.get(name, f":{name}") for name in rows[0]]
            yield (
                f"INSERT INTO {table.name} ({', '.join(rows[0])}) VALUES ({', '.join(values)})",
                rows,
            )


@contextmanager
def served(url: str) -> Iterator[str]:
    """The address of an API on this database, as long as the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.served", url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        if not address:
            raise RuntimeError("the API did not start")
        yield address
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()
