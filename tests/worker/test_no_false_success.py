"""Whatever destinations and disks do to a whole worker, what is not there is not `uploaded`."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from encoder_core.exits import Exit
from tests.servers.ftp import FtpServer
from tests.servers.http import Fault, HttpServer
from tests.servers.s3 import S3Bucket
from tests.worker.driver import Worker, last_of_output, make_order, run_worker, to_file

Clip = Callable[[str], Path]

AT_HTTP = {
    "gone": (Fault(status=404), "destination_not_found"),
    "denied": (Fault(status=403), "destination_denied"),
    "storm": (Fault(status=503), "destination_unreachable"),
    "cut": (Fault(cut_at=0.5), "destination_unreachable"),
    "full": (Fault(status=507), "destination_full"),
    "circle": (Fault(redirect_to="/circle", redirect_status=307), "destination_rejected"),
    "elsewhere": (Fault(redirect_to="/good", redirect_status=302), "destination_rejected"),
}


def test_each_output_says_what_its_destination_did(
    tmp_path: Path,
    clip: Clip,
    http_server: HttpServer,
    ftp_server: FtpServer,
    s3_bucket: S3Bucket,
) -> None:
    ftp_server.faults.cut_after_bytes = 1000
    ftp_server.faults.cut_reply = "226 Transfer complete."
    bad = {name: {"kind": "http", "url": f"{http_server.url}/{name}"} for name in AT_HTTP}
    want = {name: code for name, (_, code) in AT_HTTP.items()}
    for name, (fault, _) in AT_HTTP.items():
        http_server.misbehave(f"/{name}", fault)
    bad["s3"], want["s3"] = s3_bucket.fields("o", bucket="no-such-bucket"), "destination_not_found"
    bad["ftp"], want["ftp"] = ftp_server.fields("o.mp3"), "destination_unreachable"
    places = {**bad, "good": {"kind": "http", "url": f"{http_server.url}/good"}}
    outputs = [{"container": "mp3", "destination": place} for place in places.values()]
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "in").write_bytes(clip("mp3_stereo_2s.mp3").read_bytes())

    order = make_order(tmp_path, {"kind": "file", "path": "in"}, *outputs)
    code, reports = run_worker(order)

    ends = {name: last_of_output(reports, index) for index, name in enumerate(places)}
    failures = {name: end["failure"]["code"] for name, end in ends.items() if "failure" in end}
    assert failures == want
    assert {name: end["status"] for name, end in ends.items()} == {
        **dict.fromkeys(bad, "failed"),
        "good": "uploaded",
    }
    assert code == Exit.DESTINATION_TRANSIENT
    assert ftp_server.folder.joinpath("o.mp3").exists() is False
    assert not any(http_server.has(f"/{name}") for name in AT_HTTP)


@pytest.mark.parametrize(
    ("source", "room_bytes"),
    [
        pytest.param("http", 20_000, id="the source does not fit"),
        pytest.param("file", 100_000, id="an output does not fit"),
    ],
)
def test_a_disk_that_fills_fails_the_job(
    source: str, room_bytes: int, tmp_path: Path, clip: Clip, http_server: HttpServer
) -> None:
    data = clip("mp3_stereo_2s.mp3").read_bytes()
    assert 20_000 < len(data) < 100_000
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "in").write_bytes(data)
    place: dict[str, Any] = {"kind": "file", "path": "in"}
    if source == "http":
        place = {"kind": "http", "url": http_server.serve("/in", data)}
    order = make_order(tmp_path, place, to_file("o.wav", container="wav"))

    def leave_little_room(pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (room_bytes, room_bytes))

    with Worker(order, before_order=leave_little_room) as worker:
        code, reports = worker.finish()
    last = last_of_output(reports, 0)
    assert (last["status"], (tmp_path / "files" / "o.wav").exists()) == ("failed", False)
    if source == "http":
        assert (code, last["failure"]["code"]) == (Exit.DISK, "capacity_disk")
    else:
        assert (code, last["failure"]["code"]) == (Exit.MEDIA, "encode_failed")


def test_a_disk_that_fills_under_one_output_costs_that_one_alone(
    tmp_path: Path, clip: Clip
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "in").write_bytes(clip("mp3_stereo_2s.mp3").read_bytes())
    outputs = [to_file("large.wav", container="wav"), to_file("small.ogg", container="ogg")]
    order = make_order(tmp_path, {"kind": "file", "path": "in"}, *outputs)

    def leave_little_room(pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (100_000, 100_000))

    with Worker(order, before_order=leave_little_room) as worker:
        code, reports = worker.finish()
    large, small = (last_of_output(reports, index) for index in (0, 1))
    assert (large["status"], large["failure"]["code"]) == ("failed", "encode_failed")
    assert (small["status"], code) == ("uploaded", Exit.MEDIA)
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == ["in", "small.ogg"]
