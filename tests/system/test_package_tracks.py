"""
Packages in several languages: made by the real worker, read by ffmpeg's own demuxers.

One job, of a film as discs have it, serves all of the tests.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from encoder_api.endpoints.previews import ProbeResult
from tests.servers.corpus import sample
from tests.system.test_worker_media import Job, run
from tests.worker.driver import last_of_output, of_type, to_file

BOTH = {"manifests": ["hls", "dash"], "segmentSeconds": 1}
QUICK = {"container": "hls", "preset": "ultrafast", "gopSeconds": 1, "packaging": BOTH}
OUTPUTS = [
    to_file(
        "film/film.m3u8",
        **QUICK,
        renditions=[{"height": 90}, {"height": 46}],
        audioTracks=["en", "de", "4", "5"],
        subtitles=["all"],
    ),
    to_file("radio/film.m3u8", **QUICK, videoCodec="none", audioTracks=["de", "fr"]),
    to_file("one/film.m3u8", **QUICK, height=46, language="fr"),
]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    made = run(tmp_path_factory.mktemp("tracks"), sample("world.mkv"), *OUTPUTS)
    assert made.code == 0, made.reports[-1]
    return made


def streams_of(path: Path, kind: str) -> list[dict[str, Any]]:
    """
    All streams of a kind that the demuxer finds, decoded and counted.

    One kind at a time: when the first of its streams ends, ffmpeg's DASH demuxer takes it for the
    end of all.
    """
    found = subprocess.run(
        [
            *("ffprobe", "-v", "error", "-count_frames", "-count_packets", "-show_streams"),
            *("-select_streams", kind, "-of", "json"),
            *("-allowed_extensions", "ALL"),  # playlists may name m4s, and an MPD vtt
            path,
        ],
        check=True,
        capture_output=True,
    )
    assert found.stderr == b""
    streams: list[dict[str, Any]] = json.loads(found.stdout)["streams"]
    return streams


def spoken(path: Path) -> list[tuple[str | None, int]]:
    """Language and channels of each sound, all of which were heard to their end."""
    sounds = streams_of(path, "a")
    assert all(int(sound["nb_read_frames"]) >= 130 for sound in sounds)
    return [(sound.get("tags", {}).get("language"), sound["channels"]) for sound in sounds]


def test_one_ffmpeg_decodes_the_source_once(job: Job) -> None:
    [call] = job.calls
    assert call.count("-i") == 1


@pytest.mark.parametrize("manifest", ["film.m3u8", "film.mpd"])
def test_a_player_finds_every_sound_in_its_language(job: Job, manifest: str) -> None:
    path = job.files / "film" / manifest
    assert [stream["height"] for stream in streams_of(path, "v")] == [90, 46]
    assert spoken(path) == [("en", 1), ("en", 1), ("de", 2), ("fr", 1), (None, 1)]


@pytest.mark.parametrize("manifest", ["film.m3u8", "film.mpd"])
def test_sounds_alone_are_a_choice_too(job: Job, manifest: str) -> None:
    found = spoken(job.files / "radio" / manifest)
    # Of HLS ffmpeg lists the sound that stands for all once more, without its language.
    assert [sound for sound in found if sound[0]] == [("de", 2), ("fr", 1)]


def test_a_single_sound_says_its_language_too(job: Job) -> None:
    assert spoken(job.files / "one" / "film.mpd") == [("fr", 1)]
    assert 'NAME="fr",LANGUAGE="fr",' in (job.files / "one" / "film.m3u8").read_text()


def test_the_result_lists_the_sounds(job: Job) -> None:
    result = last_of_output(job.reports, 0)["result"]
    assert [
        (sound["name"], sound.get("language"), sound["codec"], sound["channels"])
        for sound in result["audioTracks"]
    ] == [
        ("audio-en", "en", "aac", 1),
        ("audio-en-2", "en", "aac", 1),
        ("audio-de", "de", "aac", 2),
        ("audio-fr", "fr", "aac", 1),
        ("audio-und", None, "aac", 1),
    ]
    assert all(abs(sound["durationS"] - 3) < 0.1 for sound in result["audioTracks"])


def test_a_player_of_dash_finds_the_subtitles(job: Job) -> None:
    texts = streams_of(job.files / "film" / "film.mpd", "s")
    assert [(text["codec_name"], text["tags"]["language"]) for text in texts] == [
        ("webvtt", "de"), ("webvtt", "en"), ("webvtt", "de"),
    ]  # fmt: skip
    assert [text["nb_read_packets"] for text in texts] == ["2", "2", "2"]


def test_the_playlist_of_subtitles_is_one_whole_file(job: Job) -> None:
    master = (job.files / "film" / "film.m3u8").read_text()
    for name in ("de", "en", "de-forced"):
        assert f'URI="film-hls-subtitles-{name}.m3u8"' in master
        playlist = (job.files / "film" / f"film-hls-subtitles-{name}.m3u8").read_text()
        [file] = [line for line in playlist.splitlines() if not line.startswith("#")]
        lines = (job.files / "film" / file).read_text().splitlines()
        assert lines[:3] == ["WEBVTT", "X-TIMESTAMP-MAP=MPEGTS:0,LOCAL:00:00:00.000", ""]
        assert "Hello <i>there</i>" in lines
        assert [line.split()[1] for line in lines if "-->" in line] == ["-->", "-->"]


def test_subtitles_that_are_pictures_are_left_out(job: Job) -> None:
    report = last_of_output(job.reports, 0)
    assert [warning["code"] for warning in report["warnings"]] == ["subtitles_dropped"]
    assert report["result"]["subtitles"] == [
        {"name": "subtitles-de", "language": "de", "codec": "webvtt", "forced": False},
        {"name": "subtitles-en", "language": "en", "codec": "webvtt", "forced": False},
        {"name": "subtitles-de-forced", "language": "de", "codec": "webvtt", "forced": True},
    ]


def test_subtitles_are_delivered_before_what_names_them(job: Job) -> None:
    paths = [path for path in (job.files / "film").iterdir() if path.suffix != ".m4s"]
    by_time = sorted(paths, key=lambda path: path.stat().st_mtime_ns)
    suffixes = [path.suffix for path in by_time]
    assert suffixes.index(".m3u8") > max(
        number for number, suffix in enumerate(suffixes) if suffix == ".vtt"
    )
    assert by_time[-1].name == "film.m3u8"


def test_all_sounds_have_their_segments_at_the_same_instants(job: Job) -> None:
    names = [path.name for path in (job.files / "film").glob("film-hls-audio-*.m4s")]
    sounds = ("en", "en-2", "de", "fr", "und")
    counts = {
        sound: sum(name.startswith(f"film-hls-audio-{sound}-0") for name in names)
        for sound in sounds
    }
    assert len(set(counts.values())) == 1, counts


def test_what_is_told_of_a_source_is_enough_to_choose_by(job: Job) -> None:
    [told] = of_type(job.reports, "source")
    probe = ProbeResult.model_validate(told["source"]).to_probe()
    assert [sound.language for sound in probe.audio] == ["ger", "eng", "eng", "fre", None]
    assert [(words.language, words.forced) for words in probe.subtitles] == [
        ("ger", False), ("eng", False), ("ger", True), ("fre", False),
    ]  # fmt: skip
    assert probe.main_audio == probe.audio[0]
    assert probe.audio[4].late_s == pytest.approx(1.2, abs=0.03)


def track_of(folder: Path, name: str) -> Path:
    """A track as players of segments feed it to their decoders: the header, then the segments."""
    track = folder / f"{name}.mp4"
    parts = [folder / f"{name}-init.mp4", *sorted(folder.glob(f"{name}-0*.m4s"))]
    track.write_bytes(b"".join(part.read_bytes() for part in parts))
    return track


def test_a_sound_that_begins_late_has_silence_before_it(job: Job, tmp_path: Path) -> None:
    folder = shutil.copytree(job.files / "film", tmp_path / "film")
    heard = subprocess.run(
        [
            *("ffmpeg", "-v", "error", "-ignore_editlist", "1"),
            *("-i", str(track_of(folder, "film-hls-audio-und"))),
            *("-f", "s16le", "-ar", "8000", "-"),
        ],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    loud = [number for number, (sample,) in enumerate(struct.iter_unpack("<h", heard)) if sample]
    # 1.2 s, and the two frames that the encoder of the source and ours put first.
    assert loud[0] / 8000 == pytest.approx(1.2, abs=0.07)


def test_a_picture_that_begins_late_is_shown_from_the_beginning(tmp_path: Path) -> None:
    made = run(
        tmp_path,
        sample("latepicture.mkv"),
        to_file("film.m3u8", **QUICK),
        to_file("copy.m3u8", **QUICK, audioCodec="copy"),
    )
    assert made.code == 0, made.reports[-1]
    frames = last_of_output(made.reports, 0)["result"]["frames"]
    assert frames == pytest.approx(1.8 * 25, abs=1)
    found = subprocess.run(
        [
            *("ffprobe", "-v", "error", "-ignore_editlist", "1", "-show_entries"),
            *("packet=pts_time", "-of", "csv=p=0", str(track_of(made.files, "film-hls-90p"))),
        ],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    instants = sorted(map(float, found.split()))
    assert instants[0] == 0
    assert instants[-1] == pytest.approx((frames - 1) / 25)
