"""What Prometheus is told of the operator. Labels are few: never a job, an owner or a Pod."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from encoder_core.failures import FAILURES
from encoder_db.dialect import RETRY_REASONS

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_CALL_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
_WAIT_S: Final = (0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
_RUN_S: Final = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0)


class Metrics:
    """One registry per operator, so that two of them in one process do not collide."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.admitted = Counter(
            "transcode_jobs_admitted", "Attempts that were given a place.", ["pool"],
            registry=registry,
        )  # fmt: skip
        self.finished = Counter(
            "transcode_jobs_finished", "Jobs that ended, as far as the operator ended them.",
            ["pool", "outcome", "category"], registry=registry,
        )  # fmt: skip
        self.attempts = Counter(
            "transcode_attempts", "Attempts that ended, by the budget that they used up.",
            ["pool", "category", "reason"], registry=registry,
        )  # fmt: skip
        self.limit = Gauge(
            "transcode_pool_limit", "Jobs that may run at once.", ["pool"], registry=registry
        )
        self.active = Gauge(
            "transcode_active", "Jobs that hold a place.", ["pool"], registry=registry
        )
        self.pending = Gauge(
            "transcode_pending", "Of these, whose worker has not begun.", ["pool"],
            registry=registry,
        )  # fmt: skip
        self.queued = Gauge(
            "transcode_queued", "Jobs that wait for a place.", ["pool"], registry=registry
        )
        self.oldest_queued_s = Gauge(
            "transcode_oldest_queued_seconds", "How long the oldest of them has waited.", ["pool"],
            registry=registry,
        )  # fmt: skip
        self.admission_wait_s = Histogram(
            "transcode_admission_wait_seconds", "From acceptance to a place, first attempts.",
            ["pool"], buckets=_WAIT_S, registry=registry,
        )  # fmt: skip
        self.pod_start_s = Histogram(
            "transcode_pod_start_seconds",
            "schedule: until it has a node; start: its volumes and network; pull: until it runs.",
            ["pool", "stage"], buckets=_WAIT_S[:8], registry=registry,
        )  # fmt: skip
        self.run_s = Histogram(
            "transcode_run_seconds", "How long workers ran.", ["pool"], buckets=_RUN_S,
            registry=registry,
        )  # fmt: skip
        self.record_lag_s = Histogram(
            "transcode_result_record_lag_seconds", "From a container's end to the record.",
            ["pool"], buckets=_WAIT_S[:9], registry=registry,
        )  # fmt: skip
        self.throttled_s = Counter(
            "transcode_throttled_seconds", "Time in which something kept jobs from starting.",
            ["cause"], registry=registry,
        )  # fmt: skip
        self.slot_leaks = Counter(
            "transcode_slot_leaks",
            "Places held for attempts that are over, which the sweep gave back; must stay 0.",
            registry=registry,
        )  # fmt: skip
        self.ghosts = Counter(
            "transcode_ghost_objects", "Deletions that a watch missed and a resync found.",
            ["kind"], registry=registry,
        )  # fmt: skip
        self.reconcile_s = Histogram(
            "transcode_reconcile_seconds", "One look at one job.", ["result"], buckets=_CALL_S,
            registry=registry,
        )  # fmt: skip
        self.queue_latency_s = Histogram(
            "transcode_queue_latency_seconds", "From waking a key to looking at it.",
            buckets=_CALL_S, registry=registry,
        )  # fmt: skip
        self.queue_depth = Gauge(
            "transcode_queue_depth", "Keys that wait to be looked at.", registry=registry
        )
        self.requests = Counter(
            "transcode_api_requests", "Calls to the API server; code 0 is no answer.",
            ["verb", "kind", "code"], registry=registry,
        )  # fmt: skip
        self.request_s = Histogram(
            "transcode_api_request_seconds", "How long they took.", ["verb", "kind"],
            buckets=_CALL_S, registry=registry,
        )  # fmt: skip
        self.transactions_retried = Counter(
            "transcode_transactions_retried",
            "Transactions of this process that were tried again, by what got in their way.",
            ["reason"], registry=registry,
        )  # fmt: skip
        for reason in RETRY_REASONS:
            self.transactions_retried.labels(
                reason
            )  # a line that begins with its first has no rate
        self.watch_age_s = Gauge(
            "transcode_watch_last_event_age_seconds", "Since a watch last brought something.",
            ["kind"], registry=registry,
        )  # fmt: skip

    def forget_pool(self, name: str) -> None:
        """Numbers of a pool that is gone would stand as they were, and so would their alerts."""
        for gauge in (self.limit, self.active, self.pending, self.queued, self.oldest_queued_s):
            gauge.remove(name)

    def count_attempt(self, pool: str, category: str, code: str | None) -> None:
        """A code that this version does not know is a newer worker's: one series for all."""
        known = code is None or code in FAILURES
        self.attempts.labels(pool, category, (code or "succeeded") if known else "unknown").inc()

    def count_retry(self, reason: str) -> None:
        self.transactions_retried.labels(reason).inc()

    def render(self) -> bytes:
        return generate_latest(self.registry)
