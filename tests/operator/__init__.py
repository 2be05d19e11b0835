"""The operator, module by module."""

from __future__ import annotations
