"""Do the attempt that the order describes, from its first line to the exit code."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from pathlib import Path

from pydantic import ValidationError

from encoder_core import egress
from encoder_core.clock import SystemClock
from encoder_core.errors import JobError
from encoder_core.exits import Exit
from encoder_core.failures import failure
from encoder_core.logs import (
    AddFields,
    HumanFormatter,
    JsonFormatter,
    LogTail,
    RedactingFormatter,
)
from encoder_core.redaction import Redactor, split_secrets
from encoder_core.reports import MAX_LOG_CHARS, FinalReport, Outcome, WorkOrder
from encoder_worker.channels import HttpChannel, LineReader, PipeChannel
from encoder_worker.control import Control
from encoder_worker.credentials import add_credentials, read_credentials
from encoder_worker.progress import Progress
from encoder_worker.reporter import Channel, Reporter
from encoder_worker.run import Attempt, give_up, run
from encoder_worker.summary import write_termination

log = logging.getLogger("encoder_worker")


def main() -> int:
    arguments = _parse_arguments()
    output = _take_standard_output()
    lines = LineReader(0)
    try:
        text = Path(arguments.order).read_bytes() if arguments.order else lines.read_line() or b""
        order = WorkOrder.model_validate_json(text)
        order, credentials, problem = _add_credentials(order, arguments.credentials)
    except (OSError, ValidationError) as error:
        # The error's own text never echoes what it validated; the order is full of secrets.
        log.error("order_unreadable: %s", type(error).__name__)
        return Exit.INTERNAL
    redact, tail = _prepare_log(order, credentials)
    clock = SystemClock()
    control = Control(clock)
    control.install()
    progress = Progress()
    channel: Channel = (
        HttpChannel(order.report_url, clock=clock)
        if order.report_url
        else PipeChannel(lines, output, control)
    )
    reporter = Reporter(
        order, channel, control, clock=clock, latest=lambda: progress.now, log=tail.read
    )
    reporter.start()
    attempt = Attempt(order, reporter, control, progress, clock, redact)
    code, final = _run_to_the_end(attempt, problem)
    said = final.failure.code if final.failure else None
    ended: dict[str, object] = {"outcome": final.outcome.value, "failure": said}
    if attempt.dialler.refused:
        ended["addresses_refused"] = attempt.dialler.refused
    log.info("attempt_ended", extra=ended)
    if arguments.termination_log:
        with contextlib.suppress(OSError):
            write_termination(arguments.termination_log, final)
    if code is not Exit.FENCED:
        reporter.close(final)
    return code


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="encoder_worker", description=__doc__)
    parser.add_argument(
        "--order", metavar="FILE", help="read the order from here, not standard input"
    )
    parser.add_argument(
        "--credentials", metavar="DIR", help="add the credentials in the files of this folder"
    )
    parser.add_argument("--termination-log", metavar="FILE", help="write the last word here too")
    return parser.parse_args()


def _add_credentials(
    order: WorkOrder, folder: str | None
) -> tuple[WorkOrder, list[str], JobError | None]:
    """The order with what the folder holds, all secrets of it, and what is wrong with them."""
    if folder is None:
        return order, [], None
    credentials: dict[str, str] = {}
    try:
        credentials = read_credentials(Path(folder))
        return add_credentials(order, credentials), list(credentials.values()), None
    except JobError as error:
        return order, list(credentials.values()), error


def _take_standard_output() -> int:
    """The real standard output, for reports alone; whatever else prints goes to standard error."""
    output = os.dup(1)
    os.dup2(2, 1)
    return output


def _prepare_log(order: WorkOrder, credentials: list[str]) -> tuple[Redactor, LogTail]:
    """
    Log to standard error, and keep the end of it for the record.

    In a Pod each line is JSON and says whose it is; the local engine adds that to what it passes
    on. Nothing is written that has not been redacted.
    """
    _, secrets = split_secrets(order)
    redact = Redactor([*secrets.values(), *credentials])
    handler, tail = logging.StreamHandler(sys.stderr), LogTail(max_chars=MAX_LOG_CHARS)
    inner: logging.Formatter = JsonFormatter() if order.report_url else HumanFormatter()
    handler.setFormatter(RedactingFormatter(inner, redact))
    # Callers read the tail: which address a name has in our network is not for them.
    tail.addFilter(lambda record: record.name != egress.LOGGER)
    tail.setFormatter(RedactingFormatter(HumanFormatter(utc=True), redact))
    if order.report_url:
        handler.addFilter(
            AddFields(job=order.job_id, attempt=order.attempt, request=order.request_id)
        )
    logging.basicConfig(handlers=[tail, handler], level=logging.INFO)
    for name in ("botocore", "boto3", "s3transfer", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return redact, tail


def _run_to_the_end(attempt: Attempt, problem: JobError | None) -> tuple[Exit, FinalReport]:
    if problem is not None:
        attempt.control.finish()
        return give_up(attempt, problem)
    try:
        return run(attempt)
    except Exception as error:  # the last line of defence: a mistake of ours still ends the attempt
        attempt.control.finish()
        log.exception("worker_failed")
        why = failure("worker_failed", f"The worker failed: {type(error).__name__}.")
        final = FinalReport(
            outcome=Outcome.FAILED,
            failure=why,
            outputs=list(attempt.reports.values()),
            reached=attempt.reached,
        )
        return Exit.INTERNAL, final
