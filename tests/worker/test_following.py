"""Files that are sent while they are written: by themselves, and through a whole worker."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from encoder_core.errors import JobError
from encoder_core.exits import Exit
from encoder_core.media.plan import plan_output
from encoder_core.reports import OutputResult
from encoder_core.specs import OutputSpec
from encoder_core.storage import open_in_parts
from encoder_core.storage.base import PartsUpload
from encoder_worker.deliver import deliver
from encoder_worker.following import Following, Span, can_follow, lay_out
from encoder_worker.manifest import Encoded, EncodedFile
from tests.contracts.stores import DESTINATION, PatientClock, make_access
from tests.core.test_media_plan import film
from tests.servers.clips import clip
from tests.servers.http import Fault, HttpServer
from tests.servers.proxy import Trouble, TroubledWay
from tests.servers.s3 import S3Bucket
from tests.worker.driver import (
    ACCEPTED,
    Worker,
    descendants_named,
    last_of_output,
    make_order,
    probe,
)

PART = 5 * 1024**2
KEY = "out/film.mp4"
WAIT_S = 60


# --- Which ---------------------------------------------------------------------------------------

S3 = {"kind": "s3", "bucket": "bucket", "path": "film.mp4"}
R2 = {**S3, "endpoint": "https://0a1b2c.r2.cloudflarestorage.com"}
HTTP = {"kind": "http", "url": "http://h/film.mp4"}


@pytest.mark.parametrize(
    ("output", "seconds", "want"),
    [
        pytest.param({"destination": S3}, 60, True, id="a long MP4 to S3"),
        pytest.param(
            {"destination": S3, "videoBitrate": "9k"},
            60,
            False,
            id="a short one, for which one request does",
        ),
        pytest.param({"destination": S3}, None, True, id="one of which nobody knows the length"),
        pytest.param({"destination": HTTP}, 60, False, id="to a server that takes no parts"),
        pytest.param(
            {"destination": R2}, 60, False, id="an MP4 to R2, where parts are of one size"
        ),
        pytest.param({"destination": R2, "container": "mkv"}, 60, True, id="a Matroska file to R2"),
        pytest.param({"destination": S3, "container": "hls"}, 60, False, id="a set of segments"),
    ],
)
def test_what_is_followed(output: dict[str, Any], seconds: float | None, want: bool) -> None:
    spec = OutputSpec.model_validate({"container": "mp4", "videoBitrate": "8000k", **output})
    source = film(duration_s=seconds)
    assert can_follow(plan_output(0, spec, source), spec.destination, source) is want


class TestParts:
    def test_are_where_they_were_before_the_index_moved(self) -> None:
        before = lay_out(35, moved=0, part=10)
        assert before == [Span(0, 10), Span(10, 20), Span(20, 30), Span(30, 35)]
        after = lay_out(38, moved=3, part=10)
        assert after == [Span(0, 13), Span(13, 23), Span(23, 33), Span(33, 38)]

    def test_are_not_more_than_a_store_takes(self) -> None:
        parts = lay_out(10**9, moved=7, part=10)
        assert len(parts) <= 10_000
        assert parts[-1].end == 10**9
        assert {part.end - part.begin for part in parts[1:9000]} == {10}


# --- By themselves -------------------------------------------------------------------------------


@pytest.fixture
def way(s3_bucket: S3Bucket) -> Iterator[TroubledWay]:
    with TroubledWay(s3_bucket.server.endpoint) as way:
        yield way


class FlyingClock(PatientClock):
    """One on which time may pass between two looks."""

    passes_s = 0.0

    def monotonic(self) -> float:
        self.now += self.passes_s
        return self.now


class Growing:
    """A file that an encoder writes, and what follows it."""

    def __init__(self, path: Path, begin: Callable[[], PartsUpload]) -> None:
        self.path = path
        self.clock = FlyingClock()
        slots = threading.Semaphore(4)
        self.following = Following(path, begin, slots=slots, clock=self.clock)
        self.following.start()

    def write(self, parts: float, seed: int = 1) -> None:
        piece = bytes((seed * 37 + number) % 251 for number in range(4099))
        with self.path.open("ab") as file:
            file.write((piece * (int(parts * PART) // len(piece) + 1))[: int(parts * PART)])

    def overwrite(self, at: int, data: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(at)
            file.write(data)

    def settle(self, head: bytes = b"the index") -> None:
        """The end of the encode: the index comes to the front."""

        def move() -> int:
            self.path.write_bytes(head + self.path.read_bytes())
            return len(head)

        self.following.settle(move)

    def encoded(self) -> Encoded:
        sha256 = self.following.hash()
        size = self.path.stat().st_size
        file = EncodedFile(
            path=str(self.path), size_bytes=size, sha256=sha256, content_type="video/mp4"
        )
        measured = OutputResult(files=[], size_bytes=size, container="mp4")
        return Encoded(path=file.path, spec_hash="-", files=[file], measured=measured)


@pytest.fixture
def growing(tmp_path: Path, s3_bucket: S3Bucket, way: TroubledWay) -> Iterator[Growing]:
    destination = DESTINATION.validate_python(s3_bucket.fields(KEY, endpoint=way.url))
    growing = Growing(
        tmp_path / "0.mp4", lambda: open_in_parts(destination, make_access()).begin("video/mp4")
    )
    yield growing
    growing.following.give_up()
    growing.following.wait()


def part(number: int) -> tuple[str, str]:
    return "PUT", f"partNumber={number}$"


def sent(way: TroubledWay) -> Counter[int]:
    """How often each part came."""
    return Counter(
        int(target.partition("partNumber=")[2])
        for method, target in way.seen
        if method == "PUT" and "partNumber=" in target
    )


def end(growing: Growing, bucket: S3Bucket, way: TroubledWay) -> None:
    """Deliver it, whatever way is left."""
    place = bucket.fields(KEY, endpoint=way.url)
    spec = OutputSpec.model_validate({"container": "mp4", "destination": place})
    deliver(growing.encoded(), spec, make_access(), growing.following)


class TestAFile:
    def test_is_sent_while_it_grows_and_seen_when_it_is_finished(
        self, growing: Growing, s3_bucket: S3Bucket, way: TroubledWay
    ) -> None:
        growing.write(3.5)
        way.wait_for(part(2), part(3))
        assert s3_bucket.keys() == []
        growing.write(1, seed=2)
        way.wait_for(part(4))
        assert 1 not in sent(way)
        growing.settle()
        way.wait_for(part(5), part(1))
        assert s3_bucket.keys() == []
        end(growing, s3_bucket, way)
        assert set(sent(way).values()) == {1}
        assert s3_bucket.get(KEY) == growing.path.read_bytes()

    def test_that_is_small_in_the_end_is_sent_in_one_piece(
        self, growing: Growing, s3_bucket: S3Bucket, way: TroubledWay
    ) -> None:
        growing.write(1.5)
        growing.settle()
        end(growing, s3_bucket, way)
        assert s3_bucket.get(KEY) == growing.path.read_bytes()
        assert [method for method, _ in way.seen] == ["PUT"]

    def test_to_which_its_encoder_went_back_is_sent_as_it_is(
        self, growing: Growing, s3_bucket: S3Bucket, way: TroubledWay
    ) -> None:
        growing.write(5.5)
        way.wait_for(part(5))
        growing.overwrite(PART + 100, b"other bytes, in the second part")
        growing.settle()
        end(growing, s3_bucket, way)
        assert s3_bucket.get(KEY) == growing.path.read_bytes()
        again = {number for number, times in sent(way).items() if times > 1}
        assert again == {2}

    def test_takes_the_place_of_another_only_when_it_is_finished(
        self, growing: Growing, s3_bucket: S3Bucket, way: TroubledWay
    ) -> None:
        s3_bucket.put(KEY, b"what viewers watch")
        growing.write(4)
        way.wait_for(part(3))
        growing.settle()
        assert s3_bucket.get(KEY) == b"what viewers watch"
        end(growing, s3_bucket, way)
        assert s3_bucket.get(KEY) == growing.path.read_bytes()

    def test_that_comes_to_nothing_leaves_nothing(
        self, growing: Growing, s3_bucket: S3Bucket, way: TroubledWay
    ) -> None:
        growing.write(3.5)
        way.wait_for(part(2))
        growing.following.give_up()
        growing.following.wait(WAIT_S)
        assert s3_bucket.keys() == []
        assert s3_bucket.unfinished_uploads() == []


STORM = {"status": 503, "times": 4}  # as often as one request is tried

EARLY_FAULTS = {
    "a part is cut in the middle": [Trouble(method="PUT", of="partNumber=2", cut_at=0.5)],
    "a part is spoilt": [Trouble(method="PUT", of="partNumber=2", spoil=True)],
    "the answer to a part is lost": [Trouble(method="PUT", of="partNumber=2", lose_answer=True)],
    "503 for a while": [Trouble(method="PUT", of="partNumber=2", **STORM)],  # type: ignore[arg-type]
    "503 for a while at the beginning": [Trouble(method="POST", of="?uploads", **STORM)],  # type: ignore[arg-type]
    "a part is refused": [Trouble(method="PUT", of="partNumber=2", status=403)],
    "the upload is gone": [Trouble(method="PUT", of="partNumber=3", status=404)],
    "its parts are refused in the end": [Trouble(method="POST", of="uploadId", status=400)],
    "the answer to its end is lost": [Trouble(method="POST", of="uploadId", lose_answer=True)],
}


@pytest.mark.parametrize(
    "troubles", [pytest.param(troubles, id=name) for name, troubles in EARLY_FAULTS.items()]
)
def test_a_file_arrives_though(
    troubles: list[Trouble], growing: Growing, s3_bucket: S3Bucket, way: TroubledWay
) -> None:
    way.expect(*troubles)
    growing.write(4.5)
    way.wait_for(("POST", r"\?uploads"))
    growing.settle()
    end(growing, s3_bucket, way)
    assert s3_bucket.get(KEY) == growing.path.read_bytes()
    assert s3_bucket.unfinished_uploads() == []


@pytest.mark.parametrize(
    ("trouble", "failure"),
    [
        pytest.param(
            Trouble(method="PUT", status=503, times=99), "destination_unreachable",
            id="it answers 503 for ever",
        ),
        pytest.param(
            Trouble(method="PUT", status=403, times=99), "destination_denied",
            id="it refuses every part",
        ),
        pytest.param(
            Trouble(method="POST", of="uploadId", status=503, times=99), "destination_unreachable",
            id="it never makes an object of them",
        ),
    ],
)  # fmt: skip
def test_a_destination_is_told_as_in_the_ordinary_way_when(
    trouble: Trouble, failure: str, growing: Growing, s3_bucket: S3Bucket, way: TroubledWay
) -> None:
    s3_bucket.put(KEY, b"what viewers watch")
    way.expect(trouble)
    growing.write(4.5)
    way.wait_for(("POST", r"\?uploads"))
    growing.settle()
    with pytest.raises(JobError) as caught:
        end(growing, s3_bucket, way)
    assert caught.value.code == failure
    assert s3_bucket.get(KEY) == b"what viewers watch"
    assert s3_bucket.unfinished_uploads() == []


def test_a_destination_that_did_not_answer_is_asked_again_while_the_file_grows(
    growing: Growing, s3_bucket: S3Bucket, way: TroubledWay
) -> None:
    way.expect(Trouble(method="PUT", of="partNumber=2", **STORM))  # type: ignore[arg-type]
    growing.clock.passes_s = 3600
    growing.write(3.5)
    way.wait_for(part(3))
    assert sent(way)[2] == 5
    assert s3_bucket.keys() == []


# --- Through a whole worker ----------------------------------------------------------------------

LARGE = "h264_640x360_25p_3s_large.mp4"
HELD = 22_000_000  # of 24: more than three parts can have been written by then
COPY = {"videoCodec": "copy", "audioCodec": "copy"}


def is_encoding(report: dict[str, Any]) -> bool:
    return report.get("phase") == "encoding"


class Job:
    """A copy of a film whose end does not come until it is let go."""

    def __init__(
        self, folder: Path, server: HttpServer, bucket: S3Bucket, way: TroubledWay, *names: str
    ) -> None:
        self.let_go = threading.Event()
        self.url = server.serve("/in.mp4", clip(LARGE).read_bytes())
        server.misbehave("/in.mp4", Fault(hold_beyond=HELD, until=self.let_go))
        outputs = [
            {
                **COPY,
                "container": name.rpartition(".")[2],
                "destination": bucket.fields(name, endpoint=way.url),
            }
            for name in names
        ]
        self.order = make_order(folder, {"kind": "http", "url": self.url}, *outputs)


@pytest.fixture
def job(
    tmp_path: Path, http_server: HttpServer, s3_bucket: S3Bucket, way: TroubledWay
) -> Callable[..., Job]:
    return lambda *names: Job(tmp_path, http_server, s3_bucket, way, *(names or (KEY,)))


CONTAINERS = ["mp4", "mkv", "ts"]


def test_parts_of_every_container_that_grows_stand_fast_while_the_encode_runs(
    job: Callable[..., Job], s3_bucket: S3Bucket, way: TroubledWay, tmp_path: Path
) -> None:
    names = [f"film.{container}" for container in CONTAINERS]
    held = job(*names)
    with Worker(held.order) as worker:
        ended = threading.Thread(target=lambda: results.append(worker.finish()))
        results: list[tuple[int, list[dict[str, Any]]]] = []
        ended.start()
        way.wait_for(*(("PUT", rf"{name}\?.*{part(n)[1]}") for name in names for n in (2, 3)))
        assert s3_bucket.keys() == []
        held.let_go.set()
        ended.join(WAIT_S)
        assert "followed file=0.mp4" in worker.log
    [(code, reports)] = results
    assert code == Exit.SUCCEEDED
    assert sorted(s3_bucket.keys()) == sorted(names)
    parts = Counter(target for method, target in way.seen if method == "PUT")
    assert set(parts.values()) == {1}
    for index, name in enumerate(names):
        delivered = tmp_path / name
        delivered.write_bytes(s3_bucket.get(name))
        assert delivered.read_bytes() == (tmp_path / f"scratch/out/{index}.{name[5:]}").read_bytes()
        video, sound = probe(delivered)["streams"]
        assert (video["nb_read_frames"], sound["codec_name"]) == ("75", "aac")
        result = last_of_output(reports, index)["result"]
        assert (result["frames"], result["sizeBytes"]) == (75, delivered.stat().st_size)
    assert (tmp_path / "film.mp4").read_bytes()[36:40] == b"moov"


@pytest.mark.parametrize(
    ("act", "exit_code"),
    [
        pytest.param(
            lambda worker: worker.say({"accepted": True, "cancel": True}), Exit.CANCELED,
            id="the job is canceled",
        ),
        pytest.param(
            lambda worker: worker.process.send_signal(signal.SIGTERM), Exit.INTERRUPTED,
            id="the worker is asked to end",
        ),
        pytest.param(lambda worker: worker.hang_up(), Exit.FENCED, id="the parent is gone"),
    ],
)  # fmt: skip
def test_nothing_is_left_of_what_was_sent_when(
    act: Callable[[Worker], object],
    exit_code: Exit,
    job: Callable[..., Job],
    s3_bucket: S3Bucket,
    way: TroubledWay,
) -> None:
    held = job()
    with Worker(held.order) as worker:
        worker.next_report(is_encoding)
        way.wait_for(part(2))
        act(worker)
        if exit_code is Exit.INTERRUPTED:
            worker.say(ACCEPTED)
        for _ in worker.envelopes():
            if exit_code is not Exit.FENCED:
                worker.say(ACCEPTED)
        assert worker.process.wait(WAIT_S) == exit_code
    assert s3_bucket.keys() == []
    assert s3_bucket.unfinished_uploads() == []
    held.let_go.set()


def test_nothing_is_left_of_what_was_sent_when_the_encode_fails(
    job: Callable[..., Job], s3_bucket: S3Bucket, way: TroubledWay
) -> None:
    held = job()
    with Worker(held.order) as worker:
        worker.next_report(is_encoding)
        way.wait_for(part(2))
        [ffmpeg] = descendants_named("ffmpeg", {worker.process.pid})
        os.kill(ffmpeg, signal.SIGKILL)
        worker.say(ACCEPTED)
        code, reports = worker.finish()
    assert (code, reports[-1]["failure"]["code"]) == (Exit.MEDIA, "encode_failed")
    assert s3_bucket.keys() == []
    assert s3_bucket.unfinished_uploads() == []


def test_a_killed_worker_leaves_parts_that_nobody_sees_and_the_next_one_begins_anew(
    job: Callable[..., Job], s3_bucket: S3Bucket, way: TroubledWay
) -> None:
    held = job()
    with Worker(held.order) as worker:
        worker.next_report(is_encoding)
        way.wait_for(part(2))
        worker.process.kill()
        worker.process.wait()
    assert s3_bucket.keys() == []
    assert s3_bucket.unfinished_uploads() == [KEY]  # for a rule of the bucket to remove
    held.let_go.set()
    with Worker({**held.order, "attempt": 2}) as worker:
        code, _ = worker.finish()
    assert code == Exit.SUCCEEDED
    assert s3_bucket.keys() == [KEY]
