"""The HTTP API: what it takes, answers and refuses; the dashboard's files; the webhook sender."""

from __future__ import annotations
