"""An image over the picture: where it lies, with which colours, what it is refused for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from encoder_core.media.command import build_encode_command
from encoder_core.media.explain import explain_plan
from encoder_core.media.plan import plan_output
from encoder_core.media.planned import OutputPlan, WatermarkPlan
from encoder_core.media.probe import Probe
from encoder_core.media.watermarks import find_fault, overlay_filter
from encoder_core.specs import JobRequest, Position
from tests.core.test_media_options import CLEAN
from tests.core.test_media_plan import FILE, FILM, SONG, film, plan, problems_at_the_door, spec

LOGO = {"kind": "https", "url": "https://a.example/logo.png"}
OTHER = {"kind": "https", "url": "https://a.example/other.png"}


def marked(
    probe: Probe = FILM, *, output: dict[str, Any] | None = None, **asked: Any
) -> OutputPlan:
    return plan(probe, watermark={"source": LOGO, **asked}, **(output or {}))


def mark_of(plan: OutputPlan) -> WatermarkPlan:
    assert plan.video is not None
    assert plan.video.watermark is not None
    return plan.video.watermark


class TestPlace:
    @pytest.mark.parametrize(
        ("output", "asked", "box", "margin"),
        [
            pytest.param({}, {}, (384, 216), 44, id="a fifth of both sides"),
            pytest.param({"height": 480}, {}, (171, 96), 20, id="the same share of less"),
            pytest.param({}, {"widthPercent": 10}, (192, 992), 44, id="as high as its width asks"),
            pytest.param({}, {"heightPercent": 10}, (1832, 108), 44, id="as wide as its height"),
            pytest.param({}, {"widthPercent": 50, "heightPercent": 10}, (960, 108), 44, id="both"),
            pytest.param({}, {"widthPercent": 100, "heightPercent": 100}, (1832, 992), 44,
                         id="never over the margin"),
            pytest.param({}, {"widthPercent": 100, "heightPercent": 100, "marginPercent": 0},
                         (1920, 1080), 0, id="all of it"),
            pytest.param({"rotate": 90}, {}, (216, 384), 44, id="of the turned picture"),
            pytest.param({"width": 16, "height": 16, "fit": "stretch"}, {"widthPercent": 1},
                         (2, 16), 0, id="never nothing"),
        ],
    )  # fmt: skip
    def test_the_box(
        self, output: dict[str, Any], asked: dict[str, Any], box: tuple[int, int], margin: int
    ) -> None:
        mark = mark_of(marked(output=output, **asked))
        assert (mark.box, mark.margin) == (box, margin)

    @pytest.mark.parametrize(
        ("position", "where"),
        [
            ("top-left", "44:44"), ("top", "(W-w)/2:44"), ("top-right", "W-w-44:44"),
            ("left", "44:(H-h)/2"), ("center", "(W-w)/2:(H-h)/2"), ("right", "W-w-44:(H-h)/2"),
            ("bottom-left", "44:H-h-44"), ("bottom", "(W-w)/2:H-h-44"),
            ("bottom-right", "W-w-44:H-h-44"), (None, "W-w-44:H-h-44"),
        ],
    )  # fmt: skip
    def test_the_corner(self, position: str | None, where: str) -> None:
        text = overlay_filter(mark_of(marked(position=position)), "yuv420p")
        assert text == f"overlay={where}:eval=init:format=yuv420"

    def test_every_position_is_somewhere_else(self) -> None:
        places = {overlay_filter(mark_of(marked(position=one)), "rgb24") for one in Position}
        assert len(places) == len(Position)


UNSAID: dict[str, Any] = {"matrix": None, "primaries": None, "transfer": None}


@pytest.mark.parametrize(
    ("probe", "output", "matrix"),
    [
        pytest.param(film(matrix="bt470bg"), {}, "bt470", id="as the source says"),
        pytest.param(film(matrix="bt2020nc"), {}, "bt2020", id="also without HDR"),
        pytest.param(film(**UNSAID), {}, "bt709", id="as players guess of HD"),
        pytest.param(
            film(**UNSAID, width=720, height=576), {}, "smpte170m", id="and of television"
        ),
        pytest.param(film(matrix="gbr", pixel_format="gbrp"), {}, "bt709", id="made of RGB"),
        pytest.param(film(matrix="bt2020nc", transfer="smpte2084"), {}, "bt709", id="made of HDR"),
        pytest.param(film(matrix="bt709"), {"container": "jpg"}, "smpte170m", id="as JPEG is read"),
    ],
)
def test_its_colours_are_made_as_those_of_the_picture(
    probe: Probe, output: dict[str, Any], matrix: str
) -> None:
    assert mark_of(marked(probe, output=output)).matrix == matrix


class TestCommand:
    def test_an_image_is_read_once_and_scaled_for_each_picture(self) -> None:
        logo = {"watermark": {"source": LOGO}}
        other = {"watermark": {"source": OTHER}}
        ladder: dict[str, Any] = {
            "container": "hls",
            "renditions": [{"height": 720}, {"height": 360}],
        }
        asked: list[dict[str, Any]] = [
            {"height": 480, **logo},
            {**ladder, **logo},
            {"container": "gif", **other},
            {},
        ]
        plans = [plan_output(index, spec(**one), FILM) for index, one in enumerate(asked)]
        command = build_encode_command(
            plans,
            source="/s/source",
            images={0: "/s/a", 1: "/s/a", 2: "/s/b"},
            folder="/o",
            threads=2,
        )
        read = [command[at + 1] for at, word in enumerate(command) if word == "-i"]
        assert read == ["file:/s/source", "file:/s/a", "file:/s/b"]
        chains = command[command.index("-filter_complex") + 1].split(";")
        assert "[0:0]split=5[v0][v1r0][v1r1][v2][v3]" in chains
        assert "[1:0]format=gbrap,premultiply=inplace=1,split=3[w0][w1r0][w1r1]" in chains
        assert "[2:0]format=gbrap,premultiply=inplace=1[w2]" in chains
        laid = [chain for chain in chains if "overlay=" in chain]
        assert [chain.partition("overlay")[0] for chain in laid] == [
            "[b0][m0]", "[b1r0][m1r0]", "[b1r1][m1r1]", "[b2][m2]",
        ]  # fmt: skip
        assert "[v3]setsar=1,format=yuv420p[o3]" in chains

    def test_a_picture_with_it(self) -> None:
        command = build_encode_command(
            [marked(opacity=0.5, output={"height": 720})],
            source="/s/source", images={0: "/s/a"}, folder="/o", threads=2,
        )  # fmt: skip
        assert command[command.index("-filter_complex") + 1].split(";") == [
            "[0:0]null[v0]",
            "[1:0]format=gbrap,premultiply=inplace=1[w0]",
            "[v0]scale=1280:720:flags=bicubic,setsar=1,format=yuv420p[b0]",
            (
                "[w0]scale=max(2\\,round(min(256\\,144*a)))"
                ":max(2\\,round(min(144\\,256/a))):flags=bicubic,unpremultiply=inplace=1"
                ",colorchannelmixer=aa=0.5,scale=out_color_matrix=bt709:out_range=tv"
                ",format=yuva420p[m0]"
            ),
            "[b0][m0]overlay=W-w-28:H-h-28:eval=init:format=yuv420,format=yuv420p[o0]",
        ]

    def test_it_may_be_an_image_alone(self) -> None:
        command = build_encode_command(
            [marked()], source="http://127.0.0.1:9/x", images={0: "/s/a"}, folder="/o", threads=2
        )
        before = command[: command.index("file:/s/a")]
        lists = [before[at + 1] for at, word in enumerate(before) if word.endswith("whitelist")]
        assert lists[-2:] == ["file,pipe", "png_pipe,jpeg_pipe,webp_pipe"]
        assert before[-3:] == ["-threads", "1", "-i"]


@pytest.mark.parametrize(
    ("output", "pointer"),
    [
        pytest.param({"container": "mp3"}, "/outputs/1/watermark", id="on a song"),
        pytest.param({"container": "vtt"}, "/outputs/1/watermark", id="on words"),
        pytest.param({"videoCodec": "none"}, "/outputs/1/watermark", id="on nothing"),
        pytest.param({"videoCodec": "copy"}, "/outputs/1/watermark", id="on a copy"),
    ],
)
def test_it_is_refused_where_there_is_no_picture_to_lay_it_on(
    output: dict[str, Any], pointer: str
) -> None:
    problems = problems_at_the_door(watermark={"source": LOGO}, **output)
    assert [(problem.pointer, problem.code) for problem in problems] == [
        (pointer, "not_applicable")
    ]


def test_a_picture_with_it_is_never_a_copy_but_its_sound_may_be() -> None:
    made = marked(CLEAN)
    assert made.video is not None
    assert made.video.encoder is not None
    assert [warning.code for warning in made.warnings] == ["audio_copied"]


def test_a_source_without_a_picture_has_no_use_for_it() -> None:
    made = marked(SONG)
    assert not made.has_watermark
    assert [warning.code for warning in made.warnings] == ["no_video"]


def test_the_plan_says_where_it_will_be() -> None:
    request = JobRequest.model_validate({
        "source": {"kind": "http", "url": "http://a.example/x"},
        "outputs": [
            {"destination": FILE, "watermark": {"source": LOGO, "position": "top", "opacity": 0.7}},
            {"destination": FILE, "container": "hls", "watermark": {"source": LOGO},
             "renditions": [{"height": 720}, {"height": 360}]},
            {"destination": FILE, "watermark": {"source": OTHER}},
        ],
    })  # fmt: skip
    document = explain_plan(request, replace(FILM, size_bytes=1_000_000))
    first, ladder, _ = document.to_json()["outputs"]
    assert first["video"]["watermark"] == {
        "position": "top", "maxWidth": 384, "maxHeight": 216, "margin": 44, "opacity": 0.7
    }  # fmt: skip
    assert [one["watermark"]["maxWidth"] for one in ladder["renditions"]] == [256, 128]
    [command] = document.commands
    read = [command[at + 1] for at, word in enumerate(command) if word == "-i"]
    assert read == ["file:source", "file:image-0", "file:image-1"]


def image(**stream: Any) -> dict[str, Any]:
    found = {"codec_name": "png", "width": 64, "height": 32, "nb_read_frames": "1", **stream}
    return {"streams": [found]}


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        pytest.param(image(), None, id="an image"),
        pytest.param(image(codec_name="webp", width=4096, height=4096), None, id="a large one"),
        pytest.param(image(codec_name="mjpeg"), None, id="a JPEG"),
        pytest.param({}, "no PNG, JPEG or WebP", id="what ffprobe cannot read"),
        pytest.param(image(codec_name="gif"), "no PNG, JPEG or WebP", id="another kind"),
        pytest.param(image(width=4097), "4097x32 pixels", id="one that is too wide"),
        pytest.param(image(height=5000), "64x5000 pixels", id="one that is too high"),
        pytest.param(image(nb_read_frames="0"), "damaged", id="one that does not decode"),
        pytest.param(image(width=0, height=0, nb_read_frames=None), "damaged", id="one too vast"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_image(document: dict[str, Any], fault: str | None) -> None:
    found = find_fault(document)
    assert found == fault or (found is not None and fault is not None and fault in found)
