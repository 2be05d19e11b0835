"""The verifier that docs/webhooks.md gives to receivers works."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from encoder_api.webhooks.settings import WebhookSettings
from encoder_api.webhooks.signing import read_secrets, signed_headers

DOCUMENT = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()
BODY = '{"name": "Übung"}'.encode()


@pytest.fixture
def verify() -> Callable[[str, dict[str, str], bytes], bool]:
    code = re.search(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    assert code is not None
    names: dict[str, Callable[[str, dict[str, str], bytes], bool]] = {}
    exec(code[1], names)
    return names["verify"]


def signed(secrets: str, *, timestamp: float) -> dict[str, str]:
    return signed_headers(
        read_secrets(secrets), message_id="a-b-c", timestamp=int(timestamp), body=BODY
    )


def test_it_accepts_what_we_send(verify: Callable[[str, dict[str, str], bytes], bool]) -> None:
    now = time.time()
    assert verify(SECRET, signed(SECRET, timestamp=now), BODY)
    assert verify(SECRET, signed(f"{OTHER},{SECRET}", timestamp=now), BODY)


def test_it_refuses_the_rest(verify: Callable[[str, dict[str, str], bytes], bool]) -> None:
    now = time.time()
    assert not verify(SECRET, signed(OTHER, timestamp=now), BODY)
    assert not verify(SECRET, signed(SECRET, timestamp=now), BODY + b" ")
    assert not verify(SECRET, signed(SECRET, timestamp=now - 3600), BODY)


def test_every_setting_is_documented() -> None:
    for name, field in WebhookSettings.model_fields.items():
        row = (
            rf"\| `{field.validation_alias}` \| {str(field.default).lower().removesuffix('.0')} \|"
        )
        assert re.search(row, DOCUMENT), name
