"""What the documentation of the original service shows, letter by letter."""

from __future__ import annotations

from typing import Any, Final

ORIGINAL: Final[dict[str, Any]] = {
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
