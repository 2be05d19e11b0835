"""The arguments of ffmpeg, compared as text."""

from __future__ import annotations

from typing import Any

import pytest

from encoder_core.media.command import build_encode_command, build_probe_command
from encoder_core.media.plan import plan_output
from encoder_core.media.probe import Probe
from tests.core.test_media_plan import FILM, film, spec

HEAD = (
    "-hide_banner -nostdin -y -loglevel warning -nostats -progress pipe:1 -stats_period 0.5"
    " -filter_threads 2 -filter_complex_threads 2 -protocol_whitelist file,pipe -format_whitelist"
    " WHITELIST -max_pixels 142606336 -threads 2"
)
X264 = "-g 50 -keyint_min 50 -sc_threshold 0 -threads 2 -fps_mode vfr"
AAC = "-c:a:0 aac -b:a:0 128000 -ac:a:0 2 -ar:a:0 48000"
MP3 = "-c:a:0 libmp3lame -b:a:0 160000 -ac:a:0 2 -ar:a:0 48000"
FLAC = "-c:a:0 flac -ac:a:0 2 -ar:a:0 48000"
NO_TAGS = "-map_metadata -1"
MUX = "-max_muxing_queue_size 4096"


def command(*outputs: dict[str, Any], probe: Probe = FILM) -> str:
    plans = [plan_output(index, spec(**fields), probe) for index, fields in enumerate(outputs)]
    arguments = build_encode_command(plans, source="/s/source", folder="/s/out", threads=2)
    whitelist = arguments[arguments.index("-format_whitelist") + 1]
    return " ".join(arguments).replace(whitelist, "WHITELIST")


@pytest.mark.parametrize(
    ("outputs", "want"),
    [
        pytest.param(
            [{"container": "mp4", "videoCodec": "libx264", "videoBitrate": "2500k",
              "audioCodec": "aac", "audioBitrate": "128k", "width": 1280, "height": 720}],
            f"{HEAD} -i file:/s/source"
            " -filter_complex [0:0]null[v0]"
            ";[v0]scale=1280:720:flags=bicubic,setsar=1,format=yuv420p[o0]"
            " -map [o0] -map 0:1 -c:v libx264 -b:v 2500000 -maxrate 3750000 -bufsize 7500000"
            f" -preset medium {X264} {AAC}"
            f" {MUX} -movflags +faststart {NO_TAGS} -f mp4 file:/s/out/0.mp4",
            id="the original's example",
        ),
        pytest.param(
            [{"width": 640}, {"container": "mp3"},
             {"container": "mkv", "videoCodec": "copy", "audioCodec": "none"}, {"height": 240}],
            f"{HEAD} -i file:/s/source"
            " -filter_complex [0:0]split=2[v0][v3]"
            ";[v0]scale=640:360:flags=bicubic,setsar=1,format=yuv420p[o0]"
            ";[v3]scale=426:240:flags=bicubic,setsar=1,format=yuv420p[o3]"
            f" -map [o0] -map 0:1 -c:v libx264 -crf 23 -preset medium {X264} {AAC}"
            f" {MUX} -movflags +faststart {NO_TAGS} -f mp4 file:/s/out/0.mp4"
            f" -map 0:1 {MP3} {MUX} {NO_TAGS} -f mp3 file:/s/out/1.mp3"
            f" -map 0:0 -c:v copy {MUX} {NO_TAGS} -f matroska file:/s/out/2.mkv"
            f" -map [o3] -map 0:1 -c:v libx264 -crf 23 -preset medium {X264} {AAC}"
            f" {MUX} -movflags +faststart {NO_TAGS} -f mp4 file:/s/out/3.mp4",
            id="one decode for all outputs",
        ),
        pytest.param(
            [{"audioCodec": "none", "clip": {"start": 1.5, "duration": 2}}],
            f"{HEAD} -ss 1.5 -t 2 -i file:/s/source"
            " -filter_complex [0:0]null[v0];[v0]setsar=1,format=yuv420p[o0]"
            f" -map [o0] -c:v libx264 -crf 23 -preset medium {X264}"
            f" {MUX} -movflags +faststart {NO_TAGS} -f mp4 file:/s/out/0.mp4",
            id="a clip of all outputs is sought in the source",
        ),
        pytest.param(
            [{"container": "mp3", "clip": {"start": 1}}, {"container": "flac"}],
            f"{HEAD} -i file:/s/source -map 0:1 -filter:a:0 atrim=start=1,asetpts=PTS-1/TB"
            f" {MP3} {MUX} {NO_TAGS} -f mp3 file:/s/out/0.mp3"
            f" -map 0:1 {FLAC} {MUX} {NO_TAGS} -f flac file:/s/out/1.flac",
            id="a clip of one output is cut from the decode",
        ),
        pytest.param(
            [{"container": "jpg", "thumbnails": {"at": [1, 2]}, "width": 320}],
            f"{HEAD} -i file:/s/source -filter_complex [0:0]null[v0];[v0]select="
            r"gte(t\,1.000000)*(isnan(prev_t)+lt(prev_t\,1.000000))"
            r"+gte(t\,2.000000)*(isnan(prev_t)+lt(prev_t\,2.000000))"
            ",scale=320:180:flags=bicubic"
            ",scale=iw:ih:flags=bicubic:out_color_matrix=smpte170m:out_range=pc"
            ",setsar=1,format=yuvj420p[o0]"
            " -map [o0] -c:v mjpeg -threads 1 -q:v 3 -fps_mode passthrough"
            f" {MUX} -start_number 1 -f image2 file:/s/out/0-%05d.jpg",
            id="pictures of instants",
        ),
    ],
)  # fmt: skip
def test_command(outputs: list[dict[str, Any]], want: str) -> None:
    assert command(*outputs) == want


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        pytest.param(
            {"videoCodec": "hevc"},
            "-c:v libx265 -crf 28 -preset fast"
            " -x265-params keyint=50:min-keyint=50:scenecut=0:pools=2:log-level=error",
            id="x265 bounds its own pool",
        ),
        pytest.param(
            {"videoCodec": "av1"},
            "-c:v libsvtav1 -crf 35 -preset 8 -g 50 -svtav1-params scd=0:lp=2",
            id="so does SVT-AV1",
        ),
        pytest.param(
            {"container": "webm"},
            "-c:v libvpx-vp9 -crf 31 -b:v 0 -deadline good -cpu-used 4 -row-mt 1 -g 50",
            id="VP9's quality is not capped by a default rate",
        ),
    ],
)
def test_encoders(fields: dict[str, Any], want: str) -> None:
    assert want in command(fields)


def test_light_is_mapped_after_scaling() -> None:
    text = command({"width": 640}, probe=film(transfer="smpte2084"))
    assert text.index("scale=640:360") < text.index("tonemap=tonemap=hable")
    assert "-color_primaries bt709 -color_trc bt709 -colorspace bt709" in text


def graph_of(*outputs: dict[str, Any], **source: Any) -> list[str]:
    words = command(*outputs, probe=film(**{"width": 3840, "height": 2160, **source})).split()
    return words[words.index("-filter_complex") + 1].split(";")


def test_of_a_source_far_larger_the_renditions_share_the_first_reduction() -> None:
    reduce = "scale=1280:720:flags=bicubic,format=yuv420p,split=2[v0][v1]"
    renditions = [
        "[v0]scale=640:360:flags=bicubic,setsar=1,format=yuv420p[o0]",
        "[v1]setsar=1,format=yuv420p[o1]",
    ]
    asked = {"width": 640}, {"width": 1280}
    assert graph_of(*asked) == [f"[0:0]{reduce}", *renditions]
    with_a_picture = graph_of(*asked, {"container": "jpg"})
    assert with_a_picture[:-1] == ["[0:0]split=2[v2][reduced]", f"[reduced]{reduce}", *renditions]


def test_of_a_source_far_larger_light_is_mapped_once_for_all() -> None:
    graph = ";".join(graph_of({"width": 640}, {"width": 1280}, transfer="smpte2084"))
    assert graph.count("tonemap=hable") == 1
    assert (
        graph.index("scale=1280:720") < graph.index("tonemap=hable") < graph.index("scale=640:360")
    )


@pytest.mark.parametrize(
    ("outputs", "source"),
    [
        pytest.param([{"width": 640}, {"width": 320}], {"width": 1920, "height": 1080}, id="1080p"),
        pytest.param([{"width": 1280}], {}, id="one output"),
        pytest.param([{"width": 2560}, {"width": 1280}], {}, id="one is nearly as large"),
        pytest.param([{"width": 640}, {"width": 320, "rotate": 90}], {}, id="one is turned"),
        pytest.param(
            [{"width": 640}, {"width": 320, "container": "jpg"}], {}, id="one is a picture"
        ),
        pytest.param(
            [{"width": 640}, {"width": 320, "videoCodec": "prores_ks", "container": "mov"}],
            {},
            id="one has other pixels",
        ),
    ],
)
def test_otherwise_each_rendition_is_scaled_from_the_source(
    outputs: list[dict[str, Any]], source: dict[str, Any]
) -> None:
    assert "[reduced]" not in ";".join(graph_of(*outputs, **source))


def test_no_demuxer_that_opens_other_files_is_allowed() -> None:
    whitelist = build_probe_command("/s/source")
    allowed = whitelist[whitelist.index("-format_whitelist") + 1].split(",")
    forbidden = {"hls", "dash", "concat", "sdp", "lavfi", "tedcaptions", "image2pipe", "imf"}
    assert not forbidden & set(allowed)
    assert whitelist[whitelist.index("-protocol_whitelist") + 1] == "file,pipe"


def test_from_the_gateway_nothing_but_the_gateway_is_read() -> None:
    arguments = build_probe_command("http://127.0.0.1:4/secret")
    assert arguments[arguments.index("-protocol_whitelist") + 1] == "http,tcp"
    assert arguments[-1] == "http://127.0.0.1:4/secret"
