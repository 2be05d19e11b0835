"""Reading ffprobe."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from encoder_core.media.probe import (
    Probe,
    Span,
    apply_measurements,
    measure_packets,
    missing_seconds,
    parse_probe,
)

VIDEO = {"index": 0, "codec_type": "video", "codec_name": "h264", "width": 1920, "height": 1080,
         "avg_frame_rate": "25/1", "r_frame_rate": "25/1", "pix_fmt": "yuv420p"}  # fmt: skip
AUDIO = {"index": 1, "codec_type": "audio", "codec_name": "aac", "channels": 2,
         "sample_rate": "48000"}  # fmt: skip


def parse(*streams: dict[str, Any], name: str = "mov,mp4", duration: str = "10.0") -> Probe:
    return parse_probe(
        {"format": {"format_name": name, "duration": duration}, "streams": list(streams)}
    )


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        pytest.param({}, 0, id="upright"),
        pytest.param({"side_data_list": [{"rotation": -90}]}, 90, id="clockwise"),
        pytest.param({"side_data_list": [{"rotation": 90}]}, 270, id="counter-clockwise"),
        pytest.param({"side_data_list": [{"rotation": -180}]}, 180, id="upside down"),
        pytest.param({"tags": {"rotate": "90"}}, 90, id="the older tag"),
    ],
)
def test_rotation(fields: dict[str, Any], want: int) -> None:
    video = parse({**VIDEO, **fields}).video
    assert video is not None
    assert video.rotation == want


@pytest.mark.parametrize(
    ("pixel_format", "want"),
    [("yuv420p", 8), ("yuv420p10le", 10), ("p010le", 10), ("gbrp12be", 12), ("yuvj420p", 8)],
)
def test_bit_depth(pixel_format: str, want: int) -> None:
    video = parse({**VIDEO, "pix_fmt": pixel_format}).video
    assert video is not None
    assert video.bit_depth == want


def test_cover_art_is_no_video() -> None:
    probe = parse({**VIDEO, "disposition": {"attached_pic": 1}}, AUDIO)
    assert (probe.video, probe.has_cover, len(probe.audio)) == (None, True, 1)


def test_streams_that_ffmpeg_cannot_name_are_left_out() -> None:
    unknown = {"index": 2, "codec_type": "audio", "codec_name": "unknown", "channels": 4,
               "sample_rate": "48000"}  # fmt: skip
    nameless = {"index": 3, "codec_type": "audio"}
    data = {"index": 4, "codec_type": "data", "codec_name": "bin_data"}
    assert parse(VIDEO, AUDIO, unknown, nameless, data) == parse(VIDEO, AUDIO)


def test_a_document_without_anything_is_an_empty_probe() -> None:
    assert parse_probe({}) == Probe(formats=("",), duration_s=None)


@pytest.mark.parametrize("text", ["N/A", "", None, "0", "-1", "nan", "inf"])
def test_a_duration_that_is_none(text: Any) -> None:
    assert parse(VIDEO, duration=text).duration_s is None


def test_pixel_aspect_of_zero_means_unknown() -> None:
    video = parse({**VIDEO, "sample_aspect_ratio": "0:1"}).video
    assert video is not None
    assert video.pixel_aspect == Fraction(1)


def test_packets_are_measured_per_stream() -> None:
    lines = ["0,0.00,0.00,0.04", "1,0.5,N/A,0.25", "0,0.08,0.04,0.04", "0,N/A,N/A,N/A", "", "x"]
    assert measure_packets(lines) == {0: Span(0.0, 0.12, 3), 1: Span(0.5, 0.75, 1)}


class TestAClockThatGoesBack:
    LINES = ("0,1.5,1.5,0.5", "0,2.0,2.0,0.5", "0,1.5,1.5,0.5", "0,2.0,2.0,0.5")

    def test_begins_anew_where_the_format_may(self) -> None:
        spans = measure_packets(self.LINES, may_restart=True)
        assert spans == {0: Span(1.5, 3.5, 4, jumps=1)}
        probe = apply_measurements(parse(VIDEO, name="mpegts"), spans)
        assert (probe.duration_s, probe.clock_jumps) == (2.0, 1)

    def test_is_believed_elsewhere(self) -> None:
        assert measure_packets(self.LINES) == {0: Span(1.5, 2.5, 4)}

    def test_pictures_that_are_shown_in_another_order_are_no_jump(self) -> None:
        lines = ("0,0,-0.5,0.25", "0,0.75,-0.25,0.25", "0,0.25,0,0.25", "0,0.5,0.25,0.25")
        assert measure_packets(lines, may_restart=True) == {0: Span(0.0, 1.0, 4)}


@pytest.mark.parametrize(
    ("stored", "frames"),
    [
        pytest.param("250", 250, id="all are shown"),
        pytest.param("251", 251, id="a duration that was rounded"),
        pytest.param("280", 250, id="30 lie before the first one to show"),
        pytest.param("200", 200, id="fewer than the rate says"),
    ],
)
def test_frames_are_those_that_are_shown(stored: str, frames: int) -> None:
    video = parse({**VIDEO, "nb_frames": stored, "duration": "10.0"}).video
    assert video is not None
    assert video.frames == frames


def test_a_stream_without_a_packet_is_no_stream() -> None:
    assert parse({**VIDEO, "nb_frames": "0"}).video is None
    measured = apply_measurements(parse(VIDEO, AUDIO), {1: Span(0.0, 1.0, 10)})
    assert measured.video is None
    assert [stream.packets for stream in measured.audio] == [10]


class TestMeasurements:
    SPANS = {0: Span(0.0, 6.0, 150), 1: Span(0.0, 5.9, 280)}

    def test_a_declared_duration_stays(self) -> None:
        probe = apply_measurements(parse(VIDEO, AUDIO, name="matroska,webm"), self.SPANS)
        assert probe.duration_s == 10.0
        assert missing_seconds(probe, self.SPANS) == 4.0

    def test_an_estimated_duration_is_replaced(self) -> None:
        probe = apply_measurements(parse(VIDEO, AUDIO, name="mpegts"), self.SPANS)
        assert probe.duration_s == 6.0
        assert probe.video is not None
        assert (probe.video.frames, probe.video.duration_s) == (150, 6.0)
        assert missing_seconds(probe, self.SPANS) == 0.0

    def test_only_mov_with_all_durations_needs_none(self) -> None:
        known = parse({**VIDEO, "duration": "10"}, {**AUDIO, "duration": "10"})
        assert not known.needs_measuring
        assert parse({**VIDEO, "duration": "10"}, AUDIO).needs_measuring
        assert replace(known, formats=("matroska", "webm")).needs_measuring
