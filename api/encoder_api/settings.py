"""What the operator of the API can set. Read once, from the environment."""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from encoder_core.specs import MAX_INLINE_BYTES


class AuthMode(StrEnum):
    KEYS = "keys"  #: API keys, once there is one; without any, open to this machine only.
    OFF = "off"  #: Everybody who can connect may do everything. For networks that are trusted.


class ApiSettings(BaseSettings):
    """Where the API listens, whom it serves and how much it takes."""

    model_config = SettingsConfigDict(
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
        env_ignore_empty=True,  # a Secret's empty key is a key that is not set
    )

    host: str = Field("127.0.0.1", validation_alias="ENCODER_HOST")
    """The address to listen on. Beyond loopback an API key is needed, or `ENCODER_AUTH=off`."""

    port: int = Field(8080, ge=0, le=65535, validation_alias="PORT")
    """0 takes a free port and says which."""

    auth: AuthMode = Field(AuthMode.KEYS, validation_alias="ENCODER_AUTH")
    """`keys`: API keys, once there is one; before that, open to this machine only. `off`: everybody
    who can connect may do everything."""

    api_key: SecretStr | None = Field(None, validation_alias="ENCODER_API_KEY")
    """A first key with every scope; further ones are made with `encoder keys create`."""

    files_root: Path | None = Field(None, validation_alias="ENCODER_FILES_ROOT")
    """The folder that `kind: file` sources and destinations are under. Unset: they are refused."""

    dashboard: bool = Field(True, validation_alias="ENCODER_DASHBOARD")
    """Serve the web page at `/`."""

    max_body_bytes: int = Field(
        MAX_INLINE_BYTES * 4 // 3 + 1024 * 1024,
        ge=1024,
        validation_alias="ENCODER_MAX_BODY_BYTES",
    )
    """The largest `POST /jobs`: an inline source of 16 MiB in base64, and 1 MiB for the rest."""

    body_timeout_s: float = Field(120.0, gt=0, validation_alias="ENCODER_BODY_TIMEOUT_S")
    """How long the body of a request may take to arrive; then it is a 408, and the connection is
    closed. 120 is enough for the largest at 1.6 Mbit/s."""

    max_queued_per_owner: int | None = Field(
        None, ge=1, le=10_000_000, validation_alias="ENCODER_MAX_QUEUED_PER_OWNER"
    )
    """How many jobs of one owner may wait at once; more, and retries of others, are answered with
    429. Unset: any number. How many run at once is the pool's `maxPerOwner`."""

    rate_limit_per_s: float = Field(
        100.0, ge=0, le=100_000, validation_alias="ENCODER_RATE_LIMIT_PER_S"
    )
    """Requests a second that one API key may make of one process, and twice as many at once; more
    are answered 429. 0 limits nobody. Who needs no key is not limited."""

    session_hours: float = Field(12.0, gt=0, validation_alias="ENCODER_SESSION_HOURS")
    """How long a login of the dashboard lasts."""

    drain_s: float = Field(0.0, ge=0, validation_alias="ENCODER_DRAIN_S")
    """On SIGTERM, for how long to go on serving while /readyz says 503, so that load balancers
    stop sending. 5 suits Kubernetes."""

    shutdown_s: float = Field(20.0, gt=0, validation_alias="ENCODER_SHUTDOWN_S")
    """How long requests that are under way may take to end after that."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address, or a Host header names this machine."""
    if host.lower() in ("localhost", "localhost."):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
