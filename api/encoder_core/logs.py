"""
Logs: an event and its fields. One line for people on a terminal, one JSON object otherwise.

    log.info("job_failed", extra={"job": 7, "failure": "source_unreachable"})
"""

from __future__ import annotations

import json
import logging
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from encoder_core.redaction import Redactor

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUIET: Final = ("alembic", "botocore", "boto3", "s3transfer", "urllib3", "uvicorn")

_encode: Final = json.JSONEncoder(default=str).encode  # json.dumps would make one for each line

_context: ContextVar[dict[str, Any]] = ContextVar("encoder_log_context", default={})  # noqa: B039


@contextmanager
def log_fields(**fields: Any) -> Iterator[None]:
    """Add fields, such as the request's id, to every line logged inside."""
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as `extra`, over what `log_fields` adds."""
    extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return {**_context.get(), **extra}


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for collectors."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _iso(_timestamp(record)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line)


class HumanFormatter(logging.Formatter):
    """One line for somebody who watches: the time, the event, its fields."""

    def __init__(self, *, utc: bool = False) -> None:
        """`utc`: date, time and milliseconds, for a line that is read elsewhere."""
        super().__init__()
        self._utc = utc

    def format(self, record: logging.LogRecord) -> str:
        moment = _timestamp(record)
        time = _iso(moment) if self._utc else moment.astimezone().strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname} "
        fields = "".join(f" {name}={_plain(value)}" for name, value in fields_of(record).items())
        line = f"{time} {level}{_plain_event(record.getMessage())}{fields}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class RedactingFormatter(logging.Formatter):
    """Blanks known secrets in the finished line: in fields and tracebacks as in the event."""

    def __init__(self, inner: logging.Formatter, redact: Redactor) -> None:
        super().__init__()
        self._inner = inner
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(self._inner.format(record))


class AddFields(logging.Filter):
    """Fields for each record of a handler, in whichever thread it is made."""

    def __init__(self, **fields: Any) -> None:
        super().__init__()
        self._fields = {name: value for name, value in fields.items() if value is not None}

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in self._fields.items():
            record.__dict__.setdefault(name, value)
        return True


class LogTail(logging.Handler):
    """The last lines that were logged, for who cannot read the stream: at most `max_chars`."""

    def __init__(self, *, max_chars: int) -> None:
        super().__init__()
        self._max_chars = max_chars
        self._kept: deque[str] = deque()
        self._chars = 0
        self._lines = 0

    def emit(self, record: logging.LogRecord) -> None:
        for line in self.format(record).splitlines():
            line = line[: self._max_chars // 8]  # one line must not be all that is left
            self._kept.append(line)
            self._chars += len(line) + 1
            self._lines += 1
        while self._chars > self._max_chars:
            self._chars -= len(self._kept.popleft()) + 1

    def read(self) -> tuple[str, int]:
        """The kept lines, and how many there were in all."""
        with self.lock or nullcontext():
            return "\n".join(self._kept), self._lines


def configure_logging(
    *,
    secrets: Iterable[str] = (),
    level: str = "INFO",
    stream: TextIO | None = None,
    as_json: bool | None = None,
) -> None:
    """
    Send every logger of the process to one stream, once, at the start of a process.

    `secrets` are those that the process itself was given, such as the database's password: they
    are blanked wherever they appear. `as_json` None: JSON unless the stream is a terminal.
    """
    stream = sys.stderr if stream is None else stream
    as_json = not stream.isatty() if as_json is None else as_json
    formatter: logging.Formatter = JsonFormatter() if as_json else HumanFormatter()
    known = list(secrets)
    escaped = [json.dumps(secret)[1:-1] for secret in known]  # as a JSON line shows it
    handler = logging.StreamHandler(stream)
    handler.setFormatter(RedactingFormatter(formatter, Redactor([*known, *escaped])))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _timestamp(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain_event(text: str) -> str:
    """Line breaks would let a hostile value forge a line."""
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return json.dumps(text) if not text or not text.isprintable() or " " in text else text
