"""The verifiers that docs/webhooks.md gives to receivers work."""

from __future__ import annotations

import base64
import json
import re
import subprocess
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


Verify = Callable[[str, dict[str, str], bytes], bool]


@pytest.fixture(params=["python", "javascript"])
def verify(request: pytest.FixtureRequest, tmp_path: Path) -> Verify:
    code = re.search(rf"```{request.param}\n(.*?)```", DOCUMENT, re.DOTALL)
    assert code is not None
    return in_python(code[1]) if request.param == "python" else in_javascript(code[1], tmp_path)


def in_python(code: str) -> Verify:
    names: dict[str, Verify] = {}
    exec(code, names)
    return names["verify"]


def in_javascript(code: str, folder: Path) -> Verify:
    (folder / "verify.mjs").write_text(code)
    ask = folder / "ask.mjs"
    ask.write_text(
        'import { readFileSync } from "node:fs";\n'
        'import { verify } from "./verify.mjs";\n'
        "const [secret, headers, body] = JSON.parse(readFileSync(0));\n"
        'console.log(verify(secret, headers, Buffer.from(body, "base64")));\n'
    )

    def verify(secret: str, headers: dict[str, str], body: bytes) -> bool:
        asked = json.dumps([secret, headers, base64.b64encode(body).decode()])
        done = subprocess.run(
            ["node", ask], input=asked, capture_output=True, text=True, check=True, timeout=60
        )
        return {"true\n": True, "false\n": False}[done.stdout]

    return verify


def signed(secrets: str, *, timestamp: float) -> dict[str, str]:
    return signed_headers(
        read_secrets(secrets), message_id="a-b-c", timestamp=int(timestamp), body=BODY
    )


def test_it_accepts_what_we_send(verify: Verify) -> None:
    now = time.time()
    assert verify(SECRET, signed(SECRET, timestamp=now), BODY)
    assert verify(SECRET, signed(f"{OTHER},{SECRET}", timestamp=now), BODY)


def test_it_accepts_either_secret_while_both_sign_and_the_new_one_alone_afterwards(
    verify: Verify,
) -> None:
    now = time.time()
    both, new = signed(f"{OTHER},{SECRET}", timestamp=now), signed(OTHER, timestamp=now)
    assert verify(SECRET, both, BODY)
    assert verify(OTHER, both, BODY)
    assert verify(OTHER, new, BODY)
    assert not verify(SECRET, new, BODY)


def test_it_refuses_the_rest(verify: Verify) -> None:
    now = time.time()
    swapped = {**signed(SECRET, timestamp=now), "webhook-id": "d-e-f"}
    assert not verify(SECRET, swapped, BODY)
    later = {**signed(SECRET, timestamp=now), "webhook-timestamp": str(int(now) + 1)}
    assert not verify(SECRET, later, BODY)
    assert not verify(SECRET, signed(SECRET, timestamp=now + 3600), BODY)
    assert not verify(SECRET, signed(OTHER, timestamp=now), BODY)
    assert not verify(SECRET, signed(SECRET, timestamp=now), BODY + b" ")
    assert not verify(SECRET, signed(SECRET, timestamp=now - 3600), BODY)


def test_every_setting_is_documented() -> None:
    for name, field in WebhookSettings.model_fields.items():
        row = (
            rf"\| `{field.validation_alias}` \| {str(field.default).lower().removesuffix('.0')} \|"
        )
        assert re.search(row, DOCUMENT), name
