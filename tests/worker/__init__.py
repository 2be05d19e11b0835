"""The worker: its parts alone, and whole as a child process."""

from __future__ import annotations
