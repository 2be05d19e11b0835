"""Servers are started once for all test processes of a run, and end with it, whatever ends it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers.broker import Broker, ask
from tests.servers.process import ServerFailed, ServerProcess

# Says its process id, then waits to be ended.
SERVER = [sys.executable, "-c", "import os, signal; print(os.getpid(), flush=True); signal.pause()"]

END_S = 20.0


def test_a_server_is_started_once_for_everybody(tmp_path: Path) -> None:
    log: list[str] = []

    @contextmanager
    def serve(folder: Path) -> Iterator[str]:
        log.append(f"start in {folder.name}")
        yield "values"
        log.append("stop")

    broker = Broker({"kind": serve})
    broker.listen()
    answers: list[str] = []
    callers = [
        threading.Thread(target=lambda: answers.append(ask(broker.address, "kind")))
        for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert (answers, log) == (["values"] * 4, ["start in kind"])
    broker.close()
    assert log == ["start in kind", "stop"]
    assert not broker.folder.exists()


def test_whoever_asks_hears_why_a_server_did_not_start() -> None:
    @contextmanager
    def serve(folder: Path) -> Iterator[str]:
        raise ServerFailed("no such program")
        yield

    broker = Broker({"kind": serve})
    broker.listen()
    with pytest.raises(ServerFailed, match="no such program"):
        ask(broker.address, "kind")
    broker.close()


def test_a_server_that_ends_early_shows_its_log(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "raise SystemExit('the port is taken')"]
    with (
        ServerProcess(argv, log=tmp_path / "log") as process,
        pytest.raises(ServerFailed, match="the port is taken"),
    ):
        process.wait_until(lambda: False)


def test_a_server_ends_with_its_block(tmp_path: Path) -> None:
    with ServerProcess(SERVER, log=tmp_path / "log") as process:
        process.wait_until(lambda: bool(process.log_tail()))
        server = os.pidfd_open(int(process.log_tail()))
    # A server that ignored its end would be killed, after GRACE_S, and fail this by time-out.
    assert has_ended(server)


def test_a_server_ends_when_the_tests_are_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    tests = f"""
from pathlib import Path
from tests.servers.process import ServerProcess
import signal
with ServerProcess({SERVER!r}, log=Path({str(log)!r})) as process:
    process.wait_until(lambda: bool(process.log_tail()))
    print(process.log_tail(), flush=True)
    signal.pause()
"""
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", tests], cwd=root, stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout is not None
        server = os.pidfd_open(int(killed.stdout.readline()))
        assert not has_ended(server, within_s=0)
        killed.send_signal(signal.SIGKILL)
    assert has_ended(server)


def has_ended(process: int, *, within_s: float = END_S) -> bool:
    """Whether the process of this pidfd ends in time. Closes the pidfd when it did."""

    ready, _, _ = select.select([process], [], [], within_s)
    if ready:
        os.close(process)
    return bool(ready)
