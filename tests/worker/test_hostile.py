"""Small files that claim enormous films: each is refused, by a limit that its failure names."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from encoder_core.errors import JobError
from encoder_core.media.bounds import MAX_PIXELS, MAX_SOURCE_S, MAX_STREAMS, find_excess
from encoder_core.media.probe import Probe, VideoStream
from encoder_worker.examine import examine_source
from encoder_worker.source import Source
from encoder_worker.tools import find_tools
from tests.servers.clips import ffmpeg


def lasting(seconds: float, target: Path) -> None:
    """Two pictures, so far apart."""
    picture = "-f lavfi -i testsrc2=size=160x90:rate=1:duration=2"
    made = f"{picture} -vf setpts=N*{seconds:.0f}/TB -vsync vfr -c:v mjpeg -f matroska"
    ffmpeg("-v", "error", *made.split(), str(target))


def of_streams(count: int, target: Path) -> None:
    tone = "-f lavfi -i sine=sample_rate=8000:duration=0.1"
    made = f"{tone} {'-map 0 ' * count}-c:a pcm_s16le -f matroska"
    ffmpeg("-v", "error", *made.split(), str(target))


def of_pixels(width: int, height: int, target: Path) -> None:
    """A PNG that is little more than its header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    target.write_bytes(b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b""))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        pytest.param(lambda target: lasting(MAX_SOURCE_S + 100, target), "604800 s", id="weeks"),
        pytest.param(
            lambda target: of_streams(MAX_STREAMS + 1, target), "101 streams", id="many streams"
        ),
        pytest.param(
            lambda target: of_pixels(MAX_PIXELS // 8704 + 1, 8704, target),
            "neither picture nor sound",  # ffprobe itself opens no such picture
            id="a picture that takes gigabytes",
        ),
    ],
)
def test_a_source_beyond_a_limit_is_refused(
    make: Callable[[Path], None], why: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    make(source)
    with pytest.raises(JobError, match=why) as refused:
        examine_source(find_tools(), Source(source), tmp_path)
    assert refused.value.code == "source_invalid"


def test_a_size_that_only_the_container_claims_is_refused() -> None:
    """ffprobe tells it unseen; the decoder would refuse it, after all of the work before."""
    video = VideoStream(index=0, codec="h264", width=MAX_PIXELS // 8704 + 1, height=8704)
    probe = Probe(formats=("mov",), duration_s=1.0, video=video)
    assert "16385x8704" in (find_excess(probe, streams=1) or "")
    largest = replace(probe, video=replace(video, width=MAX_PIXELS // 8704))
    assert find_excess(largest, streams=1) is None


def test_a_hundred_streams_are_read(tmp_path: Path) -> None:
    of_streams(MAX_STREAMS, tmp_path / "source")
    probe, _ = examine_source(find_tools(), Source(tmp_path / "source"), tmp_path)
    assert len(probe.audio) == MAX_STREAMS
