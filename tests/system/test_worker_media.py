"""Sources as people really have them, through the real worker: each ends as documented."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.worker.driver import last_of_output, make_order, probe, run_worker

PICTURE = "-f lavfi -i testsrc2=size={size}:rate={rate}:duration=1"
TONE = "-f lavfi -i sine=sample_rate=44100:duration=1"
FAST = "-c:v libx264 -preset ultrafast"

#: File name to ffmpeg's arguments. Small and short: what matters is what they are.
SOURCES = {
    "plain.mp4": f"{PICTURE} {TONE} {FAST} -pix_fmt yuv420p -c:a aac",
    "anamorphic.mp4": f"{PICTURE} {FAST} -pix_fmt yuv420p -vf setsar=4/3",
    "odd.mkv": f"{PICTURE} -vf scale=321:181,setsar=1 {FAST} -pix_fmt yuv444p",
    "interlaced.ts": (
        f"{PICTURE} -vf tinterlace=interleave_top,fieldorder=tff -c:v libx264 -preset ultrafast"
        " -flags +ildct+ilme -pix_fmt yuv420p"
    ),
    "tenbit.mkv": f"{PICTURE} -c:v libx265 -x265-params log-level=error -pix_fmt yuv420p10le",
    "hdr.mkv": (
        f"{PICTURE} -c:v libx265 -pix_fmt yuv420p10le -color_primaries bt2020 -color_trc smpte2084"
        " -colorspace bt2020nc -x265-params"
        " log-level=error:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
    ),
    "surround.mkv": f"{TONE} -af pan=5.1|c0=c0|c1=c0|c2=c0|c3=c0|c4=c0|c5=c0 -c:a flac",
    "mono44.wav": f"{TONE} -c:a pcm_s16le",
    "twotongues.mkv": (
        f"{TONE} {TONE} -map 0:a -map 1:a -c:a aac"
        " -metadata:s:a:0 language=deu -metadata:s:a:1 language=eng"
    ),
    "animation.gif": PICTURE,
    "still.png": f"{PICTURE} -frames:v 1",
    "late.mkv": f"{PICTURE} -itsoffset 0.4 {TONE} -map 0:v -map 1:a {FAST} -c:a aac",
    "shortsound.mp4": f"{PICTURE} -f lavfi -i sine=duration=0.4 {FAST} -c:a aac",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Case:
    source: str
    spec: dict[str, Any] = field(default_factory=dict)
    size: str = "320x180"
    rate: str = "25"
    video: dict[str, Any] | None = field(default_factory=dict)
    """What ffprobe must say of the picture; None: there is none."""
    audio: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()


@pytest.fixture(scope="session")
def make_source(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, str], Path]:
    folder = tmp_path_factory.mktemp("sources")

    def make(name: str, size: str, rate: str) -> Path:
        path = folder / f"{size}-{rate.replace('/', '_')}-{name}"
        if not path.exists():
            arguments = SOURCES[name].format(size=size, rate=rate).split()
            subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments, path], check=True)
        return path

    return make


SQUARE = {"sample_aspect_ratio": "1:1"}
CASES = [
    pytest.param(
        Case(
            source="plain.mp4",
            spec={"width": 200},
            video={"width": 200, "height": 112, "codec_name": "h264", "nb_read_frames": "25"},
            audio={"codec_name": "aac", "channels": 1, "sample_rate": "44100"},
        ),
        id="one side keeps the shape",
    ),
    pytest.param(
        Case(
            source="plain.mp4",
            spec={"width": 200, "height": 200, "fit": "cover"},
            video={"width": 180, "height": 180},
            audio={},
            warnings=("not_upscaled",),
        ),
        id="cover fills the box and never grows",
    ),
    pytest.param(
        Case(source="plain.mp4", spec={"width": 160, "height": 160, "fit": "stretch"},
             video={"width": 160, "height": 160, **SQUARE}, audio={}),
        id="stretch ignores the shape",
    ),
    pytest.param(
        Case(source="plain.mp4", spec={"width": 640}, video={"width": 320, "height": 180}, audio={},
             warnings=("not_upscaled",)),
        id="nothing is made larger unless asked",
    ),
    pytest.param(
        Case(source="plain.mp4", spec={"width": 640, "upscale": True, "preset": "ultrafast"},
             video={"width": 640, "height": 360}, audio={}),
        id="larger when asked",
    ),
    pytest.param(
        Case(source="plain.mp4", spec={"frameRate": 12.5}, rate="30000/1001",
             video={"r_frame_rate": "25/2"}, audio={}),
        id="another frame rate",
    ),
    pytest.param(
        Case(source="plain.mp4", rate="30000/1001",
             video={"r_frame_rate": "30000/1001", "nb_read_frames": "30"}, audio={}),
        id="29.97 stays 29.97",
    ),
    pytest.param(
        Case(source="anamorphic.mp4", video={"width": 426, "height": 180, **SQUARE},
             warnings=("no_audio",)),
        id="pixels come out square",
    ),
    pytest.param(
        Case(source="odd.mkv", video={"width": 320, "height": 180, "pix_fmt": "yuv420p"},
             warnings=("no_audio",)),
        id="odd sizes and 4:4:4 become even and 4:2:0",
    ),
    pytest.param(
        Case(source="interlaced.ts", rate="50", video={"field_order": "progressive"},
             warnings=("deinterlaced", "no_audio")),
        id="interlaced becomes progressive",
    ),
    pytest.param(
        Case(source="tenbit.mkv", video={"pix_fmt": "yuv420p"},
             warnings=("depth_reduced", "no_audio")),
        id="ten bits become eight",
    ),
    pytest.param(
        Case(
            source="hdr.mkv",
            video={"pix_fmt": "yuv420p", "color_transfer": "bt709", "color_primaries": "bt709",
                   "color_space": "bt709"},
            warnings=("hdr_to_sdr", "no_audio"),
        ),
        id="HDR becomes SDR and says so in its tags",
    ),
    pytest.param(
        Case(source="surround.mkv", spec={"container": "mp3"}, video=None,
             audio={"codec_name": "mp3", "channels": 2}, warnings=("downmixed",)),
        id="5.1 becomes stereo",
    ),
    pytest.param(
        Case(source="surround.mkv", spec={"container": "m4a", "audioChannels": 6}, video=None,
             audio={"codec_name": "aac", "channels": 6}),
        id="5.1 stays when asked for",
    ),
    pytest.param(
        Case(source="mono44.wav", spec={"container": "opus"}, video=None,
             audio={"codec_name": "opus", "channels": 1, "sample_rate": "48000"}),
        id="a rate that the codec lacks becomes the next one",
    ),
    pytest.param(
        Case(source="mono44.wav", spec={"container": "mp4"}, video=None, audio={"channels": 1},
             warnings=("no_video",)),
        id="a video container of sound alone",
    ),
    pytest.param(
        Case(source="twotongues.mkv", spec={"container": "flac"}, video=None,
             audio={"codec_name": "flac"}, warnings=("audio_stream_chosen",)),
        id="of several languages one is used",
    ),
    pytest.param(
        Case(source="animation.gif", video={"width": 320, "pix_fmt": "yuv420p"},
             warnings=("no_audio",)),
        id="a GIF becomes a video",
    ),
    pytest.param(
        Case(source="still.png", spec={"container": "jpg", "width": 160},
             video={"codec_name": "mjpeg", "width": 160, "height": 90}),
        id="a picture of a picture",
    ),
    pytest.param(
        Case(source="plain.mp4", spec={"container": "gif", "width": 100},
             video={"codec_name": "gif", "width": 100}),
        id="an animation",
    ),
    pytest.param(
        Case(source="plain.mp4",
             spec={"container": "mkv", "videoCodec": "copy", "audioCodec": "copy"},
             video={"codec_name": "h264", "nb_read_frames": "25"}, audio={"codec_name": "aac"}),
        id="streams are copied",
    ),
    pytest.param(
        Case(source="plain.mp4", spec={"container": "mp4", "clip": {"start": 0.4, "duration": 0.4}},
             video={"nb_read_frames": "10"}, audio={}),
        id="a part of it",
    ),
    pytest.param(
        Case(source="late.mkv", video={"nb_read_frames": "25"}, audio={}),
        id="sound that begins late",
    ),
    pytest.param(
        Case(source="shortsound.mp4", video={"nb_read_frames": "25"}, audio={}),
        id="sound that ends early",
    ),
    pytest.param(
        Case(source="plain.mp4", spec={"container": "webm"}, video={"codec_name": "vp9"},
             audio={"codec_name": "opus"}),
        id="webm",
    ),
    pytest.param(
        Case(source="plain.mp4", spec={"container": "mov", "videoCodec": "prores",
                                       "audioCodec": "pcm"},
             video={"codec_name": "prores"}, audio={"codec_name": "pcm_s16le"}),
        id="mov for an editor",
    ),
    pytest.param(
        Case(source="plain.mp4", spec={"videoCodec": "hevc", "videoBitrate": "300k"},
             video={"codec_name": "hevc", "codec_tag_string": "hvc1"}, audio={}),
        id="hevc under the tag that Apple plays",
    ),
    pytest.param(
        Case(source="plain.mp4", spec={"videoCodec": "av1", "width": 160, "preset": "12"},
             video={"codec_name": "av1"}, audio={}),
        id="av1",
    ),
    pytest.param(
        Case(source="plain.mp4", spec={"container": "ts"}, video={"codec_name": "h264"}, audio={}),
        id="ts",
    ),
    pytest.param(
        Case(source="plain.mp4", spec={"container": "ogg"}, video=None,
             audio={"codec_name": "vorbis"}),
        id="ogg",
    ),
    pytest.param(
        Case(source="plain.mp4", spec={"container": "wav"}, video=None,
             audio={"codec_name": "pcm_s16le"}),
        id="wav",
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_source(case: Case, make_source: Callable[[str, str, str], Path], tmp_path: Path) -> None:
    source = make_source(case.source, case.size, case.rate)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "in").write_bytes(source.read_bytes())
    spec = {"container": "mp4", **case.spec, "destination": {"kind": "file", "path": "out"}}
    code, reports = run_worker(make_order(tmp_path, {"kind": "file", "path": "in"}, spec))
    last = last_of_output(reports, 0)
    assert (code, last["status"]) == (0, "uploaded"), last
    made = probe(tmp_path / "files" / "out")
    found = {stream["codec_type"]: stream for stream in made["streams"]}
    assert _part_of(found.get("video"), case.video) == case.video
    assert _part_of(found.get("audio"), case.audio) == case.audio
    warnings = sorted(warning["code"] for warning in last["warnings"])
    assert warnings == sorted(case.warnings)


def _part_of(stream: dict[str, Any] | None, wanted: dict[str, Any] | None) -> Any:
    """The stream's values for the wanted names; None when there is no stream."""
    return stream if stream is None else {name: stream.get(name) for name in wanted or {}}


def test_a_variable_rate_becomes_a_constant_one(
    clip: Callable[[str], Path], tmp_path: Path
) -> None:
    made = _encode(clip("h264_320x180_vfr_2s_silent.mp4"), tmp_path)
    [video] = made["streams"]
    assert Fraction(video["r_frame_rate"]) == Fraction(video["avg_frame_rate"])


def test_a_turned_picture_stands_upright_in_its_pixels(
    clip: Callable[[str], Path], tmp_path: Path
) -> None:
    made = _encode(clip("h264_320x180_rotated90_2s_stereo.mp4"), tmp_path, width=90)
    video = made["streams"][0]
    assert (video["width"], video["height"]) == (90, 160)
    assert "side_data_list" not in video or all(
        data.get("rotation", 0) == 0 for data in video["side_data_list"]
    )


def test_renditions_cut_at_the_same_instants(clip: Callable[[str], Path], tmp_path: Path) -> None:
    source = tmp_path / "files"
    source.mkdir()
    (source / "in").write_bytes(clip("h264_640x360_25p_20s_stereo.mp4").read_bytes())
    specs = [
        {"container": "mp4", "width": width, "preset": "ultrafast",
         "destination": {"kind": "file", "path": f"{width}.mp4"}}
        for width in (320, 160)
    ]  # fmt: skip
    code, _ = run_worker(make_order(tmp_path, {"kind": "file", "path": "in"}, *specs))
    assert code == 0
    first, second = (_keyframes(source / f"{width}.mp4") for width in (320, 160))
    assert first == second
    assert first == [float(second) for second in range(0, 20, 2)]


def test_pictures_of_instants(clip: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "in").write_bytes(clip("h264_320x180_25p_2s_stereo.mp4").read_bytes())
    spec = {
        "container": "jpg",
        "thumbnails": {"at": [0, 0.5, 1.9]},
        "destination": {"kind": "file", "path": "t/thumb.jpg"},
    }
    code, reports = run_worker(make_order(tmp_path, {"kind": "file", "path": "in"}, spec))
    assert code == 0
    names = sorted(path.name for path in (tmp_path / "files" / "t").iterdir())
    assert names == ["thumb-00001.jpg", "thumb-00002.jpg", "thumb-00003.jpg"]
    assert len(last_of_output(reports, 0)["result"]["files"]) == 3


def _encode(source: Path, folder: Path, **spec: Any) -> dict[str, Any]:
    (folder / "files").mkdir()
    (folder / "files" / "in").write_bytes(source.read_bytes())
    output = {"container": "mp4", **spec, "destination": {"kind": "file", "path": "out"}}
    code, reports = run_worker(make_order(folder, {"kind": "file", "path": "in"}, output))
    assert code == 0, reports[-1]
    return probe(folder / "files" / "out")


def _keyframes(path: Path) -> list[float]:
    found = subprocess.run(
        [
            *("ffprobe", "-v", "error", "-select_streams", "v", "-show_entries"),
            *("packet=pts_time,flags", "-of", "csv=p=0", path),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    rows = [line.split(",") for line in found.stdout.split()]
    return [float(row[0]) for row in rows if "K" in row[1]]
