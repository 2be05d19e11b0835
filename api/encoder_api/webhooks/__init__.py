"""Webhooks: what the outbox holds is signed, sent, retried and logged."""

from __future__ import annotations
