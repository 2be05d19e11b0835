"""What the operator of the webhook sender can set. Read once, from the environment."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class WebhookSettings(BaseSettings):
    """How webhooks are sent. What signs them is `ENCODER_WEBHOOK_SECRET`."""

    model_config = SettingsConfigDict(frozen=True, populate_by_name=True, env_ignore_empty=True)

    timeout_s: float = Field(15.0, gt=0, le=60, validation_alias="ENCODER_WEBHOOK_TIMEOUT_S")
    """How long one attempt may take in all, from the look-up of the name to the answer."""

    concurrency: int = Field(32, ge=1, le=256, validation_alias="ENCODER_WEBHOOK_CONCURRENCY")
    """Attempts at once, each in a thread. More help when many different receivers are slow."""

    per_host: int = Field(4, ge=1, le=64, validation_alias="ENCODER_WEBHOOK_PER_HOST")
    """Attempts at once to one receiver, so that one that hangs leaves room for the others."""

    https_only: bool = Field(False, validation_alias="ENCODER_WEBHOOK_HTTPS_ONLY")
    """Refuse to send to http:// addresses."""

    health_port: int | None = Field(
        None, ge=0, le=65535, validation_alias="ENCODER_WEBHOOK_HEALTH_PORT"
    )
    """Of `/livez` and `/readyz` of `encoder webhooks`, on all addresses. Default: none."""
