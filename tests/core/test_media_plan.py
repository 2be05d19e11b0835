"""What each output becomes: the planner as tables of request and source."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from encoder_core.errors import FieldProblem, InvalidRequest
from encoder_core.media import warnings
from encoder_core.media.check import check_request
from encoder_core.media.plan import depends_on_length, plan_output
from encoder_core.media.planned import OutputPlan
from encoder_core.media.probe import AudioStream, Probe, VideoStream
from encoder_core.specs import JobRequest, OutputSpec

VIDEO = VideoStream(
    index=0,
    codec="h264",
    width=1920,
    height=1080,
    average_fps=Fraction(25),
    nominal_fps=Fraction(25),
    duration_s=60.0,
    frames=1500,
    matrix="bt709",
    primaries="bt709",
    transfer="bt709",
)
AUDIO = AudioStream(index=1, codec="aac", channels=2, sample_rate=48_000, duration_s=60.0)
FILM = Probe(formats=("mov", "mp4"), duration_s=60.0, video=VIDEO, audio=(AUDIO,), video_streams=1)
SILENT = replace(FILM, audio=())
SONG = replace(FILM, video=None, video_streams=0)
FILE = {"kind": "file", "path": "out"}


def film(**video: Any) -> Probe:
    return replace(FILM, video=replace(VIDEO, **video))


def spec(**fields: Any) -> OutputSpec:
    return OutputSpec.model_validate({"destination": FILE, **fields})


def plan(probe: Probe = FILM, **fields: Any) -> OutputPlan:
    return plan_output(0, spec(**fields), probe)


def problems_of(probe: Probe = FILM, **fields: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequest) as caught:
        plan(probe, **fields)
    return [(problem.pointer, problem.code) for problem in caught.value.problems]


def problems_at_the_door(**fields: Any) -> list[FieldProblem]:
    request = {"source": {"kind": "http", "url": "http://a.example/x"}, "outputs": [
        {"container": "mp3", "destination": FILE}, {"destination": FILE, **fields}]}  # fmt: skip
    return check_request(JobRequest.model_validate(request))


class TestSize:
    @pytest.mark.parametrize(
        ("source", "fields", "want"),
        [
            pytest.param({}, {}, (1920, 1080), id="as the source"),
            pytest.param({}, {"width": 1280}, (1280, 720), id="the height follows the width"),
            pytest.param({}, {"height": 480}, (854, 480), id="the width follows, even"),
            pytest.param({}, {"width": 1280, "height": 720}, (1280, 720), id="the same shape"),
            pytest.param({}, {"width": 640, "height": 640}, (640, 360), id="contain by default"),
            pytest.param(
                {}, {"width": 640, "height": 640, "fit": "cover"}, (640, 640), id="cover crops"
            ),
            pytest.param(
                {}, {"width": 640, "height": 640, "fit": "stretch"}, (640, 640), id="stretch"
            ),
            pytest.param(
                {}, {"width": 640, "height": 2000, "fit": "none"}, (640, 1080), id="none only crops"
            ),
            pytest.param({}, {"width": 3840}, (1920, 1080), id="never larger"),
            pytest.param({}, {"width": 3840, "upscale": True}, (3840, 2160), id="larger if asked"),
            pytest.param(
                {}, {"width": 3000, "height": 3000, "fit": "cover"}, (1080, 1080),
                id="cover keeps the box's shape when it is too large",
            ),
            pytest.param({"rotation": 90}, {"width": 540}, (540, 960), id="a phone's portrait"),
            pytest.param({"rotation": 180}, {}, (1920, 1080), id="upside down"),
            pytest.param(
                {"width": 720, "height": 576, "pixel_aspect": Fraction(64, 45)}, {}, (1024, 576),
                id="anamorphic",
            ),
            pytest.param({"width": 853, "height": 481}, {}, (852, 480), id="odd loses a line"),
        ],
    )  # fmt: skip
    def test_size(
        self, source: dict[str, Any], fields: dict[str, Any], want: tuple[int, int]
    ) -> None:
        video = plan(film(**source), **fields).video
        assert video is not None
        assert (video.width, video.height) == want

    def test_a_size_that_vanishes_is_refused(self) -> None:
        assert problems_of(film(width=4000, height=100), width=200) == [
            ("/outputs/0/width", "too_small")
        ]


class TestRate:
    @pytest.mark.parametrize(
        ("average", "nominal", "fields", "want"),
        [
            pytest.param("25", "25", {}, None, id="a constant rate is left alone"),
            pytest.param("30000/1001", "30000/1001", {}, None, id="so is 29.97"),
            pytest.param("29.7", "30", {}, None, id="a frame or two do not make it variable"),
            pytest.param("24", "30", {}, "30", id="variable: the rate that keeps all frames"),
            pytest.param("29", "90000", {}, "30000/1001", id="variable: the next standard rate"),
            pytest.param("100", "90000", {}, "60", id="variable: at most 60"),
            pytest.param("25", "25", {"frameRate": 29.97}, "30000/1001", id="29.97 as it is meant"),
            pytest.param("25", "25", {"frameRate": 12.5}, "25/2", id="any other rate"),
        ],
    )
    def test_rate(
        self, average: str, nominal: str, fields: dict[str, Any], want: str | None
    ) -> None:
        source = film(average_fps=Fraction(average), nominal_fps=Fraction(nominal))
        video = plan(source, **fields).video
        assert video is not None
        assert video.frame_rate == (None if want is None else Fraction(want))

    def test_keyframes_are_two_seconds_apart_unless_asked(self) -> None:
        planned = (plan().video, plan(gopSeconds=4).video)
        assert [video.gop_frames for video in planned if video] == [50, 100]


class TestRateControl:
    @pytest.mark.parametrize(
        ("fields", "want"),
        [
            pytest.param({}, (None, None, 23), id="constant quality by default"),
            pytest.param({"videoBitrate": "2500k"}, (2_500_000, 3_750_000, None), id="a bit rate"),
            pytest.param({"crf": 20, "maxBitrate": "4M"}, (None, 4_000_000, 20), id="capped"),
            pytest.param({"videoCodec": "hevc"}, (None, None, 28), id="by the codec"),
        ],
    )
    def test_rate_control(self, fields: dict[str, Any], want: tuple[Any, ...]) -> None:
        video = plan(**fields).video
        assert video is not None
        assert (video.bitrate, video.max_bitrate, video.crf) == want


class TestSound:
    @pytest.mark.parametrize(
        ("source", "fields", "want"),
        [
            pytest.param({}, {}, ("aac", 2, 48_000, 128_000), id="aac beside a picture"),
            pytest.param({"channels": 1}, {}, ("aac", 1, 48_000, 64_000), id="mono stays mono"),
            pytest.param({"channels": 6}, {}, ("aac", 2, 48_000, 128_000), id="5.1 is mixed down"),
            pytest.param(
                {"channels": 6}, {"audioChannels": 6}, ("aac", 6, 48_000, 384_000), id="5.1 kept"
            ),
            pytest.param(
                {"channels": 1}, {"audioChannels": 6}, ("aac", 2, 48_000, 128_000),
                id="channels are not invented",
            ),
            pytest.param(
                {"sample_rate": 44_100}, {"container": "webm"}, ("opus", 2, 48_000, 96_000),
                id="opus has 48 kHz",
            ),
            pytest.param(
                {"sample_rate": 192_000}, {"container": "mp3"}, ("mp3", 2, 48_000, 160_000),
                id="mp3 has at most 48 kHz",
            ),
            pytest.param({}, {"container": "flac"}, ("flac", 2, 48_000, None), id="lossless"),
        ],
    )  # fmt: skip
    def test_sound(
        self, source: dict[str, Any], fields: dict[str, Any], want: tuple[Any, ...]
    ) -> None:
        audio = plan(replace(FILM, audio=(replace(AUDIO, **source),)), **fields).audio
        assert audio is not None
        assert (audio.family, audio.channels, audio.sample_rate, audio.bitrate) == want

    def test_the_stream_marked_as_default_is_used(self) -> None:
        second = replace(AUDIO, index=2, default=True, language="eng")
        planned = plan(replace(FILM, audio=(AUDIO, second)))
        assert planned.audio is not None
        assert planned.audio.stream == 2
        assert [warning.code for warning in planned.warnings] == ["audio_stream_chosen"]


class TestWarnings:
    @pytest.mark.parametrize(
        ("source", "fields", "want"),
        [
            pytest.param(FILM, {}, [], id="nothing to say"),
            pytest.param(SILENT, {}, ["no_audio"], id="no sound"),
            pytest.param(SILENT, {"audioCodec": "none"}, [], id="no sound was wanted"),
            pytest.param(SONG, {}, ["no_video"], id="no picture"),
            pytest.param(film(transfer="smpte2084"), {}, ["hdr_to_sdr"], id="HDR"),
            pytest.param(film(bit_depth=10), {}, ["depth_reduced"], id="ten bits"),
            pytest.param(film(interlaced=True), {}, ["deinterlaced"], id="interlaced"),
            pytest.param(
                replace(FILM, subtitle_streams=1), {}, ["subtitles_dropped"], id="subtitles"
            ),
            pytest.param(
                FILM, {"clip": {"start": 50, "duration": 30}}, ["clip_shortened"], id="a clip"
            ),
            pytest.param(
                FILM,
                {"clip": {"start": 5, "duration": 3}, "videoCodec": "copy", "audioCodec": "copy"},
                ["clip_at_keyframe"],
                id="a clip of a copied stream",
            ),
            pytest.param(
                replace(FILM, video_streams=2), {}, ["video_stream_chosen"], id="several films"
            ),
            pytest.param(
                FILM,
                {"audioChannels": 6},
                ["channels_not_raised"],
                id="more channels than there are",
            ),
            pytest.param(
                FILM,
                {"container": "flac", "audioBitrate": "128k"},
                ["bitrate_ignored"],
                id="a bitrate of a lossless codec",
            ),
        ],
    )
    def test_warnings(self, source: Probe, fields: dict[str, Any], want: list[str]) -> None:
        assert [warning.code for warning in plan(source, **fields).warnings] == want


class TestRefusals:
    @pytest.mark.parametrize(
        ("source", "fields", "want"),
        [
            pytest.param(SILENT, {"container": "mp3"}, ("container", "no_audio"), id="no sound"),
            pytest.param(SONG, {"container": "jpg"}, ("container", "no_video"), id="no picture"),
            pytest.param(
                film(codec="vp9"), {"videoCodec": "copy", "container": "ts"},
                ("videoCodec", "codec_not_in_container"), id="a copy that does not fit",
            ),
            pytest.param(
                FILM, {"clip": {"start": 61}}, ("clip/start", "beyond_end"), id="after the end"
            ),
            pytest.param(
                FILM, {"container": "jpg", "thumbnails": {"at": [1, 61]}},
                ("thumbnails/at", "beyond_end"), id="a picture after the end",
            ),
            pytest.param(
                FILM, {"container": "jpg", "thumbnails": {"intervalSeconds": 0.01}},
                ("thumbnails/intervalSeconds", "too_many"), id="too many pictures",
            ),
        ],
    )  # fmt: skip
    def test_this_source_cannot(
        self, source: Probe, fields: dict[str, Any], want: tuple[str, str]
    ) -> None:
        assert problems_of(source, **fields) == [(f"/outputs/0/{want[0]}", want[1])]

    @pytest.mark.parametrize(
        ("fields", "want"),
        [
            pytest.param(
                {"container": "webm", "videoCodec": "libx264"},
                ("videoCodec", "codec_not_in_container"), id="h264 in webm",
            ),
            pytest.param(
                {"container": "mp4", "audioCodec": "vorbis"},
                ("audioCodec", "codec_not_in_container"), id="vorbis in mp4",
            ),
            pytest.param({"videoCodec": "h263"}, ("videoCodec", "unknown_codec"), id="unknown"),
            pytest.param(
                {"container": "mp3", "width": 100}, ("width", "not_applicable"), id="mp3's width"
            ),
            pytest.param(
                {"container": "png", "audioCodec": "aac"}, ("audioCodec", "not_applicable"),
                id="png's sound",
            ),
            pytest.param({"crf": 60}, ("crf", "out_of_range"), id="crf beyond x264's"),
            pytest.param({"preset": "warp"}, ("preset", "unknown_choice"), id="no such preset"),
            pytest.param(
                {"videoCodec": "copy", "width": 100}, ("width", "not_applicable"),
                id="a copy has its size",
            ),
            pytest.param(
                {"videoCodec": "none", "audioCodec": "none"}, ("audioCodec", "nothing_left"),
                id="nothing at all",
            ),
            pytest.param(
                {"videoBitrate": "2M", "maxBitrate": "1M"}, ("maxBitrate", "out_of_range"),
                id="a peak below the average",
            ),
            pytest.param(
                {"container": "mp3", "audioChannels": 6}, ("audioChannels", "out_of_range"),
                id="mp3 with six channels",
            ),
        ],
    )  # fmt: skip
    def test_no_source_can(self, fields: dict[str, Any], want: tuple[str, str]) -> None:
        found = problems_at_the_door(**fields)
        assert [(p.pointer, p.code) for p in found] == [(f"/outputs/1/{want[0]}", want[1])]

    @pytest.mark.parametrize(
        "fields",
        [
            pytest.param(
                {"container": "mp4", "videoCodec": "libx264", "videoBitrate": "2500k",
                 "audioCodec": "aac", "audioBitrate": "128k", "width": 1280, "height": 720},
                id="the original's example",
            ),
            pytest.param({}, id="nothing but a destination"),
            pytest.param({"container": "mp3", "videoCodec": "none"}, id="mp3 without a picture"),
            pytest.param({"container": "mkv", "videoCodec": "copy", "audioCodec": "aac"}, id="mkv"),
            pytest.param({"container": "jpg", "width": 320, "height": 320}, id="jpg"),
        ],
    )  # fmt: skip
    def test_what_can_be_is_let_in(self, fields: dict[str, Any]) -> None:
        assert problems_at_the_door(**fields) == []


class TestLength:
    @pytest.mark.parametrize(
        ("fields", "want"),
        [
            pytest.param({}, (60.0, 1500), id="all of it"),
            pytest.param({"clip": {"start": 10}}, (50.0, 1250), id="from somewhere"),
            pytest.param({"clip": {"duration": 2}}, (2.0, 50), id="the beginning"),
            pytest.param({"clip": {"start": 59, "duration": 2}}, (1.0, 25), id="the end"),
            pytest.param({"frameRate": 50}, (60.0, 3000), id="another rate"),
        ],
    )
    def test_length(self, fields: dict[str, Any], want: tuple[float, int]) -> None:
        planned = plan(**fields)
        assert planned.video is not None
        assert (planned.duration_s, planned.video.frames) == want

    @pytest.mark.parametrize(
        ("thumbnails", "want"),
        [
            pytest.param(None, (6.0,), id="a tenth in"),
            pytest.param({"count": 3}, (10.0, 30.0, 50.0), id="evenly spread"),
            pytest.param({"intervalSeconds": 25}, (0.0, 25.0, 50.0), id="every so often"),
            pytest.param({"at": [5, 1, 1]}, (1.0, 5.0), id="in order, each once"),
        ],
    )
    def test_pictures(self, thumbnails: dict[str, Any] | None, want: tuple[float, ...]) -> None:
        assert plan(container="jpg", thumbnails=thumbnails).pictures == want


def test_every_warning_is_in_the_table() -> None:
    """A source's test cannot see a code that no test provokes, so they are read off the modules."""
    modules = Path(warnings.__file__).parent.glob("*.py")
    said = {
        code
        for module in modules
        for code in re.findall(r"""\.warn\(\s*"(\w+)\"""", module.read_text())
    }
    assert said == set(warnings.WARNINGS)


@pytest.mark.parametrize(
    ("asked", "depends"),
    [
        ({"container": "mp4"}, False),
        ({"container": "hls"}, False),
        ({"container": "mp4", "clip": {"start": 1, "duration": 2}}, False),
        ({"container": "jpg"}, True),
        ({"container": "jpg", "thumbnails": {"count": 2}}, True),
        ({"container": "m4a", "loudness": -23}, True),
    ],
)
def test_of_what_the_command_depends_on_the_real_length(
    asked: dict[str, Any], depends: bool
) -> None:
    assert depends_on_length(spec(**asked)) is depends
