"""What ffmpeg made is looked at, file by file: whatever is not as planned is found."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from encoder_core.clock import SystemClock
from encoder_core.media.plan import plan_output
from encoder_core.media.planned import OutputPlan
from encoder_core.media.verify import Finding
from encoder_core.reports import WorkerLimits
from encoder_core.specs import OutputSpec
from encoder_worker.encode import Encoder
from encoder_worker.examine import examine_source
from encoder_worker.following import Followings
from encoder_worker.made import Made
from encoder_worker.source import Source
from encoder_worker.tools import Tools, find_tools
from encoder_worker.verify import verify_output
from tests.servers.corpus import sample

OUTPUTS: list[dict[str, Any]] = [
    {
        "container": "hls",
        "preset": "ultrafast",
        "gopSeconds": 1,
        "packaging": {"manifests": ["hls", "dash"], "segmentSeconds": 4},
        "renditions": [{"height": 90}, {"height": 46}],
    },
    {"container": "jpg", "width": 64, "thumbnails": {"count": 5, "sprite": {"columns": 3}}},
    {"container": "png", "width": 64, "thumbnails": {"count": 2}},
]  # fmt: skip
WORLD: dict[str, Any] = {
    "container": "dash", "preset": "ultrafast", "gopSeconds": 1, "height": 46,
    "packaging": {"manifests": ["hls", "dash"], "segmentSeconds": 1},
    "audioTracks": ["de", "fr"], "subtitles": ["de", "en"],
}  # fmt: skip


class Scratch:
    """A scratch folder with outputs that came out right, and their plans."""

    def __init__(self, folder: Path, plans: list[OutputPlan]) -> None:
        self.folder = folder
        self.plans = plans

    def verify(self, index: int) -> Made | list[Finding]:
        # Sets are looked at without a process: these tools do not exist.
        tools = Tools("/nowhere/ffmpeg", "/nowhere/ffprobe", ())
        return verify_output(tools, self.plans[index], self.folder)

    def findings(self, index: int = 0) -> list[str]:
        verdict = self.verify(index)
        assert not isinstance(verdict, Made)
        return [f"{finding.code}: {finding.message}" for finding in verdict]


def encode(path: Path, outputs: list[dict[str, Any]], folder: Path) -> Scratch:
    source = Source(path)
    tools = find_tools()
    probe, _ = examine_source(tools, source, folder)
    destination = {"kind": "file", "path": "out/film.m3u8"}
    plans = [
        plan_output(index, OutputSpec.model_validate({**output, "destination": destination}), probe)
        for index, output in enumerate(outputs)
    ]
    failures: list[Any] = []
    encoder = Encoder(
        tools,
        source=source,
        images={},
        folder=folder,
        threads=2,
        limits=WorkerLimits(),
        clock=SystemClock(),
        followings=Followings(SystemClock()),
        on_progress=lambda _: None,
        on_verify=lambda: None,
    )
    encoder.make(plans, made=lambda _: None, failed=lambda _, why: failures.append(why))
    assert failures == []
    return Scratch(folder, plans)


@pytest.fixture(scope="module")
def encoded(clip: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    folder = tmp_path_factory.mktemp("encoded")
    return encode(clip("h264_640x360_25p_20s_stereo.mp4"), OUTPUTS, folder)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    """A package in several languages."""
    return encode(sample("world.mkv"), [WORLD], tmp_path_factory.mktemp("several"))


@pytest.fixture
def scratch(encoded: Scratch, tmp_path: Path) -> Scratch:
    return copy_of(encoded, tmp_path)


def copy_of(scratch: Scratch, tmp_path: Path) -> Scratch:
    """One to damage."""
    folder = tmp_path / "scratch"
    shutil.copytree(scratch.folder, folder)
    return Scratch(folder, scratch.plans)


def cut(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def swap(first: Path, second: Path) -> None:
    aside = first.with_suffix(".aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def test_a_package_is_all_of_its_files(encoded: Scratch) -> None:
    made = encoded.verify(0)
    assert isinstance(made, Made)
    names = [file.name for file in made.files]
    assert names[:5] == [
        None, "film.mpd", "film-hls-90p.m3u8", "film-hls-46p.m3u8", "film-hls-audio.m3u8",
    ]  # fmt: skip
    assert names[5:] == [
        f"film-hls-{stream}-{part}"
        # What an encoder of sound puts before its first sample moves the last one out of line.
        for stream, segments in (("90p", 5), ("46p", 5), ("audio", 6))
        for part in ("init.mp4", *(f"{number:05d}.m4s" for number in range(1, segments + 1)))
    ]
    assert {file.content_type for file in made.files} == {
        "application/vnd.apple.mpegurl", "application/dash+xml", "video/mp4", "audio/mp4",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "want"),
    [
        pytest.param(lambda f: (f / "0-00003.m4s").unlink(), "90p has segments missing",
                     id="a segment in the middle is missing"),
        pytest.param(lambda f: (f / "1-00005.m4s").unlink(), "46p has 400 of 500 frames",
                     id="the last segment is missing"),
        pytest.param(lambda f: [path.unlink() for path in f.glob("2-0000[56].m4s")],
                     "The audio lasts", id="the last segments of the sound are missing"),
        pytest.param(lambda f: cut(f / "0-00002.m4s", 0.5), "Segment 2 of 90p is damaged",
                     id="a segment was cut off"),
        pytest.param(lambda f: os.truncate(f / "0-00002.m4s", 0), "Segment 2 of 90p is damaged",
                     id="a segment is empty"),
        pytest.param(lambda f: os.truncate(f / "0-00002.m4s", 24), "Segment 2 of 90p is damaged",
                     id="a segment has only its type"),
        pytest.param(lambda f: swap(f / "0-00002.m4s", f / "0-00003.m4s"),
                     "Segment 2 of 90p does not follow",
                     id="two segments are swapped"),
        pytest.param(lambda f: shutil.copy(f / "1-00002.m4s", f / "1-00003.m4s"),
                     "Segment 3 of 46p does not follow", id="a segment is there twice"),
        pytest.param(lambda f: swap(f / "0-init.mp4", f / "1-init.mp4"), "not 160x90",
                     id="headers of two renditions are swapped"),
        pytest.param(lambda f: (f / "2-init.mp4").unlink(), "audio has no header",
                     id="a header is missing"),
        pytest.param(lambda f: cut(f / "0-init.mp4", 0.7), "longer than its file",
                     id="a header was cut off"),
        pytest.param(lambda f: zero(f / "0-00002.m4s"), "Segment 2 of 90p is damaged",
                     id="zeros are where a picture should be"),
        pytest.param(lambda f: shift(f / "0-00002.m4s"), "Segment 2 of 90p does not follow",
                     id="a segment says another time"),
    ],
)  # fmt: skip
def test_a_damaged_package_is_found(
    scratch: Scratch, damage: Callable[[Path], Any], want: str
) -> None:
    damage(scratch.folder / "0")
    assert any(want in finding for finding in scratch.findings()), scratch.findings()


def test_a_package_in_several_languages_is_all_of_its_files(several: Scratch) -> None:
    made = several.verify(0)
    assert isinstance(made, Made)
    lists = ("application/vnd.apple.mpegurl", "application/dash+xml", "text/vtt")
    assert [file.name for file in made.files if file.content_type in lists] == [
        None,
        "film.m3u8",
        *(f"film-dash-{name}.m3u8" for name in ("46p", "audio-de", "audio-fr")),
        *(f"film-dash-subtitles-{name}.m3u8" for name in ("de", "de-forced", "en")),
        *(f"film-dash-subtitles-{name}.vtt" for name in ("de", "de-forced", "en")),
    ]


@pytest.mark.parametrize(
    ("damage", "want"),
    [
        pytest.param(lambda f: (f / "text-1.vtt").unlink(),
                     "output_truncated: subtitles-de-forced: There is no file of subtitles.",
                     id="a file of subtitles is missing"),
        pytest.param(lambda f: os.truncate(f / "text-0.vtt", 0),
                     "output_invalid: subtitles-de: The subtitles do not begin as WebVTT.",
                     id="a file of subtitles is empty"),
        pytest.param(lambda f: cut(f / "text-0.vtt", 0.5),
                     "output_truncated: subtitles-de: There are 1 of 2 cues.",
                     id="a file of subtitles was cut off"),
        pytest.param(lambda f: (f / "2-00002.m4s").unlink(),
                     "output_truncated: audio-fr has segments missing.",
                     id="a segment of the second sound is missing"),
        pytest.param(lambda f: [path.unlink() for path in f.glob("2-*")],
                     "output_truncated: audio-fr has segments missing.",
                     id="the second sound is missing"),
        pytest.param(lambda f: delay(f / "2-init.mp4", 500),
                     "output_invalid: audio-fr does not begin at its first segment.",
                     id="a sound begins later than its segments, by a list that players ignore"),
        pytest.param(lambda f: swap(f / "1-init.mp4", f / "2-init.mp4"),
                     "output_invalid: audio-de has 1, not 2 channels.",
                     id="the headers of two sounds are swapped"),
    ],
)  # fmt: skip
def test_damage_in_several_languages_is_found(
    several: Scratch, tmp_path: Path, damage: Callable[[Path], Any], want: str
) -> None:
    scratch = copy_of(several, tmp_path)
    damage(scratch.folder / "0")
    assert want in scratch.findings(), scratch.findings()


def zero(path: Path) -> None:
    """Keep the boxes, lose the media: a disk that was full, or a hole in a sparse file."""
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    path.write_bytes(data)


def delay(path: Path, milliseconds: int) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 4 + 8
    data[at : at + 8] = milliseconds.to_bytes(4, "big") + b"\xff" * 4
    path.write_bytes(data)


def shift(path: Path) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(b"tfdt") + 4 + 4
    time = int.from_bytes(data[at : at + 8], "big")
    data[at : at + 8] = (time + 5000).to_bytes(8, "big")
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("index", "damage", "want"),
    [
        pytest.param(1, lambda f: cut(f / "1-00001.jpg", 0.9), "is not whole", id="a cut sheet"),
        pytest.param(1, lambda f: (f / "1-00001.jpg").unlink(), "0 of 1 files", id="no sheet"),
        pytest.param(1, lambda f: shorten(f / "1-tiles.txt"), "4 of 5 pictures",
                     id="a sheet whose last picture is missing looks whole"),
        pytest.param(1, lambda f: shutil.copy(f / "2-00001.png", f / "1-00001.jpg"),
                     "png 64x36, not 192x72", id="another picture"),
        pytest.param(2, lambda f: cut(f / "2-00002.png", 0.9), "is not whole", id="a cut PNG"),
        pytest.param(2, lambda f: flip(f / "2-00002.png"), "damaged", id="a damaged PNG"),
        pytest.param(2, lambda f: shutil.copy(f / "2-00002.png", f / "2-00003.png"),
                     "3 of 2 files", id="a picture too many"),
    ],
)  # fmt: skip
def test_damaged_pictures_are_found(
    scratch: Scratch, index: int, damage: Callable[[Path], Any], want: str
) -> None:
    damage(scratch.folder)
    assert any(want in finding for finding in scratch.findings(index)), scratch.findings(index)


def shorten(path: Path) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-2]) + "\n")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
