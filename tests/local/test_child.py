"""What a worker process sees of its parent, and that nothing of it outlives the parent's word."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from uuid import uuid4

from pydantic import SecretStr

from encoder_core.reports import Answer, FinalReport, Outcome, Started, WorkOrder
from encoder_core.specs import FileSource
from encoder_local.child import Child, worker_environment


def test_a_worker_sees_ambient_credentials_and_nothing_of_the_service() -> None:
    environment = {
        "PATH": "/usr/bin",
        "HOME": "at-home",
        "AWS_ACCESS_KEY_ID": "ambient",
        "SSL_CERT_FILE": "/etc/authority.pem",
        "MYSQL_PASSWORD": "canary",
        "ENCODER_SECRET_KEY": "canary",
        "ENCODER_API_KEY": "canary",
        "ENCODER_WEBHOOK_SECRET": "canary",
    }
    assert worker_environment(environment) == {
        name: value for name, value in environment.items() if value != "canary"
    }


def an_order(folder: Path) -> WorkOrder:
    """To fetch what is not there: the worker says so and ends."""
    return WorkOrder(
        job_id=1,
        job_uuid=uuid4(),
        attempt=1,
        token=SecretStr("token-of-the-attempt"),
        source=FileSource(kind="file", path="missing.mp4"),
        outputs=[],
        scratch_dir=str(folder),
        files_root=str(folder),
    )


def test_reports_come_as_they_are_said_and_the_exit_code_at_the_end(tmp_path: Path) -> None:
    child = Child(an_order(tmp_path))
    said = []
    for envelope in child.reports():
        assert envelope.token.get_secret_value() == "token-of-the-attempt"
        said.append(envelope.report)
        child.answer(Answer(accepted=True, publish_lease_s=60))
    assert isinstance(said[0], Started)
    last = said[-1]
    assert isinstance(last, FinalReport)
    assert last.outcome is Outcome.FAILED
    assert last.failure is not None
    assert last.failure.code == "source_not_found"
    assert child.wait() == 20


def test_the_token_is_in_no_argument_and_no_environment_of_the_worker(tmp_path: Path) -> None:
    child = Child(an_order(tmp_path))
    try:
        proc = Path(f"/proc/{child.pid}")
        seen = (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
        assert b"token-of-the-attempt" not in seen
    finally:
        child.kill()
        child.wait()


def test_a_worker_that_hangs_is_killed_with_all_it_started(tmp_path: Path) -> None:
    child = Child(an_order(tmp_path))
    os.kill(child.pid, signal.SIGSTOP)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    child.stop()  # and a late word to it is no error
