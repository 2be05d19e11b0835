"""The options beyond the original's: what they plan, what they refuse, what reaches ffmpeg."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from encoder_core.errors import InvalidRequest
from encoder_core.media.command import build_encode_command, build_loudness_command
from encoder_core.media.cues import compare_cues, read_cues
from encoder_core.media.explain import explain_plan
from encoder_core.media.languages import is_same_language
from encoder_core.media.loudness import Loudness, Meter, list_meters, read_loudness, turn
from encoder_core.media.plan import plan_output
from encoder_core.media.planned import SubtitlePlan
from encoder_core.media.probe import Probe, SubtitleStream
from encoder_core.media.verify import truncated
from encoder_core.specs import JobRequest
from tests.core.test_media_plan import (
    AUDIO,
    FILE,
    FILM,
    VIDEO,
    plan,
    problems_at_the_door,
    spec,
)

CLEAN = replace(
    FILM,
    video=replace(VIDEO, pixel_format="yuv420p", bit_rate=4_000_000),
    audio=(replace(AUDIO, bit_rate=128_000),),
)
TONGUES = replace(
    FILM,
    audio=(
        replace(AUDIO, index=1, language="ger"),
        replace(AUDIO, index=2, language="eng", default=True),
        replace(AUDIO, index=3, language="fre"),
        replace(AUDIO, index=4),
    ),
)


def clean(*, audio: dict[str, Any] | None = None, **video: Any) -> Probe:
    assert CLEAN.video is not None
    [sound] = CLEAN.audio
    return replace(
        CLEAN, video=replace(CLEAN.video, **video), audio=(replace(sound, **(audio or {})),)
    )


def command(probe: Probe = FILM, **fields: Any) -> list[str]:
    plans = [plan_output(0, spec(**fields), probe)]
    return build_encode_command(plans, source="/s/source", folder="/s/out", threads=2)


def warnings(probe: Probe = FILM, **fields: Any) -> list[str]:
    return [warning.code for warning in plan(probe, **fields).warnings]


def refused(**fields: Any) -> list[tuple[str, str]]:
    """Pointers and codes, the output's own number left out."""
    problems = problems_at_the_door(**fields)
    return [(problem.pointer.removeprefix("/outputs/1"), problem.code) for problem in problems]


class TestCopying:
    @pytest.mark.parametrize(
        ("fields", "probe", "copied"),
        [
            pytest.param({}, CLEAN, True, id="nothing is to change"),
            pytest.param({"videoCodec": "libx264"}, CLEAN, True, id="the codec that it has"),
            pytest.param({"height": 1080}, CLEAN, True, id="the size that it has"),
            pytest.param({"width": 4000}, CLEAN, True, id="a size that it never gets"),
            pytest.param({"frameRate": 25}, CLEAN, True, id="the rate that it has"),
            pytest.param({"container": "mkv"}, CLEAN, True, id="another container"),
            pytest.param({"videoCodec": "hevc"}, CLEAN, False, id="another codec"),
            pytest.param({"height": 720}, CLEAN, False, id="another size"),
            pytest.param({"frameRate": 24}, CLEAN, False, id="another rate"),
            pytest.param({"crf": 23}, CLEAN, False, id="a quality"),
            pytest.param({"videoBitrate": "4M"}, CLEAN, False, id="a bit rate"),
            pytest.param({"preset": "fast"}, CLEAN, False, id="a way to encode"),
            pytest.param({"gopSeconds": 1}, CLEAN, False, id="other keyframes"),
            pytest.param({"clip": {"start": 1}}, CLEAN, False, id="a part of it"),
            pytest.param({"rotate": 90}, CLEAN, False, id="turned"),
            pytest.param({}, clean(rotation=90), False, id="turned by a flag"),
            pytest.param({}, clean(interlaced=True), False, id="interlaced"),
            pytest.param({}, clean(pixel_format="yuv444p"), False, id="colours players refuse"),
            pytest.param({}, clean(pixel_format=None), False, id="colours that nobody knows"),
            pytest.param({}, clean(bit_rate=50_000_000), False, id="a camera's bit rate"),
            pytest.param({}, replace(CLEAN, clock_jumps=1), False, id="a clock that jumps"),
            pytest.param({}, FILM, False, id="a bit rate that nobody knows"),
            pytest.param(
                {}, replace(clean(bit_rate=None), size_bytes=30_000_000), True,
                id="a file that is small enough as a whole",
            ),
        ],
    )  # fmt: skip
    def test_the_picture(self, fields: dict[str, Any], probe: Probe, copied: bool) -> None:
        made = plan(probe, **fields)
        assert made.video is not None
        assert (made.video.encoder is None) == copied
        assert ("video_copied" in [warning.code for warning in made.warnings]) == copied

    @pytest.mark.parametrize(
        ("fields", "probe", "copied"),
        [
            pytest.param({"height": 720}, CLEAN, True, id="whatever the picture becomes"),
            pytest.param({"container": "m4a"}, CLEAN, True, id="sound alone"),
            pytest.param({"audioChannels": 2}, CLEAN, True, id="the channels that it has"),
            pytest.param({"audioBitrate": "128k"}, CLEAN, False, id="a bit rate"),
            pytest.param({"audioSampleRate": 44_100}, CLEAN, False, id="another rate"),
            pytest.param({"container": "mp3"}, CLEAN, False, id="another codec"),
            pytest.param({"clip": {"duration": 1}}, CLEAN, False, id="a part of it"),
            pytest.param({}, clean(audio={"channels": 6}), False, id="a mix of it"),
            pytest.param({}, clean(audio={"bit_rate": 512_000}), False, id="a master"),
            pytest.param(
                {"container": "flac"}, clean(audio={"codec": "flac"}), True, id="lossless"
            ),
        ],
    )
    def test_the_sound(self, fields: dict[str, Any], probe: Probe, copied: bool) -> None:
        made = plan(probe, **fields)
        assert made.audio is not None
        assert (made.audio.encoder is None) == copied
        assert ("audio_copied" in [warning.code for warning in made.warnings]) == copied


class TestTracks:
    @pytest.mark.parametrize(
        ("fields", "streams", "said"),
        [
            pytest.param({}, [2], ["audio_stream_chosen"], id="the default one"),
            pytest.param({"language": "de"}, [1], [], id="by language, however it is written"),
            pytest.param(
                {"language": "it"}, [2], ["track_not_found", "audio_stream_chosen"],
                id="a language that is missing",
            ),
            pytest.param({"audioTracks": ["all"]}, [1, 2, 3, 4], [], id="all"),
            pytest.param({"audioTracks": ["fr", "de"]}, [3, 1], [], id="languages in their order"),
            pytest.param({"audioTracks": ["4", "all"]}, [4, 1, 2, 3], [], id="a number first"),
            pytest.param(
                {"audioTracks": ["9", "eng"]}, [2], ["track_not_found"], id="one that is missing"
            ),
            pytest.param(
                {"audioTracks": ["9"]}, [2], ["track_not_found"], id="nothing of it is there"
            ),
        ],
    )  # fmt: skip
    def test_chosen(self, fields: dict[str, Any], streams: list[int], said: list[str]) -> None:
        made = plan(TONGUES, **fields)
        assert [sound.stream for sound in made.sounds] == streams
        assert [warning.code for warning in made.warnings] == said

    def test_the_first_is_what_players_take(self) -> None:
        text = " ".join(command(TONGUES, audioTracks=["fr", "de"]))
        assert "-map 0:3 -map 0:1" in text
        assert "-c:a:0 aac" in text
        assert "-c:a:1 aac" in text
        assert "-disposition:a:0 default -disposition:a:1 0" in text

    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            ("de", "ger", True), ("deu", "ger", True), ("pt", "pt-BR", True), ("EN", "eng", True),
            ("pt-PT", "pt-BR", False), ("de", "nl", False), ("de", "???", False), ("de", "", False),
        ],
    )  # fmt: skip
    def test_languages(self, one: str, other: str, same: bool) -> None:
        assert is_same_language(one, other) == same


WORDS = replace(
    FILM,
    subtitle_streams=3,
    subtitles=(
        SubtitleStream(index=2, codec="subrip", language="ger"),
        SubtitleStream(index=3, codec="ass", language="eng"),
        SubtitleStream(index=4, codec="hdmv_pgs_subtitle", language="fre"),
    ),
)


class TestSubtitles:
    @pytest.mark.parametrize(
        ("container", "want", "said"),
        [
            pytest.param(
                "mp4", [(2, "mov_text"), (3, "mov_text")], ["subtitles_dropped"],
                id="mp4: text is converted, pictures are dropped",
            ),
            pytest.param(
                "webm", [(2, "webvtt"), (3, "webvtt")], ["subtitles_dropped"], id="webm: WebVTT"
            ),
            pytest.param("mkv", [(2, "copy"), (3, "copy"), (4, "copy")], [], id="mkv: as they are"),
        ],
    )  # fmt: skip
    def test_all(self, container: str, want: list[tuple[int, str]], said: list[str]) -> None:
        made = plan(WORDS, container=container, subtitles=["all"])
        assert [(words.stream, words.encoder) for words in made.subtitles] == want
        assert [warning.code for warning in made.warnings] == said

    @pytest.mark.parametrize("container", ["hls", "dash"])
    def test_a_package_has_a_file_of_each(self, container: str) -> None:
        made = plan(WORDS, container=container, subtitles=["all"])
        assert [words.encoder for words in made.subtitles] == ["webvtt", "webvtt"]
        assert [warning.code for warning in made.warnings] == ["subtitles_dropped"]
        assert made.package is not None
        names = [named.name for named in made.package.subtitles]
        assert names == ["subtitles-de", "subtitles-en"]
        text = " ".join(command(WORDS, container=container, subtitles=["all"]))
        assert "-map 0:2 -c:s webvtt -f webvtt file:/s/out/0/text-0.vtt" in text
        assert text.endswith("-map 0:3 -c:s webvtt -f webvtt file:/s/out/0/text-1.vtt")

    def test_a_choice_that_shows_nothing_is_left_out(self) -> None:
        [german, english, _] = WORDS.subtitles
        source = replace(WORDS, subtitles=(replace(german, packets=0), english))
        made = plan(source, container="hls", subtitles=["all"])
        assert [words.stream for words in made.subtitles] == [3]
        assert [(w.code, w.pointer) for w in made.warnings] == [
            ("subtitles_dropped", "/outputs/0/subtitles")
        ]
        assert len(plan(source, container="mkv", subtitles=["all"]).subtitles) == 2

    def test_a_part_of_them_is_refused(self) -> None:
        fields: dict[str, Any] = {"container": "hls", "subtitles": ["all"], "clip": {"start": 1}}
        assert refused(**fields) == [("/subtitles", "not_applicable")]

    def test_by_language_and_number(self) -> None:
        text = " ".join(command(WORDS, subtitles=["en", "1"]))
        assert "-map 0:3 -c:s:0 mov_text -map 0:2 -c:s:1 mov_text" in text
        assert "-metadata:s:s:0 language=eng -metadata:s:s:1 language=ger" in text

    def test_what_is_missing_is_told(self) -> None:
        made = plan(WORDS, subtitles=["it"])
        assert made.subtitles == ()
        assert [(w.code, w.pointer) for w in made.warnings] == [
            ("track_not_found", "/outputs/0/subtitles/0")
        ]

    def test_none_unless_asked_for(self) -> None:
        assert plan(WORDS).subtitles == ()
        assert warnings(WORDS) == ["subtitles_dropped"]


class TestSubtitlesAsAFile:
    def test_the_first_text_by_default(self) -> None:
        made = plan(WORDS, container="vtt")
        assert (made.video, made.sounds, made.warnings) == (None, (), ())
        assert made.subtitles == (
            SubtitlePlan(stream=2, encoder="webvtt", family="webvtt", language="ger"),
        )

    def test_its_command(self) -> None:
        arguments = command(WORDS, container="vtt", subtitles=["en"])
        assert "-filter_complex" not in arguments
        assert " ".join(arguments).endswith(
            "-map 0:3 -c:s:0 webvtt -max_muxing_queue_size 4096 -f webvtt file:/s/out/0.vtt"
        )

    def test_webvtt_stays_as_it_is(self) -> None:
        source = replace(WORDS, subtitles=(SubtitleStream(index=2, codec="webvtt"),))
        assert [words.encoder for words in plan(source, container="vtt").subtitles] == ["copy"]

    @pytest.mark.parametrize(
        ("probe", "fields", "pointer"),
        [
            pytest.param(WORDS, {"subtitles": ["fr"]}, "/outputs/0/subtitles/0", id="pictures"),
            pytest.param(WORDS, {"subtitles": ["it"]}, "/outputs/0/subtitles/0", id="not there"),
            pytest.param(FILM, {}, "/outputs/0/container", id="no subtitles at all"),
        ],
    )
    def test_without_text_nothing_is_left(
        self, probe: Probe, fields: dict[str, Any], pointer: str
    ) -> None:
        with pytest.raises(InvalidRequest) as refusal:
            plan(probe, container="vtt", **fields)
        assert [(problem.pointer, problem.code) for problem in refusal.value.problems] == [
            (pointer, "no_subtitles")
        ]

    def test_a_source_that_nobody_saw_may_have_it(self) -> None:
        request = JobRequest.model_validate({
            "source": {"kind": "http", "url": "http://example.com/a"},
            "outputs": [{
                "container": "vtt", "subtitles": ["de"],
                "destination": {"kind": "s3", "bucket": "films", "path": "7/film.vtt"},
            }],
        })  # fmt: skip
        [output] = explain_plan(request, None).outputs
        assert [words.codec for words in output.subtitles] == ["webvtt"]


class TestCues:
    @pytest.mark.parametrize(
        ("text", "want"),
        [
            pytest.param("WEBVTT\n\n00:01.000 --> 00:02.000 line:0\nHi\n", [], id="a cue"),
            pytest.param(
                "WEBVTT - film\n\n00:01.000 --> 99:00:00.000\nEnd\n", [], id="words that stay"
            ),
            pytest.param("WEBVTT\n\n", ["output_truncated"], id="no cue"),
            pytest.param("", ["output_invalid"], id="an empty file"),
            pytest.param("WEBVTT\n\n00:02.000 --> 00:01.000\n", ["output_invalid"], id="backwards"),
            pytest.param(
                "WEBVTT\n\n99:00:00.000 --> 99:00:01.000\n", ["output_invalid"], id="too late"
            ),
        ],
    )
    def test_compare(self, text: str, want: list[str]) -> None:
        planned = plan(WORDS, container="vtt")
        found = compare_cues(planned, planned.subtitles[0], read_cues(text.splitlines()))
        assert [finding.code for finding in found] == want

    def test_those_that_are_missing_are_found(self) -> None:
        [german, *others] = WORDS.subtitles
        source = replace(WORDS, subtitles=(replace(german, packets=10), *others))
        planned = plan(source, container="vtt")
        some = ["WEBVTT", *(f"00:0{second}.000 --> 00:0{second}.500" for second in range(6))]
        [found] = compare_cues(planned, planned.subtitles[0], read_cues(some))
        assert found == truncated("There are 6 of 10 cues.")


class TestRotation:
    @pytest.mark.parametrize(
        ("probe", "degrees", "size", "filters"),
        [
            pytest.param(FILM, 90, (1080, 1920), "transpose=clock,setsar", id="a quarter"),
            pytest.param(FILM, 180, (1920, 1080), "hflip,vflip,setsar", id="upside down"),
            pytest.param(FILM, 270, (1080, 1920), "transpose=cclock,setsar", id="the other way"),
            pytest.param(
                clean(rotation=90), 90, (1920, 1080), "transpose=clock,setsar",
                id="on top of what the source says",
            ),
        ],
    )  # fmt: skip
    def test_turned(self, probe: Probe, degrees: int, size: tuple[int, int], filters: str) -> None:
        made = plan(probe, rotate=degrees)
        assert made.video is not None
        assert (made.video.width, made.video.height) == size
        assert filters in " ".join(command(probe, rotate=degrees))

    def test_it_is_turned_before_it_is_scaled(self) -> None:
        assert "transpose=clock,scale=360:640" in " ".join(command(rotate=90, height=640))


@pytest.mark.parametrize(
    ("said", "presumed"),
    [
        pytest.param({"matrix": None, "primaries": None, "transfer": None}, True,
                     id="HD, untagged"),
        pytest.param({"matrix": "unknown", "primaries": None, "transfer": None}, True,
                     id="HD, tagged as unknown"),
        pytest.param({"matrix": None, "primaries": None, "transfer": None, "height": 576}, False,
                     id="television, untagged"),
        pytest.param({"matrix": "smpte170m"}, False, id="HD of another matrix"),
        pytest.param({"matrix": None, "primaries": None, "transfer": None, "pixel_format": "gbrp"},
                     False, id="red, green and blue"),
    ],
)  # fmt: skip
def test_what_colours_are_presumed(said: dict[str, Any], presumed: bool) -> None:
    words = " ".join(command(clean(**said), crf=20))
    assert words.count("[0:0]setparams=colorspace=bt709:color_primaries=bt709") == presumed
    assert ("-colorspace bt709" in words) == (presumed or "gbrp" in said.values())


@pytest.mark.parametrize(
    ("probe", "fields", "frames", "step"),
    [
        pytest.param(replace(FILM, formats=("png_pipe",), duration_s=None, audio=(),
                             video=replace(VIDEO, duration_s=None, frames=None)),
                     {"container": "gif"}, 1, "fps=12:eof_action=pass", id="a still picture"),
        pytest.param(FILM, {"container": "gif", "clip": {"start": 1, "duration": 0.02}}, 1,
                     "fps=12:eof_action=pass", id="a clip of half a frame"),
        pytest.param(FILM, {"container": "gif", "clip": {"start": 1, "duration": 0.05}}, 1,
                     "fps=12,", id="one that is rounded up"),
        pytest.param(FILM, {"container": "gif", "clip": {"start": 1, "duration": 2}}, 24,
                     "fps=12,", id="one of many"),
    ],
)  # fmt: skip
def test_what_is_shorter_than_a_frame_is_one(
    probe: Probe, fields: dict[str, Any], frames: int, step: str
) -> None:
    made = plan(probe, **fields)
    assert made.video is not None
    assert made.video.frames == frames
    assert step in " ".join(command(probe, **fields))


class TestLoudness:
    def test_it_is_measured_as_it_will_be(self) -> None:
        surround = clean(audio={"channels": 6})
        plans = [
            plan_output(0, spec(loudness=-23, clip={"start": 1, "duration": 2}), surround),
            plan_output(1, spec(loudness=-16, clip={"start": 1, "duration": 2}), surround),
            plan_output(2, spec(), surround),
        ]
        meters = list_meters(plans)
        assert meters == [Meter(1, 2, 1.0, 2.0)]  # once, whatever the targets
        text = " ".join(build_loudness_command(meters, source="/s/source", threads=2))
        assert (
            "[0:1]atrim=start=1:duration=2,aformat=channel_layouts=stereo,"
            "ebur128@m0=peak=true:framelog=verbose[m0] -map [m0] -f null -"
        ) in text

    @pytest.mark.parametrize(
        ("found", "gain", "said"),
        [
            pytest.param(Loudness(-30.0, -12.0), 7.0, [], id="louder"),
            pytest.param(Loudness(-14.0, 0.3), -9.0, [], id="quieter, whatever its peaks"),
            pytest.param(Loudness(-30.0, -4.0), 3.0, ["loudness_limited"], id="as its peaks allow"),
            pytest.param(Loudness(-30.0, 0.5), 0.0, ["loudness_limited"], id="never quieter then"),
            pytest.param(Loudness(-70.0, float("-inf")), 0.0, ["silent"], id="silence"),
            pytest.param(Loudness(float("nan"), 0.0), 0.0, ["silent"], id="nothing to measure"),
        ],
    )
    def test_the_gain(self, found: Loudness, gain: float, said: list[str]) -> None:
        planned = plan_output(0, spec(loudness=-23), CLEAN)
        turned = turn(planned, dict.fromkeys(list_meters([planned]), found))
        assert turned.audio is not None
        assert turned.audio.gain_db == pytest.approx(gain)
        assert [warning.code for warning in turned.warnings if "copied" not in warning.code] == said
        text = " ".join(build_encode_command([turned], source="/s", folder="/o", threads=2))
        assert (f"volume={gain:g}dB" in text) == (gain != 0)

    def test_what_the_meters_say(self) -> None:
        log = """
[ebur128@m1 @ 0x55] Summary:
  Integrated loudness:
    I:         -21.1 LUFS
    Threshold: -31.1 LUFS
  True peak:
    Peak:      -17.6 dBFS
[ebur128@m0 @ 0x56] Summary:
    I:         -70.0 LUFS
    Peak:       -inf dBFS
"""
        first, second = Meter(1, 2, 0.0, None), Meter(2, 2, 0.0, None)
        assert read_loudness(log, [first, second]) == {
            first: Loudness(-70.0, float("-inf")), second: Loudness(-21.1, -17.6),
        }  # fmt: skip

    def test_a_sound_is_not_copied_then(self) -> None:
        made = plan(CLEAN, loudness=-23)
        assert made.audio is not None
        assert made.audio.encoder is not None

    def test_the_plan_shows_both_runs(self) -> None:
        request = {"source": {"kind": "http", "url": "http://a.example/in.mp4"},
                   "outputs": [{"destination": FILE, "loudness": -23}]}  # fmt: skip
        measure, encode = explain_plan(JobRequest.model_validate(request), CLEAN).commands
        assert any("ebur128" in argument for argument in measure)
        assert "file:out/0.mp4" in encode


class TestMetadata:
    def test_words_are_one_argument_whatever_they_are(self) -> None:
        hostile = "-i /etc/passwd; [0:v]movie=x, 'a' = b"
        arguments = command(metadata={"title": hostile})
        assert arguments[arguments.index(f"title={hostile}") - 1] == "-metadata"

    def test_what_is_spoken_is_kept(self) -> None:
        arguments = command(TONGUES, audioTracks=["all"])
        assert arguments[arguments.index("language=fre") - 1] == "-metadata:s:a:2"
        assert [word for word in arguments if word.startswith("language=")] == [
            "language=ger", "language=eng", "language=fre",
        ]  # fmt: skip

    def test_a_language_that_is_none_is_left_out(self) -> None:
        assert "language=-i" not in command(clean(audio={"language": "-i", "codec": "mp3"}))

    def test_the_sources_own_are_left_out(self) -> None:
        arguments = command()
        assert arguments[arguments.index("-map_metadata") + 1] == "-1"

    @pytest.mark.parametrize("value", ["", "two\nlines", "nul\0", "x" * 513])
    def test_words_that_are_none(self, value: str) -> None:
        with pytest.raises(ValueError, match="metadata"):
            spec(metadata={"title": value})


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        pytest.param({"rotate": 90, "videoCodec": "copy"}, ["/rotate"], id="turn a copy"),
        pytest.param({"rotate": 90, "videoCodec": "none"}, ["/rotate"], id="turn nothing"),
        pytest.param({"rotate": 90, "container": "mp3"}, ["/rotate"], id="turn a song"),
        pytest.param(
            {"language": "de", "audioCodec": "none"}, ["/language"], id="a language of silence"
        ),
        pytest.param({"loudness": -23, "audioCodec": "copy"}, ["/loudness"], id="turn up a copy"),
        pytest.param({"loudness": -23, "container": "png"}, ["/loudness"], id="a loud picture"),
        pytest.param({"subtitles": ["de"], "container": "ts"}, ["/subtitles"], id="words in ts"),
        pytest.param(
            {"subtitles": ["de"], "clip": {"start": 1}}, ["/subtitles"], id="words of a part"
        ),
        pytest.param(
            {"subtitles": ["all"], "container": "vtt"}, ["/subtitles"], id="all words in one file"
        ),
        pytest.param({"clip": {"start": 1}, "container": "vtt"}, ["/clip"], id="a file of a part"),
        pytest.param({"height": 90, "container": "vtt"}, ["/height"], id="the height of words"),
        pytest.param({"rotate": 90, "container": "vtt"}, ["/rotate"], id="turn words"),
        pytest.param({"language": "de", "container": "gif"}, ["/language"], id="a GIF that talks"),
        pytest.param(
            {"audioTracks": ["all"], "container": "mp3"}, ["/audioTracks"], id="songs in one MP3"
        ),
        pytest.param(
            {"audioTracks": ["de"], "language": "de"}, ["/language"], id="said in two ways"
        ),
        pytest.param(
            {"metadata": {"title": "x"}, "container": "ts"}, ["/metadata"], id="tags in a stream"
        ),
        pytest.param(
            {"metadata": {"title": "x"}, "container": "jpg"}, ["/metadata"], id="tags in a picture"
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_field(fields: dict[str, Any], want: list[str]) -> None:
    assert refused(**fields) == [(pointer, "not_applicable") for pointer in want]
