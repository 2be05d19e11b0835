"""Small clips with known properties, made once per machine by the installed ffmpeg."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

from tests.servers.cache import built
from tests.servers.process import ServerFailed

H264 = "-c:v libx264 -preset veryfast -pix_fmt yuv420p"


def _picture(seconds: float, size: str = "320x180", rate: str = "25") -> str:
    return f"-f lavfi -i testsrc2=size={size}:rate={rate}:duration={seconds}"


def _tone(seconds: float) -> str:
    return f"-f lavfi -i sine=frequency=440:sample_rate=48000:duration={seconds} -ac 2"


#: File name to ffmpeg's arguments before the output. The name says what is inside.
RECIPES = {
    "h264_320x180_25p_2s_stereo.mp4": f"{_picture(2)} {_tone(2)} {H264} -c:a aac",
    "h264_640x360_25p_20s_stereo.mp4": f"{_picture(20, '640x360')} {_tone(20)} {H264} -c:a aac",
    # 24 MB: what is sent to a store in parts.
    "h264_640x360_25p_3s_large.mp4": (
        f"{_picture(3, '640x360')},noise=alls=60:allf=t {_tone(3)} -c:v libx264 -preset ultrafast"
        " -qp 12 -pix_fmt yuv420p -c:a aac -movflags +faststart"
    ),
    "h264_320x180_25p_2s_silent.mp4": f"{_picture(2)} {H264} -an",
    # Index at the end: a reader that cannot seek gets nowhere.
    "h264_320x180_30p_2s_stereo.mov": f"{_picture(2, rate='30')} {_tone(2)} {H264} -c:a aac",
    "h264_320x180_2997p_2s_stereo.mkv": (
        f"{_picture(2, rate='30000/1001')} {_tone(2)} {H264} -c:a libopus"
    ),
    "vp9_320x180_25p_2s_stereo.webm": (
        f"{_picture(2)} {_tone(2)} -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a libopus"
    ),
    "h264_320x180_25p_2s_stereo.ts": f"{_picture(2)} {_tone(2)} {H264} -c:a aac",
    "pcm_stereo_2s.wav": f"{_tone(2)} -c:a pcm_s16le",
    "mp3_stereo_2s.mp3": f"{_tone(2)} -c:a libmp3lame",
    "still_320x180.png": f"{_picture(1)} -frames:v 1",
    # Two rates in one file: players and encoders must not take the first for the whole.
    "h264_320x180_vfr_2s_silent.mp4": (
        f"{_picture(2, rate='50')} -vf select=lt(t\\,1)+not(mod(n\\,5)) -vsync vfr {H264} -an"
    ),
}

# 320x180 in the stream, 180x320 to whoever looks: as phones record.
ROTATED = "h264_320x180_rotated90_2s_stereo.mp4"
UPRIGHT = "h264_320x180_25p_2s_stereo.mp4"


def clip(name: str) -> Path:
    """The path of a clip of RECIPES, or ROTATED. Read only: all tests share it."""
    recipe = "" if name == ROTATED else RECIPES[name]

    def build(folder: Path) -> None:
        if name == ROTATED:
            rotate(clip(UPRIGHT), folder / name)
        else:
            ffmpeg("-v", "error", *recipe.split(), str(folder / name))

    return built("clip", "\n".join((name, recipe, ffmpeg_version())), build) / name


@functools.cache
def ffmpeg_version() -> str:
    return ffmpeg("-version").splitlines()[0]


def all_clips() -> None:
    for name in (*RECIPES, ROTATED):
        clip(name)


def rotate(upright: Path, target: Path) -> None:
    copy = ("-c", "copy", "-y", str(target))
    try:
        ffmpeg("-v", "error", "-display_rotation", "90", "-i", str(upright), *copy)
    except ServerFailed:
        # ffmpeg 5.1 knows the tag instead, and writes the same matrix from it; 7 ignores the tag.
        ffmpeg("-v", "error", "-i", str(upright), "-metadata:s:v:0", "rotate=90", *copy)


def ffmpeg(*arguments: str) -> str:
    done = subprocess.run(
        ["ffmpeg", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode != 0:
        raise ServerFailed(f"ffmpeg {' '.join(arguments)}:\n{done.stderr[-2000:]}")
    return done.stdout
