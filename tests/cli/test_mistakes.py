"""A wrong setting or argument ends `encoder` with a sentence that says what to do, and code 2."""

from __future__ import annotations

import base64
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from encoder_api.contract import Scope
from encoder_cli.__main__ import SCOPES, main
from encoder_cli.demo import DemoFailed, describe, prepare_source
from tests.servers.process import free_port

Run = Callable[..., tuple[object, str]]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Run]:
    """Run `encoder` with these arguments and settings: its exit code, and all that it printed."""
    for name in os.environ:
        if name.startswith(("ENCODER_", "MYSQL_", "QUEUE_")) or name == "PORT":
            monkeypatch.delenv(name)
    monkeypatch.setenv("ENCODER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    handlers = logging.getLogger().handlers[:]

    def call(*arguments: str, **settings: str) -> tuple[object, str]:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["encoder", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code, printed.out + printed.err

    yield call
    logging.getLogger().handlers[:] = handlers


@pytest.mark.parametrize(
    ("arguments", "settings", "says"),
    [
        pytest.param(["up"], {"PORT": "abc"}, "encoder: PORT Input should be", id="no number"),
        pytest.param(
            ["operator"],
            {"QUEUE_VISIBILITY_TIMEOUT_MS": "2000"},
            "encoder operator: QUEUE_VISIBILITY_TIMEOUT_MS Input should be",
            id="too short a lease for the operator",
        ),
        pytest.param(
            ["up", "--port", "99999"],
            {},
            "Invalid value for '--port': Input should be less",
            id="no port",
        ),
        pytest.param(
            ["up", "--port", "0"],
            {"ENCODER_LOCAL_CONCURRENCY": "0"},
            "encoder: ENCODER_LOCAL_CONCURRENCY Input should be greater",
            id="a setting that is named by its prefix",
        ),
        pytest.param(
            ["up", "--port", "0"],
            {"ENCODER_SECRET_KEY": "abc"},
            "openssl rand -base64 32",
            id="a key that is too short",
        ),
        pytest.param(
            ["up", "--port", "0"],
            {"ENCODER_EGRESS_ALLOWED_CIDRS": "10.0.0.0/99"},
            "encoder: ENCODER_EGRESS_ALLOWED_CIDRS 10.0.0.0/99 is not a network",
            id="a network that is none",
        ),
        pytest.param(
            ["up", "--port", "0"],
            {"ENCODER_EGRESS_DENIED_CIDRS": "10.96.0.0/40"},
            "encoder: ENCODER_EGRESS_DENIED_CIDRS 10.96.0.0/40 is not a network",
            id="a network to deny that is none",
        ),
        pytest.param(
            ["up", "--port", "0"],
            {"ENCODER_HOST": "0.0.0.0"},
            "encoder keys create",
            id="open to everybody by accident",
        ),
        pytest.param(
            ["up", "--port", "0"],
            {"ENCODER_DATA_DIR": "/proc/encoder"},
            "cannot make /proc/encoder: No such file or directory; choose another folder",
            id="a folder that cannot be made",
        ),
        pytest.param(["api"], {}, "run `encoder up` instead", id="two processes on SQLite"),
        pytest.param(
            ["keys", "create", "--name", "ci", "--scope", "write"],
            {},
            "there is no scope write; known are jobs:read, jobs:write, admin",
            id="a scope that does not exist",
        ),
        pytest.param(
            ["keys", "create", "--name", "ci", "--owner", "Team A"],
            {},
            "lower-case letters, digits and hyphens",
            id="an owner that Kubernetes would not take",
        ),
        pytest.param(
            ["owners", "set-weight", "team-a", "0"],
            {},
            "Invalid value for 'weight'",
            id="a share of nothing",
        ),
        pytest.param(
            ["retention", "--hours", "-5"], {}, "Invalid value for '--hours'", id="the future"
        ),
    ],
)
def test_encoder_says_what_is_wrong_with(
    run: Run, arguments: list[str], settings: dict[str, str], says: str
) -> None:
    code, printed = run(*arguments, **settings)
    assert says in printed
    assert code == 2
    assert "Traceback" not in printed


def test_a_database_that_does_not_answer_is_named_with_its_settings(run: Run) -> None:
    settings = {"MYSQL_HOST": "127.0.0.1", "MYSQL_PORT": str(free_port()), "MYSQL_PASSWORD": "s3c"}
    code, printed = run("retention", **settings)
    assert code == 2
    assert f"cannot use MySQL at 127.0.0.1 port {settings['MYSQL_PORT']}" in printed
    assert "Can't connect to MySQL server" in printed
    assert "Traceback" not in printed
    assert "s3c" not in printed


def test_a_start_with_another_secret_key_says_how_to_go_on(run: Run) -> None:
    keys = [base64.b64encode(byte * 32).decode() for byte in (b"o", b"n")]
    assert run("keys", "rewrap", ENCODER_SECRET_KEY=keys[0])[0] == 0
    assert run("retention", ENCODER_SECRET_KEY=keys[0])[0] == 0
    code, printed = run("retention", ENCODER_SECRET_KEY=keys[1])
    assert (code, "encoder keys rewrap" in printed, "Traceback" in printed) == (2, True, False)
    code, printed = run("keys", "rewrap", ENCODER_SECRET_KEY=keys[1])
    assert (code, "1 cannot be opened by any key" in printed) == (1, True)
    code, printed = run("keys", "rewrap", ENCODER_SECRET_KEY=f"{keys[1]},{keys[0]}")
    assert (code, printed.strip()) == (0, "1 rewrapped, 0 under the current key already")
    assert run("retention", ENCODER_SECRET_KEY=keys[1])[0] == 0


def test_the_command_offers_the_scopes_that_there_are() -> None:
    assert tuple(Scope) == SCOPES


# --- The demo --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "says"),
    [
        pytest.param("nowhere.mov", "nowhere.mov is not a file", id="a file that is missing"),
        pytest.param("[/x]", "[/x] is not a file", id="a name that looks like markup"),
        pytest.param("s3://a/b", "not s3://", id="a scheme without credentials"),
    ],
)
def test_the_demo_ends_with_a_sentence_for(
    run: Run, tmp_path: Path, source: str, says: str
) -> None:
    code, printed = run("demo", "--source", source, "--dir", str(tmp_path / "demo"))
    assert (code, "Traceback" in printed) == (1, False)
    assert f"The demo failed. {says}" in printed or says in printed


def test_the_demo_takes_a_file_of_any_place(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    video = tmp_path / "My Holiday.MOV"
    video.write_bytes(b"frames")
    chosen = prepare_source(str(video), tmp_path / "files", Console(quiet=True))
    assert chosen == {"kind": "file", "path": "source.mov"}
    assert (tmp_path / "files" / "source.mov").read_bytes() == b"frames"


def test_what_ffprobe_says_of_a_broken_output_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "out.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(DemoFailed, match=r"(?s)ffprobe ended with 1: .*Invalid data"):
        describe(broken)
