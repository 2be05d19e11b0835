"""API keys from the terminal: made, listed, revoked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from encoder_cli.__main__ import app
from encoder_db.keys import authenticate_key
from encoder_db.store import Store


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["keys", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_key_is_shown_once_works_and_is_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCODER_DATA_DIR", str(tmp_path))
    made = json.loads(
        run("create", "--name", "ci", "--owner", "team-a", "--scope", "jobs:read", "--json")
    )
    assert made == {"key": made["key"], "name": "ci", "owner": "team-a"}
    [listed] = json.loads(run("list", "--json"))
    assert (listed["name"], listed["owner"], listed["scopes"]) == ("ci", "team-a", ["jobs:read"])
    assert made["key"] not in run("list")
    with Store.open(f"sqlite:///{tmp_path / 'encoder.db'}") as store:
        assert authenticate_key(store, made["key"]) is not None
        run("revoke", listed["key"])
        assert authenticate_key(store, made["key"]) is None


def test_a_name_that_is_not_utf_8_is_refused() -> None:
    result = CliRunner().invoke(app, ["keys", "create", "--name", "caf\udce9"])
    assert result.exit_code == 2
    assert "must be text in UTF-8" in result.output
