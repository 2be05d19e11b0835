"""How often a worker speaks, however much there is to say."""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path

from encoder_core.clock import SystemClock
from encoder_core.reports import (
    REPORT_INTERVAL_S,
    Answer,
    Envelope,
    FinalReport,
    Outcome,
    OutputReport,
    Phase,
    WorkOrder,
)
from encoder_core.states import OutputStatus
from encoder_worker.control import Control
from encoder_worker.progress import Progress
from encoder_worker.reporter import Reporter
from tests.worker.driver import make_order

INTERVAL_S = 0.02
WAIT_S = 60

ENOUGH = 5


class Record:
    """Takes every report, and keeps of progress when it came by the worker's clock."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self.progress: list[float] = []
        self.others = 0
        self.last = ""
        self.enough = threading.Event()

    def exchange(self, envelope: Envelope) -> Answer:
        self.last = envelope.report.type
        if self.last != "progress":
            self.others += 1
            return Answer(accepted=True)
        self.progress.append(self._clock.monotonic())
        if len(self.progress) == ENOUGH:
            self.enough.set()
        return Answer(accepted=True)


def test_progress_is_told_no_more_often_than_its_interval_whatever_else_is_said(
    tmp_path: Path,
) -> None:
    """By the clock that the reporter has, so that a machine that is busy changes nothing."""
    clock, progress = SystemClock(), Progress()
    record = Record(clock)
    order = WorkOrder.model_validate(make_order(tmp_path, {"kind": "file", "path": "in"}))
    reporter = Reporter(
        order,
        record,
        Control(clock),
        clock=clock,
        latest=lambda: progress.now,
        interval_s=INTERVAL_S,
    )
    reporter.start()
    frames = said = 0
    while not record.enough.is_set():
        frames += 1
        progress.update(Phase.ENCODING, 0.5, frame=frames)
        if record.others == said:  # one after the other, as the outputs of a job
            said += 1
            reporter.send(OutputReport(index=0, status=OutputStatus.RUNNING))
    reporter.close(FinalReport(outcome=Outcome.SUCCEEDED))
    gaps = [after - before for before, after in pairwise(record.progress)]
    assert frames > ENOUGH
    assert record.others >= ENOUGH
    assert min(gaps) >= INTERVAL_S


def test_after_the_last_word_nothing_is_said(tmp_path: Path) -> None:
    """Though progress is due all the time."""
    clock, progress = SystemClock(), Progress()
    record = Record(clock)
    order = WorkOrder.model_validate(make_order(tmp_path, {"kind": "file", "path": "in"}))
    reporter = Reporter(
        order, record, Control(clock), clock=clock, latest=lambda: progress.now, interval_s=0
    )
    reporter.start()
    assert record.enough.wait(WAIT_S)
    reporter.close(FinalReport(outcome=Outcome.SUCCEEDED))
    for thread in threading.enumerate():
        if thread.name == "reporter":
            thread.join(WAIT_S)
    assert record.last == "final"


def test_the_interval_is_two_seconds() -> None:
    assert REPORT_INTERVAL_S == 2.0
