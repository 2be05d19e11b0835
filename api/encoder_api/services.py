"""What handlers work with: the database, the settings and a few objects that live as long."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from encoder_api.auth import Authenticator
from encoder_api.bodies import Room
from encoder_api.feed import Feed
from encoder_api.health import DatabaseHealth
from encoder_api.metrics import Metrics, RecordMetrics
from encoder_api.rates import RateLimiter
from encoder_api.sessions import Sessions
from encoder_api.settings import ApiSettings
from encoder_core.clock import Clock
from encoder_db.store import Store
from encoder_db.submit import Intake


@dataclass(frozen=True, slots=True)
class Services:
    settings: ApiSettings
    store: Store
    authenticator: Authenticator
    sessions: Sessions
    metrics: Metrics
    health: DatabaseHealth
    intake: Intake
    feed: Feed
    limiter: RateLimiter
    room: Room = field(default_factory=Room)
    draining: threading.Event = field(default_factory=threading.Event)
    """Set while the process is about to stop: /readyz says so to load balancers."""


def make_services(settings: ApiSettings, store: Store, clock: Clock) -> Services:
    sessions = Sessions(store.keys, hours=settings.session_hours)
    authenticator = Authenticator(settings, store, sessions, clock=clock)
    health, intake = DatabaseHealth(store), Intake(store)
    metrics = Metrics(RecordMetrics(store, clock=clock))
    store.tell_of_retries(metrics.count_retry)
    return Services(
        *(settings, store, authenticator, sessions, metrics, health, intake),
        feed=Feed(store),
        limiter=RateLimiter(settings.rate_limit_per_s, clock=clock),
    )
