"""The record: its tables, and the only functions that change a job."""

from __future__ import annotations
