"""The two ways to the record: the pipes of a local parent, and HTTP from a Pod."""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from encoder_core.clock import Clock
from encoder_core.reports import Answer, Envelope, LogReport, ProgressReport
from encoder_worker.control import Control, Why
from encoder_worker.reporter import ChannelClosed

PATIENCE_S: Final = 60.0  # an API that restarts is back by then; longer, and the next report tries
FIRST_PAUSE_S: Final = 0.5
TIMEOUT_S: Final = 10.0
GONE: Final = frozenset({401, 403, 404, 409, 410})
"""Statuses that say the attempt is not known or not current any more."""


def encode_envelope(envelope: Envelope) -> bytes:
    return json.dumps(envelope.to_json_with_secrets(), separators=(",", ":")).encode()


class LineReader:
    """
    Lines of a file descriptor, without a buffer object of Python's.

    A thread that blocks in one of those would hold its lock when the interpreter ends.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""

    def read_line(self) -> bytes | None:
        """The next line without its end; None at the end of the file."""
        while b"\n" not in self._rest:
            chunk = os.read(self._descriptor, 65_536)
            if not chunk:
                return None
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line


class PipeChannel:
    """Reports to our standard output, answers from our standard input, one a line."""

    def __init__(self, lines: LineReader, output: int, control: Control) -> None:
        self._lines = lines
        self._output = output
        self._control = control
        self._answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="parent", daemon=True)
        self._reader.start()

    def exchange(self, envelope: Envelope) -> Answer | None:
        try:
            _write_all(self._output, encode_envelope(envelope) + b"\n")
        except OSError as error:
            raise ChannelClosed from error
        answer = self._answers.get()
        if answer is None:
            self._answers.put(None)
            raise ChannelClosed
        return answer

    def _read(self) -> None:
        while (line := self._lines.read_line()) is not None:
            try:
                self._answers.put(Answer.model_validate_json(line))
            except ValidationError:
                break
        # The parent is gone, or no parent of ours: at once, not when the next report is due.
        self._control.stop(Why.FENCED)
        self._answers.put(None)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


class HttpChannel:
    """Posts each report to the API."""

    def __init__(self, url: str, *, clock: Clock) -> None:
        import urllib3  # a local child never needs it for its reports

        self._url = url
        self._clock = clock
        self._pool = urllib3.PoolManager(retries=False, timeout=TIMEOUT_S)
        self._error: type[Exception] = urllib3.exceptions.HTTPError

    def exchange(self, envelope: Envelope) -> Answer | None:
        body = encode_envelope(envelope)
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {envelope.token.get_secret_value()}",
            "Encoder-Job": str(envelope.job_uuid),
        }
        until = self._clock.monotonic() + PATIENCE_S
        pause = FIRST_PAUSE_S
        while True:
            answer = self._post(body, headers)
            if answer is not None or isinstance(envelope.report, (ProgressReport, LogReport)):
                return answer
            if self._clock.monotonic() + pause > until:
                return None
            self._clock.sleep(pause)
            pause = min(2 * pause, 8.0)

    def _post(self, body: bytes, headers: Mapping[str, str]) -> Answer | None:
        try:
            response: Any = self._pool.request(
                "POST", self._url, body=body, headers=headers, redirect=False
            )
        except self._error:
            return None
        if response.status in GONE:
            raise ChannelClosed
        if response.status >= 300:
            return None
        try:
            return Answer.model_validate_json(response.data)
        except ValidationError:
            return None
