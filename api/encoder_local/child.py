"""One worker as a child process: started with an order, spoken to over its pipes, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from encoder_core.model import REVEAL
from encoder_core.reports import Answer, Envelope, WorkOrder

GRACE_S = 15.0  # a worker needs a second or two to end ffmpeg and to say its last word

_PASSED_ON = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV")
_PASSED_ON_PREFIXES = ("LC_", "AWS_", "SSL_CERT_", "REQUESTS_CA_", "CURL_CA_", "PYTHON")


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """
    What a worker sees of our environment: never the database's password or the secret key.

    `AWS_*` and HOME are the installation's ambient credentials, which boto3 finds by itself.
    """
    return {
        name: value
        for name, value in environ.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }


class Child:
    """
    A running worker.

    Its standard input stays open for as long as we live: when it closes, the worker ends by
    itself, so that a killed parent leaves nothing behind that would go on publishing.
    """

    def __init__(self, order: WorkOrder) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "encoder_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=worker_environment(os.environ),
            # Its own session: Ctrl-C in our terminal must not end it before we say so.
            start_new_session=True,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._killer: threading.Timer | None = None
        self._write(order.model_dump_json(by_alias=True, exclude_none=True, context=REVEAL))

    @property
    def pid(self) -> int:
        return self._process.pid

    def reports(self) -> Iterator[Envelope]:
        """Its reports as they come, until it closes its output. Other lines are passed over."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(ValidationError):
                yield Envelope.model_validate_json(line)

    def log_lines(self) -> Iterator[str]:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            yield line.rstrip()

    def answer(self, answer: Answer) -> None:
        self._write(answer.model_dump_json(by_alias=True))

    def stop(self) -> None:
        """Ask it to end, and make it after a grace. May be called again."""
        if self._killer is not None or self._process.poll() is not None:
            return
        self._killer = threading.Timer(GRACE_S, self.kill)
        self._killer.daemon = True
        self._killer.start()
        self._process.terminate()

    def kill(self) -> None:
        """End it and everything it started, now."""
        if self._process.returncode is not None:
            return  # its number may be another's by now
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Its exit code; negative for a signal. Nothing of its session outlives this call."""
        # Not reaped before its session is killed: its number must not belong to another by then.
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        self.kill()
        if self._killer is not None:
            self._killer.cancel()
        code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return code

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        # A worker that ended meanwhile is noticed by its exit code.
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
