"""
Tell the record how the attempt goes, and obey what it answers.

A thread of its own sends: reports that matter in their order, and in between, every two seconds,
the latest progress, which is also the sign of life that renews the publish lease.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from encoder_core.clock import Clock
from encoder_core.reports import (
    REPORT_INTERVAL_S,
    Answer,
    Envelope,
    FinalReport,
    LogReport,
    ProgressReport,
    Report,
    WorkOrder,
)
from encoder_worker.control import Control, Why

FINAL_PATIENCE_S: Final = 30.0  # the exit code decides anyway; a Pod's grace period is about this


LOG_INTERVAL_S: Final = 10.0  # a few KiB each time; who watches a log of a running job can wait


class ChannelClosed(Exception):
    """The other side is gone, or does not know this attempt any more."""


class Channel(Protocol):
    """The way to the record."""

    def exchange(self, envelope: Envelope) -> Answer | None:
        """
        Hand over a report and return its answer; None when it could not be delivered.

        Tries again for a while unless the report is progress or log: there the next one does as
        well.
        """
        ...


@dataclass(slots=True)
class _Waiting:
    report: Report
    sent: threading.Event = field(default_factory=threading.Event)


class Reporter:
    def __init__(
        self,
        order: WorkOrder,
        channel: Channel,
        control: Control,
        *,
        clock: Clock,
        latest: Callable[[], ProgressReport],
        log: Callable[[], tuple[str, int]] = lambda: ("", 0),
        interval_s: float = REPORT_INTERVAL_S,
    ) -> None:
        self._order = order
        self._channel = channel
        self._control = control
        self._clock = clock
        self._latest = latest
        self._log = log
        self._log_lines = 0
        self._log_due = clock.monotonic() + LOG_INTERVAL_S
        self._interval_s = interval_s
        self._deadline = clock.monotonic() + order.limits.deadline_s
        self._waiting: queue.SimpleQueue[_Waiting] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def send(self, report: Report) -> None:
        """Hand over a report that matters; it is delivered in its turn."""
        self._waiting.put(_Waiting(report))

    def send_and_wait(self, report: Report, *, timeout_s: float | None = None) -> None:
        """Return once the record has answered, or the time-out passed."""
        waiting = _Waiting(report)
        self._waiting.put(waiting)
        waiting.sent.wait(timeout_s)

    def close(self, last: FinalReport) -> None:
        """Say the last word and end. Does not fail: the exit code is said in any case."""
        log = self._new_log()
        if log is not None:
            self.send(log)
        self.send_and_wait(last, timeout_s=FINAL_PATIENCE_S)

    def _run(self) -> None:
        next_progress = self._clock.monotonic() + self._interval_s
        while True:
            pause = max(0.0, next_progress - self._clock.monotonic())
            try:
                waiting = self._waiting.get(timeout=pause)
            except queue.Empty:
                if self._clock.monotonic() >= self._deadline:
                    self._control.stop(Why.DEADLINE)
                self._exchange(self._latest())
                if self._clock.monotonic() >= self._log_due:
                    log = self._new_log()
                    if log is not None:
                        self._exchange(log)
                    self._log_due = self._clock.monotonic() + LOG_INTERVAL_S
                next_progress = self._clock.monotonic() + self._interval_s
                continue
            self._exchange(waiting.report)
            waiting.sent.set()
            if isinstance(waiting.report, FinalReport):
                return  # nothing comes after the last word, progress least of all

    def _new_log(self) -> LogReport | None:
        """What was logged, unless nothing came since the last time."""
        tail, lines = self._log()
        if lines == self._log_lines:
            return None
        self._log_lines = lines
        return LogReport(tail=tail, lines=lines)

    def _exchange(self, report: Report) -> None:
        envelope = Envelope(
            job_uuid=self._order.job_uuid,
            attempt=self._order.attempt,
            token=self._order.token,
            report=report,
        )
        sent_at = self._clock.monotonic()
        try:
            answer = self._channel.exchange(envelope)
        except ChannelClosed:
            self._control.stop(Why.FENCED)
            return
        if answer is None:
            return
        if not answer.accepted:
            self._control.stop(Why.FENCED)
        elif answer.cancel:
            self._control.stop(Why.CANCELED)
        elif answer.publish_lease_s > 0:
            # From before it was sent: the record's own clock started no later than that.
            self._control.renew_lease(sent_at + answer.publish_lease_s)
