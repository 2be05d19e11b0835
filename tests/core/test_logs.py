"""A log line is an event and its fields, for people or for machines, and holds no secret."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator

import pytest

from encoder_core.logs import AddFields, HumanFormatter, LogTail, configure_logging, log_fields

log = logging.getLogger("encoder.test")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)


def line_of(stream: io.StringIO) -> dict[str, object]:
    (line,) = stream.getvalue().splitlines()
    parsed: dict[str, object] = json.loads(line)
    return parsed


def test_a_machine_reads_one_object_a_line(stream: io.StringIO) -> None:
    configure_logging(stream=stream)
    log.info("job_failed", extra={"job": 7, "failure": "source_unreachable"})
    line = line_of(stream)
    assert str(line.pop("time")).endswith("Z")
    assert line == {
        "level": "info",
        "logger": "encoder.test",
        "event": "job_failed",
        "job": 7,
        "failure": "source_unreachable",
    }


def test_a_person_reads_one_line(stream: io.StringIO) -> None:
    configure_logging(stream=stream, as_json=False)
    log.warning("job_failed", extra={"job": 7, "why": "no such\nhost", "none": None})
    assert stream.getvalue()[8:] == ' WARNING job_failed job=7 why="no such\\nhost" none=null\n'


def test_a_value_cannot_forge_a_line(stream: io.StringIO) -> None:
    configure_logging(stream=stream, as_json=False)
    log.info("a\nb", extra={"c": "d\r\ne\x1b[2J"})
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


def test_fields_of_the_surroundings_are_added(stream: io.StringIO) -> None:
    configure_logging(stream=stream)
    with log_fields(request="r-1", job=1), log_fields(job=2):
        log.info("inside")
    line = line_of(stream)
    assert (line["request"], line["job"]) == ("r-1", 2)


@pytest.mark.parametrize("as_json", [True, False])
def test_known_secrets_are_blanked_wherever_they_are(stream: io.StringIO, as_json: bool) -> None:
    secret = 'pass"word\\1'
    configure_logging(secrets=[secret], stream=stream, as_json=as_json)
    try:
        raise ValueError(f"cannot log in with {secret}")
    except ValueError:
        log.exception("failed with %s", secret, extra={"field": secret, "nested": {"a": secret}})
    assert "word" not in stream.getvalue()
    assert stream.getvalue().count("***") >= 3


def test_the_tail_keeps_the_end_and_counts_what_is_gone() -> None:
    tail = LogTail(max_chars=100)
    tail.setFormatter(logging.Formatter("%(message)s"))
    for number in range(30):
        tail.handle(logging.makeLogRecord({"msg": f"line {number}"}))
    text, lines = tail.read()
    assert lines == 30
    assert text.splitlines()[-1] == "line 29"
    assert len(text) <= 100


def test_one_endless_line_does_not_push_out_the_others() -> None:
    tail = LogTail(max_chars=800)
    tail.setFormatter(logging.Formatter("%(message)s"))
    tail.handle(logging.makeLogRecord({"msg": "before"}))
    tail.handle(logging.makeLogRecord({"msg": "x" * 10_000}))
    assert tail.read()[0].splitlines() == ["before", "x" * 100]


def test_a_handler_adds_its_fields_in_every_thread(stream: io.StringIO) -> None:
    configure_logging(stream=stream)
    logging.getLogger().handlers[0].addFilter(AddFields(request="r-1", job=7, attempt=None))
    thread = threading.Thread(target=lambda: log.info("done", extra={"job": 8}))
    thread.start()
    thread.join()
    line = line_of(stream)
    assert (line["request"], line["job"]) == ("r-1", 8)
    assert "attempt" not in line


def test_a_line_for_elsewhere_has_the_date_in_utc() -> None:
    record = logging.makeLogRecord({"msg": "done", "created": 0.5, "levelno": logging.INFO})
    assert HumanFormatter(utc=True).format(record) == "1970-01-01T00:00:00.500Z done"
