"""What verification hands on: one output that came out right, and the files that it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from encoder_core.media.planned import OutputPlan
from encoder_core.media.probe import Probe


@dataclass(frozen=True, slots=True)
class MadeFile:
    path: Path
    content_type: str
    name: str | None = None
    """In a set: how it is called beside the destination. None: it is the destination itself."""


@dataclass(frozen=True, slots=True)
class Made:
    """One output that is what was planned."""

    plan: OutputPlan
    files: tuple[MadeFile, ...]
    """The main one first: what lists others comes before them."""
    measured: Probe
