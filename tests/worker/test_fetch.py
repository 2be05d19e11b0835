"""Fetching a source that comes in pieces, drips, or lies."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from encoder_core.errors import JobError
from encoder_core.reports import WorkerLimits
from encoder_core.storage.base import Reading, SourceStat
from encoder_worker.fetch import (
    CONNECTIONS,
    LEAST_BYTES,
    PIECE_BYTES,
    PIECE_S,
    Fetch,
    is_late,
    size_piece,
)

DATA = os.urandom(10_240)
PIECE = 1000
WAIT_S = 60


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Scripted:
    """A connector that is cut after so many bytes, answer by answer."""

    local_path: Path | None = None

    def __init__(
        self, *cuts: int, stat: SourceStat | None = None, parallel: bool = False, data: bytes = DATA
    ) -> None:
        self._cuts = list(cuts)
        self._stat = stat or SourceStat(len(data), '"tag"', ranges=True)
        self._data = data
        self.parallel = parallel
        self.asked: list[tuple[int, int | None]] = []

    def open(
        self, first: int = 0, end: int | None = None, *, validator: str | None = None
    ) -> Reading:
        self.asked.append((first, end))
        return Reading(self._stat, self.send(first, end))

    def send(self, first: int, end: int | None) -> Iterator[bytes]:
        if not self._cuts:
            yield self._data[first:end]
            return
        yield self._data[first:end][: self._cuts.pop(0)]
        raise JobError("source_truncated", "cut")

    @property
    def offsets(self) -> list[int]:
        return [first for first, _ in self.asked]


def fetch(connector: Scripted, target: Path, **limits: float) -> list[float]:
    shares: list[float] = []
    with Fetch(
        connector,
        target,
        limits=WorkerLimits.model_validate(limits),
        clock=Clock(),
        on_progress=shares.append,
    ) as fetching:
        fetching.finish()
    return shares


def in_pieces(connector: Scripted, target: Path, *, size: int = PIECE) -> Fetch:
    return Fetch(connector, target, limits=WorkerLimits(), clock=Clock(), piece_bytes=size)


class TestOneStream:
    def test_after_each_cut_it_goes_on(self, tmp_path: Path) -> None:
        connector = Scripted(1000, 2000, 500)
        shares = fetch(connector, tmp_path / "source")
        assert connector.offsets == [0, 1000, 3000, 3500]
        assert (tmp_path / "source").read_bytes() == DATA
        assert shares[-1] == 1.0

    def test_without_a_validator_it_begins_again(self, tmp_path: Path) -> None:
        connector = Scripted(1000, stat=SourceStat(len(DATA), None, ranges=True))
        fetch(connector, tmp_path / "source")
        assert connector.offsets == [0, 0]
        assert (tmp_path / "source").read_bytes() == DATA

    def test_without_a_validator_it_begins_again_once_only(self, tmp_path: Path) -> None:
        connector = Scripted(*[1000] * 20, stat=SourceStat(len(DATA), None, ranges=True))
        with pytest.raises(JobError) as caught:
            fetch(connector, tmp_path / "source")
        assert caught.value.code == "source_truncated"
        assert connector.offsets == [0, 0]

    def test_nothing_of_a_longer_first_try_is_left(self, tmp_path: Path) -> None:
        class Shrinking(Scripted):
            def send(self, first: int, end: int | None) -> Iterator[bytes]:
                if len(self.asked) == 1:
                    yield DATA
                    raise JobError("source_truncated", "cut")
                yield DATA[:100]

        connector = Shrinking(stat=SourceStat(None, None, ranges=False))
        fetch(connector, tmp_path / "source")
        assert (tmp_path / "source").read_bytes() == DATA[:100]

    def test_a_source_that_never_gets_on_fails(self, tmp_path: Path) -> None:
        connector = Scripted(*[0] * 20)
        with pytest.raises(JobError) as caught:
            fetch(connector, tmp_path / "source")
        assert caught.value.code == "source_truncated"
        assert len(connector.offsets) == 5

    @pytest.mark.parametrize(
        ("stat", "limits", "code"),
        [
            pytest.param(
                SourceStat(len(DATA) + 1, '"t"', ranges=True), {}, "source_truncated",
                id="too short",
            ),
            pytest.param(
                SourceStat(len(DATA), '"t"', ranges=True), {"sourceBytes": 100},
                "source_too_large", id="announced too large",
            ),
            pytest.param(
                SourceStat(None, None, ranges=False), {"sourceBytes": 100}, "source_too_large",
                id="too large without a word",
            ),
            pytest.param(SourceStat(0, None, ranges=False), {}, "source_invalid", id="empty"),
            pytest.param(
                SourceStat(2**60, None, ranges=False), {"sourceBytes": 2**62}, "capacity_disk",
                id="larger than the disk",
            ),
        ],
    )  # fmt: skip
    def test_sizes(
        self, stat: SourceStat, limits: dict[str, float], code: str, tmp_path: Path
    ) -> None:
        with pytest.raises(JobError) as caught:
            fetch(Scripted(stat=stat), tmp_path / "source", **limits)
        assert caught.value.code == code

    def test_a_drip_is_cut_off(self, tmp_path: Path) -> None:
        clock = Clock()

        class Dripping(Scripted):
            def send(self, first: int, end: int | None) -> Iterator[bytes]:
                for byte in DATA:
                    clock.sleep(10)
                    yield bytes([byte])

        with (
            pytest.raises(JobError) as caught,
            Fetch(Dripping(), tmp_path / "source", limits=WorkerLimits(), clock=clock) as fetching,
        ):
            fetching.finish()
        assert caught.value.code == "source_slow"
        assert clock.now == 60


class TestPieces:
    def test_they_make_the_whole(self, tmp_path: Path) -> None:
        connector = Scripted(parallel=True)
        with in_pieces(connector, tmp_path / "source") as fetching:
            fetching.finish()
        assert (tmp_path / "source").read_bytes() == DATA
        wanted = [(at, min(at + PIECE, len(DATA))) for at in range(0, len(DATA), PIECE)]
        # The first request cannot know how long the source is.
        assert sorted(connector.asked) == [(0, PIECE), *wanted[1:]]
        assert (fetching.requests, fetching.fetched_bytes) == (len(wanted), len(DATA))

    def test_a_small_source_takes_one_request(self, tmp_path: Path) -> None:
        connector = Scripted(parallel=True)
        with in_pieces(connector, tmp_path / "source", size=2 * len(DATA)) as fetching:
            fetching.finish()
        assert (tmp_path / "source").read_bytes() == DATA
        assert connector.asked == [(0, 2 * len(DATA))]

    def test_each_piece_goes_on_where_it_was_cut(self, tmp_path: Path) -> None:
        connector = Scripted(*[400] * 8, parallel=True)
        with in_pieces(connector, tmp_path / "source") as fetching:
            fetching.finish()
        assert (tmp_path / "source").read_bytes() == DATA
        assert fetching.fetched_bytes == len(DATA)
        assert 0 in connector.offsets
        assert 400 in connector.offsets

    def test_on_a_slow_line_they_are_small_and_in_the_order_of_the_file(
        self, tmp_path: Path
    ) -> None:
        clock, data, chunk = Clock(), os.urandom(4 * 1024**2), 64 * 1024

        class Slow(Scripted):
            def send(self, first: int, end: int | None) -> Iterator[bytes]:
                for at in range(first, len(data) if end is None else end, chunk):
                    clock.sleep(1.0)
                    yield data[at : min(at + chunk, len(data) if end is None else end)]

        connector = Slow(parallel=True, data=data)
        limits = WorkerLimits.model_validate({"sourceMinBytesPerS": 0})
        target = tmp_path / "source"
        with Fetch(connector, target, limits=limits, clock=clock, piece_bytes=2**20) as fetching:
            fetching.finish()
        assert target.read_bytes() == data
        assert fetching.fetched_bytes == len(data)
        sizes = [end - at for at, end in connector.asked if end is not None]
        assert sizes.count(2**20) <= CONNECTIONS  # nobody knew how slow it is
        assert all(size <= PIECE_S * chunk for size in sizes if size != 2**20)
        assert any(0 < at < 2**20 for at in connector.offsets)  # what was given back

    @pytest.mark.parametrize(
        ("brought", "took_s", "want"),
        [
            pytest.param(2**20, 0.0, PIECE_BYTES, id="no time at all"),
            pytest.param(2**23, 0.5, PIECE_BYTES, id="a fast line"),
            pytest.param(2**20, 1.0, 2**20, id="what comes in a second"),
            pytest.param(2**16, 4.0, LEAST_BYTES, id="a slow line"),
        ],
    )
    def test_the_size_of_the_next_after(self, brought: int, took_s: float, want: int) -> None:
        assert size_piece(brought, took_s=took_s, most=PIECE_BYTES) == want

    @pytest.mark.parametrize(
        ("brought", "took_s", "late"),
        [
            pytest.param(2**10, 0.9, False, id="it may only have begun slowly"),
            pytest.param(2**18, 1.0, False, id="four seconds in all"),
            pytest.param(2**17, 1.0, True, id="eight seconds in all"),
            pytest.param(2**20 - 1, 4.1, True, id="no more patience"),
        ],
    )
    def test_one_that_comes_too_slowly_is_seen_within_a_second(
        self, brought: int, took_s: float, late: bool
    ) -> None:
        assert is_late(brought, of=2**20, took_s=took_s) == late

    def test_a_server_that_sends_less_than_asked_is_asked_for_the_rest(
        self, tmp_path: Path
    ) -> None:
        class Short(Scripted):
            def send(self, first: int, end: int | None) -> Iterator[bytes]:
                yield DATA[first : min(first + 300, end or len(DATA))]

        connector = Short(parallel=True)
        with in_pieces(connector, tmp_path / "source") as fetching:
            fetching.finish()
        assert (tmp_path / "source").read_bytes() == DATA

    def test_a_server_that_sends_more_than_asked_spoils_nothing(self, tmp_path: Path) -> None:
        class Generous(Scripted):
            def send(self, first: int, end: int | None) -> Iterator[bytes]:
                yield DATA[first:]

        with in_pieces(Generous(parallel=True), tmp_path / "source") as fetching:
            fetching.finish()
        assert (tmp_path / "source").read_bytes() == DATA

    @pytest.mark.parametrize(
        "later",
        [
            pytest.param(SourceStat(len(DATA) + 1, '"tag"', ranges=True), id="another length"),
            pytest.param(SourceStat(len(DATA), '"new"', ranges=True), id="another validator"),
        ],
    )
    def test_pieces_of_two_files_are_never_put_together(
        self, tmp_path: Path, later: SourceStat
    ) -> None:
        class Replaced(Scripted):
            def open(
                self, first: int = 0, end: int | None = None, *, validator: str | None = None
            ) -> Reading:
                reading = super().open(first, end, validator=validator)
                return Reading(later, reading.chunks) if first else reading

        with (
            pytest.raises(JobError) as caught,
            in_pieces(Replaced(parallel=True), tmp_path / "source") as fetching,
        ):
            fetching.finish()
        assert caught.value.code == "source_changed"

    def test_without_a_validator_it_is_one_stream(self, tmp_path: Path) -> None:
        stat = SourceStat(len(DATA), None, ranges=True)
        connector = Scripted(stat=stat, parallel=True)
        with in_pieces(connector, tmp_path / "source") as fetching:
            fetching.finish()
        assert (tmp_path / "source").read_bytes() == DATA
        assert connector.asked == [(0, PIECE), (0, None)]


class Gated(Scripted):
    """Answers at once, and sends a piece's bytes when the test lets it."""

    def __init__(self, gate: Callable[[int], threading.Event]) -> None:
        super().__init__(parallel=True)
        self._gate = gate

    def send(self, first: int, end: int | None) -> Iterator[bytes]:
        assert self._gate(first).wait(WAIT_S)
        yield DATA[first:end]


class TestReaders:
    def test_what_a_reader_waits_for_comes_before_its_turn(self, tmp_path: Path) -> None:
        never, now = threading.Event(), threading.Event()
        now.set()
        at = 9_500
        connector = Gated(lambda first: now if first >= at else never)
        with in_pieces(connector, tmp_path / "source") as fetching:
            assert fetching.wait_for(at) == len(DATA)
            # Three in the order of the file, the one that was waited for, and one in its place.
            assert set(connector.offsets) <= {0, PIECE, 2 * PIECE, 3 * PIECE, at}
            never.set()
            fetching.finish()
        assert (tmp_path / "source").read_bytes() == DATA

    def test_a_reader_of_what_fails_is_told_why(self, tmp_path: Path) -> None:
        with (
            in_pieces(Scripted(*[0] * 99, parallel=True), tmp_path / "source") as fetching,
            pytest.raises(JobError) as caught,
        ):
            fetching.wait_for(0)
        assert caught.value.code == "source_truncated"

    def test_a_reader_at_the_end_is_told_that_it_is_the_end(self, tmp_path: Path) -> None:
        with in_pieces(Scripted(parallel=True), tmp_path / "source") as fetching:
            fetching.finish()
            assert fetching.wait_for(len(DATA)) == len(DATA)
