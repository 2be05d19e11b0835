"""The API's settings come from the environment names of the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from encoder_api.settings import ApiSettings, AuthMode, is_loopback
from tests.api.conftest import ENVIRONMENT


def test_every_setting_has_its_name() -> None:
    assert {field.validation_alias for field in ApiSettings.model_fields.values()} == set(
        ENVIRONMENT
    )


def test_without_any_it_is_safe() -> None:
    settings = ApiSettings()
    assert (settings.host, settings.port, settings.auth) == ("127.0.0.1", 8080, AuthMode.KEYS)
    assert settings.files_root is None


def test_they_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ENCODER_HOST": "0.0.0.0",
        "PORT": "9000",
        "ENCODER_AUTH": "off",
        "ENCODER_API_KEY": "secret",
        "ENCODER_FILES_ROOT": "/media",
    }.items():
        monkeypatch.setenv(name, value)
    settings = ApiSettings()
    assert (settings.host, settings.port, settings.auth) == ("0.0.0.0", 9000, AuthMode.OFF)
    assert settings.files_root == Path("/media")
    assert "secret" not in repr(settings)


def test_an_empty_key_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCODER_API_KEY", "")
    assert ApiSettings().api_key is None


@pytest.mark.parametrize(
    ("name", "value"), [("PORT", "http"), ("PORT", "70000"), ("ENCODER_AUTH", "no")]
)
def test_a_wrong_value_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: Any) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=name):
        ApiSettings()


@pytest.mark.parametrize(
    ("host", "want"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("", False),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("127.0.0.1.example.com", False),
        ("2130706433", False),
    ],
)
def test_which_addresses_are_this_machine(host: str, want: bool) -> None:
    assert is_loopback(host) is want
