"""Fetching a source that comes in pieces, drips, or lies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from encoder_core.errors import JobError
from encoder_core.reports import WorkerLimits
from encoder_core.storage.base import SourceStat
from encoder_worker.fetch import fetch_source

DATA = bytes(range(256)) * 40


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Scripted:
    """A connector that is cut after so many bytes, reading by reading."""

    local_path: Path | None = None

    def __init__(self, *cuts: int, stat: SourceStat | None = None) -> None:
        self._cuts = list(cuts)
        self._stat = stat or SourceStat(len(DATA), '"tag"', ranges=True)
        self.offsets: list[int] = []

    def stat(self) -> SourceStat:
        return self._stat

    def read(self, *, offset: int = 0, validator: str | None = None) -> Iterator[bytes]:
        self.offsets.append(offset)
        if not self._cuts:
            yield DATA[offset:]
            return
        yield DATA[offset : offset + self._cuts.pop(0)]
        raise JobError("source_truncated", "cut")


def fetch(connector: Scripted, target: Path, **limits: float) -> list[float]:
    shares: list[float] = []
    fetch_source(
        connector,
        target,
        limits=WorkerLimits.model_validate(limits),
        clock=Clock(),
        on_progress=shares.append,
    )
    return shares


def test_after_each_cut_it_goes_on(tmp_path: Path) -> None:
    connector = Scripted(1000, 2000, 500)
    shares = fetch(connector, tmp_path / "source")
    assert connector.offsets == [0, 1000, 3000, 3500]
    assert (tmp_path / "source").read_bytes() == DATA
    assert shares[-1] == 1.0


def test_without_a_validator_it_begins_again(tmp_path: Path) -> None:
    connector = Scripted(1000, stat=SourceStat(len(DATA), None, ranges=True))
    fetch(connector, tmp_path / "source")
    assert connector.offsets == [0, 0]
    assert (tmp_path / "source").read_bytes() == DATA


def test_without_a_validator_it_begins_again_once_only(tmp_path: Path) -> None:
    connector = Scripted(*[1000] * 20, stat=SourceStat(len(DATA), None, ranges=True))
    with pytest.raises(JobError) as caught:
        fetch(connector, tmp_path / "source")
    assert caught.value.code == "source_truncated"
    assert connector.offsets == [0, 0]


def test_a_source_that_never_gets_on_fails(tmp_path: Path) -> None:
    connector = Scripted(*[0] * 20)
    with pytest.raises(JobError) as caught:
        fetch(connector, tmp_path / "source")
    assert caught.value.code == "source_truncated"
    assert len(connector.offsets) == 5


@pytest.mark.parametrize(
    ("stat", "limits", "code"),
    [
        pytest.param(
            SourceStat(len(DATA) + 1, '"t"', ranges=True), {}, "source_truncated", id="too short"
        ),
        pytest.param(
            SourceStat(len(DATA), '"t"', ranges=True), {"sourceBytes": 100}, "source_too_large",
            id="announced too large",
        ),
        pytest.param(
            SourceStat(None, None, ranges=False), {"sourceBytes": 100}, "source_too_large",
            id="too large without a word",
        ),
    ],
)  # fmt: skip
def test_sizes(stat: SourceStat, limits: dict[str, float], code: str, tmp_path: Path) -> None:
    with pytest.raises(JobError) as caught:
        fetch(Scripted(stat=stat), tmp_path / "source", **limits)
    assert caught.value.code == code


def test_a_drip_is_cut_off(tmp_path: Path) -> None:
    clock = Clock()

    class Dripping(Scripted):
        def read(self, *, offset: int = 0, validator: str | None = None) -> Iterator[bytes]:
            for byte in DATA:
                clock.sleep(10)
                yield bytes([byte])

    with pytest.raises(JobError) as caught:
        fetch_source(
            Dripping(),
            tmp_path / "source",
            limits=WorkerLimits(),
            clock=clock,
            on_progress=lambda _: None,
        )
    assert caught.value.code == "source_slow"
    assert clock.now == 60
