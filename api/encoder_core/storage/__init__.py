"""Where sources come from and outputs go to: one connector a kind, found in one table."""

from __future__ import annotations
