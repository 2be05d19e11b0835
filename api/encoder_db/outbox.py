"""The outbox as senders and streams use it: events as they were recorded, and their deliveries."""

from __future__ import annotations

from encoder_db.deliveries import (
    Delivery,
    claim_deliveries,
    finish_delivery,
    give_up_delivery,
    reschedule_delivery,
)
from encoder_db.events import (
    StreamedEvent,
    events_since,
    has_events,
    last_event_row,
    list_events,
    record_event,
)
from encoder_db.redelivery import WebhookAttempt, has_receiver, list_webhook_attempts, redeliver

__all__ = [
    "Delivery",
    "StreamedEvent",
    "WebhookAttempt",
    "claim_deliveries",
    "events_since",
    "finish_delivery",
    "give_up_delivery",
    "has_events",
    "has_receiver",
    "last_event_row",
    "list_events",
    "list_webhook_attempts",
    "record_event",
    "redeliver",
    "reschedule_delivery",
]
