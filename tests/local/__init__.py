"""The one-machine engine, part by part."""

from __future__ import annotations
