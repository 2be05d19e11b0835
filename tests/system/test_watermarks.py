"""Watermarks through the real worker: their pixels, and what an image costs that cannot be had."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from encoder_core.exits import Exit
from encoder_core.media.watermarks import MAX_IMAGE_BYTES
from tests.servers.clips import ffmpeg
from tests.servers.http import Fault, HttpServer
from tests.servers.s3 import S3Bucket
from tests.system.test_worker_media import run
from tests.worker.driver import last_of_output, to_file

BLUE, RED = (64, 64, 128), (255, 0, 0)
HALF = (160, 32, 64)  # of either
TOLERANCE = 12  # of a sample: what a lossy codec at its quickest makes of a plain colour

# The left half is opaque and the right half is not there, although it has a colour.
HALVES = "color=red:s=32x32,format=rgba[a];color=lime@0:s=32x32,format=rgba[b];[a][b]hstack"
LOGO = ("-filter_complex", HALVES, "-frames:v", "1")
FILM = ("-f", "lavfi", "-i", "color=0x404080:s=160x90:r=25:d=1", "-pix_fmt", "yuv420p")


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watermarks")
    for made in ((*FILM, folder / "film.mp4"), (*LOGO, folder / "logo.png"),
                 (*LOGO, "-lossless", "1", folder / "logo.webp"),
                 ("-f", "lavfi", "-i", "color=red:s=32x64", "-frames:v", "1", folder / "red.jpg"),
                 ("-f", "lavfi", "-i", "color=red:s=4100x8", "-frames:v", "1",
                  folder / "wide.png")):  # fmt: skip
        ffmpeg("-v", "error", *map(str, made))
    return folder


def pixels(path: Path, *places: tuple[int, int]) -> list[tuple[int, ...]]:
    """The colours of a picture, or of a film's last frames, at these places."""
    decode = ["ffmpeg", "-v", "error", "-i", str(path), "-f", "image2pipe", "-c:v", "ppm"]
    frames = subprocess.run(
        [*decode, "-pix_fmt", "rgb24", "-"], capture_output=True, check=True
    ).stdout
    last = frames[frames.rindex(b"P6\n") :]
    _, size, _, data = last.split(b"\n", 3)
    width = int(size.split()[0])
    return [tuple(data[(y * width + x) * 3 :][:3]) for x, y in places]


def same(colour: tuple[int, ...]) -> Any:
    return pytest.approx(colour, abs=TOLERANCE)


def test_an_image_lies_where_it_was_asked_for(
    tmp_path: Path, media: Path, http_server: HttpServer, s3_bucket: S3Bucket
) -> None:
    png = {"kind": "http", "url": http_server.serve("/logo.png", (media / "logo.png").read_bytes())}
    s3_bucket.put("logo.webp", (media / "logo.webp").read_bytes())
    jpeg = {"kind": "inline", "sizeBytes": (media / "red.jpg").stat().st_size}
    ladder = [{"height": 90}, {"height": 48}]
    full = {"widthPercent": 100, "heightPercent": 100, "marginPercent": 0}
    specs: dict[str, dict[str, Any]] = {
        "half.mp4": {"watermark": {"source": png, "opacity": 0.5}},
        "ladder.m3u8": {"container": "hls", "renditions": ladder, "watermark": {"source": png}},
        "poster.jpg": {"container": "jpg", "watermark": {
            "source": s3_bucket.fields("logo.webp"), "position": "top-left"}},
        "two.png": {"container": "png", "thumbnails": {"count": 2, "sprite": {}},
                    "watermark": {"source": png, "position": "bottom-left"}},
        "small.gif": {"container": "gif", "watermark": {"source": jpeg, "position": "center"}},
        "master.mov": {"container": "mov", "videoCodec": "prores",
                       "watermark": {"source": jpeg, **full, "position": "right"}},
        "as-it-is.mkv": {"container": "mkv", "preset": "ultrafast"},
    }  # fmt: skip
    outputs = [
        {"index": index, "spec": to_file(name, **spec), "imagePath": str(media / "red.jpg")}
        for index, (name, spec) in enumerate(specs.items())
    ]
    made = run(tmp_path, media / "film.mp4", outputs=outputs)
    assert made.code == Exit.SUCCEEDED, made.reports[-1]

    files = made.files
    # A fifth of 160x90 holds the image at 32x16, four pixels from the edges; its right half is air.
    corner = [(123, 78), (126, 78), (137, 78), (142, 78), (126, 69), (126, 87)]
    assert pixels(files / "half.mp4", *corner) == [
        same(BLUE), same(HALF), same(HALF), same(BLUE), same(BLUE), same(BLUE),
    ]  # fmt: skip
    # Of 86x48 it is a fifth as well.
    assert pixels(files / "ladder-hls-90p.m3u8", *corner[:3]) == [same(BLUE), same(RED), same(RED)]
    assert pixels(files / "ladder-hls-48p.m3u8", (65, 41), (69, 41), (79, 41)) == [
        same(BLUE), same(RED), same(BLUE),
    ]  # fmt: skip
    assert pixels(files / "poster.jpg", (6, 8), (17, 17), (24, 8)) == [
        same(RED), same(RED), same(BLUE),
    ]  # fmt: skip
    sheet = [(6, 76), (166, 76), (150, 76)]  # two pictures side by side, each with its own
    assert pixels(files / "two-00001.png", *sheet) == [same(RED), same(RED), same(BLUE)]
    # Upright, 1:2, so 9x18.
    assert pixels(files / "small.gif", (80, 45), (77, 38), (70, 45)) == [
        same(RED), same(RED), same(BLUE),
    ]  # fmt: skip
    assert pixels(files / "master.mov", (156, 3), (120, 86), (110, 45)) == [
        same(RED), same(RED), same(BLUE),
    ]  # fmt: skip
    assert pixels(files / "as-it-is.mkv", *corner) == [same(BLUE)] * len(corner)

    # One decode of the source, and one read of each image, however often it is named.
    [call] = made.calls
    assert call.count("-i") == 1 + 3
    assert [request.path for request in http_server.requests] == ["/logo.png"]


def test_an_image_that_cannot_be_had_costs_its_own_output_and_no_other(
    tmp_path: Path, media: Path, http_server: HttpServer
) -> None:
    logo = (media / "logo.png").read_bytes()
    for path, data in {
        "/good.png": logo,
        "/film.png": (media / "film.mp4").read_bytes(),
        "/large.png": logo + bytes(MAX_IMAGE_BYTES + 1024**2 - len(logo)),
        "/wide.png": (media / "wide.png").read_bytes(),
        "/broken.png": logo[:60] + b"\0" * 40 + logo[100:],
        "/list.png": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    }.items():
        http_server.serve(path, data)
    http_server.misbehave("/busy.png", Fault(status=503, retry_after="0"))
    http_server.misbehave("/denied.png", Fault(status=403))
    refusals = {
        "/good.png": None,
        "/gone.png": ("watermark_invalid", "answered 404"),
        "/denied.png": ("watermark_invalid", "answered 403"),
        "/busy.png": ("watermark_unavailable", "answered 503"),
        "/film.png": ("watermark_invalid", "no PNG, JPEG or WebP image"),
        "/list.png": ("watermark_invalid", "no PNG, JPEG or WebP image"),
        "/large.png": ("watermark_invalid", "more than the allowed 16777216 bytes"),
        "/wide.png": ("watermark_invalid", "4100x8 pixels"),
        "/broken.png": ("watermark_invalid", "damaged"),
    }
    images = [{"kind": "http", "url": f"{http_server.url}{path}"} for path in refusals]
    images.append({"kind": "http", "url": "http://10.11.12.13/logo.png"})
    refused = [*refusals.values(), ("address_not_allowed", "")]
    outputs = [
        to_file(f"{number}.gif", container="gif", watermark={"source": source})
        for number, source in enumerate([*images, images[1]])
    ]
    made = run(tmp_path, media / "film.mp4", *outputs, to_file("plain.gif", container="gif"))

    # What may pass speaks for the others: another attempt makes the rest of the outputs.
    assert made.code == Exit.WATERMARK
    assert made.reports[-1]["failure"]["code"] == "watermark_unavailable"
    for number, want in enumerate([*refused, refused[1]]):
        last = last_of_output(made.reports, number)
        if want is None:
            assert last["status"] == "uploaded"
            continue
        code, words = want
        assert (last["status"], last["failure"]["code"]) == ("failed", code), last
        assert last["failure"]["message"].startswith(f"/outputs/{number}/watermark/source: ")
        assert words in last["failure"]["message"]
    assert last_of_output(made.reports, len(outputs))["status"] == "uploaded"
    assert sorted(path.name for path in made.files.glob("*.gif")) == ["0.gif", "plain.gif"]
    asked = [request.path for request in http_server.requests]
    assert asked.count("/gone.png") == 1  # two outputs name it
    [call] = made.calls
    assert call.count("-i") == 2
