"""What a request may ask for, through the real worker: one job makes all of it in one decode."""

from __future__ import annotations

import re
import shutil
import subprocess
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.servers.corpus import sample
from tests.worker.driver import last_of_output, make_order, probe, run_worker, to_file

QUICK = {"preset": "ultrafast"}
SQUARE = {"sample_aspect_ratio": "1:1"}


@dataclass(frozen=True, kw_only=True)
class Asked:
    spec: dict[str, Any]
    video: dict[str, Any] | None = field(default_factory=dict)
    """What ffprobe must say of the picture; None: there is none."""
    audio: dict[str, Any] | None = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


#: Of a film of 160x90, 25 frames a second, one second, with stereo at 48 kHz.
ASKED = {
    "one side keeps the shape": Asked(
        spec={"width": 100, **QUICK},
        video={"width": 100, "height": 56, "codec_name": "h264", "nb_read_frames": "25"},
        audio={"codec_name": "aac", "channels": 2, "sample_rate": "48000"},
    ),
    "cover fills the box and never grows": Asked(
        spec={"width": 100, "height": 100, "fit": "cover", **QUICK},
        video={"width": 90, "height": 90}, warnings=("not_upscaled",),
    ),
    "stretch ignores the shape": Asked(
        spec={"width": 80, "height": 80, "fit": "stretch", **QUICK},
        video={"width": 80, "height": 80, **SQUARE},
    ),
    "nothing is made larger unless asked": Asked(
        spec={"width": 320, **QUICK}, video={"width": 160, "height": 90},
        warnings=("not_upscaled",),
    ),
    "larger when asked": Asked(
        spec={"width": 320, "upscale": True, **QUICK}, video={"width": 320, "height": 180},
    ),
    "another frame rate": Asked(
        spec={"frameRate": 12.5, **QUICK}, video={"r_frame_rate": "25/2", "nb_read_frames": "13"},
    ),
    "29.97 means 30000/1001": Asked(
        spec={"frameRate": 29.97, **QUICK},
        video={"r_frame_rate": "30000/1001", "nb_read_frames": "30"},
    ),
    "a part of it": Asked(
        spec={"clip": {"start": 0.4, "duration": 0.4}, **QUICK}, video={"nb_read_frames": "10"},
    ),
    "a profile": Asked(
        spec={"profile": "main", "preset": "veryfast"}, video={"profile": "Main"}
    ),
    "mono at another rate": Asked(
        spec={"videoCodec": "none", "audioChannels": 1, "audioSampleRate": 22050}, video=None,
        audio={"channels": 1, "sample_rate": "22050"},
    ),
    "streams are copied": Asked(
        spec={"container": "mkv", "videoCodec": "copy", "audioCodec": "copy"},
        video={"codec_name": "h264", "nb_read_frames": "25"}, audio={"codec_name": "aac"},
    ),
    "what is as asked already is copied": Asked(
        spec={"height": 90}, video={"codec_name": "h264", "nb_read_frames": "25"},
        audio={"codec_name": "aac", "nb_read_frames": "47"},
        warnings=("audio_copied", "video_copied"),
    ),
    "the picture is made anew, the sound is copied": Asked(
        spec={"height": 80, **QUICK}, video={"height": 80}, audio={"codec_name": "aac"},
        warnings=("audio_copied",),
    ),
    "turned": Asked(spec={"rotate": 90, **QUICK}, video={"width": 90, "height": 160}),
    "an animation": Asked(
        spec={"container": "gif", "width": 100}, video={"codec_name": "gif", "width": 100},
        audio=None,
    ),
    "a part shorter than a frame is one frame": Asked(
        spec={"container": "gif", "clip": {"start": 0.4, "duration": 0.04}, "frameRate": 10},
        video={"codec_name": "gif", "nb_read_frames": "1"}, audio=None,
    ),
    "webm": Asked(
        spec={"container": "webm", "preset": "realtime"}, video={"codec_name": "vp9"},
        audio={"codec_name": "opus"},
    ),
    "mov for an editor": Asked(
        spec={"container": "mov", "videoCodec": "prores", "audioCodec": "pcm"},
        video={"codec_name": "prores"}, audio={"codec_name": "pcm_s16le"},
    ),
    "hevc under the tag that Apple plays": Asked(
        spec={"videoCodec": "hevc", "videoBitrate": "300k", **QUICK},
        video={"codec_name": "hevc", "codec_tag_string": "hvc1"},
    ),
    "av1": Asked(spec={"videoCodec": "av1", "preset": "12"}, video={"codec_name": "av1"}),
    "ts": Asked(spec={"container": "ts", **QUICK}, video={"codec_name": "h264"}),
    "mp3": Asked(spec={"container": "mp3"}, video=None, audio={"codec_name": "mp3"}),
    "ogg": Asked(spec={"container": "ogg"}, video=None, audio={"codec_name": "vorbis"}),
    "wav": Asked(spec={"container": "wav"}, video=None, audio={"codec_name": "pcm_s16le"}),
    "flac": Asked(spec={"container": "flac"}, video=None, audio={"codec_name": "flac"}),
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One job with all that is asked for, and what became of it."""

    code: int
    reports: list[dict[str, Any]]
    files: Path
    calls: list[list[str]]
    """Every run of ffmpeg, as its arguments."""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("options")
    outputs = [to_file(f"{number}", **asked.spec) for number, asked in enumerate(ASKED.values())]
    return run(folder, sample("plain.mp4"), *outputs)


def run(folder: Path, source: Path, *outputs: dict[str, Any], **order: Any) -> Job:
    """Run a worker whose ffmpeg notes how it is called."""
    files, tools = folder / "files", folder / "tools"
    for made in (files, tools):
        made.mkdir(exist_ok=True)
    (files / "in").write_bytes(source.read_bytes())
    noting = tools / "ffmpeg"
    noting.write_text(NOTING.format(ffmpeg=shutil.which("ffmpeg")))
    noting.chmod(0o755)
    asked = make_order(folder, {"kind": "file", "path": "in"}, *outputs, **order)
    code, reports = run_worker(asked, tools=tools)
    notes = folder / "scratch" / "out" / "calls"
    calls = notes.read_text().split("\0\0")[:-1] if notes.exists() else []
    return Job(code, reports, files, [call.split("\0") for call in calls])


# Inside the sandbox it can write to its own folder alone, which TMPDIR names.
NOTING = """#!/bin/sh
{{ printf '%s\\0' "$@"; printf '\\0'; }} >> "$TMPDIR/calls"
exec {ffmpeg} "$@"
"""


def stream_of(kind: str, made: dict[str, Any]) -> dict[str, Any] | None:
    return next((stream for stream in made["streams"] if stream["codec_type"] == kind), None)


def part_of(stream: dict[str, Any] | None, wanted: dict[str, Any] | None) -> Any:
    """The stream's values for the wanted names; None when there is no stream."""
    return stream if stream is None else {name: stream.get(name) for name in wanted or {}}


@pytest.mark.parametrize(
    ("number", "asked"),
    [pytest.param(number, asked, id=name) for number, (name, asked) in enumerate(ASKED.items())],
)
def test_what_is_asked_for_is_what_is_made(number: int, asked: Asked, job: Job) -> None:
    last = last_of_output(job.reports, number)
    assert last["status"] == "uploaded", last
    made = probe(job.files / str(number))
    assert part_of(stream_of("video", made), asked.video) == asked.video
    assert part_of(stream_of("audio", made), asked.audio) == asked.audio
    warnings = {warning["code"] for warning in last["warnings"]}
    assert warnings - COPIED == set(asked.warnings) - COPIED
    assert warnings >= set(asked.warnings)


# The clip needs little change, so many outputs say so; tests/core/test_media_options.py has which.
COPIED = {"audio_copied", "video_copied"}


TAGS = {
    "title": "A film: 'one' = [0:v], two", "artist": "-i", "album": "C:\\\\d", "date": "2024",
    "genre": "%{pts}", "comment": "Grüße", "copyright": "© us",
}  # fmt: skip


def test_words_in_the_file_are_the_ones_that_were_sent(tmp_path: Path) -> None:
    containers = ("mp4", "mov", "mkv", "webm", "mp3", "m4a", "ogg", "opus", "flac", "wav")
    outputs = [to_file(name, container=name, metadata=TAGS) for name in containers]
    made = run(tmp_path, sample("plain.mp4"), *outputs)
    assert made.code == 0, made.reports[-1]
    for name in containers:
        document = probe(made.files / name)
        tags = {**document["streams"][0].get("tags", {}), **document["format"].get("tags", {})}
        found = {key.lower(): value for key, value in tags.items()}
        assert {key: found.get(key) for key in TAGS} == TAGS, name


def test_several_sounds_in_one_file(tmp_path: Path) -> None:
    outputs = [
        to_file("both.mp4", audioTracks=["fr", "de"], **QUICK),
        to_file("all.mkv", container="mkv", audioTracks=["all"], **QUICK),
        to_file("one.m4a", container="m4a", language="de"),
        to_file("other.wav", container="wav", language="fra"),
        to_file("main.mp3", container="mp3"),
    ]
    made = run(tmp_path, sample("tongues.mkv"), *outputs)
    assert made.code == 0, made.reports[-1]
    assert sounds_of(made.files / "both.mp4") == [("fre", 1), ("ger", 0)]
    assert sounds_of(made.files / "all.mkv") == [("ger", 1), ("eng", 0), ("fre", 0)]
    assert sounds_of(made.files / "one.m4a") == [("ger", 1)]
    # What is heard, whatever the tags say: each language of the source has its own pitch.
    german, english, french = (pytest.approx(hertz, rel=0.02) for hertz in (400, 1000, 2500))
    assert pitches_of(made.files / "both.mp4", 2) == [french, german]
    assert pitches_of(made.files / "all.mkv", 3) == [german, english, french]
    heard = [pitches_of(made.files / name, 1) for name in ("one.m4a", "other.wav", "main.mp3")]
    assert heard == [[german], [french], [english]]
    [call] = made.calls
    assert call.count("-i") == 1


def test_subtitles_in_the_form_of_each_container(tmp_path: Path) -> None:
    outputs = [
        to_file(f"film.{name}", container=name, height=32, subtitles=["all"])
        for name in ("mp4", "mov", "mkv", "webm")
    ]
    sidecar = to_file("film.de.vtt", container="vtt", subtitles=["de"])
    made = run(tmp_path, sample("words.mkv"), *outputs, sidecar)
    assert made.code == 0, made.reports[-1]
    [call] = made.calls
    assert call.count("-i") == 1
    # The source's own times, which its sound moved by a frame when it was made.
    words = "00:00.121 --> 00:00.521\nHello <i>there</i>\n\n00:00.621 --> 00:00.921\nGoodbye"
    assert (made.files / "film.de.vtt").read_text().strip() == f"WEBVTT\n\n{words}"
    [file] = last_of_output(made.reports, 4)["result"]["files"]
    assert file["contentType"] == "text/vtt"
    films = made.files.glob("film.[mw]*")
    streams = {path.name: stream_of("subtitle", probe(path)) for path in films}
    assert {name: stream and stream["codec_name"] for name, stream in streams.items()} == {
        "film.mp4": "mov_text", "film.mov": "mov_text", "film.mkv": "subrip", "film.webm": "webvtt",
    }  # fmt: skip
    said = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(made.files / "film.mp4"), "-f", "webvtt", "-"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "Hello" in said
    # A frame of the sound that the encoder puts first moves everything alike.
    assert re.search(r"00:00\.6\d\d --> 00:00\.9\d\d\nGoodbye", said)


def test_a_loudness_is_measured_first_and_reached(tmp_path: Path) -> None:
    outputs = [
        to_file("loud.mp4", loudness=-16, **QUICK),
        to_file("quiet.wav", container="wav", loudness=-30),
        to_file("as-it-is.flac", container="flac"),
    ]
    made = run(tmp_path, sample("plain.mp4"), *outputs)
    assert made.code == 0, made.reports[-1]
    assert loudness_of(made.files / "loud.mp4") == pytest.approx(-16, abs=0.5)
    assert loudness_of(made.files / "quiet.wav") == pytest.approx(-30, abs=0.5)
    [encode] = made.calls  # the run that measures may write nothing, so it notes no call either
    assert encode.count("-i") == 1
    assert sum("volume=" in argument for argument in encode) == 2


def loudness_of(path: Path) -> float:
    """By ffmpeg's meter, in LUFS."""
    command = ["ffmpeg", "-nostdin", "-i", str(path), "-af", "ebur128", "-f", "null", "-"]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return float(re.findall(r"I:\s+(\S+) LUFS", log)[-1])


def pitches_of(path: Path, tracks: int) -> list[float]:
    """The pitch of each sound of a file, by how often its wave passes zero in half a second."""
    return [_pitch(path, track) for track in range(tracks)]


def _pitch(path: Path, track: int) -> float:
    decode = [
        *("ffmpeg", "-v", "error", "-i", str(path), "-map", f"0:a:{track}", "-ac", "1"),
        *("-ar", "48000", "-f", "s16le", "-"),
    ]
    wave = array("h", subprocess.run(decode, capture_output=True, check=True).stdout)[9600:33_600]
    passes = sum((a < 0) != (b < 0) for a, b in pairwise(wave))
    return passes / 2 / (len(wave) / 48_000)


def sounds_of(path: Path) -> list[tuple[str, int]]:
    """Language, and whether players take it by default."""
    return [
        (stream["tags"]["language"], stream["disposition"]["default"])
        for stream in probe(path)["streams"]
        if stream["codec_type"] == "audio"
    ]


def test_one_ffmpeg_decodes_the_source_once_for_all_of_them(job: Job) -> None:
    assert job.code == 0
    [call] = job.calls
    assert call.count("-i") == 1


def test_renditions_cut_at_the_same_instants(clip: Callable[[str], Path], tmp_path: Path) -> None:
    specs = [to_file(f"{width}.mp4", width=width, **QUICK) for width in (320, 160)]
    made = run(tmp_path, clip("h264_640x360_25p_20s_stereo.mp4"), *specs)
    assert made.code == 0
    first, second = (keyframes(made.files / f"{width}.mp4") for width in (320, 160))
    assert first == second
    assert first == [float(second) for second in range(0, 20, 2)]


def test_renditions_that_share_a_reduction_look_as_if_each_came_from_the_source(
    tmp_path: Path,
) -> None:
    source, sharp = sample("uhd.mp4"), {"preset": "ultrafast", "crf": 8}
    specs = [to_file(f"{width}.mp4", width=width, **sharp) for width in (1280, 320)]
    made = run(tmp_path, source, *specs)
    assert made.code == 0
    [call] = made.calls
    first, *_ = call[call.index("-filter_complex") + 1].split(";")
    assert "scale=1280:720:flags=bicubic,format=yuv420p,split=2[v0][v1]" in first
    for width in (1280, 320):
        file = made.files / f"{width}.mp4"
        stream = stream_of("video", probe(file))
        assert part_of(stream, {"width": 0, "nb_read_frames": 0}) == {
            "width": width, "nb_read_frames": "5",
        }  # fmt: skip
        assert likeness(file, source, width) > 0.98


def test_pictures_of_instants(clip: Callable[[str], Path], tmp_path: Path) -> None:
    spec = to_file("t/thumb.jpg", container="jpg", thumbnails={"at": [0, 0.5, 1.9]})
    made = run(tmp_path, clip("h264_320x180_25p_2s_stereo.mp4"), spec)
    assert made.code == 0
    names = sorted(path.name for path in (made.files / "t").iterdir())
    assert names == ["thumb-00001.jpg", "thumb-00002.jpg", "thumb-00003.jpg"]
    assert len(last_of_output(made.reports, 0)["result"]["files"]) == 3


def likeness(made: Path, source: Path, width: int) -> float:
    """SSIM of what was made to the source, scaled at once to its size: 1.0 is the same picture."""
    graph = f"[1:v]scale={width}:-2:flags=bicubic[want];[0:v][want]ssim"
    told = subprocess.run(
        ["ffmpeg", "-i", made, "-i", source, "-filter_complex", graph, "-f", "null", "-"],
        capture_output=True,
        check=True,
        text=True,
    ).stderr
    found = re.search(r"SSIM .*All:([0-9.]+)", told)
    assert found is not None, told
    return float(found[1])


def keyframes(path: Path) -> list[float]:
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
