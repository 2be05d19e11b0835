"""How an attempt is ended from outside, and when it may publish."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from encoder_core.clock import SystemClock
from encoder_worker.control import Control, Stopped, Why

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class FixedClock:
    def __init__(self, now: float) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def control() -> Iterator[Control]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    control = Control(SystemClock())
    control.install()
    yield control
    for number, handler in before.items():
        signal.signal(number, handler)


def test_after_the_work_nothing_interrupts_the_last_words(control: Control) -> None:
    control.finish()
    control.stop(Why.FENCED)
    os.kill(os.getpid(), signal.SIGTERM)
    assert control.why is None


def test_a_valid_lease_lets_pass_at_once() -> None:
    control = Control(FixedClock(100.0))
    control.renew_lease(100.5)
    control.wait_for_lease()


def test_an_older_lease_shortens_none() -> None:
    control = Control(FixedClock(100.0))
    control.renew_lease(200.0)
    control.renew_lease(50.0)
    control.wait_for_lease()


def test_who_waits_for_a_lease_goes_on_when_it_comes() -> None:
    control = Control(FixedClock(100.0))
    passed = threading.Event()

    def wait() -> None:
        control.wait_for_lease()
        passed.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not passed.is_set()
    control.renew_lease(101.0)
    thread.join(10)
    assert passed.is_set()


def test_stopped_is_no_exception_that_a_retry_would_take_for_a_fault() -> None:
    assert not issubclass(Stopped, Exception)
    assert [why.exit for why in Why] == [60, 61, 62, 44]
