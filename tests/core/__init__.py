"""The types and rules that travel between the parts. Fast: no servers, no files."""

from __future__ import annotations
