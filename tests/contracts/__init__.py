"""Contracts that several implementations keep: one suite over all of them."""

from __future__ import annotations
