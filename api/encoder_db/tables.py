"""
The tables of the record: one definition for MySQL, MariaDB and SQLite.

There are no foreign keys. Inserting a child would lock its parent's row and add lock orders; rows
that belong together are written in one transaction and purged by `jobs.purge_deleted`. Index names
say which question they answer. Each table's rows are changed by the modules named beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import CheckConstraint, Column, Index, Integer, MetaData, UniqueConstraint
from sqlalchemy import Table as SqlTable

from encoder_core.specs import Priority
from encoder_core.states import FINAL_JOB, AttemptStatus, JobStatus, OutputStatus
from encoder_db.types import (
    Big,
    Blob,
    Bytes,
    Count,
    Digest,
    Exact,
    Float,
    Id,
    Json,
    Key,
    LongText,
    SmallCount,
    Timestamp,
    Uuid,
)

metadata: Final = MetaData()

LABEL = 63  # owners and pools are DNS labels
QUEUE = LABEL + len("/p0/") + LABEL
WORKER = 255  # a host name and a process, or a Pod
CODE = 64


def _table(name: str, *parts: Any) -> SqlTable:
    return SqlTable(
        name,
        metadata,
        *parts,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        # A number that was shown to somebody must never come to mean another row.
        sqlite_autoincrement=any(column.autoincrement is True for column in parts[:1]),
    )


def _one_of(column: str, values: Iterable[StrEnum]) -> str:
    return f"{column} IN ({', '.join(repr(value.value) for value in values)})"


def _needed(name: str, type_: Any, **options: Any) -> Column[Any]:
    return Column(name, type_, nullable=False, **options)


# --- Jobs: intake.py, transitions.py, jobs.py, attempts.py, reports.py, outcomes.py ------------

jobs: Final = _table(
    "jobs",
    Column("id", Id(), primary_key=True, autoincrement=True),
    _needed("uuid", Uuid()),
    _needed("owner", Key(LABEL)),
    _needed("pool", Key(LABEL)),
    _needed("priority", Key(8)),
    _needed("status", Key(12)),
    _needed("attempt", SmallCount()),  # the number of the latest attempt; 0 before the first
    _needed("attempts_forgiven", SmallCount()),  # up to this number no budget is charged
    _needed("version", Count()),
    _needed("source", Json()),  # redacted, like all JSON that is stored
    _needed("request", Json()),  # the rest of the request, without source and outputs
    _needed("secret_fields", Json()),  # JSON pointers of what was split off; no values
    Column("source_info", Json()),
    Column("warnings", Json()),
    Column("failure_code", Key(CODE)),
    Column("failure", Json()),
    Column("waiting_reason", Key(CODE)),  # why it does not run yet; gone with the next change
    Column("waiting_message", Exact(1024)),
    Column("external_id", Exact(128)),
    Column("request_id", Key(64)),  # of the request that made it; the worker's log has it too
    Column("resource_name", Key(253)),
    Column("resource_uid", Key(36)),
    _needed("created_at", Timestamp()),
    _needed("updated_at", Timestamp()),
    Column("started_at", Timestamp()),
    Column("finished_at", Timestamp()),
    Column("deleted_at", Timestamp()),
    UniqueConstraint("uuid", name="uq_jobs_uuid"),
    UniqueConstraint("owner", "external_id", name="uq_jobs_external_id"),
    UniqueConstraint("resource_uid", name="uq_jobs_resource_uid"),
    Index("ix_jobs_latest_of_owner", "owner", "id"),
    Index("ix_jobs_latest_of_owner_by_status", "owner", "status", "id"),
    Index("ix_jobs_by_status", "status", "id"),
    Index("ix_jobs_by_pool", "pool", "status", "id"),
    Index("ix_jobs_by_failure", "failure_code", "id"),
    Index("ix_jobs_finished", "finished_at", "id"),
    Index("ix_jobs_resource_name", "resource_name"),
    Index("ix_jobs_deleted", "deleted_at"),
    CheckConstraint(_one_of("status", JobStatus), name="ck_jobs_status"),
    CheckConstraint(_one_of("priority", Priority), name="ck_jobs_priority"),
    CheckConstraint(
        f"({_one_of('status', sorted(FINAL_JOB))}) = (finished_at IS NOT NULL)",
        name="ck_jobs_finished",
    ),
)

job_outputs: Final = _table(
    "job_outputs",
    Column("id", Id(), primary_key=True, autoincrement=True),
    _needed("job_id", Big()),
    _needed("position", SmallCount()),
    _needed("spec", Json()),
    _needed("status", Key(12)),
    Column("result", Json()),  # with the measured properties
    Column("error", Json()),
    Column("failure_code", Key(CODE)),
    Column("warnings", Json()),
    Column("size_bytes", Big()),
    Column("checksum", Key(80)),
    Column("duration_s", Float()),
    Column("url", LongText()),
    _needed("updated_at", Timestamp()),
    UniqueConstraint("job_id", "position", name="uq_job_outputs_position"),
    CheckConstraint(_one_of("status", OutputStatus), name="ck_job_outputs_status"),
)

job_attempts: Final = _table(
    "job_attempts",
    Column("job_id", Big(), primary_key=True, autoincrement=False),
    Column("number", SmallCount(), primary_key=True, autoincrement=False),
    _needed("status", Key(12)),
    _needed("executor", Key(12)),
    _needed("worker", Key(WORKER)),
    Column("node", Key(253)),
    _needed("pool", Key(LABEL)),
    _needed("owner", Key(LABEL)),
    Column("message_id", Big()),  # the lease under which it was opened
    Column("lease_seq", Big()),
    _needed("token_hash", Digest(32)),
    Column("publish_until", Timestamp()),  # until then its worker may publish outputs
    Column("final_report", Json()),
    Column("exit_code", Integer()),  # negative: the signal that ended a local child
    Column("failure_code", Key(CODE)),
    Column("failure", Json()),
    Column("budget", Key(12)),
    Column("resources", Json()),  # what its Pod was given: the next one may need more
    _needed("created_at", Timestamp()),
    Column("begun_at", Timestamp()),  # when `worker` last set out to make its Pod
    Column("scheduled_at", Timestamp()),  # when its Pod was given a node, by the cluster's clock
    Column("pulled_at", Timestamp()),  # when its container began, by the clock of that node
    Column("started_at", Timestamp()),
    Column("finished_at", Timestamp()),
    Index("ix_job_attempts_slots", "pool", "status", "owner"),
    Index("ix_job_attempts_ended", "pool", "finished_at"),
    Index("ix_job_attempts_of_worker", "executor", "status", "worker"),
    CheckConstraint(_one_of("status", AttemptStatus), name="ck_job_attempts_status"),
)

# --- Queue: queue.py ---------------------------------------------------------------------------

queue_jobs: Final = _table(
    "queue_jobs",
    Column("id", Id(), primary_key=True, autoincrement=True),
    _needed("queue", Key(QUEUE)),
    _needed("job_id", Big()),
    _needed("visible_at", Timestamp()),  # due, end of a back-off and end of a lease, all in one
    _needed("deliveries", SmallCount()),  # claims since an attempt was last begun
    _needed("failures", SmallCount()),  # of these, how many ended with a word
    _needed("lease_seq", Big()),  # +1 per claim: who holds an older number holds nothing
    Column("leased_by", Key(WORKER)),
    Column("last_error", Exact(512)),
    _needed("enqueued_at", Timestamp()),
    UniqueConstraint("job_id", name="uq_queue_jobs_job"),
    Index("ix_queue_jobs_claim", "queue", "visible_at", "id"),
)

queue_owners: Final = _table(
    "queue_owners",
    Column("queue", Key(QUEUE), primary_key=True),
    _needed("pool", Key(LABEL)),
    _needed("priority", SmallCount()),  # 0 is taken first
    _needed("owner", Key(LABEL)),
    _needed("weight", SmallCount()),
    _needed("last_served_at", Timestamp()),
    Index("ix_queue_owners_pool", "pool", "priority"),
)

dead_letters: Final = _table(
    "dead_letters",
    Column("id", Id(), primary_key=True, autoincrement=True),
    _needed("job_id", Big()),
    _needed("queue", Key(QUEUE)),
    _needed("deliveries", SmallCount()),
    _needed("failures", SmallCount()),
    _needed("reason", Key(CODE)),
    Column("last_error", Exact(512)),
    _needed("enqueued_at", Timestamp()),
    _needed("dead_at", Timestamp()),
    Column("redriven_at", Timestamp()),
    Index("ix_dead_letters_of_job", "job_id"),
    Index("ix_dead_letters_latest", "dead_at", "id"),
    Index("ix_dead_letters_open", "redriven_at", "id"),
)

# --- What belongs to a job: secrets.py, blobs.py, reports.py -----------------------------------

job_secrets: Final = _table(
    "job_secrets",
    Column("job_id", Big(), primary_key=True, autoincrement=False),
    Column("purpose", Key(32), primary_key=True),
    _needed("sealed", Blob()),
    _needed("kek_id", Digest(8)),
    Column("expires_at", Timestamp()),
    Index("ix_job_secrets_expired", "expires_at"),
)

job_blobs: Final = _table(
    "job_blobs",
    Column("job_id", Big(), primary_key=True, autoincrement=False),
    Column("number", SmallCount(), primary_key=True, autoincrement=False),
    Column("chunk", SmallCount(), primary_key=True, autoincrement=False),
    _needed("data", Blob()),
)

# Written every two seconds a job: tiny, and without a second index to keep.
job_progress: Final = _table(
    "job_progress",
    Column("job_id", Big(), primary_key=True, autoincrement=False),
    _needed("attempt", SmallCount()),
    _needed("phase", Key(12)),
    _needed("percent", Float()),
    Column("speed", Float()),
    Column("fps", Float()),
    Column("eta_s", Float()),
    _needed("updated_at", Timestamp()),
)

# The end of each attempt's log, replaced as it grows: at most a few KiB a row.
job_logs: Final = _table(
    "job_logs",
    Column("job_id", Big(), primary_key=True, autoincrement=False),
    Column("attempt", SmallCount(), primary_key=True, autoincrement=False),
    _needed("tail", LongText()),
    _needed("lines", Count()),  # of the whole log, so that readers see what the tail leaves out
    _needed("updated_at", Timestamp()),
)

# --- Events and webhooks: events.py, deliveries.py ---------------------------------------------

job_events: Final = _table(
    "job_events",
    Column("id", Id(), primary_key=True, autoincrement=True),
    _needed("uuid", Uuid()),
    _needed("job_id", Big()),
    _needed("seq", Count()),  # the job's version after the change
    _needed("type", Key(40)),
    _needed("payload", LongText()),  # text and not JSON: each try sends the same bytes
    _needed("created_at", Timestamp()),
    UniqueConstraint("uuid", name="uq_job_events_uuid"),
    UniqueConstraint("job_id", "seq", name="uq_job_events_seq"),
)

# Only what is still to be sent; a delivery that ended is a row of webhook_attempts.
webhook_deliveries: Final = _table(
    "webhook_deliveries",
    Column("id", Id(), primary_key=True, autoincrement=True),
    _needed("event_id", Big()),
    _needed("event_uuid", Uuid()),
    _needed("event_type", Key(40)),
    _needed("job_id", Big()),
    _needed("job_uuid", Uuid()),
    _needed("seq", Count()),
    _needed("trigger_kind", Key(8)),
    _needed("target", Blob()),  # the sealed URL
    _needed("host_hash", Digest(16)),
    _needed("next_attempt_at", Timestamp()),  # due, back-off and lease; far away while parked
    _needed("attempts", SmallCount()),
    _needed("lease_seq", Big()),
    Column("leased_by", Key(WORKER)),
    Column("first_attempt_at", Timestamp()),
    Column("body", LongText()),  # only once the job and its events are gone
    UniqueConstraint("event_id", name="uq_webhook_deliveries_event"),
    Index("ix_webhook_deliveries_claim", "next_attempt_at", "id"),
    Index("ix_webhook_deliveries_of_host", "host_hash", "next_attempt_at", "id"),
    Index("ix_webhook_deliveries_of_job", "job_id", "seq"),
)

webhook_attempts: Final = _table(
    "webhook_attempts",
    Column("id", Id(), primary_key=True, autoincrement=True),
    _needed("event_uuid", Uuid()),
    _needed("event_type", Key(40)),
    _needed("job_id", Big()),
    _needed("seq", Count()),
    _needed("attempt", SmallCount()),
    _needed("trigger_kind", Key(8)),
    _needed("started_at", Timestamp()),
    _needed("duration_ms", Count()),
    _needed("outcome", Key(24)),
    Column("status", SmallCount()),
    Column("remote_ip", Key(45)),
    Column("snippet", Bytes(1024)),
    Column("next_attempt_at", Timestamp()),
    Index("ix_webhook_attempts_of_job", "job_id", "id"),
    Index("ix_webhook_attempts_by_age", "started_at", "id"),
)

# --- The installation: pools.py, workers.py, idempotency.py, keys.py, secrets.py ----------------

pools: Final = _table(
    "pools",
    Column("name", Key(LABEL), primary_key=True),
    _needed("engine", Key(12)),
    _needed("max_concurrency", Count()),
    _needed("stop_policy", Key(8)),
    Column("blocked", Exact(512)),  # why the cluster starts nothing in it at the moment
    Column("max_per_owner", Count()),  # places of one owner; null is no such limit
    Column("resource_uid", Key(36)),
    _needed("created_at", Timestamp()),
    _needed("updated_at", Timestamp()),
    CheckConstraint("engine IN ('local', 'kubernetes')", name="ck_pools_engine"),
    CheckConstraint("stop_policy IN ('None', 'Hold', 'Drain')", name="ck_pools_stop_policy"),
)

workers: Final = _table(
    "workers",
    Column("name", Key(WORKER), primary_key=True),
    _needed("kind", Key(16)),
    _needed("host", Key(253)),
    _needed("pid", Count()),
    _needed("capacity", Count()),
    _needed("running", Json()),
    _needed("started_at", Timestamp()),
    _needed("heartbeat_at", Timestamp()),
)

idempotency_keys: Final = _table(
    "idempotency_keys",
    Column("owner", Key(LABEL), primary_key=True),
    Column("key", Key(255), primary_key=True),
    _needed("fingerprint", Digest(32)),  # an HMAC: the body holds secrets
    _needed("job_id", Big()),
    _needed("response", Json()),
    _needed("created_at", Timestamp()),
    _needed("expires_at", Timestamp()),
    Index("ix_idempotency_keys_expired", "expires_at"),
)

api_keys: Final = _table(
    "api_keys",
    Column("id", Id(), primary_key=True, autoincrement=True),
    _needed("public", Key(8)),
    _needed("secret_hash", Digest(32)),
    _needed("name", Exact(128)),
    _needed("owner", Key(LABEL)),
    _needed("scopes", Json()),
    _needed("created_at", Timestamp()),
    Column("last_used_at", Timestamp()),
    Column("revoked_at", Timestamp()),
    UniqueConstraint("public", name="uq_api_keys_public"),
)

instance_secrets: Final = _table(
    "instance_secrets",
    Column("name", Key(32), primary_key=True),
    _needed("value", Blob()),
    _needed("created_at", Timestamp()),
)
