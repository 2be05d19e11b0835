"""The tests, in rings: one folder is one part or one ring; see conftest.py."""

from __future__ import annotations
