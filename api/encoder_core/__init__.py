"""What travels between the parts: requests, statuses, failures, events, reports, names."""

from __future__ import annotations
