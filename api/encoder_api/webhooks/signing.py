"""Sign webhooks after Standard Webhooks 1.0 (symmetric, v1). Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from encoder_core.errors import ConfigurationError

PREFIX: Final = "whsec_"
MIN_BYTES, MAX_BYTES = 24, 64  # the bounds of the specification


def read_secrets(text: str) -> tuple[bytes, ...]:
    """
    The signing keys in `ENCODER_WEBHOOK_SECRET`: `whsec_<base64>`, several separated by commas.

    All of them sign, so that receivers can change over one by one while a secret is rotated.
    Raises ConfigurationError.
    """
    secrets = tuple(_read_secret(part.strip()) for part in text.split(","))
    if len(set(secrets)) != len(secrets):
        raise ConfigurationError("ENCODER_WEBHOOK_SECRET names the same secret twice")
    return secrets


def _read_secret(text: str) -> bytes:
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not text.startswith(PREFIX) or not MIN_BYTES <= len(key) <= MAX_BYTES:
        raise ConfigurationError(
            f"ENCODER_WEBHOOK_SECRET must be {PREFIX} and the base64 of {MIN_BYTES} to {MAX_BYTES} "
            f'random bytes, for example from `echo "{PREFIX}$(openssl rand -base64 32)"`'
        )
    return key


def sign(secrets: Sequence[bytes], *, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: one `v1,<base64>` for each secret, separated by spaces."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digests = [hmac.digest(secret, signed, hashlib.sha256) for secret in secrets]
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def signed_headers(
    secrets: Sequence[bytes], *, message_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """
    The three headers that a receiver verifies.

    `message_id` is the same in every attempt, so receivers can drop what they had before;
    `timestamp` (Unix seconds) is the attempt's, so an old request cannot be played back later.
    """
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secrets, message_id=message_id, timestamp=timestamp, body=body),
    }
