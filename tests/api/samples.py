"""Requests that tests send, with what does not matter filled in."""

from __future__ import annotations

from typing import Any


def job(**changes: Any) -> dict[str, Any]:
    """A job that is accepted, with some members replaced."""
    return {
        "source": {"kind": "https", "url": "https://example.com/in.mp4"},
        "outputs": [output()],
        **changes,
    }


def output(**changes: Any) -> dict[str, Any]:
    return {
        "container": "mp4",
        "destination": {"kind": "s3", "bucket": "my-bucket", "path": "out.mp4"},
        **changes,
    }
