"""Every operation of the service, by topic."""

from __future__ import annotations

from encoder_api.contract import Operation
from encoder_api.endpoints import (
    credentials,
    deliveries,
    events,
    health,
    joblogs,
    jobs,
    parts,
    pools,
    previews,
    queue,
    reports,
    sessions,
    workers,
)

OPERATIONS: tuple[Operation, ...] = (
    jobs.submit_job,
    jobs.list_jobs,
    jobs.read_job,
    jobs.delete_job,
    jobs.cancel_job,
    jobs.retry_job,
    credentials.renew_credentials,
    parts.list_job_outputs,
    parts.list_job_attempts,
    events.list_job_events,
    joblogs.read_job_log,
    deliveries.list_job_webhooks,
    deliveries.redeliver_event,
    queue.bump_job,
    queue.list_dead_letters,
    queue.redrive_jobs,
    previews.plan_job,
    previews.probe_source,
    pools.list_pools,
    pools.create_pool,
    pools.change_pool,
    workers.list_workers,
    sessions.read_session,
    sessions.open_session,
    sessions.close_session,
    health.check_health,
    health.check_live,
    health.check_ready,
    health.read_metrics,
    reports.take_report,
    reports.read_inline_source,
)
