"""Sources as people really have them, through the real worker: each ends as docs/media.md says."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.servers.corpus import sample
from tests.worker.driver import last_of_output, make_order, of_type, probe, run_worker, to_file

SQUARE = {"sample_aspect_ratio": "1:1", "pix_fmt": "yuv420p"}
BT709 = {"color_space": "bt709", "color_transfer": "bt709", "color_primaries": "bt709"}
FILM = {"width": 160, "height": 90, "nb_read_frames": "25", **SQUARE}
STEREO = {"codec_name": "aac", "channels": 2, "sample_rate": "48000"}
NO_SOUND = ("no_audio",)


@dataclass(frozen=True, kw_only=True)
class Case:
    source: str
    spec: dict[str, Any] = field(default_factory=dict)
    video: dict[str, Any] | None = field(default_factory=lambda: FILM)
    """What ffprobe must say of the picture; None: there is none."""
    audio: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    seconds: float = 1.0
    sound_at: float = 0.0


CASES = [
    pytest.param(Case(source="plain.mp4", audio=STEREO), id="a clean film"),
    pytest.param(Case(source="film.avi", audio=STEREO), id="AVI"),
    pytest.param(Case(source="film.flv", audio=STEREO), id="FLV"),
    pytest.param(Case(source="film.mxf", audio=STEREO), id="MXF"),
    pytest.param(Case(source="film.webm", audio=STEREO), id="WebM"),
    pytest.param(
        Case(source="song.ogg", video=None, audio=STEREO, warnings=("no_video",)), id="Ogg"
    ),
    pytest.param(
        Case(source="rotated.mp4", video={**FILM, "width": 90, "height": 160}, audio=STEREO,
             warnings=("turned_upright",)),
        id="turned by a flag: upright in its pixels",
    ),
    pytest.param(
        Case(source="trimmed.mp4", video={**FILM, "nb_read_frames": "15"}, audio=STEREO,
             seconds=0.6),
        id="pictures before the ones to show: not shown",
    ),
    pytest.param(
        Case(source="vfr.mp4", warnings=("frame_rate_made_constant", "no_audio"), seconds=0.92,
             video={**FILM, "nb_read_frames": "46", "r_frame_rate": "50/1",
                    "avg_frame_rate": "50/1"}),
        id="a variable frame rate: a constant one",
    ),
    pytest.param(
        Case(source="interlaced.ts", warnings=("deinterlaced", "no_audio"),
             video={**FILM, "height": 88, "field_order": "progressive"}),
        id="interlaced: progressive",
    ),
    pytest.param(
        Case(source="hdr10.mkv", video={**FILM, **BT709}, warnings=("hdr_to_sdr", "no_audio")),
        id="HDR10: SDR, and tagged so",
    ),
    pytest.param(
        Case(source="hlg.mkv", video={**FILM, **BT709}, warnings=("hdr_to_sdr", "no_audio")),
        id="HLG: SDR, and tagged so",
    ),
    pytest.param(
        Case(source="anamorphic.mp4", video={**FILM, "width": 214},
             warnings=("no_audio", "pixels_made_square")),
        id="pixels that are not square: square",
    ),
    pytest.param(
        Case(source="odd.mkv", warnings=("chroma_reduced", "no_audio", "size_rounded")),
        id="odd sizes: even, a line less",
    ),
    pytest.param(
        Case(source="tenbit.mkv", warnings=("depth_reduced", "no_audio")), id="10 bits: 8"
    ),
    pytest.param(
        Case(source="fullcolour.mp4", warnings=("chroma_reduced", "no_audio")), id="4:4:4: 4:2:0"
    ),
    pytest.param(Case(source="nosound.mp4", warnings=NO_SOUND), id="no sound: none"),
    pytest.param(Case(source="silent.mp4", audio=STEREO), id="silence: silence"),
    pytest.param(
        Case(source="mono44.wav", spec={"container": "m4a"}, video=None,
             audio={"codec_name": "aac", "channels": 1, "sample_rate": "44100"}),
        id="mono at 44.1 kHz: as it is",
    ),
    pytest.param(
        Case(source="mono44.wav", spec={"container": "opus"}, video=None,
             audio={"codec_name": "opus", "channels": 1, "sample_rate": "48000"}),
        id="a rate that the codec lacks: the next one",
    ),
    pytest.param(
        Case(source="mono44.wav", video=None, audio={"channels": 1}, warnings=("no_video",)),
        id="sound alone in a video container: sound alone",
    ),
    pytest.param(
        Case(source="surround.mkv", audio=STEREO, warnings=("downmixed",)), id="5.1: stereo"
    ),
    pytest.param(
        Case(source="surround.mkv", spec={"audioChannels": 6}, audio={"channels": 6}),
        id="5.1 where it is asked for: 5.1",
    ),
    pytest.param(
        Case(source="tongues.mkv", audio={"codec_name": "aac"}, warnings=("audio_stream_chosen",)),
        id="several languages: the default one",
    ),
    pytest.param(
        Case(source="words.mkv", audio={}, warnings=("subtitles_dropped",)),
        id="text subtitles: left out",
    ),
    pytest.param(
        Case(source="pictures.mkv", warnings=("no_audio", "subtitles_dropped")),
        id="bitmap subtitles: left out",
    ),
    pytest.param(
        Case(source="cover.m4a", spec={"container": "mp3"}, video=None,
             audio={"codec_name": "mp3"}, warnings=("cover_dropped",)),
        id="a song with cover art: the song",
    ),
    pytest.param(
        Case(source="covered.mp4", audio=STEREO, warnings=("cover_dropped",)),
        id="a film with cover art: the film",
    ),
    pytest.param(
        Case(source="late.mkv", audio={"codec_name": "aac"}, sound_at=0.38),
        id="sound that begins late: late",
    ),
    pytest.param(Case(source="shortsound.mp4", audio={}), id="sound that ends early"),
    pytest.param(
        Case(source="jumping.ts", video={**FILM, "nb_read_frames": "50"}, audio={}, seconds=2.0,
             warnings=("clock_jumped",)),
        id="a clock that begins again: one that goes on",
    ),
    pytest.param(
        Case(source="animation.gif", warnings=NO_SOUND,
             video={**FILM, **BT709, "nb_read_frames": "10"}),
        id="a GIF: a film, its colours tagged",
    ),
    pytest.param(
        Case(source="still.png", warnings=("no_audio", "still_source"), seconds=0.04,
             video={**FILM, **BT709, "nb_read_frames": "1"}),
        id="a still picture as a film: one frame, its colours tagged",
    ),
    pytest.param(
        Case(source="still.png", spec={"frameRate": 10}, warnings=("no_audio", "still_source"),
             video={**FILM, **BT709, "nb_read_frames": "1"}, seconds=0.1),
        id="a still picture as a slower film: one frame",
    ),
    pytest.param(
        Case(source="still.jpg", spec={"container": "png", "width": 80},
             video={"codec_name": "png", "width": 80, "height": 45}, seconds=0),
        id="a still picture as a picture",
    ),
    pytest.param(
        Case(source="still.webp", spec={"container": "jpg", "width": 80},
             video={"codec_name": "mjpeg", "width": 80, "height": 45}, seconds=0),
        id="a WebP picture as a JPEG",
    ),
    pytest.param(
        Case(source="still.webp", spec={"container": "gif", "width": 80},
             video={"codec_name": "gif", "width": 80, "height": 45, "nb_read_frames": "1"},
             warnings=("still_source",), seconds=0.1),
        id="a WebP picture as a GIF",
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_source(case: Case, tmp_path: Path) -> None:
    code, reports = run(case.source, tmp_path, **case.spec)
    last = last_of_output(reports, 0)
    assert (code, last["status"]) == (0, "uploaded"), last
    made = probe(tmp_path / "files" / "out")
    found = {stream["codec_type"]: stream for stream in made["streams"]}
    assert part_of(found.get("video"), case.video) == case.video
    assert part_of(found.get("audio"), case.audio) == case.audio
    if case.audio:
        assert float(found["audio"]["start_time"]) == pytest.approx(case.sound_at, abs=0.05)
    warnings = {warning["code"] for warning in last["warnings"]}
    # What is copied of a good source is the subject of tests/core/test_media_options.py.
    assert warnings - {"audio_copied", "video_copied"} == set(case.warnings)
    # A late or long sound track, and the last frame of the codec, go beyond by so much.
    assert float(made["format"].get("duration", 0)) == pytest.approx(case.seconds, abs=0.5)


def part_of(stream: dict[str, Any] | None, wanted: dict[str, Any] | None) -> Any:
    """The stream's values for the wanted names; None when there is no stream."""
    return stream if stream is None else {name: stream.get(name) for name in wanted or {}}


def test_silence_stays_silent_and_as_long_as_the_picture(tmp_path: Path) -> None:
    code, reports = run("silent.mp4", tmp_path, audioCodec="mp3", loudness=-16)
    assert (code, last_of_output(reports, 0)["status"]) == (0, "uploaded"), reports[-1]
    made = str(tmp_path / "files" / "out")
    decode = ["ffmpeg", "-v", "error", "-i", made, "-f", "s16le", "-"]
    heard = subprocess.run(decode, capture_output=True, check=True).stdout
    assert len(heard) / (48_000 * 2 * 2) == pytest.approx(1.0, abs=0.1)
    assert not any(heard)


TWICE = (0.2, 0.8)


@pytest.mark.parametrize(
    ("source", "claps", "frames"),
    [
        pytest.param("claps.wmv", TWICE, 25, id="ASF, as Windows Media writes it"),
        pytest.param("anhour.ts", TWICE, 25, id="an hour on the clock at the first picture"),
        pytest.param("anhour.mkv", TWICE, 25, id="an hour, in a file with a duration"),
        pytest.param("negative.flv", TWICE, 25, id="a clock that begins before zero"),
        pytest.param("ahead.flv", (0.2, 1.6), 25, id="a clock that leaps ahead"),
        pytest.param("hole.flv", TWICE, 16, id="a hole"),
        pytest.param("back.flv", TWICE, 50, id="packets out of order: a constant rate"),
    ],
)
def test_picture_and_sound_stay_in_step(
    source: str, claps: tuple[float, ...], frames: int, tmp_path: Path
) -> None:
    code, reports = run(source, tmp_path)
    assert (code, last_of_output(reports, 0)["status"]) == (0, "uploaded"), reports[-1]
    made = tmp_path / "files" / "out"
    found = {stream["codec_type"]: stream for stream in probe(made)["streams"]}
    assert int(found["video"]["nb_read_frames"]) == frames
    white, loud = find_claps(made, tmp_path)
    # The first packet of the sound is put before the picture, by a frame of the codec.
    assert white == pytest.approx(claps, abs=0.05)
    assert loud == pytest.approx(white, abs=0.025)


def find_claps(path: Path, folder: Path) -> tuple[list[float], list[float]]:
    """The instants at which the picture turns white and at which the sound turns loud."""
    graph = (
        "[0:v]signalstats,metadata=mode=print:key=lavfi.signalstats.YAVG:file=white[v];"
        "[0:a]asetnsamples=n=240:p=0,astats=metadata=1:reset=1,"
        "ametadata=mode=print:key=lavfi.astats.1.Peak_level:file=loud[a]"
    )
    subprocess.run(
        [
            *("ffmpeg", "-v", "error", "-copyts", "-i", path, "-filter_complex", graph),
            *("-map", "[v]", "-map", "[a]", "-f", "null", "-"),
        ],
        check=True,
        cwd=folder,
    )
    return rises(folder / "white", above=120), rises(folder / "loud", above=-12)


def rises(measured: Path, *, above: float) -> list[float]:
    """When a measure that a filter printed rises above this."""
    found, was = [], False
    for instant, value in re.findall(r"pts_time:(\S+)\n\S+=(\S+)", measured.read_text()):
        if (now := float(value) > above) and not was:
            found.append(float(instant))
        was = now
    return found


@pytest.mark.parametrize(
    ("source", "code", "why"),
    [
        pytest.param("cut.mp4", 40, "output_truncated", id="an MP4 that was cut off"),
        pytest.param("cut.mkv", 21, "source_truncated", id="a Matroska file that was cut off"),
        pytest.param("noframes.mp4", 20, "source_invalid", id="a film without a frame"),
        pytest.param("moving.webp", 20, "source_invalid", id="an animated WebP picture"),
    ],
)
def test_what_cannot_be_made_whole_is_not_made(
    source: str, code: int, why: str, tmp_path: Path
) -> None:
    ended, reports = run(source, tmp_path)
    assert (ended, reports[-1]["failure"]["code"]) == (code, why)
    assert {report["status"] for report in of_type(reports, "output")} <= {"running", "failed"}
    assert not (tmp_path / "files" / "out").exists()


def run(source: str, folder: Path, **spec: Any) -> tuple[int, list[dict[str, Any]]]:
    (folder / "files").mkdir()
    (folder / "files" / "in").write_bytes(sample(source).read_bytes())
    wanted = to_file("out", **{"container": "mp4", **spec})
    if wanted["container"] == "mp4":
        wanted["preset"] = "ultrafast"
    return run_worker(make_order(folder, {"kind": "file", "path": "in"}, wanted))
