"""Jobs in the state that a test begins with, and the clock as the record sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, event, func, insert, select, text, update

from encoder_core.documents import JobDocument
from encoder_core.failures import Failure, failure
from encoder_core.reports import (
    Answer,
    Envelope,
    FinalReport,
    Outcome,
    OutputFile,
    OutputReport,
    OutputResult,
    Phase,
    ProgressReport,
    Report,
    Started,
)
from encoder_core.retries import RetryLimits
from encoder_core.specs import JobSpec
from encoder_core.states import JobStatus, OutputStatus
from encoder_db.attempts import (
    Claimed,
    Refusal,
    apply_report,
    finish_attempt,
    mark_starting,
    open_attempt,
)
from encoder_db.events import PARKED_UNTIL, list_events
from encoder_db.jobs import create_job, read_job
from encoder_db.pools import create_pool
from encoder_db.queue import Engine, QueueMessage, claim
from encoder_db.rows import JobRow
from encoder_db.store import Store
from encoder_db.tables import job_attempts, jobs, metadata
from encoder_db.types import Timestamp

# Tests use these beside the builders.
__all__ = ["Claimed", "QueueMessage", "Report", "Started", "mark_starting", "open_attempt"]

OWNER = "default"
WORKER = "host-a"
LIMITS = RetryLimits()
LEASE_S = 600.0

Act = Callable[[Store, Any], Any]


# --- Asking ----------------------------------------------------------------------------------


def s3(key: str = "AKIA", secret: str = "s3cr3t-value") -> dict[str, Any]:
    location = {"kind": "s3", "bucket": "clips", "path": "in.mp4"}
    return {**location, "access_key_id": key, "access_key_secret": secret}


def output(path: str = "out.mp4", **fields: Any) -> dict[str, Any]:
    return {"destination": {"kind": "file", "path": path}, **fields}


def spec(outputs: int | Sequence[Mapping[str, Any]] = 1, **fields: Any) -> JobSpec:
    asked = (
        [output(f"out-{number}.mp4") for number in range(outputs)]
        if isinstance(outputs, int)
        else list(outputs)
    )
    body = {"source": {"kind": "file", "path": "in.mp4"}, "outputs": asked, **fields}
    return JobSpec.model_validate(body)


def create(store: Store, asked: JobSpec | None = None, *, owner: str = OWNER) -> JobRow:
    return store.run(lambda tx: create_job(tx, spec=asked or spec(), owner=owner, keys=store.keys))


def create_many(store: Store, asked: JobSpec, count: int) -> list[JobRow]:
    def work(tx: Connection) -> list[JobRow]:
        return [create_job(tx, spec=asked, owner=OWNER, keys=store.keys) for _ in range(count)]

    return store.run(work)


def kubernetes_pool(store: Store, name: str = "k8s", *, places: int = 100) -> str:
    store.run(lambda tx: create_pool(tx, name, engine="kubernetes", max_concurrency=places))
    return name


# --- Working ---------------------------------------------------------------------------------


def claim_some(
    store: Store, limit: int, *, worker: str = WORKER, engine: Engine = "local"
) -> list[QueueMessage]:
    return claim(store, engine=engine, worker=worker, limit=limit, lease_s=LEASE_S)


def claim_one(store: Store, *, worker: str = WORKER, engine: Engine = "local") -> QueueMessage:
    (message,) = claim_some(store, 1, worker=worker, engine=engine)
    return message


def open_one(
    store: Store, *, worker: str = WORKER, engine: Engine = "local", limit: int | None = None
) -> Claimed | Refusal:
    message = claim_one(store, worker=worker, engine=engine)
    return open_attempt(store, message, executor=engine, worker=worker, limit=limit, limits=LIMITS)


def claimed(store: Store, *, worker: str = WORKER, engine: Engine = "local") -> Claimed:
    """An attempt of the next job: its place is taken, its worker is not begun."""
    opened = open_one(store, worker=worker, engine=engine)
    assert isinstance(opened, Claimed), opened
    return opened


def starting(store: Store, *, worker: str = WORKER, engine: Engine = "local") -> Claimed:
    opened = claimed(store, worker=worker, engine=engine)
    assert mark_starting(store, opened)
    return opened


def running(store: Store, *, worker: str = WORKER, engine: Engine = "local") -> Claimed:
    started = starting(store, worker=worker, engine=engine)
    assert say(store, started, Started()).accepted
    return started


def say(store: Store, worker: Claimed, report: Report, *, token: str | None = None) -> Answer:
    envelope = Envelope(
        job_uuid=worker.job.uuid,
        attempt=worker.attempt,
        token=token or worker.token,
        report=report,
    )
    return apply_report(store, envelope)


def finish(
    store: Store,
    worker: Claimed,
    *,
    exit_code: int | None = 0,
    lost: bool = False,
    failure: Failure | None = None,
    limits: RetryLimits = LIMITS,
) -> JobStatus | None:
    end = finish_attempt(
        store,
        worker.job.id,
        worker.attempt,
        exit_code=exit_code,
        lost=lost,
        failure=failure,
        limits=limits,
        jitter=0.0,
    )
    return None if end is None else end.job


def progress(percent: float = 50.0, phase: Phase = Phase.ENCODING) -> ProgressReport:
    return ProgressReport(phase=phase, percent=percent, speed=2.0)


def uploaded(index: int = 0, *, sha256: str = "ab") -> OutputReport:
    file = OutputFile(
        url=f"file:///out-{index}.mp4", size_bytes=10, sha256=sha256, content_type="video/mp4"
    )
    result = OutputResult(files=[file], size_bytes=10, duration_s=2.0)
    return OutputReport(index=index, status=OutputStatus.UPLOADED, result=result)


def succeeded(*outputs: OutputReport) -> FinalReport:
    return FinalReport(outcome=Outcome.SUCCEEDED, outputs=list(outputs))


def failed(failure: Failure, *outputs: OutputReport, retry_after_s: float | None = None) -> Any:
    return FinalReport(
        outcome=Outcome.FAILED,
        failure=failure,
        outputs=list(outputs),
        retry_after_s=retry_after_s,
    )


def complete(store: Store, worker: Claimed) -> None:
    """The whole life of an attempt that goes well."""
    for item in read(store, worker.job).outputs:
        say(store, worker, uploaded(item.index))
    say(store, worker, succeeded())
    assert finish(store, worker) is JobStatus.COMPLETED


def finish_many(store: Store, job: JobRow, count: int) -> int:
    """Let the job, the next one of its queue, have so many attempts behind it; the last number."""
    worker = running(store)
    say(store, worker, failed(failure("source_unreachable")))
    finish(store, worker, exit_code=20)
    with store.begin() as tx:
        done = tx.execute(select(job_attempts).where(job_attempts.c.job_id == job.id))
        first = dict(done.mappings().one())
        later = [{**first, "number": number} for number in range(2, count + 1)]
        tx.execute(insert(job_attempts), later)
        tx.execute(update(jobs).where(jobs.c.id == job.id).values(attempt=count))
    return count


# --- Looking ---------------------------------------------------------------------------------


def read(store: Store, job: JobRow | int) -> JobDocument:
    with store.read() as tx:
        found = read_job(tx, job if isinstance(job, int) else job.id, owner=None)
    assert found is not None
    return found


def status(store: Store, job: JobRow | int) -> JobStatus:
    return read(store, job).status


def events(store: Store, job: JobRow | int) -> list[tuple[int, str]]:
    with store.read() as tx:
        found = list_events(tx, job if isinstance(job, int) else job.id)
    return [(item.sequence, item.type) for item in found]


def attempt_statuses(store: Store, job: JobRow | int) -> list[str]:
    number = job if isinstance(job, int) else job.id
    query = select(job_attempts.c.status).where(job_attempts.c.job_id == number)
    with store.read() as tx:
        return list(tx.execute(query.order_by(job_attempts.c.number)).scalars())


def count(store: Store, table: str) -> int:
    with store.read() as tx:
        return tx.execute(select(func.count()).select_from(metadata.tables[table])).scalar_one()


@contextmanager
def statements(store: Store) -> Iterator[list[str]]:
    """The SQL that runs meanwhile."""
    seen: list[str] = []

    def note(_: Any, __: Any, statement: str, *rest: Any) -> None:
        if not statement.startswith("BEGIN"):
            seen.append(statement)

    engines = (store.engine, store.reads)
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    yield seen
    for engine in engines:
        event.remove(engine, "before_cursor_execute", note)


# --- Time ------------------------------------------------------------------------------------


def let_pass(store: Store, seconds: float) -> None:
    """The record's clock is the database's own: to let time pass, move what it wrote back."""
    with store.begin() as tx:
        for table in metadata.sorted_tables:
            moved = {
                column.name: text(_earlier(store, table.c[column.name].name, seconds))
                for column in table.columns
                if isinstance(column.type, Timestamp)
            }
            if moved:
                tx.execute(update(table).values(moved))


def _earlier(store: Store, column: str, seconds: float) -> str:
    if store.dialect == "mysql":
        moved = f"{column} - INTERVAL {seconds} SECOND"
    else:
        moved = rf"strftime('%Y-%m-%d %H\:%M\:%f000', {column}, '-{seconds} seconds')"
    parked = f"{PARKED_UNTIL:%Y-%m-%d}"
    return f"CASE WHEN {column} >= '{parked}' THEN {column} ELSE {moved} END"
