"""Reading a source while it arrives: the gateway by itself, and through a whole worker."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from encoder_core.clock import SystemClock
from encoder_core.errors import JobError
from encoder_core.exits import Exit
from encoder_core.failures import Failure, failure
from encoder_core.media.plan import plan_output
from encoder_core.media.planned import OutputPlan
from encoder_core.reports import WorkerLimits
from encoder_core.specs import OutputSpec
from encoder_core.storage.base import Reading, SourceStat
from encoder_worker.encode import Encoder
from encoder_worker.examine import examine_source
from encoder_worker.fetch import Fetch
from encoder_worker.following import Followings
from encoder_worker.gateway import Gateway
from encoder_worker.made import Made
from encoder_worker.source import ArrivingSource, Source, arriving
from encoder_worker.tools import find_tools
from tests.servers.clips import clip, ffmpeg
from tests.servers.http import Fault, HttpServer
from tests.worker.driver import ACCEPTED, Worker, last_of_output, make_order, run_worker, to_file
from tests.worker.test_fetch import DATA, PIECE, WAIT_S, Clock

LONG = "h264_640x360_25p_20s_stereo.mp4"


class Held:
    """A connector that sends a part's bytes once the test has let go of them."""

    local_path: Path | None = None
    parallel = True

    def __init__(self, *free: int, stat: SourceStat | None = None) -> None:
        self._free = set(free)
        self._stat = stat or SourceStat(len(DATA), '"tag"', ranges=True)
        self.rest = threading.Event()
        self.fails: JobError | None = None

    def open(
        self, first: int = 0, end: int | None = None, *, validator: str | None = None
    ) -> Reading:
        return Reading(self._stat, self._send(first, end))

    def _send(self, first: int, end: int | None) -> Iterator[bytes]:
        if first not in self._free:
            assert self.rest.wait(WAIT_S)
            if self.fails is not None:
                raise self.fails
        yield DATA[first:end]


@contextmanager
def served(connector: Held, folder: Path) -> Iterator[Gateway]:
    path = folder / "source"
    fetch = Fetch(connector, path, limits=WorkerLimits(), clock=Clock(), piece_bytes=PIECE)
    with fetch, Gateway(fetch, path) as gateway:
        yield gateway


def ask(
    gateway: Gateway, span: str | None = None, *, path: str | None = None
) -> http.client.HTTPResponse:
    parts = urlsplit(gateway.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=WAIT_S)
    headers = {} if span is None else {"Range": f"bytes={span}"}
    connection.request("GET", path or parts.path, headers=headers)
    return connection.getresponse()


class TestGateway:
    def test_what_is_here_is_read_before_the_rest_has_come(self, tmp_path: Path) -> None:
        connector = Held(0)
        with served(connector, tmp_path) as gateway, closing(ask(gateway)) as answer:
            assert (answer.status, answer.getheader("Content-Length")) == (200, str(len(DATA)))
            assert answer.read(PIECE) == DATA[:PIECE]
            connector.rest.set()
            assert answer.read() == DATA[PIECE:]

    def test_a_range_far_ahead_does_not_wait_for_what_is_before_it(self, tmp_path: Path) -> None:
        at = 9 * PIECE
        connector = Held(0, at)
        with served(connector, tmp_path) as gateway, closing(ask(gateway, f"{at}-")) as answer:
            assert answer.status == 206
            assert answer.getheader("Content-Range") == f"bytes {at}-{len(DATA) - 1}/{len(DATA)}"
            assert answer.read(PIECE) == DATA[at : at + PIECE]
            connector.rest.set()
            assert answer.read() == DATA[at + PIECE :]

    def test_a_part_is_no_longer_than_asked_for(self, tmp_path: Path) -> None:
        with served(Held(0), tmp_path) as gateway, closing(ask(gateway, "10-19")) as answer:
            assert answer.read() == DATA[10:20]

    def test_beyond_the_end_there_is_nothing(self, tmp_path: Path) -> None:
        beyond = f"{len(DATA)}-"
        with served(Held(0), tmp_path) as gateway, closing(ask(gateway, beyond)) as answer:
            assert answer.status == 416

    @pytest.mark.parametrize("path", ["/", "/source", "/../source"])
    def test_who_does_not_know_the_path_gets_nothing(self, path: str, tmp_path: Path) -> None:
        with served(Held(0), tmp_path) as gateway, closing(ask(gateway, path=path)) as answer:
            assert (answer.status, answer.read()) == (404, b"")

    def test_a_reader_waits_visibly(self, tmp_path: Path) -> None:
        connector = Held(0)
        with served(connector, tmp_path) as gateway, closing(ask(gateway)) as answer:
            answer.read(PIECE)
            while not gateway.holds_readers:
                pass  # its thread is about to ask
            connector.rest.set()
            answer.read()
            assert not gateway.holds_readers

    def test_when_the_fetch_fails_its_reader_is_cut_off(self, tmp_path: Path) -> None:
        connector = Held(0)
        connector.fails = JobError("source_not_found", "gone")
        with served(connector, tmp_path) as gateway, closing(ask(gateway)) as answer:
            connector.rest.set()
            with pytest.raises(http.client.IncompleteRead):
                answer.read()

    def test_it_answers_nobody_once_it_is_left(self, tmp_path: Path) -> None:
        with served(Held(0), tmp_path) as gateway:
            kept = gateway
        with pytest.raises(OSError, match="refused"):
            ask(kept)


@contextmanager
def coming(
    connector: Held, folder: Path, *, can_serve: bool = True
) -> Iterator[tuple[Source, Fetch]]:
    path = folder / "source"
    fetch = Fetch(connector, path, limits=WorkerLimits(), clock=Clock(), piece_bytes=PIECE)
    with arriving(fetch, path, can_serve=can_serve) as source:
        yield source, fetch


class TestWhenToServe:
    def test_a_run_that_begins_early_may_reach_one_port_and_no_file(self, tmp_path: Path) -> None:
        with coming(Held(0), tmp_path) as (source, _), source.opened(write=(tmp_path,)) as opened:
            assert opened.name.startswith("http://127.0.0.1:")
            assert opened.box.port == urlsplit(opened.name).port
            assert (opened.box.read, opened.box.write) == ((), (tmp_path,))

    def test_a_run_that_begins_late_reads_the_file(self, tmp_path: Path) -> None:
        connector = Held(0)
        with coming(connector, tmp_path) as (source, _):
            connector.rest.set()
            source.settle()
            with source.opened() as opened:
                assert opened.name == str(tmp_path / "source")
                assert (opened.box.read, opened.box.port) == ((tmp_path / "source",), None)

    @pytest.mark.parametrize(
        ("can_serve", "stat"),
        [
            pytest.param(False, None, id="the kernel cannot limit ports"),
            pytest.param(True, SourceStat(len(DATA), None, ranges=True), id="no validator"),
            pytest.param(True, SourceStat(len(DATA), '"tag"', ranges=False), id="no ranges"),
            pytest.param(True, SourceStat(None, '"tag"', ranges=True), id="no length"),
        ],
    )
    def test_it_is_fetched_first_when(
        self, can_serve: bool, stat: SourceStat | None, tmp_path: Path
    ) -> None:
        connector = Held(0, stat=stat)
        connector.rest.set()
        with coming(connector, tmp_path, can_serve=can_serve) as (source, fetch):
            assert fetch.complete
            assert not isinstance(source, ArrivingSource)
        assert (tmp_path / "source").read_bytes() == DATA

    @pytest.mark.parametrize(
        "ending",
        [
            pytest.param(None, id="took the cut for the end"),
            pytest.param(JobError("source_invalid", "no media file"), id="could not read it"),
        ],
    )
    def test_a_run_over_a_fetch_that_fails_ends_with_that_failure_though_it(
        self, ending: JobError | None, tmp_path: Path
    ) -> None:
        connector = Held(0)
        connector.fails = JobError("source_not_found", "gone")
        with coming(connector, tmp_path) as (source, fetch):
            with pytest.raises(JobError) as caught:
                _run_until_the_fetch_fails(source, fetch, connector, ending)
            assert caught.value.code == "source_not_found"


def _run_until_the_fetch_fails(
    source: Source, fetch: Fetch, connector: Held, ending: JobError | None
) -> None:
    with source.opened():
        connector.rest.set()
        with pytest.raises(JobError):
            fetch.finish()
        if ending is not None:
            raise ending


# --- Through a whole worker --------------------------------------------------------------------


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """20 s with the index in front."""
    path = tmp_path_factory.mktemp("film") / "front.mp4"
    ffmpeg("-v", "error", "-i", str(clip(LONG)), "-c", "copy", "-movflags", "+faststart", str(path))
    return path.read_bytes()


QUICK = to_file("o.mp4", container="mp4", preset="ultrafast", width=160)


REMUXED = {
    "mp4": ("front.mp4", "-movflags", "+faststart"),
    "mkv": ("cues-behind.mkv",),
    "mkv with its cues in front": ("cues-in-front.mkv", "-cues_to_front", "1"),
}
"""The same 20 s, and what has to be said for them to be read in their order."""


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("films")
    for name, *options in REMUXED.values():
        ffmpeg("-v", "error", "-i", str(clip(LONG)), "-c", "copy", *options, str(folder / name))
    return {form: (folder / name).read_bytes() for form, (name, *_) in REMUXED.items()}


def run_held(
    folder: Path, server: HttpServer, data: bytes, *outputs: dict[str, Any], hold_at: float = 0.8
) -> tuple[int, list[dict[str, Any]]]:
    """A worker whose source stops coming until it encodes what it has."""
    let_go = threading.Event()
    url = server.serve("/in", data)
    server.misbehave("/in", Fault(hold_at=hold_at, until=let_go))
    with Worker(make_order(folder, {"kind": "http", "url": url}, *outputs)) as worker:
        seen = worker.next_report(lambda report: (report.get("frame") or 0) > 0)
        assert (seen["phase"], let_go.is_set()) == ("encoding", False)
        worker.say(ACCEPTED)
        let_go.set()
        return worker.finish()


@pytest.mark.parametrize("form", REMUXED)
def test_the_encode_runs_while_the_rest_of_the_source_is_missing(
    form: str, tmp_path: Path, films: dict[str, bytes], http_server: HttpServer
) -> None:
    code, reports = run_held(tmp_path, http_server, films[form], QUICK)
    assert code == Exit.SUCCEEDED
    result = last_of_output(reports, 0)["result"]
    assert result["durationS"] == pytest.approx(20, abs=0.1)
    assert result["frames"] == 500
    assert set(reports[-1]["reached"]) == {"fetched", "encoded", "verified", "uploaded"}
    [request] = http_server.requests
    assert request.sent == len(films[form])


def test_a_matroska_that_ends_early_is_found_out_though_ffmpeg_was_content(
    tmp_path: Path, films: dict[str, bytes], http_server: HttpServer
) -> None:
    whole = films["mkv"]
    code, reports = run_held(tmp_path, http_server, whole[: len(whole) // 2], QUICK, hold_at=0.6)
    assert (code, reports[-1]["failure"]["code"]) == (Exit.SOURCE_TRANSIENT, "source_truncated")
    assert last_of_output(reports, 0)["status"] == "failed"
    assert list((tmp_path / "files").iterdir()) == []


def test_what_the_whole_source_says_is_what_counts(tmp_path: Path) -> None:
    """One output stays what it was, one is to be smaller, one cannot be, one has frames more."""
    tools, source = find_tools(), Source(clip("h264_320x180_25p_2s_stereo.mp4"))
    probe, _ = examine_source(tools, source, tmp_path)

    def plan(index: int, width: int) -> OutputPlan:
        asked = to_file("o.mp4", container="mp4", preset="ultrafast", width=width)
        return plan_output(index, OutputSpec.model_validate(asked), probe)

    def longer(plan: OutputPlan) -> OutputPlan:
        assert plan.video is not None
        return replace(plan, video=replace(plan.video, frames=500))

    impossible = failure("request_impossible", "no")
    made: dict[int, Made] = {}
    failed: dict[int, Failure] = {}
    with Followings(Clock()) as followings:
        encoder = Encoder(
            tools,
            source=source,
            images={},
            folder=tmp_path,
            threads=1,
            limits=WorkerLimits(),
            clock=SystemClock(),
            followings=followings,
            replan=lambda old: [old[0], plan(1, 96), impossible, longer(old[3])],
            on_progress=lambda _: None,
            on_verify=lambda: None,
        )
        encoder.make(
            [plan(index, 160) for index in range(4)],
            made=lambda one: made.update({one.plan.index: one}),
            failed=lambda plan, why: failed.update({plan.index: why}),
        )
    widths = {index: one.measured.video.width for index, one in made.items() if one.measured.video}
    assert widths == {0: 160, 1: 96}
    assert failed[2] == impossible
    assert failed[3].code == "output_truncated"
    assert not (tmp_path / "2.mp4").exists()


def test_an_index_at_the_end_is_waited_for(tmp_path: Path, http_server: HttpServer) -> None:
    data = clip(LONG).read_bytes()
    url = http_server.serve("/in.mp4", data)
    http_server.misbehave("/in.mp4", Fault(bytes_per_s=len(data) * 2))
    code, reports = run_worker(make_order(tmp_path, {"kind": "http", "url": url}, QUICK))
    assert (code, last_of_output(reports, 0)["status"]) == (Exit.SUCCEEDED, "uploaded")
    assert sum(request.sent for request in http_server.requests) == len(data)


@pytest.mark.parametrize("cut_at", [0.1, 0.5, 0.9])
def test_an_encode_does_not_notice_that_the_source_was_cut(
    cut_at: float, tmp_path: Path, film: bytes, http_server: HttpServer
) -> None:
    url = http_server.serve("/in.mp4", film)
    http_server.misbehave("/in.mp4", Fault(cut_at=cut_at, times=1))
    code, reports = run_worker(make_order(tmp_path, {"kind": "http", "url": url}, QUICK))
    assert (code, last_of_output(reports, 0)["status"]) == (Exit.SUCCEEDED, "uploaded")
    first, second = http_server.requests
    assert first.sent + second.sent == len(film)
    assert second.headers["range"] == f"bytes={first.sent}-{len(film) - 1}"


CUT = Fault(cut_at=0.6, times=1)
OTHER_FILE = Fault(changed=True, times=1)


@pytest.mark.parametrize(
    ("faults", "failure", "exit_code"),
    [
        pytest.param([CUT, Fault(status=404)], "source_not_found", Exit.SOURCE, id="it is gone"),
        pytest.param(
            [CUT, Fault(cut_at=0.0)], "source_truncated", Exit.SOURCE_TRANSIENT,
            id="nothing more comes",
        ),
        pytest.param(
            [CUT, Fault(lying_range=True)], "source_rejected", Exit.SOURCE, id="other bytes come"
        ),
        pytest.param(
            [CUT, OTHER_FILE, CUT, OTHER_FILE], "source_changed", Exit.SOURCE_TRANSIENT,
            id="another file is there, twice",
        ),
    ],
)  # fmt: skip
def test_a_source_that_fails_under_the_encode_is_what_failed(
    faults: list[Fault],
    failure: str,
    exit_code: Exit,
    tmp_path: Path,
    film: bytes,
    http_server: HttpServer,
) -> None:
    url = http_server.serve("/in.mp4", film)
    http_server.misbehave("/in.mp4", *faults)
    code, reports = run_worker(make_order(tmp_path, {"kind": "http", "url": url}, QUICK))
    assert (reports[-1]["failure"]["code"], code) == (failure, exit_code)
    assert last_of_output(reports, 0)["status"] == "failed"
    assert list((tmp_path / "files").iterdir()) == []


def test_a_source_whose_server_sends_no_parts_any_more_is_read_again_from_the_first_byte(
    tmp_path: Path, film: bytes, http_server: HttpServer
) -> None:
    url = http_server.serve("/in.mp4", film)
    http_server.misbehave("/in.mp4", CUT, Fault(ignore_range=True))
    code, reports = run_worker(make_order(tmp_path, {"kind": "http", "url": url}, QUICK))
    assert (code, last_of_output(reports, 0)["status"]) == (Exit.SUCCEEDED, "uploaded")
    assert last_of_output(reports, 0)["result"]["frames"] == 500
    first, *between, last = http_server.requests
    assert {request.headers["range"] for request in between} == {
        f"bytes={first.sent}-{len(film) - 1}"
    }
    assert (last.headers["range"].startswith("bytes=0-"), last.sent) == (True, len(film))


def test_a_source_that_was_replaced_once_is_encoded_from_its_new_bytes(
    tmp_path: Path, film: bytes, http_server: HttpServer
) -> None:
    url = http_server.serve("/in.mp4", film)
    http_server.misbehave("/in.mp4", CUT, OTHER_FILE)
    code, reports = run_worker(make_order(tmp_path, {"kind": "http", "url": url}, QUICK))
    assert (code, last_of_output(reports, 0)["status"]) == (Exit.SUCCEEDED, "uploaded")
    assert [request.headers.get("if-match") is not None for request in http_server.requests] == [
        *(False, True, False)
    ]
