"""Webhooks are signed so that any Standard Webhooks library verifies them."""

from __future__ import annotations

import base64
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from encoder_api.webhooks.signing import read_secrets, signed_headers
from encoder_core.errors import ConfigurationError

OLD = "whsec_" + base64.b64encode(b"o" * 32).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 32).decode()
BODY = '{"type":"job.completed","data":{"name":"Übung 🎬"}}'.encode()


def signed(secrets: str, *, timestamp: int | None = None) -> dict[str, str]:
    return signed_headers(
        read_secrets(secrets),
        message_id="0192f0c0-0000-7000-8000-000000000001",
        timestamp=int(time.time()) if timestamp is None else timestamp,
        body=BODY,
    )


def test_the_public_verifier_accepts_what_we_sign() -> None:
    Webhook(NEW).verify(BODY, signed(NEW))


def test_while_a_secret_is_rotated_both_verify() -> None:
    headers = signed(f"{NEW}, {OLD}")
    Webhook(NEW).verify(BODY, headers)
    Webhook(OLD).verify(BODY, headers)


def test_after_the_rotation_the_old_secret_is_refused() -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(BODY, signed(NEW))


@pytest.mark.parametrize(
    ("body", "change"),
    [
        pytest.param(BODY.replace(b"completed", b"completeD"), {}, id="a changed body"),
        pytest.param(BODY, {"webhook-id": "another"}, id="another id"),
        pytest.param(BODY, {"webhook-timestamp": "1700000000"}, id="an old timestamp"),
    ],
)
def test_the_public_verifier_refuses(body: bytes, change: dict[str, str]) -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(body, signed(NEW) | change)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param(NEW.removeprefix("whsec_"), id="no prefix"),
        pytest.param("whsec_not base64", id="no base64"),
        pytest.param("whsec_" + base64.b64encode(b"s" * 23).decode(), id="too short"),
        pytest.param("whsec_" + base64.b64encode(b"s" * 65).decode(), id="too long"),
        pytest.param(f"{NEW},{NEW}", id="the same twice"),
        pytest.param(f"{NEW},", id="an empty second one"),
    ],
)
def test_a_secret_that_cannot_sign_is_refused_with_what_to_set(text: str) -> None:
    with pytest.raises(ConfigurationError, match="ENCODER_WEBHOOK_SECRET") as refused:
        read_secrets(text)
    if text:
        assert text not in str(refused.value)
