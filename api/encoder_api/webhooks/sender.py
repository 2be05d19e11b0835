"""
Send what the outbox holds: claim, post in threads, record. One loop a process, any number of them.

A delivery is leased while it is being sent. A sender that dies lets its leases lapse, and the same
event goes out again under the same id: at least once, never lost.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import ssl
import threading
import time
from importlib.metadata import version
from typing import Final, TypedDict

from encoder_api.webhooks.client import Client
from encoder_api.webhooks.lanes import Lanes
from encoder_api.webhooks.outcomes import UNWELL, Exchange
from encoder_api.webhooks.schedule import next_delay_s
from encoder_api.webhooks.settings import WebhookSettings
from encoder_api.webhooks.signing import read_secrets, signed_headers
from encoder_core.clock import Clock, SystemClock
from encoder_core.deliveries import Outcome
from encoder_core.egress import Dialler
from encoder_core.retry_after import read_retry_after
from encoder_db.deliveries import (
    Delivery,
    claim_deliveries,
    finish_delivery,
    give_up_delivery,
    reschedule_delivery,
)
from encoder_db.store import Store

log = logging.getLogger(__name__)

POLL_MIN_S: Final = 0.1
POLL_MAX_S: Final = 0.5  # the first attempt is promised within a second, whoever wrote the event
BATCH: Final = 8  # more would wait here, leased, when all of them are for one slow host
LEASE_S: Final = 30.0  # beyond the exchange; how long the events of a dead sender wait
LEASE_MARGIN_S: Final = 10.0  # to record the outcome while the lease still holds
RECOVERY_S: Final = 2.0  # a database that is away is not asked ten times a second
AWAY_S: Final = 15.0  # since the database last answered: then nothing is sent
STUCK_S: Final = 300.0  # without a turn of the loop; a statement that hangs ends after 30 s
SHUTDOWN_S: Final = 5.0  # what has not answered by then is sent again by the next sender
USER_AGENT: Final = f"encoder/{version('encoder')}"


class _Said(TypedDict):
    """What the log of a job's webhooks keeps of one attempt."""

    outcome: str
    status: int | None
    duration_ms: int
    remote_ip: str | None
    snippet: bytes | None


class Sender:
    """The loop and its threads. `run` returns when `stop` is set and the threads have ended."""

    def __init__(
        self,
        store: Store,
        *,
        dialler: Dialler,
        settings: WebhookSettings | None = None,
        clock: Clock | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`tls` replaces the system's certificate authorities."""
        self._store = store
        self._settings = settings or WebhookSettings()
        self._clock = clock or SystemClock()
        self._client = Client(
            dialler,
            timeout_s=self._settings.timeout_s,
            https_only=self._settings.https_only,
            tls=tls,
        )
        self._secrets = read_secrets(store.webhook_secret)
        self._lanes = Lanes[Delivery](
            total=self._settings.concurrency, per_host=self._settings.per_host
        )
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._wake = threading.Event()
        self._ended = False
        self._turned_at = self._answered_at = self._clock.monotonic()
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        # The lease outlives the longest exchange; otherwise two senders would send the same.
        self._lease_s = LEASE_S + self._settings.timeout_s

    def wake(self) -> None:
        """Look into the outbox now. Safe from any thread."""
        self._wake.set()

    def unwell(self) -> str | None:
        """Why a restart would help; None when it would not."""
        if self._clock.monotonic() - self._turned_at > STUCK_S:
            return "the loop stands still"
        return None

    def unready(self) -> str | None:
        """Why nothing is sent now; None when it is."""
        if self._clock.monotonic() - self._answered_at > AWAY_S:
            return "the database does not answer"
        return self.unwell()

    def run(self, stop: threading.Event) -> None:
        pause_s = POLL_MIN_S
        while not stop.is_set():
            self._turned_at = self._clock.monotonic()
            self._wake.clear()
            try:
                claimed = self._claim()
            except Exception:  # whatever the driver raises while the database is away
                log.exception("webhook_claim_failed")
                stop.wait(RECOVERY_S)
                continue
            self._answered_at = self._clock.monotonic()
            self._start_what_may()
            if claimed:
                pause_s = POLL_MIN_S
            # What was found may have been more than was taken of one host.
            self._wake.wait(0 if claimed else pause_s)
            pause_s = min(pause_s * 1.5, POLL_MAX_S)
        self._wait_for_threads()

    def _claim(self) -> int:
        claimed_at = self._clock.monotonic()
        with self._lock:
            room = self._lanes.room(now=claimed_at)
            full = self._lanes.full_hosts(now=claimed_at)
        if room == 0:
            return 0
        deliveries = claim_deliveries(
            self._store,
            worker=self._name,
            limit=min(room, BATCH),
            lease_s=self._lease_s,
            skip_hosts=full,
            most_of=self._wanted,
        )
        start_by = claimed_at + self._lease_s - self._settings.timeout_s - LEASE_MARGIN_S
        with self._lock:
            for delivery in deliveries:
                self._lanes.add(delivery, start_by=start_by)
        return len(deliveries)

    def _wanted(self, host_hash: bytes) -> int:
        with self._lock:
            return self._lanes.wanted(host_hash)

    def _start_what_may(self) -> None:
        with self._lock:
            while (delivery := self._lanes.take(now=self._clock.monotonic())) is not None:
                # A daemon, so that a receiver that hangs never holds up the end of the process.
                threading.Thread(
                    target=self._deliver, args=(delivery,), name="webhook", daemon=True
                ).start()

    def _deliver(self, delivery: Delivery) -> None:
        well = False
        try:
            exchange = self._post(delivery)
            well = exchange.outcome not in UNWELL
            if not self._ended:
                self._record(delivery, exchange)
        except Exception:  # the lease lapses and the delivery comes back; the loop must go on
            log.exception("webhook_not_recorded", extra={"event": str(delivery.event_uuid)})
        finally:
            with self._lock:
                self._lanes.done(delivery.host_hash, well=well, now=self._clock.monotonic())
                self._idle.notify_all()
            self._wake.set()  # the job's next event may be due now

    def _post(self, delivery: Delivery) -> Exchange:
        return self._client.post(
            delivery.url,
            headers={
                "content-type": "application/json",
                "user-agent": USER_AGENT,
                "webhook-attempt": str(delivery.attempts + 1),
                **signed_headers(
                    self._secrets,
                    message_id=str(delivery.event_uuid),
                    timestamp=int(time.time()),
                    body=delivery.body,
                ),
            },
            body=delivery.body,
        )

    def _record(self, delivery: Delivery, exchange: Exchange) -> None:
        """Write down what came of it. Each of these changes nothing when the lease was lost."""
        said: _Said = {
            "outcome": exchange.outcome.value,
            "status": exchange.status,
            "duration_ms": exchange.duration_ms,
            "remote_ip": exchange.remote_ip,
            "snippet": exchange.snippet,
        }
        fields = {"event": str(delivery.event_uuid), "job": delivery.job_id, **said}
        fields.pop("snippet")  # the receiver's words; for the log of the job, not for ours
        if exchange.outcome is Outcome.DELIVERED:
            finish_delivery(self._store, delivery, **said)
            log.debug("webhook_delivered", extra=fields)
            return
        delay_s = next_delay_s(
            delivery.attempts + 1,
            exchange.outcome,
            retry_after_s=read_retry_after(exchange.retry_after),
            jitter=random.uniform(-1, 1),
        )
        if delay_s is None:
            gone = exchange.outcome is Outcome.GONE
            give_up_delivery(self._store, delivery, whole_job=gone, **said)
            log.warning("webhook_given_up", extra=fields)
            return
        reschedule_delivery(self._store, delivery, delay_s=delay_s, **said)
        log.info("webhook_put_off", extra={**fields, "delay_s": round(delay_s)})

    def _wait_for_threads(self) -> None:
        with self._idle:
            self._idle.wait_for(lambda: self._lanes.running == 0, timeout=SHUTDOWN_S)
            self._ended = True
