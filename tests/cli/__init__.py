"""The `encoder` command."""

from __future__ import annotations
