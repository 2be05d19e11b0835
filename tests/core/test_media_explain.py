"""The plan as a document: what a job becomes and what it costs, before anything runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from encoder_core.errors import InvalidRequest
from encoder_core.media.explain import PlanDocument, explain_plan
from encoder_core.media.probe import Probe
from encoder_core.specs import JobRequest
from tests.core.test_media_plan import FILE, FILM, SILENT, film

HTTP = {"kind": "http", "url": "http://a.example/in.mp4"}
SIZED = replace(FILM, size_bytes=40_000_000)


def explain(
    *outputs: dict[str, Any], probe: Probe | None = SIZED, source: dict[str, Any] = HTTP
) -> PlanDocument:
    spec = JobRequest.model_validate(
        {"source": source, "outputs": [{"destination": FILE, **output} for output in outputs]}
    )
    return explain_plan(spec, probe)


def test_it_says_what_each_output_will_be() -> None:
    document = explain({"container": "mp4", "height": 720, "videoBitrate": "2M"}).to_json()
    [output] = document["outputs"]
    assert output["video"] == {
        "codec": "h264", "encoder": "libx264", "width": 1280, "height": 720, "frameRate": 25.0,
        "frames": 1500, "bitrate": 2_000_000, "maxBitrate": 3_000_000, "preset": "medium",
        "keyframeSeconds": 2.0,
    }  # fmt: skip
    assert output["audio"]["channels"] == 2
    assert output["durationS"] == 60.0
    # 2 Mbit/s of picture and 128 kbit/s of sound for a minute.
    assert output["sizeBytes"] == (2_000_000 + 128_000) * 60 // 8
    assert "assumedSource" not in document


def test_all_outputs_come_out_of_one_command() -> None:
    document = explain({"container": "mp4"}, {"container": "mp3"}, {"container": "webm"})
    [command] = document.commands
    assert command[0] == "ffmpeg"
    assert command.count("-i") == 1
    assert [argument for argument in command if argument.startswith("file:")] == [
        "file:source", "file:out/0.mp4", "file:out/1.mp3", "file:out/2.webm",
    ]  # fmt: skip


def test_without_a_probe_it_says_what_it_assumed() -> None:
    document = explain({"container": "mp4", "height": 2160}, probe=None)
    assert document.assumed_source is not None
    assert (document.assumed_source.width, document.assumed_source.height) == (3840, 2160)
    [output] = document.outputs
    assert output.video is not None
    assert (output.video.width, output.video.height) == (3840, 2160)
    # What depends on the source's length cannot be known.
    assert (output.duration_s, output.size_bytes, document.resources.scratch_bytes) == (
        None, None, None,
    )  # fmt: skip


@pytest.mark.parametrize("thumbnails", [{"count": 5}, {"intervalSeconds": 10}, {"at": [1, 2]}])
def test_pictures_of_an_unknown_source_are_no_problem(thumbnails: dict[str, Any]) -> None:
    document = explain({"container": "jpg", "thumbnails": thumbnails}, probe=None)
    assert document.outputs[0].problems == []


def test_what_no_source_could_make_possible_is_refused_as_when_submitting() -> None:
    with pytest.raises(InvalidRequest) as caught:
        explain({"container": "webm", "videoCodec": "h264"}, probe=None)
    assert [problem.pointer for problem in caught.value.problems] == ["/outputs/0/videoCodec"]


def test_what_only_this_source_makes_impossible_concerns_one_output() -> None:
    document = explain({"container": "mp4"}, {"container": "mp3"}, probe=SILENT)
    assert document.outputs[0].problems == []
    [problem] = document.outputs[1].problems
    assert (problem.pointer, problem.code) == ("/outputs/1/container", "no_audio")
    assert len(document.commands) == 1


def test_warnings_are_told_before_the_job_runs() -> None:
    document = explain({"container": "mp4", "width": 4000})
    assert [warning.code for warning in document.outputs[0].warnings] == ["not_upscaled"]


def test_pictures_say_which_instants() -> None:
    document = explain({"container": "jpg", "thumbnails": {"count": 3}})
    assert document.outputs[0].pictures_at == [10.0, 30.0, 50.0]


def test_a_ladder_is_told_as_it_will_be() -> None:
    renditions = [{"height": height} for height in (2160, 1080, 360)]
    [output] = explain({"container": "hls", "renditions": renditions}).outputs
    assert output.renditions is not None
    assert [(one.name, one.width, one.height) for one in output.renditions] == [
        ("1080p", 1920, 1080), ("360p", 640, 360),
    ]  # fmt: skip
    assert output.packaging is not None
    assert (output.packaging.manifests, output.packaging.segment_seconds) == (["hls"], 6.0)
    assert [warning.code for warning in output.warnings] == ["rendition_dropped"]


def test_sounds_are_told_with_their_names_and_languages() -> None:
    [sound] = FILM.audio
    tongues = replace(
        SIZED, audio=(replace(sound, language="ger"), replace(sound, index=2, language="eng"))
    )
    [both, one] = explain(
        {"container": "hls", "audioTracks": ["en", "all"]}, {"language": "de"}, probe=tongues
    ).outputs
    assert both.audio is not None
    told = [(sound.name, sound.language) for sound in (both.audio, *both.other_audio)]
    assert told == [("audio-en", "en"), ("audio-de", "de")]
    assert one.audio is not None
    assert (one.audio.name, one.audio.language) == (None, "de")


class TestResources:
    def test_scratch_holds_the_source_and_what_is_made_of_it(self) -> None:
        resources = explain({"container": "mp4", "videoBitrate": "2M"}).resources
        assert resources.scratch_bytes is not None
        assert resources.scratch_bytes > 40_000_000 + 15_000_000

    def test_every_sound_takes_its_room(self) -> None:
        [sound] = FILM.audio
        tongues = replace(SIZED, audio=(sound, replace(sound, index=2)))
        sizes = [
            explain({"container": "hls", **fields}, probe=tongues).outputs[0].size_bytes
            for fields in ({}, {"audioTracks": ["all"]})
        ]
        assert sizes[0] is not None
        assert sizes[1] == sizes[0] + 128_000 * 60 // 8

    def test_copies_are_never_larger_than_their_source(self) -> None:
        sounds = tuple(replace(FILM.audio[0], index=number) for number in range(1, 6))
        [output] = explain(
            {"container": "mkv", "videoCodec": "copy", "audioCodec": "copy",
             "audioTracks": ["all"]},
            probe=replace(SIZED, audio=sounds),
        ).outputs  # fmt: skip
        assert output.size_bytes == SIZED.size_bytes

    def test_a_file_is_read_where_it_is(self) -> None:
        output = {"container": "mp4", "videoBitrate": "2M"}
        fetched = explain(output).resources.scratch_bytes
        in_place = explain(output, source={"kind": "file", "path": "in"}).resources.scratch_bytes
        assert fetched is not None
        assert in_place == fetched - 40_000_000

    @pytest.mark.parametrize(
        ("less", "more"),
        [
            pytest.param({"height": 360}, {"height": 720}, id="a larger picture"),
            pytest.param({"preset": "fast"}, {"preset": "slow"}, id="a slower preset"),
            pytest.param({}, {"videoCodec": "hevc"}, id="a costlier codec"),
            pytest.param({"videoCodec": "copy"}, {}, id="encoding against copying"),
        ],
    )
    def test_time_grows_with(self, less: dict[str, Any], more: dict[str, Any]) -> None:
        cheap, dear = (explain({"container": "mp4", **f}).resources for f in (less, more))
        assert cheap.cpu_seconds_per_second < dear.cpu_seconds_per_second

    def test_memory_grows_with_outputs_and_with_the_source(self) -> None:
        one = explain({"container": "mp4"}).resources.memory_bytes
        two = explain({"container": "mp4"}, {"container": "mkv"}).resources.memory_bytes
        large = explain({"container": "mp4", "height": 720}, probe=film(width=3840, height=2160))
        small = explain({"container": "mp4", "height": 720})
        assert one < two
        assert small.resources.memory_bytes < large.resources.memory_bytes

    def test_memory_is_about_what_was_measured(self) -> None:
        # x264 veryfast with two threads: 264 MB at 1080p, 488 MB for four renditions together.
        renditions = [
            {"container": "mp4", "height": height, "preset": "veryfast"}
            for height in (1080, 720, 480, 360)
        ]
        one = explain(renditions[0]).resources.memory_bytes
        four = explain(*renditions).resources.memory_bytes
        assert 264e6 < one < 2.5 * 264e6
        assert 488e6 < four < 2.5 * 488e6
