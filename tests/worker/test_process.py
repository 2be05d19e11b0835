"""The worker as its parent sees it: an order in, reports out, an exit code that tells the truth."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from encoder_core.exits import Exit
from tests.servers.http import Fault, HttpServer
from tests.worker.driver import (
    ACCEPTED,
    TOKEN,
    Worker,
    descendants_named,
    last_of_output,
    make_order,
    of_type,
    probe,
    run_worker,
    to_file,
)

UPRIGHT = "h264_320x180_25p_2s_stereo.mp4"
LONG = "h264_640x360_25p_20s_stereo.mp4"
Clip = Callable[[str], Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    return tmp_path


def put(folder: Path, source: Path, name: str = "in.mp4") -> dict[str, Any]:
    """A source of kind file."""
    (folder / "files" / name).write_bytes(source.read_bytes())
    return {"kind": "file", "path": name}


def delivered(folder: Path) -> list[str]:
    root = folder / "files"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def slow_order(folder: Path, clip: Clip) -> dict[str, Any]:
    """One that encodes for so long that whatever is to interrupt it comes in time."""
    output = to_file("slow.mp4", container="mp4", preset="veryslow", width=1920, upscale=True)
    return make_order(folder, put(folder, clip(LONG)), output)


def is_encoding(report: dict[str, Any]) -> bool:
    return report.get("phase") == "encoding"


class TestSuccess:
    def test_two_outputs_of_one_source(self, folder: Path, clip: Clip) -> None:
        order = make_order(
            folder,
            put(folder, clip(UPRIGHT)),
            to_file("out/small.mp4", container="mp4", width=160, videoBitrate="200k"),
            to_file("out/sound.mp3", container="mp3"),
        )
        code, reports = run_worker(order)
        assert code == Exit.SUCCEEDED
        assert reports[0]["type"] == "started"
        assert reports[-1]["outcome"] == "succeeded"
        assert list(reports[-1]["reached"]) == ["fetched", "encoded", "verified", "uploaded"]
        log = of_type(reports, "log")[-1]
        assert "ffmpeg_ended exit_code=0" in log["tail"]
        assert [line.split()[1] for line in log["tail"].splitlines()[-3:]] == [
            *("output_uploaded", "uploaded", "attempt_ended")
        ]
        picture, sound = last_of_output(reports, 0), last_of_output(reports, 1)
        assert (picture["status"], sound["status"]) == ("uploaded", "uploaded")
        made = probe(folder / "files" / "out/small.mp4")
        video, audio = made["streams"]
        assert (video["width"], video["height"], video["nb_read_frames"]) == (160, 90, "50")
        assert (video["codec_name"], audio["codec_name"], audio["channels"]) == ("h264", "aac", 2)
        assert picture["result"]["frames"] == 50
        assert picture["result"]["sizeBytes"] == int(made["format"]["size"])
        assert sound["result"]["files"][0]["contentType"] == "audio/mpeg"

    def test_progress_never_goes_back(self, folder: Path, clip: Clip) -> None:
        order = make_order(folder, put(folder, clip(LONG)), to_file("o.mp4", container="mp4"))
        _, reports = run_worker(order)
        percents = [report["percent"] for report in of_type(reports, "progress")]
        assert percents == sorted(percents)

    def test_without_outputs_it_says_what_the_source_is(self, folder: Path, clip: Clip) -> None:
        code, reports = run_worker(make_order(folder, put(folder, clip(UPRIGHT))))
        assert code == Exit.SUCCEEDED
        [source] = of_type(reports, "source")
        assert source["source"]["durationS"] == pytest.approx(2.0, abs=0.1)
        assert [stream["codec_name"] for stream in source["source"]["streams"]] == ["h264", "aac"]

    def test_a_source_over_http_goes_on_after_a_cut(
        self, folder: Path, clip: Clip, http_server: HttpServer
    ) -> None:
        data = clip(LONG).read_bytes()
        url = http_server.serve("/in.mp4", data)
        http_server.misbehave("/in.mp4", Fault(cut_at=1.0, times=1), Fault(cut_at=0.5, times=1))
        order = make_order(folder, {"kind": "http", "url": url}, to_file("o.mp3", container="mp3"))
        code, _ = run_worker(order)
        assert code == Exit.SUCCEEDED
        ranges = [request.headers.get("range") for request in http_server.requests]
        assert ranges[-1] is not None
        assert ranges[-1] != "bytes=0-0"

    def test_the_order_may_be_a_file_and_the_last_word_goes_where_the_kubelet_looks(
        self, folder: Path, clip: Clip
    ) -> None:
        outputs = [to_file(f"{n}.mp3", container="mp3", audioBitrate="64k") for n in range(12)]
        order = make_order(folder, put(folder, clip(UPRIGHT)), *outputs)
        last = folder / "termination"
        code, _ = run_worker(order, lambda _: ACCEPTED, "--termination-log", str(last))
        assert code == Exit.SUCCEEDED
        assert len(last.read_bytes()) <= 4096
        assert '"outcome":"succeeded"' in last.read_text()


class TestEnds:
    def test_when_the_parent_is_gone_nothing_stays_behind(self, folder: Path, clip: Clip) -> None:
        with Worker(slow_order(folder, clip)) as worker:
            worker.next_report(is_encoding)
            [ffmpeg] = descendants_named("ffmpeg", {worker.process.pid})
            worker.hang_up()
            assert worker.process.wait(15) == Exit.FENCED
        assert not Path(f"/proc/{ffmpeg}").exists()
        assert delivered(folder) == ["in.mp4"]

    def test_a_killed_worker_takes_ffmpeg_with_it(self, folder: Path, clip: Clip) -> None:
        with Worker(slow_order(folder, clip)) as worker:
            worker.next_report(is_encoding)
            [ffmpeg] = descendants_named("ffmpeg", {worker.process.pid})
            descriptor = os.pidfd_open(ffmpeg)
            worker.process.kill()
            worker.process.wait()
        # A pidfd becomes readable when its process has ended.
        assert select.select([descriptor], [], [], 10)[0]
        os.close(descriptor)

    def test_an_ffmpeg_that_somebody_killed_is_not_told_as_out_of_memory(
        self, folder: Path, clip: Clip
    ) -> None:
        with Worker(slow_order(folder, clip)) as worker:
            worker.next_report(is_encoding)
            [ffmpeg] = descendants_named("ffmpeg", {worker.process.pid})
            os.kill(ffmpeg, signal.SIGKILL)
            worker.say(ACCEPTED)
            code, reports = worker.finish()
        assert (code, reports[-1]["failure"]["code"]) == (Exit.MEDIA, "encode_failed")
        assert delivered(folder) == ["in.mp4"]

    def test_a_canceled_job_is_told_as_such(self, folder: Path, clip: Clip) -> None:
        with Worker(slow_order(folder, clip)) as worker:
            worker.next_report(is_encoding)
            worker.say({"accepted": True, "cancel": True})
            code, reports = worker.finish()
        assert code == Exit.CANCELED
        assert (reports[-1]["type"], reports[-1]["outcome"]) == ("final", "canceled")
        assert delivered(folder) == ["in.mp4"]

    def test_a_cancel_also_reaches_a_fetch_that_hangs(
        self, folder: Path, http_server: HttpServer
    ) -> None:
        url = http_server.misbehave("/in.mp4", Fault(hang=True))
        order = make_order(folder, {"kind": "http", "url": url}, to_file("o.mp4", container="mp4"))
        with Worker(order) as worker:
            worker.next_report(lambda report: report["type"] == "progress")
            worker.say({"accepted": True, "cancel": True})
            code, _ = worker.finish()
        assert code == Exit.CANCELED

    def test_sigterm_ends_it_with_its_own_code(self, folder: Path, clip: Clip) -> None:
        with Worker(slow_order(folder, clip)) as worker:
            worker.next_report(is_encoding)
            worker.say(ACCEPTED)
            worker.process.send_signal(signal.SIGTERM)
            code, reports = worker.finish()
        assert code == Exit.INTERRUPTED
        assert reports[-1]["failure"]["code"] == "worker_interrupted"
        assert delivered(folder) == ["in.mp4"]

    def test_an_attempt_that_is_not_current_publishes_nothing(
        self, folder: Path, clip: Clip
    ) -> None:
        order = make_order(folder, put(folder, clip(UPRIGHT)), to_file("o.mp4", container="mp4"))
        code, _ = run_worker(order, lambda _: {"accepted": False})
        assert code == Exit.FENCED
        assert delivered(folder) == ["in.mp4"]

    def test_without_a_lease_it_waits_with_publishing(self, folder: Path, clip: Clip) -> None:
        order = make_order(folder, put(folder, clip(UPRIGHT)), to_file("o.mp3", container="mp3"))
        with Worker(order) as worker:

            def is_uploading(report: dict[str, Any]) -> bool:
                return report.get("phase") == "uploading"

            for envelope in worker.envelopes():
                if is_uploading(envelope["report"]):
                    break
                worker.say({"accepted": True})
            assert [name for name in delivered(folder) if not name.endswith(".part")] == ["in.mp4"]
            worker.say(ACCEPTED)
            code, _ = worker.finish()
        assert code == Exit.SUCCEEDED
        assert delivered(folder) == ["in.mp4", "o.mp3"]

    def test_the_deadline_ends_it(self, folder: Path, clip: Clip) -> None:
        order = slow_order(folder, clip)
        order["limits"] = {"deadlineS": 1.0}
        code, reports = run_worker(order)
        assert code == Exit.DEADLINE
        assert reports[-1]["failure"]["code"] == "deadline_exceeded"


class TestFailure:
    def test_a_truncated_source_publishes_nothing(self, folder: Path, clip: Clip) -> None:
        source = put(folder, clip(LONG))
        path = folder / "files" / "in.mp4"
        # The index is in front only after a remux; then the end of the pictures is missing.
        fast = folder / "files" / "fast.mp4"
        _remux(path, fast)
        data = fast.read_bytes()
        path.write_bytes(data[: len(data) * 6 // 10])
        fast.unlink()
        order = make_order(
            folder,
            source,
            to_file("o.mp4", container="mp4", width=160),
            to_file("copy.mp4", container="mp4", videoCodec="copy", audioCodec="copy"),
        )
        code, reports = run_worker(order)
        assert code in (Exit.MEDIA, Exit.SOURCE_TRANSIENT)
        for index in (0, 1):
            last = last_of_output(reports, index)
            assert last["status"] == "failed"
            assert last["failure"]["code"] in ("output_truncated", "source_truncated")
        assert delivered(folder) == ["in.mp4"]

    def test_one_bad_output_does_not_cost_the_others(self, folder: Path, clip: Clip) -> None:
        order = make_order(
            folder,
            put(folder, clip(UPRIGHT)),
            to_file("good.mp4", container="mp4", width=160),
            # The encoder refuses such a rate for two channels, and with it ffmpeg the whole run.
            to_file("bad.ogg", container="ogg", audioBitrate="1k"),
        )
        code, reports = run_worker(order)
        assert code == Exit.MEDIA
        assert last_of_output(reports, 0)["status"] == "uploaded"
        bad = last_of_output(reports, 1)
        assert (bad["status"], bad["failure"]["code"]) == ("failed", "encode_failed")
        assert bad["failure"]["detail"]
        assert delivered(folder) == ["good.mp4", "in.mp4"]

    def test_what_this_source_makes_impossible_names_the_field(
        self, folder: Path, clip: Clip
    ) -> None:
        order = make_order(
            folder,
            put(folder, clip("h264_320x180_25p_2s_silent.mp4")),
            to_file("sound.mp3", container="mp3"),
        )
        code, reports = run_worker(order)
        assert code == Exit.REQUEST
        assert "/outputs/0/container" in reports[-1]["failure"]["message"]

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            pytest.param("in.mp4", "#EXTM3U\n#EXTINF:10,\nother.mp4\n", id="an HLS playlist"),
            pytest.param("in.mp4", "ffconcat version 1.0\nfile other.mp4\n", id="a concat list"),
            pytest.param("in.mp4", "just some words\n", id="text"),
        ],
    )
    def test_what_is_no_media_file_is_refused(
        self, folder: Path, clip: Clip, name: str, text: str
    ) -> None:
        put(folder, clip(UPRIGHT), "other.mp4")
        (folder / "files" / name).write_text(text)
        order = make_order(
            folder, {"kind": "file", "path": name}, to_file("o.mp4", container="mp4")
        )
        code, reports = run_worker(order)
        assert (code, reports[-1]["failure"]["code"]) == (Exit.SOURCE, "source_invalid")

    def test_a_missing_source_is_told(self, folder: Path) -> None:
        order = make_order(
            folder, {"kind": "file", "path": "none.mp4"}, to_file("o.mp4", container="mp4")
        )
        code, reports = run_worker(order)
        assert (code, reports[-1]["failure"]["code"]) == (Exit.SOURCE, "source_not_found")
        assert last_of_output(reports, 0)["status"] == "failed"

    def test_no_secret_is_in_what_it_says(
        self, folder: Path, clip: Clip, http_server: HttpServer
    ) -> None:
        url = http_server.misbehave("/in.mp4", Fault(status=403))
        source = {
            "kind": "http",
            "url": url + "?X-Amz-Signature=canary-signature",
            "headers": {"Authorization": "Bearer canary-token"},
        }
        http_server.misbehave("/in.mp4?X-Amz-Signature=canary-signature", Fault(status=403))
        with Worker(make_order(folder, source, to_file("o.mp4", container="mp4"))) as worker:
            code, reports = worker.finish()
            said = f"{reports} {worker.log}"
        assert code == Exit.SOURCE
        assert "canary" not in said
        assert TOKEN not in said


def _remux(source: Path, target: Path) -> None:
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", source, "-c", "copy", "-movflags", "+faststart", target],
        check=True,
    )


class TestAnotherAttempt:
    def test_a_failed_delivery_is_repeated_without_encoding(self, folder: Path, clip: Clip) -> None:
        (folder / "files" / "taken").mkdir(parents=True)
        source = put(folder, clip(UPRIGHT))
        first = make_order(folder, source, to_file("taken", container="mp4", width=160))
        code, reports = run_worker(first)
        assert code == Exit.DESTINATION
        assert last_of_output(reports, 0)["failure"]["code"] == "destination_rejected"
        encoded = folder / "scratch" / "out" / "0.mp4"
        assert encoded.is_file()
        (folder / "files" / "in.mp4").unlink()
        (folder / "second").mkdir()
        second = make_order(folder, source, to_file("free.mp4", container="mp4", width=160))
        second["attempt"] = 2
        second["scratchDir"] = str(folder / "second")
        second["outputs"][0]["encodedPath"] = str(encoded)
        code, reports = run_worker(second)
        assert code == Exit.SUCCEEDED
        assert not of_type(reports, "source")
        assert last_of_output(reports, 0)["result"]["frames"] == 50
        assert (folder / "files" / "free.mp4").read_bytes() == encoded.read_bytes()
