"""What is written down agrees with the code."""

from __future__ import annotations
