"""The Kubernetes engine: drains the queue into TranscodeJobs and each of those into a Pod."""

from __future__ import annotations
