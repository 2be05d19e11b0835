"""What can be said of media without touching any: probe model, plan, ffmpeg command, verdict."""

from __future__ import annotations
