"""
Packages as players get them: made by the real worker, read by ffmpeg's own HLS and DASH demuxers.

One job with many outputs, so that its one ffmpeg serves most of the tests.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.worker.driver import last_of_output, make_order, run_worker

SMALL = {"height": 36, "gopSeconds": 1, "preset": "ultrafast"}
SHORT = {"segmentSeconds": 1}
OUTPUTS: dict[str, dict[str, Any]] = {
    "both/film.m3u8": {
        "container": "hls",
        "preset": "ultrafast",
        "gopSeconds": 2,
        "packaging": {"manifests": ["hls", "dash"], "segmentSeconds": 2},
        "renditions": [
            {"height": 90, "videoBitrate": "200k"},
            {"height": 36, "frameRate": 12.5, "crf": 30},
            {"height": 720},
        ],
    },
    "vp9/film.mpd": {"container": "dash", "height": 36, "gopSeconds": 1, "videoCodec": "vp9",
                     "audioCodec": "opus", "packaging": SHORT},
    "hevc/film.m3u8": {"container": "hls", **SMALL, "videoCodec": "hevc", "audioCodec": "eac3",
                       "packaging": SHORT},
    "av1/film.mpd": {"container": "dash", "height": 64, "gopSeconds": 1, "preset": "12",
                     "videoCodec": "av1", "audioCodec": "none", "packaging": SHORT},
    "sound/film.m3u8": {"container": "hls", "videoCodec": "none", "packaging": SHORT},
    "clip/film.m3u8": {"container": "hls", **SMALL, "packaging": SHORT,
                       "clip": {"start": 1.0, "duration": 1.5}},
    "sprite/film.jpg": {"container": "jpg", "width": 64,
                        "thumbnails": {"intervalSeconds": 0.5, "sprite": {"columns": 3}}},
    "poster.jpg": {"container": "jpg", "width": 160},
}  # fmt: skip


class Delivered:
    def __init__(self, folder: Path, reports: list[dict[str, Any]]) -> None:
        self.folder = folder
        self._reports = reports

    def report(self, path: str) -> dict[str, Any]:
        return last_of_output(self._reports, list(OUTPUTS).index(path))

    def names(self, path: str) -> list[str]:
        return [Path(file["url"]).name for file in self.report(path)["result"]["files"]]


@pytest.fixture(scope="module")
def delivered(clip: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Delivered:
    folder = tmp_path_factory.mktemp("packages")
    (folder / "files").mkdir()
    source = clip("h264_640x360_25p_20s_stereo.mp4")
    subprocess.run(
        [
            *("ffmpeg", "-v", "error", "-i", source, "-t", "3.4", "-vf", "scale=320:180"),
            *("-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", folder / "files/in.mp4"),
        ],
        check=True,
    )
    specs = [
        {**spec, "destination": {"kind": "file", "path": path}} for path, spec in OUTPUTS.items()
    ]
    order = make_order(folder, {"kind": "file", "path": "in.mp4"}, *specs)
    code, reports = run_worker(order)
    assert code == 0, reports[-1]
    return Delivered(folder / "files", reports)


def read(path: Path) -> list[dict[str, Any]]:
    """The streams that a demuxer finds, all of their frames decoded and counted."""
    found = subprocess.run(
        [
            *("ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json"),
            *(["-allowed_extensions", "ALL"] if path.suffix == ".m3u8" else []),
            path,
        ],
        check=True,
        capture_output=True,
    )
    assert found.stderr == b""
    streams: list[dict[str, Any]] = json.loads(found.stdout)["streams"]
    return streams


def seen(streams: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [
        (s["codec_name"], s["width"], s["height"], s["r_frame_rate"], int(s["nb_read_frames"]))
        for s in streams
        if s["codec_type"] == "video"
    ]


@pytest.mark.parametrize("manifest", ["film.m3u8", "film.mpd"])
def test_both_manifests_play_the_same_segments(delivered: Delivered, manifest: str) -> None:
    streams = read(delivered.folder / "both" / manifest)
    assert seen(streams) == [
        ("h264", 160, 90, "25/1", 85),
        ("h264", 64, 36, "25/2", 43),
    ]
    [sound] = [s for s in streams if s["codec_type"] == "audio"]
    assert (sound["codec_name"], sound["channels"]) == ("aac", 2)


def test_the_master_says_what_players_choose_by(delivered: Delivered) -> None:
    lines = (delivered.folder / "both/film.m3u8").read_text().splitlines()
    [first, second] = [line for line in lines if line.startswith("#EXT-X-STREAM-INF")]
    assert 'CODECS="avc1.42c00c,mp4a.40.2",RESOLUTION=160x90,FRAME-RATE=25.000' in first
    assert 'RESOLUTION=64x36,FRAME-RATE=12.500,AUDIO="audio"' in second
    [sound] = [line for line in lines if line.startswith("#EXT-X-MEDIA")]
    assert 'CHANNELS="2",URI="film-hls-audio.m3u8"' in sound


def test_a_rendition_larger_than_the_source_is_left_out(delivered: Delivered) -> None:
    warnings = [warning["code"] for warning in delivered.report("both/film.m3u8")["warnings"]]
    assert warnings == ["rendition_dropped"]


def test_the_result_has_every_file_the_main_one_first(delivered: Delivered) -> None:
    result = delivered.report("both/film.m3u8")["result"]
    names = delivered.names("both/film.m3u8")
    assert names[:2] == ["film.m3u8", "film.mpd"]
    assert sorted(names) == sorted(path.name for path in (delivered.folder / "both").iterdir())
    assert result["sizeBytes"] == sum(file["sizeBytes"] for file in result["files"])
    assert all(len(file["sha256"]) == 64 for file in result["files"])
    assert (result["width"], result["height"], result["frames"]) == (160, 90, 85)


def test_manifests_are_published_after_what_they_list(delivered: Delivered) -> None:
    folder = delivered.folder / "both"
    by_time = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert [path.suffix for path in by_time[-5:]] == [".m3u8", ".m3u8", ".m3u8", ".mpd", ".m3u8"]
    assert by_time[-1].name == "film.m3u8"


@pytest.mark.parametrize(
    ("path", "want"),
    [
        ("vp9/film.mpd", [("vp9", 64, 36, "25/1", 85)]),
        ("hevc/film.m3u8", [("hevc", 64, 36, "25/1", 85)]),
        ("av1/film.mpd", [("av1", 114, 64, "25/1", 85)]),
        ("sound/film.m3u8", []),
        ("clip/film.m3u8", [("h264", 64, 36, "25/1", 37)]),
    ],
)
def test_a_package_plays(delivered: Delivered, path: str, want: list[tuple[Any, ...]]) -> None:
    found = seen(read(delivered.folder / path))
    # A clip of 1.5 s at 25 frames a second has 37 or 38 frames, by where it is cut.
    assert [one[:4] for one in found] == [one[:4] for one in want]
    assert all(abs(one[4] - other[4]) <= 1 for one, other in zip(found, want, strict=True))


@pytest.mark.parametrize(
    ("path", "codecs"),
    [
        ("vp9/film.mpd", ["vp09.00.10.08", "opus"]),
        ("hevc/film.m3u8", ["hvc1.1.6.L30.90", "ec-3"]),
        ("av1/film.mpd", ["av01.0.00M.08"]),
        ("sound/film.m3u8", ["mp4a.40.2"]),
    ],
)
def test_codecs_have_their_registered_names(
    delivered: Delivered, path: str, codecs: list[str]
) -> None:
    text = (delivered.folder / path).read_text()
    assert all(codec in text for codec in codecs), text


def test_a_sprite_has_a_cue_for_each_picture(delivered: Delivered) -> None:
    assert delivered.names("sprite/film.jpg") == ["film.vtt", "film-00001.jpg"]
    cues = (delivered.folder / "sprite/film.vtt").read_text().strip().split("\n\n")[1:]
    assert [cue.splitlines() for cue in [*cues[:3], cues[-1]]] == [
        ["00:00:00.000 --> 00:00:00.250", "film-00001.jpg#xywh=0,0,64,36"],
        ["00:00:00.250 --> 00:00:00.750", "film-00001.jpg#xywh=64,0,64,36"],
        ["00:00:00.750 --> 00:00:01.250", "film-00001.jpg#xywh=128,0,64,36"],
        ["00:00:02.750 --> 00:00:03.400", "film-00001.jpg#xywh=0,72,64,36"],
    ]
    [sheet] = read(delivered.folder / "sprite/film-00001.jpg")
    assert (sheet["width"], sheet["height"]) == (192, 108)


def test_a_poster_is_one_picture(delivered: Delivered) -> None:
    [picture] = read(delivered.folder / "poster.jpg")
    assert (picture["codec_name"], picture["width"], picture["height"]) == ("mjpeg", 160, 90)
