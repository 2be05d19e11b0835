"""The one-machine engine: drains the queue into child processes, one per attempt."""

from __future__ import annotations
