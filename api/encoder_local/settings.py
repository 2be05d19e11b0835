"""Settings of the one-machine engine, read once."""

from __future__ import annotations

import os

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def _half_the_cores() -> int:
    return max(1, (os.cpu_count() or 2) // 2)


class LocalSettings(BaseSettings):
    """How `encoder up` and `encoder worker` run jobs."""

    model_config = SettingsConfigDict(
        env_prefix="ENCODER_LOCAL_", frozen=True, env_ignore_empty=True
    )

    concurrency: int = Field(default_factory=_half_the_cores, ge=1, le=256)
    """Jobs at once in this process. Default: half the cores, since one encode fills two or more."""

    deadline_s: float = Field(24 * 3600.0, gt=0)
    """How long an attempt may run before it is ended."""
