"""
The first tables, complete.

Revision ID: 0001
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from encoder_db import types as t
from encoder_db.dialect import db_now

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# The pool that every installation has. On one machine the process sets the real limit, which is
# far below this one.
DEFAULT_POOL = {
    "name": "default",
    "engine": "local",
    "max_concurrency": 1000,
    "stop_policy": "None",
}


def _create(name: str, *parts: Any) -> sa.Table:
    counts = getattr(parts[0], "autoincrement", None) is True
    return op.create_table(
        name, *parts, mysql_engine="InnoDB", mysql_charset="utf8mb4", sqlite_autoincrement=counts
    )


def upgrade() -> None:
    _create(
        "jobs",
        sa.Column("id", t.Id(), primary_key=True, autoincrement=True),
        sa.Column("uuid", t.Uuid(), nullable=False),
        sa.Column("owner", t.Key(63), nullable=False),
        sa.Column("pool", t.Key(63), nullable=False),
        sa.Column("priority", t.Key(8), nullable=False),
        sa.Column("status", t.Key(12), nullable=False),
        sa.Column("attempt", t.SmallCount(), nullable=False),
        sa.Column("attempts_forgiven", t.SmallCount(), nullable=False),
        sa.Column("version", t.Count(), nullable=False),
        sa.Column("source", t.Json(), nullable=False),
        sa.Column("request", t.Json(), nullable=False),
        sa.Column("secret_fields", t.Json(), nullable=False),
        sa.Column("source_info", t.Json()),
        sa.Column("warnings", t.Json()),
        sa.Column("failure_code", t.Key(64)),
        sa.Column("failure", t.Json()),
        sa.Column("waiting_reason", t.Key(64)),
        sa.Column("waiting_message", t.Exact(1024)),
        sa.Column("external_id", t.Exact(128)),
        sa.Column("request_id", t.Key(64)),
        sa.Column("resource_name", t.Key(253)),
        sa.Column("resource_uid", t.Key(36)),
        sa.Column("created_at", t.Timestamp(), nullable=False),
        sa.Column("updated_at", t.Timestamp(), nullable=False),
        sa.Column("started_at", t.Timestamp()),
        sa.Column("finished_at", t.Timestamp()),
        sa.Column("deleted_at", t.Timestamp()),
        sa.UniqueConstraint("owner", "external_id", name="uq_jobs_external_id"),
        sa.UniqueConstraint("resource_uid", name="uq_jobs_resource_uid"),
        sa.UniqueConstraint("uuid", name="uq_jobs_uuid"),
        sa.CheckConstraint(
            "(status IN ('canceled', 'completed', 'failed')) = (finished_at IS NOT NULL)",
            name="ck_jobs_finished",
        ),
        sa.CheckConstraint("priority IN ('high', 'normal', 'low')", name="ck_jobs_priority"),
        sa.CheckConstraint(
            "status IN ('queued', 'starting', 'running', 'canceling', "
            "'completed', 'failed', 'canceled')",
            name="ck_jobs_status",
        ),
        sa.Index("ix_jobs_by_failure", "failure_code", "id"),
        sa.Index("ix_jobs_by_pool", "pool", "status", "id"),
        sa.Index("ix_jobs_by_status", "status", "id"),
        sa.Index("ix_jobs_deleted", "deleted_at"),
        sa.Index("ix_jobs_finished", "finished_at", "id"),
        sa.Index("ix_jobs_latest_of_owner", "owner", "id"),
        sa.Index("ix_jobs_latest_of_owner_by_status", "owner", "status", "id"),
        sa.Index("ix_jobs_resource_name", "resource_name"),
    )
    _create(
        "job_outputs",
        sa.Column("id", t.Id(), primary_key=True, autoincrement=True),
        sa.Column("job_id", t.Big(), nullable=False),
        sa.Column("position", t.SmallCount(), nullable=False),
        sa.Column("spec", t.Json(), nullable=False),
        sa.Column("status", t.Key(12), nullable=False),
        sa.Column("result", t.Json()),
        sa.Column("error", t.Json()),
        sa.Column("failure_code", t.Key(64)),
        sa.Column("warnings", t.Json()),
        sa.Column("size_bytes", t.Big()),
        sa.Column("checksum", t.Key(80)),
        sa.Column("duration_s", t.Float()),
        sa.Column("url", t.LongText()),
        sa.Column("updated_at", t.Timestamp(), nullable=False),
        sa.UniqueConstraint("job_id", "position", name="uq_job_outputs_position"),
        sa.CheckConstraint(
            "status IN ('pending', 'running', 'uploaded', 'failed', 'canceled')",
            name="ck_job_outputs_status",
        ),
    )
    _create(
        "job_attempts",
        sa.Column("job_id", t.Big(), primary_key=True, autoincrement=False),
        sa.Column("number", t.SmallCount(), primary_key=True, autoincrement=False),
        sa.Column("status", t.Key(12), nullable=False),
        sa.Column("executor", t.Key(12), nullable=False),
        sa.Column("worker", t.Key(255), nullable=False),
        sa.Column("node", t.Key(253)),
        sa.Column("pool", t.Key(63), nullable=False),
        sa.Column("owner", t.Key(63), nullable=False),
        sa.Column("message_id", t.Big()),
        sa.Column("lease_seq", t.Big()),
        sa.Column("token_hash", t.Digest(32), nullable=False),
        sa.Column("publish_until", t.Timestamp()),
        sa.Column("final_report", t.Json()),
        sa.Column("exit_code", sa.Integer()),
        sa.Column("failure_code", t.Key(64)),
        sa.Column("failure", t.Json()),
        sa.Column("budget", t.Key(12)),
        sa.Column("resources", t.Json()),
        sa.Column("created_at", t.Timestamp(), nullable=False),
        sa.Column("begun_at", t.Timestamp()),
        sa.Column("scheduled_at", t.Timestamp()),
        sa.Column("pulled_at", t.Timestamp()),
        sa.Column("started_at", t.Timestamp()),
        sa.Column("finished_at", t.Timestamp()),
        sa.CheckConstraint(
            "status IN ('created', 'running', 'succeeded', 'failed', 'lost', 'canceled')",
            name="ck_job_attempts_status",
        ),
        sa.Index("ix_job_attempts_ended", "pool", "finished_at"),
        sa.Index("ix_job_attempts_of_worker", "executor", "status", "worker"),
        sa.Index("ix_job_attempts_slots", "pool", "status", "owner"),
    )
    _create(
        "queue_jobs",
        sa.Column("id", t.Id(), primary_key=True, autoincrement=True),
        sa.Column("queue", t.Key(130), nullable=False),
        sa.Column("job_id", t.Big(), nullable=False),
        sa.Column("visible_at", t.Timestamp(), nullable=False),
        sa.Column("deliveries", t.SmallCount(), nullable=False),
        sa.Column("failures", t.SmallCount(), nullable=False),
        sa.Column("lease_seq", t.Big(), nullable=False),
        sa.Column("leased_by", t.Key(255)),
        sa.Column("last_error", t.Exact(512)),
        sa.Column("enqueued_at", t.Timestamp(), nullable=False),
        sa.UniqueConstraint("job_id", name="uq_queue_jobs_job"),
        sa.Index("ix_queue_jobs_claim", "queue", "visible_at", "id"),
    )
    _create(
        "queue_owners",
        sa.Column("queue", t.Key(130), primary_key=True),
        sa.Column("pool", t.Key(63), nullable=False),
        sa.Column("priority", t.SmallCount(), nullable=False),
        sa.Column("owner", t.Key(63), nullable=False),
        sa.Column("weight", t.SmallCount(), nullable=False),
        sa.Column("last_served_at", t.Timestamp(), nullable=False),
        sa.Index("ix_queue_owners_pool", "pool", "priority"),
    )
    _create(
        "dead_letters",
        sa.Column("id", t.Id(), primary_key=True, autoincrement=True),
        sa.Column("job_id", t.Big(), nullable=False),
        sa.Column("queue", t.Key(130), nullable=False),
        sa.Column("deliveries", t.SmallCount(), nullable=False),
        sa.Column("failures", t.SmallCount(), nullable=False),
        sa.Column("reason", t.Key(64), nullable=False),
        sa.Column("last_error", t.Exact(512)),
        sa.Column("enqueued_at", t.Timestamp(), nullable=False),
        sa.Column("dead_at", t.Timestamp(), nullable=False),
        sa.Column("redriven_at", t.Timestamp()),
        sa.Index("ix_dead_letters_latest", "dead_at", "id"),
        sa.Index("ix_dead_letters_of_job", "job_id"),
        sa.Index("ix_dead_letters_open", "redriven_at", "id"),
    )
    _create(
        "job_secrets",
        sa.Column("job_id", t.Big(), primary_key=True, autoincrement=False),
        sa.Column("purpose", t.Key(32), primary_key=True),
        sa.Column("sealed", t.Blob(), nullable=False),
        sa.Column("kek_id", t.Digest(8), nullable=False),
        sa.Column("expires_at", t.Timestamp()),
        sa.Index("ix_job_secrets_expired", "expires_at"),
    )
    _create(
        "job_blobs",
        sa.Column("job_id", t.Big(), primary_key=True, autoincrement=False),
        sa.Column("number", t.SmallCount(), primary_key=True, autoincrement=False),
        sa.Column("chunk", t.SmallCount(), primary_key=True, autoincrement=False),
        sa.Column("data", t.Blob(), nullable=False),
    )
    _create(
        "job_progress",
        sa.Column("job_id", t.Big(), primary_key=True, autoincrement=False),
        sa.Column("attempt", t.SmallCount(), nullable=False),
        sa.Column("phase", t.Key(12), nullable=False),
        sa.Column("percent", t.Float(), nullable=False),
        sa.Column("speed", t.Float()),
        sa.Column("fps", t.Float()),
        sa.Column("eta_s", t.Float()),
        sa.Column("updated_at", t.Timestamp(), nullable=False),
    )
    _create(
        "job_logs",
        sa.Column("job_id", t.Big(), primary_key=True, autoincrement=False),
        sa.Column("attempt", t.SmallCount(), primary_key=True, autoincrement=False),
        sa.Column("tail", t.LongText(), nullable=False),
        sa.Column("lines", t.Count(), nullable=False),
        sa.Column("updated_at", t.Timestamp(), nullable=False),
    )
    _create(
        "job_events",
        sa.Column("id", t.Id(), primary_key=True, autoincrement=True),
        sa.Column("uuid", t.Uuid(), nullable=False),
        sa.Column("job_id", t.Big(), nullable=False),
        sa.Column("seq", t.Count(), nullable=False),
        sa.Column("type", t.Key(40), nullable=False),
        sa.Column("payload", t.LongText(), nullable=False),
        sa.Column("created_at", t.Timestamp(), nullable=False),
        sa.UniqueConstraint("job_id", "seq", name="uq_job_events_seq"),
        sa.UniqueConstraint("uuid", name="uq_job_events_uuid"),
    )
    _create(
        "webhook_deliveries",
        sa.Column("id", t.Id(), primary_key=True, autoincrement=True),
        sa.Column("event_id", t.Big(), nullable=False),
        sa.Column("event_uuid", t.Uuid(), nullable=False),
        sa.Column("event_type", t.Key(40), nullable=False),
        sa.Column("job_id", t.Big(), nullable=False),
        sa.Column("job_uuid", t.Uuid(), nullable=False),
        sa.Column("seq", t.Count(), nullable=False),
        sa.Column("trigger_kind", t.Key(8), nullable=False),
        sa.Column("target", t.Blob(), nullable=False),
        sa.Column("host_hash", t.Digest(16), nullable=False),
        sa.Column("next_attempt_at", t.Timestamp(), nullable=False),
        sa.Column("attempts", t.SmallCount(), nullable=False),
        sa.Column("lease_seq", t.Big(), nullable=False),
        sa.Column("leased_by", t.Key(255)),
        sa.Column("first_attempt_at", t.Timestamp()),
        sa.Column("body", t.LongText()),
        sa.UniqueConstraint("event_id", name="uq_webhook_deliveries_event"),
        sa.Index("ix_webhook_deliveries_claim", "next_attempt_at", "id"),
        sa.Index("ix_webhook_deliveries_of_host", "host_hash", "next_attempt_at", "id"),
        sa.Index("ix_webhook_deliveries_of_job", "job_id", "seq"),
    )
    _create(
        "webhook_attempts",
        sa.Column("id", t.Id(), primary_key=True, autoincrement=True),
        sa.Column("event_uuid", t.Uuid(), nullable=False),
        sa.Column("event_type", t.Key(40), nullable=False),
        sa.Column("job_id", t.Big(), nullable=False),
        sa.Column("seq", t.Count(), nullable=False),
        sa.Column("attempt", t.SmallCount(), nullable=False),
        sa.Column("trigger_kind", t.Key(8), nullable=False),
        sa.Column("started_at", t.Timestamp(), nullable=False),
        sa.Column("duration_ms", t.Count(), nullable=False),
        sa.Column("outcome", t.Key(24), nullable=False),
        sa.Column("status", t.SmallCount()),
        sa.Column("remote_ip", t.Key(45)),
        sa.Column("snippet", t.Bytes(1024)),
        sa.Column("next_attempt_at", t.Timestamp()),
        sa.Index("ix_webhook_attempts_by_age", "started_at", "id"),
        sa.Index("ix_webhook_attempts_of_job", "job_id", "id"),
    )
    pools = _create(
        "pools",
        sa.Column("name", t.Key(63), primary_key=True),
        sa.Column("engine", t.Key(12), nullable=False),
        sa.Column("max_concurrency", t.Count(), nullable=False),
        sa.Column("stop_policy", t.Key(8), nullable=False),
        sa.Column("blocked", t.Exact(512)),
        sa.Column("max_per_owner", t.Count()),
        sa.Column("resource_uid", t.Key(36)),
        sa.Column("created_at", t.Timestamp(), nullable=False),
        sa.Column("updated_at", t.Timestamp(), nullable=False),
        sa.CheckConstraint("engine IN ('local', 'kubernetes')", name="ck_pools_engine"),
        sa.CheckConstraint("stop_policy IN ('None', 'Hold', 'Drain')", name="ck_pools_stop_policy"),
    )
    _create(
        "workers",
        sa.Column("name", t.Key(255), primary_key=True),
        sa.Column("kind", t.Key(16), nullable=False),
        sa.Column("host", t.Key(253), nullable=False),
        sa.Column("pid", t.Count(), nullable=False),
        sa.Column("capacity", t.Count(), nullable=False),
        sa.Column("running", t.Json(), nullable=False),
        sa.Column("started_at", t.Timestamp(), nullable=False),
        sa.Column("heartbeat_at", t.Timestamp(), nullable=False),
    )
    _create(
        "idempotency_keys",
        sa.Column("owner", t.Key(63), primary_key=True),
        sa.Column("key", t.Key(255), primary_key=True),
        sa.Column("fingerprint", t.Digest(32), nullable=False),
        sa.Column("job_id", t.Big(), nullable=False),
        sa.Column("response", t.Json(), nullable=False),
        sa.Column("created_at", t.Timestamp(), nullable=False),
        sa.Column("expires_at", t.Timestamp(), nullable=False),
        sa.Index("ix_idempotency_keys_expired", "expires_at"),
    )
    _create(
        "api_keys",
        sa.Column("id", t.Id(), primary_key=True, autoincrement=True),
        sa.Column("public", t.Key(8), nullable=False),
        sa.Column("secret_hash", t.Digest(32), nullable=False),
        sa.Column("name", t.Exact(128), nullable=False),
        sa.Column("owner", t.Key(63), nullable=False),
        sa.Column("scopes", t.Json(), nullable=False),
        sa.Column("created_at", t.Timestamp(), nullable=False),
        sa.Column("last_used_at", t.Timestamp()),
        sa.Column("revoked_at", t.Timestamp()),
        sa.UniqueConstraint("public", name="uq_api_keys_public"),
    )
    _create(
        "instance_secrets",
        sa.Column("name", t.Key(32), primary_key=True),
        sa.Column("value", t.Blob(), nullable=False),
        sa.Column("created_at", t.Timestamp(), nullable=False),
    )
    now = {"created_at": db_now(), "updated_at": db_now()}
    op.execute(pools.insert().values(**DEFAULT_POOL, **now))
