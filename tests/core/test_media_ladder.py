"""Which renditions an hls or dash output gets of a source, and where they are cut."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from encoder_core.media.command import build_encode_command
from encoder_core.media.planned import PackagePlan
from encoder_core.media.probe import Probe
from tests.core.test_media_plan import (
    AUDIO,
    FILM,
    SONG,
    film,
    plan,
    problems_at_the_door,
    problems_of,
)


def package(probe: Probe = FILM, **fields: Any) -> PackagePlan:
    planned = plan(probe, **{"container": "hls", **fields}).package
    assert planned is not None
    return planned


def rungs(probe: Probe = FILM, **fields: Any) -> list[tuple[str, int, int]]:
    return [
        (rendition.name, rendition.video.width, rendition.video.height)
        for rendition in package(probe, **fields).renditions
    ]


def warned(probe: Probe = FILM, **fields: Any) -> list[tuple[str, str | None]]:
    planned = plan(probe, **{"container": "hls", **fields})
    return [(warning.code, warning.pointer) for warning in planned.warnings]


def heights(*values: int) -> list[dict[str, int]]:
    return [{"height": value} for value in values]


class TestRenditions:
    def test_without_any_the_output_itself_is_one(self) -> None:
        assert rungs(height=720) == [("720p", 1280, 720)]

    def test_they_come_in_the_order_of_the_request(self) -> None:
        assert rungs(renditions=heights(360, 1080, 720)) == [
            ("360p", 640, 360), ("1080p", 1920, 1080), ("720p", 1280, 720),
        ]  # fmt: skip

    def test_those_larger_than_the_source_are_dropped_with_a_warning(self) -> None:
        asked: dict[str, Any] = {"renditions": heights(2160, 1080, 720)}
        assert [name for name, *_ in rungs(**asked)] == ["1080p", "720p"]
        assert warned(**asked) == [("rendition_dropped", "/outputs/0/renditions/0")]

    def test_when_all_are_larger_the_smallest_is_made_at_the_size_of_the_source(self) -> None:
        small = film(width=640, height=360)
        asked: dict[str, Any] = {"renditions": heights(1080, 720)}
        assert rungs(small, **asked) == [("360p", 640, 360)]
        assert [code for code, _ in warned(small, **asked)] == ["not_upscaled"]

    def test_they_are_made_larger_when_asked(self) -> None:
        asked: dict[str, Any] = {"upscale": True, "renditions": heights(2160)}
        assert rungs(**asked) == [("2160p", 3840, 2160)]

    def test_a_portrait_is_called_by_its_shorter_side(self) -> None:
        portrait = film(width=1080, height=1920)
        assert rungs(portrait, renditions=[{"width": 720}]) == [("720p", 720, 1280)]

    def test_the_same_size_at_two_rates_is_two_renditions(self) -> None:
        renditions = [{"height": 720, "videoBitrate": rate} for rate in ("3M", "1500k")]
        assert [name for name, *_ in rungs(renditions=renditions)] == ["720p", "720p-2"]

    def test_what_turns_out_to_be_the_same_is_made_once(self) -> None:
        asked: dict[str, Any] = {"renditions": [{"height": 1080}, {"width": 1920}]}
        assert [name for name, *_ in rungs(**asked)] == ["1080p"]
        assert warned(**asked) == [("rendition_dropped", "/outputs/0/renditions/1")]

    def test_what_a_rendition_leaves_out_it_takes_from_the_output(self) -> None:
        [first, second] = package(
            preset="fast", crf=20, videoCodec="hevc",
            renditions=[{"height": 720, "videoBitrate": "2M"}, {"height": 360, "preset": "slow"}],
        ).renditions  # fmt: skip
        assert (first.video.preset, first.video.crf, first.video.bitrate) == (
            "fast", None, 2_000_000,
        )  # fmt: skip
        assert (second.video.preset, second.video.crf, second.video.bitrate) == ("slow", 20, None)
        assert {first.video.family, second.video.family} == {"hevc"}

    def test_a_height_of_its_own_does_not_meet_the_width_of_the_output(self) -> None:
        assert rungs(width=100, renditions=heights(720)) == [("720p", 1280, 720)]

    def test_of_a_song_there_are_none(self) -> None:
        assert rungs(SONG) == []
        assert warned(SONG) == [("no_video", None)]


class TestCuts:
    @pytest.mark.parametrize(
        ("fields", "want"),
        [
            pytest.param({}, Fraction(6), id="three times two seconds by default"),
            pytest.param({"gopSeconds": 4}, Fraction(8), id="whole keyframe distances"),
            pytest.param({"gopSeconds": 10}, Fraction(10), id="never less than one"),
            pytest.param({"packaging": {"segmentSeconds": 4}}, Fraction(4), id="as asked"),
        ],
    )
    def test_a_segment_lasts(self, fields: dict[str, Any], want: Fraction) -> None:
        assert package(**fields).segment_s == want

    def test_seconds_of_the_request_are_whole_frames_of_the_source(self) -> None:
        ntsc = film(average_fps=Fraction(30000, 1001), nominal_fps=Fraction(30000, 1001))
        assert package(ntsc).segment_s == Fraction(6006, 1000)

    def test_the_rate_is_made_constant(self) -> None:
        # A frame that the source lacks would move every keyframe behind it.
        almost = film(average_fps=Fraction(2490, 100), nominal_fps=Fraction(25))
        [rendition] = package(almost).renditions
        assert rendition.video.frame_rate == 25

    def test_rates_whose_keyframes_fall_together_may_be_mixed(self) -> None:
        renditions = [{"height": 1080}, {"height": 360, "frameRate": 12.5}]
        assert package(renditions=renditions).segment_s == 6

    def test_rates_whose_keyframes_fall_apart_may_not(self) -> None:
        ntsc = film(average_fps=Fraction(30000, 1001), nominal_fps=Fraction(30000, 1001))
        renditions = [{"height": 1080}, {"height": 360, "frameRate": 24}]
        assert problems_of(ntsc, container="hls", renditions=renditions) == [
            ("/outputs/0/renditions", "keyframes_apart")
        ]


class TestManifests:
    @pytest.mark.parametrize(
        ("container", "manifests", "want"),
        [
            ("hls", None, ("hls",)),
            ("dash", None, ("dash",)),
            ("dash", ["hls", "dash"], ("dash", "hls")),
        ],
    )
    def test_the_containers_own_comes_first(
        self, container: str, manifests: list[str] | None, want: tuple[str, ...]
    ) -> None:
        fields: dict[str, Any] = {"packaging": {"manifests": manifests}} if manifests else {}
        assert package(container=container, **fields).manifests == want


TONGUES = replace(
    FILM,
    audio=(
        replace(AUDIO, index=1, language="ger"),
        replace(AUDIO, index=2, language="eng", codec="ac3", channels=6),
    ),
)


class TestSounds:
    def test_those_that_were_chosen_are_a_choice_of_the_package(self) -> None:
        planned = plan(TONGUES, container="hls", audioTracks=["en", "de"])
        assert [sound.stream for sound in planned.sounds] == [2, 1]
        assert planned.package is not None
        assert [named.name for named in planned.package.sounds] == ["audio-en", "audio-de"]

    def test_each_is_a_stream_of_the_one_muxer(self) -> None:
        planned = plan(TONGUES, container="hls", audioTracks=["all"], audioBitrate="96k")
        text = " ".join(build_encode_command([planned], source="/s", folder="/o", threads=2))
        assert "-map [o0r0] -map 0:1 -map 0:2" in text
        assert "-c:a:0 aac -b:a:0 96000" in text
        assert "-c:a:1 aac -b:a:1 96000" in text
        assert text.count("file:/o/") == 1

    def test_copies_of_different_codecs_are_refused(self) -> None:
        # hls.js stops at such a group (video-dev/hls.js#5378).
        fields: dict[str, Any] = {"container": "hls", "audioCodec": "copy"}
        assert problems_of(TONGUES, **fields, audioTracks=["all"]) == [
            ("/outputs/0/audioCodec", "codecs_differ")
        ]
        assert len(plan(TONGUES, **fields, audioTracks=["de"]).sounds) == 1
        assert len(plan(TONGUES, container="mkv", audioTracks=["all"]).sounds) == 2

    def test_a_copy_that_begins_late_is_refused(self) -> None:
        late = replace(FILM, audio=(replace(AUDIO, late_s=0.5),))
        fields: dict[str, Any] = {"container": "hls", "audioCodec": "copy"}
        assert problems_of(late, **fields) == [("/outputs/0/audioCodec", "begins_late")]
        assert plan(late, container="mkv", audioCodec="copy").sounds[0].encoder is None

    def test_what_begins_late_is_filled_up_from_the_beginning(self) -> None:
        late = replace(film(late_s=2.0), audio=(replace(AUDIO, late_s=1.0),))
        planned = plan(late, container="hls")
        assert planned.video is not None
        assert (planned.video.duration_s, planned.video.frames) == (62.0, 1550)
        assert planned.audio is not None
        assert planned.audio.duration_s == 61.0
        text = " ".join(build_encode_command([planned], source="/s", folder="/o", threads=2))
        assert "fps=25:start_time=0" in text
        assert "-filter:a:0 aresample=async=1:first_pts=0" in text
        file = " ".join(
            build_encode_command([plan(late, crf=20)], source="/s", folder="/o", threads=2)
        )
        assert "start_time" not in file
        assert "first_pts" not in file


HLS = {"container": "hls"}


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        pytest.param(
            {"renditions": [{"height": 720}, {"height": 720}]},
            ("/outputs/1/renditions/1", "duplicate"),
            id="the same rendition twice",
        ),
        pytest.param(
            {"renditions": [{"height": 720, "videoCodec": "vp9"}]},
            ("/outputs/1/renditions/0/videoCodec", "codec_not_in_container"),
            id="a codec that HLS has no word for, in a rendition",
        ),
        pytest.param(
            {"videoCodec": "vp9", "renditions": heights(720, 360)},
            ("/outputs/1/videoCodec", "codec_not_in_container"),
            id="the same taken from the output is told once, there",
        ),
        pytest.param(
            {"container": "dash", "videoCodec": "vp9", "packaging": {"manifests": ["dash", "hls"]}},
            ("/outputs/1/videoCodec", "codec_not_in_container"),
            id="a codec that one of the two manifests cannot describe",
        ),
        pytest.param(
            {"videoCodec": "copy"},
            ("/outputs/1/videoCodec", "not_applicable"),
            id="a copied stream has keyframes of its own",
        ),
        pytest.param(
            {"videoCodec": "none", "renditions": heights(720)},
            ("/outputs/1/videoCodec", "nothing_left"),
            id="renditions without a picture",
        ),
        pytest.param(
            {"videoCodec": "none", "audioCodec": "none"},
            ("/outputs/1/audioCodec", "nothing_left"),
            id="neither picture nor sound",
        ),
        pytest.param(
            {"renditions": [{"height": 720, "gopSeconds": 1}, {"height": 360}]},
            ("/outputs/1/renditions", "keyframes_apart"),
            id="keyframes at different distances",
        ),
        pytest.param(
            {"gopSeconds": 2, "packaging": {"segmentSeconds": 5}},
            ("/outputs/1/packaging/segmentSeconds", "not_a_multiple"),
            id="a segment that ends between keyframes",
        ),
        pytest.param(
            {"packaging": {"manifests": ["dash"]}},
            ("/outputs/1/packaging/manifests", "missing"),
            id="without the container's own manifest",
        ),
        pytest.param(
            {"packaging": {"manifests": ["hls", "hls"]}},
            ("/outputs/1/packaging/manifests", "duplicate"),
            id="a manifest twice",
        ),
        pytest.param(
            {"audioCodec": "flac"},
            ("/outputs/1/audioCodec", "codec_not_in_container"),
            id="a codec of sound that players of segments lack",
        ),
        pytest.param(
            {"audioTracks": ["all"], "audioCodec": "none"},
            ("/outputs/1/audioTracks", "not_applicable"),
            id="sounds to choose from, and no sound",
        ),
        pytest.param(
            {"audioTracks": ["de"], "language": "de"},
            ("/outputs/1/language", "not_applicable"),
            id="the sound chosen in two ways",
        ),
        pytest.param(
            {"container": "jpg", "width": 2000, "thumbnails": {"count": 9, "sprite": {}}},
            ("/outputs/1/width", "out_of_range"),
            id="a sheet too large to be shown",
        ),
    ],
)
def test_what_no_source_makes_possible_is_refused_at_the_request(
    fields: dict[str, Any], want: tuple[str, str]
) -> None:
    problems = problems_at_the_door(**{**HLS, **fields})
    assert [(problem.pointer, problem.code) for problem in problems] == [want]


class TestSprites:
    def test_a_sheet_is_no_larger_than_its_pictures_need(self) -> None:
        planned = plan(container="jpg", thumbnails={"count": 7, "sprite": {"columns": 4}})
        assert planned.sprite is not None
        assert (planned.sprite.columns, planned.sprite.rows, planned.sprite.sheets) == (4, 2, 1)
        assert planned.sprite.tile == (160, 90)

    def test_more_pictures_begin_another_sheet(self) -> None:
        planned = plan(
            container="png", width=320,
            thumbnails={"count": 7, "sprite": {"columns": 2, "rows": 2}},
        )  # fmt: skip
        assert planned.sprite is not None
        assert (planned.sprite.sheets, planned.sprite.tile) == (2, (320, 180))


class TestPosters:
    def test_it_is_chosen_from_some_frames(self) -> None:
        choice = plan(container="jpg").choice
        assert choice is not None
        assert (choice.frames, choice.every) == (21, 3)

    def test_large_ones_are_chosen_from_fewer_for_the_sake_of_memory(self) -> None:
        choice = plan(film(width=7680, height=4320), container="jpg").choice
        assert choice is None

    def test_one_whose_instant_was_asked_for_is_not_chosen(self) -> None:
        assert plan(container="jpg", thumbnails={"at": [3]}).choice is None
