"""
What Prometheus is told: of this process's own work, and of what the record holds.

Labels are few: operation, status, pool, outcome; never a job or an owner. What the record holds is
the same whichever replica is asked, so queries take the `max` of it over replicas and not the sum.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError

from encoder_core.clock import Clock
from encoder_core.deliveries import Outcome
from encoder_db.census import Census, SentTally, take_census
from encoder_db.dialect import RETRY_REASONS
from encoder_db.store import Store

log = logging.getLogger("encoder.api")

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
REMEMBERED_S: Final = 5.0  # however many ask, the record is counted no more often
# From a cached answer to a database that is about to give up.
_BUCKETS_S: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """One registry per app, so that two apps in one process do not collide."""

    def __init__(self, record: RecordMetrics) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(record)
        self._requests = Counter(
            "encoder_api_requests",
            "Requests answered.",
            ["operation", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "encoder_api_request_seconds",
            "From the request's first byte to the answer's last.",
            ["operation"],
            buckets=_BUCKETS_S,
            registry=self._registry,
        )

        self._retried = Counter(
            "encoder_api_transactions_retried",
            "Transactions of this process that were tried again, by what got in their way.",
            ["reason"],
            registry=self._registry,
        )
        for reason in RETRY_REASONS:
            self._retried.labels(reason)  # a line that begins with its first has no rate

    def count(self, operation: str, *, status: int, seconds: float) -> None:
        self._requests.labels(operation, str(status)).inc()
        self._seconds.labels(operation).observe(seconds)

    def count_retry(self, reason: str) -> None:
        self._retried.labels(reason).inc()

    def render(self) -> bytes:
        """May wait for the database: call it in a thread."""
        return generate_latest(self._registry)


class RecordMetrics:
    """
    The record's own metrics, counted at most every few seconds.

    Who asks while somebody else is counting gets what was known before. Where the database does not
    answer, its metrics are left out and not invented, and `encoder_database_up` is 0.
    """

    def __init__(self, store: Store, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._known: list[Metric] | None = None
        self._counted_s = float("-inf")
        self._sent = SentTally()

    def collect(self) -> Iterable[Metric]:
        """For prometheus_client's registry."""
        if not self._lock.acquire(blocking=self._known is None):
            return self._known or []
        try:
            if self._clock.monotonic() - self._counted_s >= REMEMBERED_S or self._known is None:
                self._known = list(self._count())
                self._counted_s = self._clock.monotonic()
            return self._known
        finally:
            self._lock.release()

    def _count(self) -> Iterator[Metric]:
        census = None
        try:
            with self._store.read() as tx:
                census = take_census(tx)
                self._sent.catch_up(tx)
        except SQLAlchemyError as error:
            log.warning("record_not_counted", extra={"error": type(error).__name__})
        yield GaugeMetricFamily(
            "encoder_database_up",
            "Whether the database answered.",
            value=float(census is not None),
        )
        if census is not None:
            yield from _of_record(census)
            yield _of_sent(self._sent)


def _of_record(census: Census) -> Iterator[Metric]:
    jobs = GaugeMetricFamily(
        "encoder_jobs", "Jobs in the record, up to 100,000 of a status.", labels=["status"]
    )
    for status, count in census.jobs.items():
        jobs.add_metric([status.value], count)
    yield jobs
    depth = GaugeMetricFamily(
        "encoder_queue_depth",
        "Jobs that wait, also for a back-off or their startAt, up to 100,000 of a pool.",
        labels=["pool"],
    )
    oldest = GaugeMetricFamily(
        "encoder_queue_oldest_seconds",
        "For how long the job has been due that has been due for longest; 0 when none is.",
        labels=["pool"],
    )
    places = GaugeMetricFamily(
        "encoder_pool_places", "Jobs that may run at once; 0 in a pool that is stopped.",
        labels=["pool"],
    )  # fmt: skip
    taken = GaugeMetricFamily(
        "encoder_pool_places_taken", "Jobs that hold a place.", labels=["pool"]
    )
    for name, pool in census.pools.items():
        depth.add_metric([name], pool.queued)
        oldest.add_metric([name], pool.oldest_due_s)
        places.add_metric([name], pool.places)
        taken.add_metric([name], pool.taken)
    yield from (depth, oldest, places, taken)
    deliveries = GaugeMetricFamily(
        "encoder_webhook_deliveries",
        "Webhooks to be sent: due now; later, after a failure or while one is being sent; behind "
        "an earlier one of the same job. Up to 100,000 each.",
        labels=["state"],
    )
    for state, count in census.deliveries.items():
        deliveries.add_metric([state], count)
    yield deliveries
    yield GaugeMetricFamily(
        "encoder_webhook_oldest_due_seconds",
        "For how long the webhook has been due that has been due for longest; 0 when none is.",
        value=census.oldest_delivery_s,
    )
    yield GaugeMetricFamily(
        "encoder_dead_letters",
        "Jobs that the queue gave up and nobody put back, up to 100,000.",
        value=census.dead_letters,
    )


def _of_sent(sent: SentTally) -> Metric:
    attempts = CounterMetricFamily(
        "encoder_webhook_attempts",
        "Attempts to deliver a webhook, of all senders, since this process was first asked.",
        labels=["outcome"],
    )
    # Also what has not happened yet: a line that begins with its first failure has no rate.
    for outcome in sorted({*(outcome.value for outcome in Outcome), *sent.outcomes}):
        attempts.add_metric([outcome], sent.outcomes[outcome])
    return attempts
