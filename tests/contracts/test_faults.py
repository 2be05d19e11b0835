"""
Whatever goes wrong on the way, a transfer ends with the right bytes or with a clear failure.

Sources are fetched as a worker does it, so that going on, beginning again and giving up are part of
what is tested. Pauses take no time here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from encoder_core.clock import Clock, SystemClock
from encoder_core.errors import JobError
from encoder_core.reports import WorkerLimits
from encoder_core.storage import open_source
from encoder_core.storage.failing import RangeIgnored, Retries
from encoder_worker.fetch import Fetch
from tests.contracts.stores import (
    DATA,
    SOURCE,
    PatientClock,
    Store,
    clock_of,
    deliver,
    ftp_store,
    http_store,
    make_access,
    s3_store,
)
from tests.servers.ftp import FtpServer
from tests.servers.http import Fault, HttpServer
from tests.servers.proxy import Trouble, TroubledWay
from tests.servers.s3 import S3Bucket

PART = 256 * 1024  # a fifth of the data
ONE_REQUEST = 2 * len(DATA)
HASTY_S = 0.3  # how long a read may wait where the server is to fall silent

WHOLE = frozenset({"whole"})
CUTS = [pytest.param(0.1, id="at 10 %"), pytest.param(0.5, id="at 50 %"),
        pytest.param(0.9, id="at 90 %")]  # fmt: skip


def fetch(
    store: Store,
    path: str,
    target: Path,
    *,
    part: int = PART,
    clock: Clock | None = None,
    **limits: float,
) -> bytes:
    connector = open_source(SOURCE.validate_python(store.source(path)), store.access)
    patient = {"stallS": 3600, **limits}
    with Fetch(
        connector,
        target,
        limits=WorkerLimits.model_validate(patient),
        clock=clock or store.access.clock,
        piece_bytes=part,
    ) as fetching:
        fetching.finish()
    return target.read_bytes()


def outcome(work: Callable[[], object]) -> str:
    try:
        work()
    except JobError as error:
        return error.code
    return "whole"


@dataclass(frozen=True)
class Bad:
    """What a server does, and how a fetch from it may end."""

    faults: tuple[Fault, ...]
    ends: frozenset[str] = WHOLE


def once(**fault: object) -> Fault:
    return Fault(times=1, **fault)  # type: ignore[arg-type]


def codes(*names: str) -> frozenset[str]:
    return frozenset(f"source_{name}" for name in names)


CUT = once(cut_at=0.5)
SOURCE_FAULTS = {
    "a reset in the middle": Bad((once(cut_at=0.5, reset=True),)),
    "cut again and again": Bad((Fault(cut_at=0.5),), codes("truncated")),
    "heads without bodies": Bad((Fault(cut_at=0.0),), codes("truncated")),
    "silence in the middle": Bad((once(stall_at=0.5),)),
    "nothing but silence": Bad((Fault(stall_at=0.0),), codes("truncated")),
    "no answer": Bad((Fault(hang=True),), codes("unreachable")),
    "another part than asked for": Bad((Fault(lying_range=True),), codes("rejected")),
    "another part after a cut": Bad((CUT, Fault(lying_range=True)), codes("rejected")),
    "no ranges": Bad((Fault(ignore_range=True),)),
    "no range once after a cut": Bad((CUT, once(ignore_range=True))),
    "no ranges after a cut": Bad((CUT, Fault(ignore_range=True)), codes("unreachable")),
    "no ranges and a cut": Bad((once(ignore_range=True, cut_at=0.5), Fault(ignore_range=True))),
    "another file after a cut": Bad((CUT, Fault(changed=True)), codes("changed")),
    "no length, and cut": Bad((once(no_length=True, cut_at=0.5), Fault())),
    "a part longer than it says": Bad((Fault(length_off_by=-100),), codes("rejected")),
    "a part shorter than it says": Bad((Fault(length_off_by=100),), codes("rejected")),
    "less than it says": Bad(
        (Fault(ignore_range=True, length_off_by=100),), codes("truncated")
    ),
    "503 twice": Bad((Fault(status=503, times=2),)),
    "503 for ever": Bad((Fault(status=503),), codes("unreachable")),
    "503 after a cut, for ever": Bad((CUT, Fault(status=503)), codes("unreachable")),
    "429": Bad((once(status=429),)),
    "404 after a cut": Bad((CUT, Fault(status=404)), codes("not_found")),
    "403 after a cut": Bad((CUT, Fault(status=403)), codes("denied")),
}  # fmt: skip


@pytest.fixture(params=["http", "s3"])
def web_store(request: pytest.FixtureRequest, http_server: HttpServer) -> Store:
    """The same server as a web server, and as a store that speaks S3 with these faults."""
    hasty = replace(make_access(), read_timeout_s=HASTY_S)
    store = replace(http_store(http_server), access=hasty)
    if request.param == "http":
        return store
    return replace(
        store,
        source=lambda path: {
            "kind": "s3",
            "endpoint": http_server.url,
            **dict(zip(("bucket", "path"), path.split("/", 1), strict=True)),
        },
    )


class TestSources:
    @pytest.mark.parametrize("part", [PART, ONE_REQUEST], ids=["in parts", "in one request"])
    @pytest.mark.parametrize(
        "bad", [pytest.param(bad, id=name) for name, bad in SOURCE_FAULTS.items()]
    )
    def test_end_whole_or_with_a_clear_failure(
        self, bad: Bad, part: int, web_store: Store, http_server: HttpServer, tmp_path: Path
    ) -> None:
        web_store.put("b00/clip.mp4", DATA)
        http_server.misbehave("/b00/clip.mp4", *bad.faults)
        target = tmp_path / "source"
        end = outcome(lambda: fetch(web_store, "b00/clip.mp4", target, part=part))
        assert end in bad.ends
        if end == "whole":
            assert target.read_bytes() == DATA

    @pytest.mark.parametrize("share", CUTS)
    def test_go_on_where_they_were_cut(
        self, share: float, web_store: Store, http_server: HttpServer, tmp_path: Path
    ) -> None:
        web_store.put("b00/clip.mp4", DATA)
        http_server.misbehave("/b00/clip.mp4", once(cut_at=share))
        got = fetch(web_store, "b00/clip.mp4", tmp_path / "source", part=ONE_REQUEST)
        assert got == DATA
        assert sum(request.sent for request in http_server.requests) == len(DATA)

    def test_without_a_validator_are_never_made_of_two_files(
        self, web_store: Store, http_server: HttpServer, tmp_path: Path
    ) -> None:
        web_store.put("b00/clip.mp4", DATA)
        http_server.misbehave(
            "/b00/clip.mp4",
            once(no_etag=True),
            once(no_etag=True, cut_at=0.5),
            Fault(no_etag=True, changed=True),
        )
        assert fetch(web_store, "b00/clip.mp4", tmp_path / "source") == DATA[::-1]

    def test_of_which_there_are_no_parts_any_more_say_so(
        self, web_store: Store, http_server: HttpServer, tmp_path: Path
    ) -> None:
        web_store.put("b00/clip.mp4", DATA)
        http_server.misbehave("/b00/clip.mp4", CUT, Fault(ignore_range=True))
        with pytest.raises(RangeIgnored):
            fetch(web_store, "b00/clip.mp4", tmp_path / "source")

    def test_wait_as_long_as_the_server_asks(
        self, web_store: Store, http_server: HttpServer, tmp_path: Path
    ) -> None:
        web_store.put("b00/clip.mp4", DATA)
        http_server.misbehave("/b00/clip.mp4", once(status=503, retry_after="7"))
        assert fetch(web_store, "b00/clip.mp4", tmp_path / "source") == DATA
        assert clock_of(web_store.access).pauses == [7.0]

    @pytest.mark.parametrize(
        ("asked", "wait_s"), [("3600", 3600), pytest.param("9" * 400, 1e9, id="for ever")]
    )
    def test_leave_a_long_wait_to_the_job(
        self,
        web_store: Store,
        http_server: HttpServer,
        tmp_path: Path,
        asked: str,
        wait_s: float,
    ) -> None:
        http_server.misbehave("/b00/clip.mp4", Fault(status=503, retry_after=asked))
        with pytest.raises(JobError) as caught:
            fetch(web_store, "b00/clip.mp4", tmp_path / "source")
        assert (caught.value.code, caught.value.retry_after_s) == ("source_unreachable", wait_s)
        assert len(http_server.requests) == 1

    def test_that_drip_are_cut_off(
        self, web_store: Store, http_server: HttpServer, tmp_path: Path
    ) -> None:
        web_store.put("b00/clip.mp4", DATA)
        http_server.misbehave("/b00/clip.mp4", Fault(bytes_per_s=10_000))
        end = outcome(
            lambda: fetch(
                web_store,
                "b00/clip.mp4",
                tmp_path / "source",
                clock=SystemClock(),
                stallS=1,
                sourceMinBytesPerS=1_000_000,
            )
        )
        assert end == "source_slow"

    def test_that_do_not_fit_the_disk_say_so(
        self, web_store: Store, http_server: HttpServer, tmp_path: Path
    ) -> None:
        web_store.put("b00/clip.mp4", DATA)
        http_server.misbehave("/b00/clip.mp4", Fault(ignore_range=True, no_length=True))
        full = tmp_path / "source"
        full.symlink_to("/dev/full")
        end = outcome(lambda: fetch(web_store, "b00/clip.mp4", full))
        assert end == "capacity_disk"

    def test_over_the_web_are_not_taken_compressed(
        self, http_server: HttpServer, tmp_path: Path
    ) -> None:
        store = http_store(http_server)
        store.put("clip.mp4", DATA)
        http_server.misbehave("/clip.mp4", Fault(encoding="gzip"))
        assert outcome(lambda: fetch(store, "clip.mp4", tmp_path / "s")) == "source_rejected"
        assert http_server.requests[0].headers["accept-encoding"] == "identity"


class TestFtpSources:
    @pytest.fixture
    def store(self, ftp_server: FtpServer) -> Store:
        store = replace(
            ftp_store(ftp_server), access=replace(make_access(), read_timeout_s=HASTY_S)
        )
        store.put("clip.mp4", DATA)
        return store

    @pytest.mark.parametrize("share", CUTS)
    @pytest.mark.parametrize(
        "reply",
        [
            pytest.param("426 Connection closed; transfer aborted.", id="and said so"),
            pytest.param("226 Transfer complete.", id="and said that all is well"),
        ],
    )
    def test_go_on_where_they_were_cut(
        self, share: float, reply: str, store: Store, ftp_server: FtpServer, tmp_path: Path
    ) -> None:
        ftp_server.faults.cut_after_bytes = int(len(DATA) * share)
        ftp_server.faults.cut_reply = reply
        assert fetch(store, "clip.mp4", tmp_path / "source") == DATA

    def test_that_stand_still_go_on_where_they_did(
        self, store: Store, ftp_server: FtpServer, tmp_path: Path
    ) -> None:
        ftp_server.faults.stall_after_bytes = len(DATA) // 2
        assert fetch(store, "clip.mp4", tmp_path / "source") == DATA

    def test_that_never_get_on_fail(
        self, store: Store, ftp_server: FtpServer, tmp_path: Path
    ) -> None:
        ftp_server.faults.cut_after_bytes = 0
        assert outcome(lambda: fetch(store, "clip.mp4", tmp_path / "s")) == "source_truncated"

    @pytest.mark.parametrize("reply", ["silent", "hang_up"])
    def test_need_no_closing_word(
        self, reply: str, store: Store, ftp_server: FtpServer, tmp_path: Path
    ) -> None:
        ftp_server.faults.final_reply = reply  # type: ignore[assignment]  # one of two
        assert fetch(store, "clip.mp4", tmp_path / "source") == DATA

    @pytest.mark.parametrize(
        ("rest", "ends"),
        [
            pytest.param("refused", "whole", id="are begun again where REST is unknown"),
            pytest.param("ignored", "source_changed", id="are not made of two beginnings"),
        ],
    )
    def test_that_were_cut(
        self, rest: str, ends: str, store: Store, ftp_server: FtpServer, tmp_path: Path
    ) -> None:
        ftp_server.faults.rest = rest  # type: ignore[assignment]  # one of two
        ftp_server.faults.cut_after_bytes = len(DATA) // 2
        ftp_server.faults.cut_once = True
        assert outcome(lambda: fetch(store, "clip.mp4", tmp_path / "source")) == ends
        if ends == "whole":
            assert (tmp_path / "source").read_bytes() == DATA

    @pytest.mark.parametrize(
        ("off_by", "ends"),
        [
            pytest.param(-100, "source_changed", id="less than there is"),
            pytest.param(100, "source_truncated", id="more than there is"),
        ],
    )
    def test_whose_size_is_told_as(
        self, off_by: int, ends: str, store: Store, ftp_server: FtpServer, tmp_path: Path
    ) -> None:
        ftp_server.faults.size_off_by = off_by
        assert outcome(lambda: fetch(store, "clip.mp4", tmp_path / "source")) == ends

    def test_of_a_server_that_is_full_are_asked_for_again(
        self, store: Store, ftp_server: FtpServer, tmp_path: Path
    ) -> None:
        ftp_server.faults.refuse_logins = 2
        assert fetch(store, "clip.mp4", tmp_path / "source") == DATA
        ftp_server.faults.refuse_logins = 99
        assert outcome(lambda: fetch(store, "clip.mp4", tmp_path / "s")) == "source_unreachable"


class TestPauses:
    """Between tries, with what would be drawn at random."""

    def pauses(self, share: float, *, tries: int = 8) -> list[float]:
        clock = PatientClock()
        retries = Retries(clock, tries=tries, draw=lambda low, high: low + share * (high - low))
        for _ in range(tries - 1):
            retries.wait(JobError("source_unreachable"))
        with pytest.raises(JobError):
            retries.wait(JobError("source_unreachable"))
        return clock.pauses

    def test_grow_to_a_longest_one(self) -> None:
        assert self.pauses(1.0) == [0.5, 1, 2, 4, 8, 8, 8]

    def test_are_anything_from_none_to_that(self) -> None:
        assert self.pauses(0.0) == [0] * 7
        assert self.pauses(0.25) == [0.125, 0.25, 0.5, 1, 2, 2, 2]

    def test_are_drawn_anew_by_each(self) -> None:
        clock = PatientClock()
        for _ in range(5):
            Retries(clock).wait(JobError("source_unreachable"))
        assert len(set(clock.pauses)) > 1
        assert all(0 <= pause <= 0.5 for pause in clock.pauses)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.mp4"
    path.write_bytes(DATA * 14)  # 17.9 MB: three parts
    return path


UPLOAD_FAULTS = {
    "503 twice": (Trouble(method="PUT", status=503, times=2), "whole"),
    "503 for ever": (Trouble(method="PUT", status=503, times=99), "unreachable"),
    "429": (Trouble(method="PUT", status=429), "whole"),
    "its answer is lost": (Trouble(method="PUT", lose_answer=True), "whole"),
    "every answer is lost": (Trouble(method="PUT", lose_answer=True, times=99), "unreachable"),
    "cut at 10 %": (Trouble(method="PUT", cut_at=0.1), "whole"),
    "cut at 50 %": (Trouble(method="PUT", cut_at=0.5), "whole"),
    "cut at 90 %": (Trouble(method="PUT", cut_at=0.9), "whole"),
    "cut for ever": (Trouble(method="PUT", cut_at=0.5, times=99), "unreachable"),
    "denied": (Trouble(method="PUT", status=403, times=99), "denied"),
    "too large": (Trouble(method="PUT", status=413, times=99), "rejected"),
    "no room": (Trouble(method="PUT", status=507, times=99), "full"),
}  # fmt: skip


def parametrized(faults: dict[str, tuple[Trouble, str]]) -> pytest.MarkDecorator:
    cases = [pytest.param(trouble, end, id=name) for name, (trouble, end) in faults.items()]
    return pytest.mark.parametrize(("trouble", "end"), cases)


@pytest.fixture
def way_to_http(http_server: HttpServer) -> Iterator[TroubledWay]:
    with TroubledWay(http_server.url) as way:
        yield way


@pytest.fixture
def way_to_s3(s3_bucket: S3Bucket) -> Iterator[TroubledWay]:
    with TroubledWay(s3_bucket.server.endpoint) as way:
        yield way


def attempt(store: Store, file: Path, **more: str) -> str:
    return outcome(lambda: deliver(store, "clip.mp4", file, **more)).removeprefix("destination_")


class TestHttpDestinations:
    @pytest.fixture
    def store(self, http_server: HttpServer, way_to_http: TroubledWay) -> Store:
        return replace(
            http_store(http_server),
            destination=lambda path: {"kind": "http", "url": f"{way_to_http.url}/{path}"},
        )

    @parametrized(UPLOAD_FAULTS)
    def test_have_the_file_or_the_upload_fails(
        self, trouble: Trouble, end: str, store: Store, way_to_http: TroubledWay, file: Path
    ) -> None:
        way_to_http.expect(trouble)
        assert attempt(store, file) == end
        if end == "whole":
            assert store.get("clip.mp4") == DATA
        if end not in ("whole", "unreachable"):
            assert len(way_to_http.seen) == 1  # what is permanent is not tried again

    def test_that_ask_for_patience_get_it(
        self, store: Store, way_to_http: TroubledWay, file: Path
    ) -> None:
        way_to_http.expect(Trouble(method="PUT", status=503, retry_after="7"))
        assert attempt(store, file) == "whole"
        assert clock_of(store.access).pauses == [7.0]

    def test_that_fall_silent_are_not_believed(self, http_server: HttpServer, file: Path) -> None:
        store = replace(
            http_store(http_server), access=replace(make_access(), read_timeout_s=HASTY_S)
        )
        http_server.misbehave("/clip.mp4", Fault(hang=True))
        assert attempt(store, file) == "unreachable"

    def test_that_send_in_circles_are_left(self, http_server: HttpServer, file: Path) -> None:
        http_server.misbehave("/clip.mp4", Fault(redirect_to="/clip.mp4", redirect_status=307))
        assert attempt(http_store(http_server), file) == "rejected"
        assert len(http_server.requests) == 6


SILENT = Trouble(method="PUT", silent=True, times=99)
NO_QUOTA = Trouble(
    method="PUT", status=403, times=99, say=b"<Error><Code>QuotaExceeded</Code></Error>"
)
PART_FAULTS = {
    **{
        f"a part: {name}": (replace(trouble, of="partNumber=2"), end)
        for name, (trouble, end) in UPLOAD_FAULTS.items()
    },
    "a part: its quota is used up": (replace(NO_QUOTA, of="partNumber=2"), "full"),
    "a part is spoilt": (Trouble(method="PUT", of="partNumber=2", spoil=True), "whole"),
    "the beginning: 503": (Trouble(method="POST", of="?uploads", status=503), "whole"),
    "the beginning: denied": (
        Trouble(method="POST", of="?uploads", status=403, times=99), "denied",
    ),
    "the end: 503": (Trouble(method="POST", of="uploadId", status=503), "whole"),
    "the end: its answer is lost": (
        Trouble(method="POST", of="uploadId", lose_answer=True), "whole",
    ),
    "the end: an error inside a 200": (
        Trouble(method="POST", of="uploadId", say=b"<Error><Code>InternalError</Code></Error>"),
        "whole",
    ),
    "the end: an error inside every 200": (
        Trouble(
            method="POST", of="uploadId", times=99,
            say=b"<Error><Code>InternalError</Code></Error>",
        ),
        "unreachable",
    ),
}  # fmt: skip


class TestS3Destinations:
    @pytest.fixture
    def store(self, s3_bucket: S3Bucket, way_to_s3: TroubledWay) -> Store:
        return replace(
            s3_store(s3_bucket),
            destination=lambda path: s3_bucket.fields(path, endpoint=way_to_s3.url),
        )

    @parametrized(
        {
            **UPLOAD_FAULTS,
            "it is spoilt": (Trouble(method="PUT", spoil=True), "whole"),
            "its quota is used up": (NO_QUOTA, "full"),
        }
    )
    def test_have_a_small_file_or_the_upload_fails(
        self, trouble: Trouble, end: str, store: Store, way_to_s3: TroubledWay, file: Path
    ) -> None:
        way_to_s3.expect(trouble)
        assert attempt(store, file) == end
        if end == "whole":
            assert store.get("clip.mp4") == DATA
        if end not in ("whole", "unreachable"):
            assert len(way_to_s3.seen) == 1

    @parametrized(PART_FAULTS)
    def test_have_a_large_file_or_nothing_is_left(
        self,
        trouble: Trouble,
        end: str,
        store: Store,
        way_to_s3: TroubledWay,
        s3_bucket: S3Bucket,
        large: Path,
    ) -> None:
        way_to_s3.expect(trouble)
        assert attempt(store, large) == end
        assert s3_bucket.keys() == (["clip.mp4"] if end == "whole" else [])
        assert s3_bucket.unfinished_uploads() == []
        if end == "whole":
            assert s3_bucket.get("clip.mp4") == DATA * 14

    def test_only_the_part_that_failed_is_sent_again(
        self, store: Store, way_to_s3: TroubledWay, large: Path
    ) -> None:
        way_to_s3.expect(Trouble(method="PUT", of="partNumber=2", cut_at=0.5))
        assert attempt(store, large) == "whole"
        parts = [target for method, target in way_to_s3.seen if method == "PUT"]
        assert sorted(target.partition("partNumber=")[2][0] for target in parts) == list("1223")

    def test_that_fall_silent_are_not_believed(
        self, store: Store, way_to_s3: TroubledWay, s3_bucket: S3Bucket, large: Path
    ) -> None:
        way_to_s3.expect(replace(SILENT, of="partNumber=2"))
        hasty = replace(store, access=replace(make_access(), read_timeout_s=HASTY_S))
        assert attempt(hasty, large) == "unreachable"
        assert s3_bucket.unfinished_uploads() == []

    def test_tell_the_failure_though_tidying_up_fails_too(
        self, store: Store, way_to_s3: TroubledWay, large: Path
    ) -> None:
        way_to_s3.expect(
            Trouble(method="PUT", status=403, times=99),
            Trouble(method="DELETE", status=500, times=99),
        )
        assert attempt(store, large) == "denied"


class TestFtpDestinations:
    @pytest.fixture
    def store(self, ftp_server: FtpServer) -> Store:
        hasty = replace(make_access(), read_timeout_s=HASTY_S)
        return replace(ftp_store(ftp_server), access=hasty)

    @pytest.mark.parametrize("share", CUTS)
    @pytest.mark.parametrize("reply", ["426 Aborted.", "226 Transfer complete."])
    def test_that_cut_every_upload_have_nothing(
        self, share: float, reply: str, store: Store, ftp_server: FtpServer, file: Path
    ) -> None:
        ftp_server.faults.cut_after_bytes = int(len(DATA) * share)
        ftp_server.faults.cut_reply = reply
        assert attempt(store, file) == "unreachable"
        assert store.names() == []

    def test_that_have_no_room_say_so(
        self, store: Store, ftp_server: FtpServer, file: Path
    ) -> None:
        ftp_server.faults.cut_after_bytes = len(DATA) // 2
        ftp_server.faults.cut_reply = "552 Exceeded storage allocation."
        assert attempt(store, file) == "full"
        assert store.names() == []
        assert sum(line.startswith("STOR") for line in ftp_server.commands) == 1

    def test_that_take_no_more_are_left(
        self, store: Store, ftp_server: FtpServer, large: Path
    ) -> None:
        ftp_server.faults.stall_after_bytes = len(DATA)
        assert attempt(store, large) == "unreachable"
        assert "clip.mp4" not in store.names()

    def test_that_take_drop_by_drop_are_left(
        self, store: Store, ftp_server: FtpServer, large: Path
    ) -> None:
        ftp_server.faults.drips = True
        assert attempt(store, large) == "unreachable"
        assert "clip.mp4" not in store.names()

    @pytest.mark.parametrize("reply", ["silent", "hang_up"])
    def test_that_store_and_never_say_so_are_looked_at_again(
        self, reply: str, store: Store, ftp_server: FtpServer, file: Path
    ) -> None:
        ftp_server.faults.final_reply = reply  # type: ignore[assignment]  # one of two
        assert attempt(store, file) == "whole"
        assert store.get("clip.mp4") == DATA
        assert store.names() == ["clip.mp4"]
        assert sum(line.startswith("STOR") for line in ftp_server.commands) == 1

    def test_that_are_full_for_a_while_are_asked_again(
        self, store: Store, ftp_server: FtpServer, file: Path
    ) -> None:
        ftp_server.faults.refuse_logins = 2
        assert attempt(store, file) == "whole"
        assert store.get("clip.mp4") == DATA

    def test_that_stay_full_fail(self, store: Store, ftp_server: FtpServer, file: Path) -> None:
        ftp_server.faults.refuse_logins = 99
        assert attempt(store, file) == "unreachable"
        assert store.names() == []
