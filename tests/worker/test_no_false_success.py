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
from tests.worker.driver import (
    Worker,
    last_of_output,
    make_order,
    on_a_disk_of,
    run_worker,
    to_file,
)

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
    wrong = s3_bucket.fields("o") | {"access_key_secret": "wrong"}
    bad["s3 key"], want["s3 key"] = wrong, "destination_denied"
    http_server.misbehave("/store/o", Fault(status=507))  # a store that speaks S3, and is full
    full = {"kind": "s3", "endpoint": http_server.url, "bucket": "store", "path": "o"}
    bad["s3 room"], want["s3 room"] = full, "destination_full"
    bad["ftp"], want["ftp"] = ftp_server.fields("o.mp3"), "destination_unreachable"
    bad["ftp login"] = ftp_server.fields("o.mp3") | {"password": "wrong"}
    want["ftp login"] = "destination_denied"
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
    assert not s3_bucket.keys()


FTP_THAT_FAILS: dict[str, tuple[dict[str, Any], str]] = {
    "refuses the rename": ({"refuse_rename": True}, "destination_rejected"),
    "has no room": (
        {"cut_after_bytes": 1000, "cut_reply": "552 Exceeded storage allocation."},
        "destination_full",
    ),
    "has no room for one more": ({"refuse_logins": 99}, "destination_unreachable"),
}


@pytest.mark.parametrize("name", FTP_THAT_FAILS)
def test_an_ftp_server_that(name: str, tmp_path: Path, clip: Clip, ftp_server: FtpServer) -> None:
    faults, want = FTP_THAT_FAILS[name]
    for fault, how in faults.items():
        setattr(ftp_server.faults, fault, how)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "in").write_bytes(clip("mp3_stereo_2s.mp3").read_bytes())
    lost = {"container": "mp3", "destination": ftp_server.fields("o.mp3")}
    order = make_order(
        tmp_path, {"kind": "file", "path": "in"}, lost, to_file("kept.mp3", container="mp3")
    )
    code, reports = run_worker(order)
    last, kept = (last_of_output(reports, index) for index in (0, 1))
    assert code in (Exit.DESTINATION, Exit.DESTINATION_TRANSIENT)
    assert (last["status"], last["failure"]["code"]) == ("failed", want)
    assert kept["status"] == "uploaded"
    assert list(ftp_server.folder.iterdir()) == []


BAD_SOURCES: dict[str, tuple[str, Fault | bytes | dict[str, Any], str]] = {
    "http: gone": ("http", Fault(status=410), "source_not_found"),
    "http: denied": ("http", Fault(status=401), "source_denied"),
    "http: storm": ("http", Fault(status=503), "source_unreachable"),
    "http: circle": ("http", Fault(redirect_to="/in"), "source_rejected"),
    "http: cut": ("http", Fault(cut_at=0.5, ignore_range=True, no_etag=True), "source_truncated"),
    "http: longer": ("http", Fault(length_off_by=99, ignore_range=True), "source_truncated"),
    "http: a page": ("http", b"<html>Not found</html>", "source_invalid"),
    "http: nothing": ("http", b"", "source_invalid"),
    "s3: no bucket": ("s3", {"bucket": "no-such-bucket"}, "source_not_found"),
    "s3: no object": ("s3", {"path": "other"}, "source_not_found"),
    "s3: wrong key": ("s3", {"access_key_secret": "wrong"}, "source_denied"),
    "ftp: no file": ("ftp", {"path": "other"}, "source_not_found"),
    "ftp: wrong password": ("ftp", {"password": "wrong"}, "source_denied"),
    "ftp: grows": ("ftp fault", {"size_off_by": -100}, "source_changed"),
    "ftp: cut": ("ftp fault", {"cut_after_bytes": 0}, "source_truncated"),
    "ftp: no room for one more": ("ftp fault", {"refuse_logins": 99}, "source_unreachable"),
}


@pytest.mark.parametrize("name", BAD_SOURCES)
def test_of_a_source_that_does_not_come_nothing_is_made(
    name: str,
    tmp_path: Path,
    clip: Clip,
    http_server: HttpServer,
    s3_bucket: S3Bucket,
    ftp_server: FtpServer,
) -> None:
    kind, what, want = BAD_SOURCES[name]
    data = what if isinstance(what, bytes) else clip("mp3_stereo_2s.mp3").read_bytes()
    place: dict[str, Any] = {"kind": "http", "url": http_server.serve("/in", data)}
    if isinstance(what, Fault):
        http_server.misbehave("/in", what)
    elif kind == "s3":
        s3_bucket.put("in", data)
        place = s3_bucket.fields("in") | (what if isinstance(what, dict) else {})
    elif isinstance(what, dict):
        (ftp_server.folder / "in").write_bytes(data)
        place = ftp_server.fields("in") | (what if kind == "ftp" else {})
        for fault, how in what.items() if kind == "ftp fault" else ():
            setattr(ftp_server.faults, fault, how)
    code, reports = run_worker(make_order(tmp_path, place, to_file("o.mp3", container="mp3")))
    assert code in (Exit.SOURCE, Exit.SOURCE_TRANSIENT)
    last = last_of_output(reports, 0)
    assert (last["status"], last["failure"]["code"]) == ("failed", want)
    assert list((tmp_path / "files").iterdir()) == []


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


LARGE = {
    "wav": {"container": "wav"},
    "mp4": {"videoBitrate": "4M", "preset": "ultrafast"},
    "mkv": {"container": "mkv", "videoBitrate": "4M", "preset": "ultrafast"},
    "hls": {"container": "hls", "videoBitrate": "4M", "preset": "ultrafast"},
}


@pytest.mark.parametrize("large", LARGE)
def test_a_full_disk_is_told_and_costs_only_what_did_not_fit(
    large: str, tmp_path: Path, clip: Clip
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "in").write_bytes(clip("h264_320x180_25p_2s_stereo.mp4").read_bytes())
    outputs = [to_file("large", **LARGE[large]), to_file("small.mp3", container="mp3")]
    order = make_order(tmp_path, {"kind": "file", "path": "in"}, *outputs)
    with Worker(order, within=on_a_disk_of("256k", tmp_path / "scratch")) as worker:
        code, reports = worker.finish()
    lost, kept = (last_of_output(reports, index) for index in (0, 1))
    assert (lost["status"], lost["failure"]["code"]) == ("failed", "capacity_disk")
    assert (kept["status"], code) == ("uploaded", Exit.DISK)
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == ["in", "small.mp3"]
