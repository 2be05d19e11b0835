"""The record, question by question, on every database it runs on."""

from __future__ import annotations
