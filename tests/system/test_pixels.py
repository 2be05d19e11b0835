"""What a viewer sees of an output, by its pixels: which way up, which part, and how bright."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from tests.servers.clips import ffmpeg
from tests.servers.corpus import COLOURS, GREYS_NITS, sample
from tests.servers.ftp import FtpServer
from tests.system.test_worker_media import run
from tests.worker.driver import last_of_output, probe, to_file

QUICK: Final = {"preset": "ultrafast", "crf": 12}
NEAR: Final = 14  # of 255: what a quick encode makes of a plain colour

RED, GREEN, BLUE, WHITE, BLACK = (
    (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0),
)  # fmt: skip


class Picture:
    """The first picture of a file, as it is stored: a turn must be in the pixels, not in a flag."""

    def __init__(self, path: Path, matrix: str | None = None) -> None:
        """`matrix` is what a viewer takes the colours for, whatever ffmpeg would."""
        stream = next(s for s in probe(path)["streams"] if s["codec_type"] == "video")
        self.size = (stream["width"], stream["height"])
        self._data = subprocess.run(
            [
                *("ffmpeg", "-v", "error", "-noautorotate", "-i", path, "-map", "0:v:0"),
                *(["-vf", f"scale=in_color_matrix={matrix}"] if matrix else []),
                *("-frames:v", "1", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"),
            ],
            capture_output=True,
            check=True,
        ).stdout

    def at(self, x: int, y: int) -> tuple[int, ...]:
        place = 3 * (y * self.size[0] + x)
        return tuple(self._data[place : place + 3])

    def quarters(self) -> list[tuple[int, ...]]:
        """Left and right above, left and right below, each 8 pixels from the middle."""
        x, y = self.size[0] // 2, self.size[1] // 2
        return [self.at(x + dx, y + dy) for dy in (-8, 8) for dx in (-8, 8)]


def near(*colours: tuple[int, ...]) -> Any:
    return [pytest.approx(colour, abs=NEAR) for colour in colours]


def test_a_picture_is_turned_and_cut_as_it_was_asked_for(tmp_path: Path) -> None:
    box = {"width": 80, "height": 44}
    outputs: dict[str, dict[str, Any]] = {
        "as-it-is": {},
        "90": {"rotate": 90},
        "180": {"rotate": 180},
        "270": {"rotate": 270},
        "cut": {"fit": "none", **box},
        "within": {"fit": "contain", **box},
        "too-large": {"fit": "none", "width": 320, "height": 44},
    }
    made = run(
        tmp_path,
        sample("quarters.mp4"),
        *(to_file(name, container="mp4", **spec, **QUICK) for name, spec in outputs.items()),
    )
    assert made.code == 0, made.reports[-1]
    seen = {name: Picture(made.files / name) for name in outputs}
    assert {name: (picture.size, picture.quarters()) for name, picture in seen.items()} == {
        "as-it-is": ((160, 90), near(RED, GREEN, BLUE, WHITE)),
        "90": ((90, 160), near(BLUE, RED, WHITE, GREEN)),
        "180": ((160, 90), near(WHITE, BLUE, GREEN, RED)),
        "270": ((90, 160), near(GREEN, WHITE, RED, BLUE)),
        "cut": ((80, 44), near(RED, GREEN, BLUE, WHITE)),
        "within": ((78, 44), near(RED, GREEN, BLUE, WHITE)),
        "too-large": ((160, 44), near(RED, GREEN, BLUE, WHITE)),
    }
    # The source's frame of 20 pixels: outside of the middle that is cut out, inside of the whole.
    assert [seen["cut"].at(2, 2)] == near(RED)
    assert [seen["within"].at(2, 2)] == near(BLACK)
    assert [seen["too-large"].at(2, 2)] == near(BLACK)
    assert [seen["too-large"].at(26, 2)] == near(RED)


def test_what_a_flag_turns_is_turned_in_the_pixels_and_then_as_asked(tmp_path: Path) -> None:
    film: dict[str, Any] = {"container": "mp4", **QUICK}
    outputs = {"upright": film, "half": {**film, "rotate": 180}, "poster": {"container": "png"}}
    made = run(
        tmp_path,
        sample("quarters-turned.mp4"),
        *(to_file(name, **spec) for name, spec in outputs.items()),
    )
    assert made.code == 0, made.reports[-1]
    found = [Picture(made.files / name) for name in outputs]
    # As ffmpeg itself turns it, which obeys the flag.
    flagged = tmp_path / "shown.png"
    ffmpeg("-v", "error", "-i", str(sample("quarters-turned.mp4")), "-frames:v", "1", str(flagged))
    shown = Picture(flagged)
    assert shown.size == (90, 160)
    a, b, c, d = shown.quarters()
    assert [a, b, c, d] != near(RED, GREEN, BLUE, WHITE)
    assert [(picture.size, picture.quarters()) for picture in found] == [
        ((90, 160), near(a, b, c, d)),
        ((90, 160), near(d, c, b, a)),
        ((90, 160), near(a, b, c, d)),
    ]


def hable(light: float) -> float:
    """The curve of that name, by its author's constants: how bright a film shows a light."""
    return (light * (light * 0.15 + 0.05) + 0.004) / (light * (light * 0.15 + 0.5) + 0.06) - 1 / 15


def shown(nits: float) -> int:
    """The grey of 255 that a screen of gamma 2.4 is sent: 1000 cd/m2 are its white."""
    return round(255 * math.pow(hable(nits / 100) / hable(10), 1 / 2.4))


@pytest.mark.parametrize(
    ("source", "nits"),
    [
        pytest.param("light-hdr10.mkv", GREYS_NITS, id="HDR10"),
        # A screen of 1000 cd/m2 shows the scene with a gamma of 1.2 (BT.2100).
        pytest.param(
            "light-hlg.mkv", [1000 * (nits / 1000) ** 1.2 for nits in GREYS_NITS], id="HLG"
        ),
    ],
)
def test_light_beyond_sdr_is_mapped_to_it(source: str, nits: list[float], tmp_path: Path) -> None:
    made = run(tmp_path, sample(source), to_file("out", container="mp4", **QUICK))
    assert made.code == 0, made.reports[-1]
    picture = Picture(made.files / "out")
    found = [picture.at(10 + 20 * column, 45) for column in range(len(nits) + len(COLOURS))]
    assert found[: len(nits)] == [pytest.approx((shown(n),) * 3, abs=6) for n in nits]
    # Red, green and blue of BT.709 come back out of the wider space, and a little of the others.
    bright = shown(nits[2])
    assert found[len(nits) :] == [
        pytest.approx(colour, abs=24) for colour in ((bright, 0, 0), (0, bright, 0), (0, 0, bright))
    ]


@pytest.mark.parametrize("source", ["bt709.mp4", "untagged.mp4"])
def test_colours_stay_what_they_are_in_every_kind_of_picture(source: str, tmp_path: Path) -> None:
    """Of HD that says nothing of its colours, players take them for BT.709; a JPEG is BT.601."""
    outputs: dict[str, dict[str, Any]] = {
        "film": {"container": "mp4", **QUICK},
        "small": {"container": "mp4", "width": 80, **QUICK},
        "ladder": {"container": "hls", "renditions": [{"height": 48}], "preset": "ultrafast"},
        "poster.jpg": {"container": "jpg"},
        "sheet.jpg": {"container": "jpg", "width": 80, "thumbnails": {"count": 1, "sprite": {}}},
        "poster.png": {"container": "png"},
        "moving.gif": {"container": "gif", "width": 80},
    }
    made = run(tmp_path, sample(source), *(to_file(name, **spec) for name, spec in outputs.items()))
    assert made.code == 0, made.reports[-1]
    files = {name: made.files / name for name in outputs if name != "ladder"}
    [files["sheet.jpg"]] = made.files.glob("sheet-*.jpg")
    [files["ladder"]] = made.files.glob("ladder-hls-*p.m3u8")
    for name, path in files.items():
        tags = {"film": "bt709", "small": "bt709", "ladder": "bt709"}
        matrix = tags.get(name, "bt601")
        assert matrix == "bt601" or colours_of(path) == ("bt709",) * 3, name
        picture = Picture(path, matrix)
        assert picture.at(10, 20) == near(GREEN)[0], name
        assert picture.at(picture.size[0] - 10, 20) == near(RED)[0], name


def colours_of(path: Path) -> tuple[str | None, ...]:
    stream = next(s for s in probe(path)["streams"] if s["codec_type"] == "video")
    return tuple(stream.get(f"color_{name}") for name in ("space", "transfer", "primaries"))


def test_the_full_range_of_a_phone_becomes_the_narrow_one_of_films(tmp_path: Path) -> None:
    outputs: dict[str, dict[str, Any]] = {
        "film": {"container": "mp4", **QUICK},
        "small": {"container": "mp4", "width": 80, **QUICK},
        "poster": {"container": "jpg"},
    }
    made = run(
        tmp_path,
        sample("fullrange.mp4"),
        *(to_file(name, **spec) for name, spec in outputs.items()),
    )
    assert made.code == 0, made.reports[-1]
    for name in outputs:
        picture = Picture(made.files / name)
        dark, bright = picture.at(10, 20), picture.at(picture.size[0] - 10, 20)
        assert dark == pytest.approx((32,) * 3, abs=3), name
        assert bright == pytest.approx((224,) * 3, abs=3), name


def test_a_cap_of_the_bit_rate_holds(tmp_path: Path) -> None:
    noise = tmp_path / "noise.mkv"
    ffmpeg("-v", "error", "-f", "lavfi", "-i", "color=gray:size=160x90:rate=25:duration=4",
           "-vf", "noise=alls=60:allf=t", "-c:v", "ffv1", str(noise))  # fmt: skip
    made = run(
        tmp_path,
        noise,
        to_file("capped", container="mp4", preset="ultrafast", crf=20, maxBitrate="300k"),
        to_file("free", container="mp4", preset="ultrafast", crf=20),
    )
    assert made.code == 0, made.reports[-1]
    capped, free = (8 * (made.files / name).stat().st_size for name in ("capped", "free"))
    # Four seconds at the cap, and the buffer of two seconds that a player fills first.
    assert capped < 300_000 * (4 + 2)
    assert free > 3 * capped


def test_an_image_comes_from_an_ftp_server_and_from_a_folder(
    tmp_path: Path, ftp_server: FtpServer
) -> None:
    logo = tmp_path / "logo.png"
    ffmpeg("-v", "error", "-f", "lavfi", "-i", "color=magenta:size=32x32", "-frames:v", "1",
           str(logo))  # fmt: skip
    (ftp_server.folder / "marks").mkdir()
    (ftp_server.folder / "marks" / "logo.png").write_bytes(logo.read_bytes())
    (tmp_path / "files" / "marks").mkdir(parents=True)
    (tmp_path / "files" / "marks" / "logo.png").write_bytes(logo.read_bytes())
    sources = {
        "ftp": ftp_server.fields("marks/logo.png"),
        "file": {"kind": "file", "path": "marks/logo.png"},
        "gone": {"kind": "file", "path": "marks/gone.png"},
    }
    made = run(
        tmp_path,
        sample("quarters.mp4"),
        *(
            to_file(name, container="png", watermark={"source": source, "position": "center"})
            for name, source in sources.items()
        ),
    )
    for number, name in enumerate(("ftp", "file")):
        assert last_of_output(made.reports, number)["status"] == "uploaded", made.reports[-1]
        assert [Picture(made.files / name).at(80, 45)] == near((255, 0, 255))
    assert last_of_output(made.reports, 2)["failure"]["code"] == "watermark_invalid"
