"""The worker: one attempt of one job, from the source to the delivered outputs."""

from __future__ import annotations
