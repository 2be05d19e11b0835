"""Tests that need databases, S3, FTP, HTTP with faults, ffmpeg or a browser."""

from __future__ import annotations
