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


ORIGINAL: dict[str, Any] = {
    "source": {
        "kind": "s3",
        "access_key_id": "AKIAIOSFODNN7EXAMPLE",
        "access_key_secret": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "region": "us-east-1",
        "bucket": "my-bucket",
        "path": "uploads/input/video.mp4",
    },
    "outputs": [
        {
            "container": "mp4",
            "videoCodec": "libx264",
            "videoBitrate": "2500k",
            "audioCodec": "aac",
            "audioBitrate": "128k",
            "width": 1280,
            "height": 720,
            "destination": {
                "kind": "s3",
                "access_key_id": "AKIAIOSFODNN7EXAMPLE",
                "access_key_secret": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                "region": "us-east-1",
                "bucket": "my-bucket",
                "path": "processed/output/video_720p.mp4",
                "acl": "public-read",
            },
        }
    ],
    "notificationUrl": "https://example.com/webhook",
}
"""The original service's own example, to the letter."""
