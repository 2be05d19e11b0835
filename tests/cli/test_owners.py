"""Owners from the terminal: who has jobs, and how large a share of the places is theirs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from encoder_cli.__main__ import app
from encoder_db.store import Store
from tests.db import builders as make


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["owners", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_owners_are_listed_with_what_waits_and_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCODER_DATA_DIR", str(tmp_path))
    assert json.loads(run("list", "--json")) == []
    with Store.open(f"sqlite:///{tmp_path / 'encoder.db'}") as store:
        make.create(store, owner="team-a")
        make.running(store)
        for owner in ("team-a", "team-b"):
            make.create(store, owner=owner)
    assert run("set-weight", "team-a", "3") == "team-a has weight 3\n"
    assert run("set-weight", "team-c", "2") == "team-c has weight 2, and no job so far\n"
    assert json.loads(run("list", "--json")) == [
        {"owner": "team-a", "weight": 3, "waiting": 1, "running": 1},
        {"owner": "team-b", "weight": 1, "waiting": 1, "running": 0},
        {"owner": "team-c", "weight": 2, "waiting": 0, "running": 0},
    ]
    said = run("list").split()
    assert said[:8] == ["owner", "weight", "waiting", "running", "team-a", "3", "1", "1"]
