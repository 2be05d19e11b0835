"""Moving the index of an MP4 to its front leaves what ffmpeg itself would have written."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest

from encoder_core.media.faststart import BadIndex, Places, find_places, relocate
from encoder_worker.front import move_index_to_front
from tests.servers.clips import clip, ffmpeg

FILM = "h264_320x180_25p_2s_stereo.mp4"
LONG = "h264_640x360_25p_20s_stereo.mp4"
SILENT = "h264_320x180_25p_2s_silent.mp4"

CHAPTERS = """;FFMETADATA1
title=A film
[CHAPTER]
TIMEBASE=1/1000
START=0
END=1000
title=The first
[CHAPTER]
TIMEBASE=1/1000
START=1000
END=2000
title=The second
"""
WORDS = "1\n00:00:00,000 --> 00:00:01,500\nHello\n"

FILES = {
    "pictures and sound": ("mp4", [FILM], ""),
    "twenty seconds": ("mp4", [LONG], ""),
    "pictures alone": ("mp4", [SILENT], ""),
    "sound alone": ("ipod", [FILM], "-map 0:a"),
    "a QuickTime film": ("mov", [FILM], ""),
    "raw sound in a QuickTime film": ("mov", [FILM], "-c:a pcm_s16le"),
    "three tracks": ("mp4", [FILM, LONG], "-map 0:v -map 0:a -map 1:a -t 2"),
    "chapters, a title and words": (
        "mp4", [FILM, "chapters.txt", "words.srt"],
        "-map 0 -map 2 -c:s mov_text -map_metadata 1 -map_chapters 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("muxer", "inputs", "how"), [pytest.param(*case, id=name) for name, case in FILES.items()]
)
def test_it_is_what_the_muxer_would_have_done(
    muxer: str, inputs: list[str], how: str, tmp_path: Path
) -> None:
    (tmp_path / "chapters.txt").write_text(CHAPTERS)
    (tmp_path / "words.srt").write_text(WORDS)
    paths = [tmp_path / name if (tmp_path / name).exists() else clip(name) for name in inputs]
    reads = [word for path in paths for word in ("-i", str(path))]
    shared = ["-v", "error", *reads, "-c", "copy", *how.split(), "-f", muxer]
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ffmpeg(*shared, str(ours))
    ffmpeg(*shared, "-movflags", "+faststart", str(theirs))
    assert ours.read_bytes() != theirs.read_bytes()
    moved = move_index_to_front(ours)
    assert ours.read_bytes() == theirs.read_bytes()
    assert moved > 0


def box(kind: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def table(*offsets: int, wide: bool = False) -> bytes:
    form = f">II{len(offsets)}{'Q' if wide else 'I'}"
    return box(b"co64" if wide else b"stco", struct.pack(form, 0, len(offsets), *offsets))


def index(*tables: bytes) -> bytes:
    tracks = [
        box(b"trak", box(b"tkhd", bytes(12)),
            box(b"mdia", box(b"minf", box(b"stbl", box(b"stsz", bytes(12)), one))))
        for one in tables
    ]  # fmt: skip
    return box(b"moov", box(b"mvhd", bytes(100)), *tracks, box(b"udta", b"kept as it is"))


GREATEST = 2**32 - 1


class TestOffsets:
    def test_all_grow_by_the_length_of_the_index(self) -> None:
        before = index(table(48, 1000), table(500, 2**33, wide=True))
        by = len(before)
        after = index(table(48 + by, 1000 + by), table(500 + by, 2**33 + by, wide=True))
        assert relocate(before) == after

    def test_that_get_too_great_make_their_table_wide_and_the_index_longer(self) -> None:
        before = index(table(48, GREATEST - 10), table(49))
        by = len(before) + 2 * 4
        assert relocate(before) == index(table(48 + by, GREATEST - 10 + by, wide=True),
                                         table(49 + by))  # fmt: skip

    def test_may_get_too_great_because_another_table_became_wide(self) -> None:
        one, entries = index(table(*range(50), GREATEST), table(1)), 51
        on_the_edge = GREATEST - len(one)  # fits, but for what the first table takes more
        before = index(table(*range(50), GREATEST), table(on_the_edge))
        by = len(before) + 4 * entries + 4
        want = index(
            table(*(n + by for n in range(50)), GREATEST + by, wide=True),
            table(on_the_edge + by, wide=True),
        )
        assert relocate(before) == want

    def test_of_a_track_without_samples_are_none(self) -> None:
        assert relocate(index(table())) == index(table())

    @pytest.mark.parametrize(
        "bad",
        [
            pytest.param(box(b"moov", struct.pack(">I4s", 100, b"trak")), id="a box too long"),
            pytest.param(box(b"moov", struct.pack(">I4s", 0, b"trak")), id="a box of no length"),
            pytest.param(
                index(box(b"stco", struct.pack(">III", 0, 2, 48))), id="a table too short"
            ),
        ],
    )
    def test_of_what_is_no_index_are_not_guessed(self, bad: bytes) -> None:
        with pytest.raises(BadIndex):
            relocate(bad)


TYPE, DATA, INDEX = box(b"ftyp", b"isom", bytes(12)), box(b"mdat", bytes(100)), index(table(40))


class TestPlaces:
    def test_of_more_data_than_a_short_length_can_tell(self, tmp_path: Path) -> None:
        length = 5 * 2**30
        path = tmp_path / "large"
        with path.open("wb") as file:
            file.write(TYPE + struct.pack(">I4sQ", 1, b"mdat", length))
            file.seek(len(TYPE) + length)
            file.write(INDEX)
        with path.open("rb") as file:
            found = find_places(file, path.stat().st_size)
        assert found == Places(front=len(TYPE), index=len(TYPE) + length)

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(b"", id="nothing"),
            pytest.param(TYPE, id="no data"),
            pytest.param(TYPE + DATA, id="no index"),
            pytest.param(TYPE + DATA + INDEX[:-1], id="an index that is cut off"),
            pytest.param(TYPE + struct.pack(">I4s", 0, b"mdat") + bytes(9), id="data without end"),
            pytest.param(TYPE + INDEX + DATA, id="the index is in front"),
            pytest.param(DATA + INDEX, id="no type"),
            pytest.param(b"\x1aE\xdf\xa3" + bytes(100), id="another container"),
        ],
    )
    def test_of_anything_else_are_refused(self, data: bytes) -> None:
        with pytest.raises(BadIndex):
            find_places(io.BytesIO(data), len(data))
