"""
Sources as people really have them, a second long and tiny, made once per machine by ffmpeg.

Each is one way in which a source can be unlike the clean clip that everybody tests with.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests.servers.cache import built
from tests.servers.clips import ffmpeg, ffmpeg_version, rotate

PICTURE: Final = "-f lavfi -i testsrc2=size=160x90:rate=25:duration=1"
TONE: Final = "-f lavfi -i sine=sample_rate=48000:duration=1"
FAST: Final = "-c:v libx264 -preset ultrafast"
H264: Final = f"{FAST} -pix_fmt yuv420p"
_DEEP: Final = "-c:v libx265 -preset ultrafast -pix_fmt yuv420p10le"


def _hdr(transfer: str) -> str:
    tags = f"-color_primaries bt2020 -color_trc {transfer} -colorspace bt2020nc"
    inside = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
    return f"{PICTURE} {tags} {_DEEP} -x265-params log-level=error:{inside}"


RECIPES: Final = {
    "plain.mp4": f"{PICTURE} {TONE} -ac 2 {H264} -c:a aac",
    "vfr.mp4": (
        "-f lavfi -i testsrc2=size=160x90:rate=50:duration=1"
        f" -vf select=lt(t\\,0.5)+not(mod(n\\,5)) -vsync vfr {H264}"
    ),
    "interlaced.ts": (
        "-f lavfi -i testsrc2=size=160x88:rate=50:duration=1"
        f" -vf tinterlace=interleave_top,fieldorder=tff {H264} -flags +ildct+ilme"
    ),
    "hdr10.mkv": _hdr("smpte2084"),
    "hlg.mkv": _hdr("arib-std-b67"),
    "anamorphic.mp4": f"{PICTURE} {H264} -vf setsar=4/3",
    "odd.mkv": f"{PICTURE} -vf scale=161:91,setsar=1 {FAST} -pix_fmt yuv444p",
    "tenbit.mkv": f"{PICTURE} {_DEEP} -x265-params log-level=error",
    "fullcolour.mp4": f"{PICTURE} {FAST} -pix_fmt yuv444p",
    "nosound.mp4": f"{PICTURE} {H264}",
    "silent.mp4": f"{PICTURE} -f lavfi -i anullsrc=r=48000:cl=stereo:d=1 {H264} -c:a aac",
    "mono44.wav": "-f lavfi -i sine=sample_rate=44100:duration=1 -c:a pcm_s16le",
    "surround.mkv": (
        f"{PICTURE} {TONE} {H264} -af pan=5.1|c0=c0|c1=c0|c2=c0|c3=c0|c4=c0|c5=c0 -c:a flac"
    ),
    "tongues.mkv": (
        f"{PICTURE} {TONE} {TONE} {TONE} -map 0 -map 1 -map 2 -map 3 {H264} -c:a aac"
        " -metadata:s:a:0 language=ger -metadata:s:a:1 language=eng -metadata:s:a:2 language=fre"
        " -disposition:a:0 0 -disposition:a:1 default"
    ),
    "late.mkv": f"{PICTURE} -itsoffset 0.4 {TONE} -map 0:v -map 1:a {H264} -c:a aac",
    "latepicture.mkv": (
        f"-itsoffset 0.8 {PICTURE} -f lavfi -i sine=sample_rate=48000:duration=1.8 {H264} -c:a aac"
    ),
    "shortsound.mp4": f"{PICTURE} -f lavfi -i sine=duration=0.4 {H264} -c:a aac",
    "song.mp3": f"{TONE} -c:a libmp3lame",
    "still.png": f"{PICTURE} -frames:v 1",
    "still.jpg": f"{PICTURE} -frames:v 1 -pix_fmt yuvj420p",
    "animation.gif": f"{PICTURE} -vf fps=10",
    # Long in time and short in bytes: a cut of a second would be forgiven.
    "long.mkv": (
        "-f lavfi -i testsrc2=size=64x36:rate=1:duration=20"
        f" -f lavfi -i sine=sample_rate=8000:duration=20 {H264} -c:a aac"
    ),
}  # fmt: skip
"""File name to ffmpeg's arguments before the output."""

SUBTITLES: Final = """1
00:00:00,100 --> 00:00:00,500
Hello <i>there</i>

2
00:00:00,600 --> 00:00:00,900
Goodbye
"""


def _text_subtitles(target: Path) -> None:
    """Two languages of text."""
    words = target.with_suffix(".srt")
    words.write_text(SUBTITLES)
    _make(
        f"{PICTURE} {TONE} -i {words} -i {words} -map 0 -map 1 -map 2 -map 3 {H264} -c:a aac"
        " -c:s srt -metadata:s:s:0 language=eng -metadata:s:s:1 language=ger",
        target,
    )


def _several_countries(target: Path) -> None:
    """A film as discs have it: five sounds, of which one begins late, and four subtitles."""
    words, pictures = target.with_suffix(".srt"), target.with_suffix(".sup")
    words.write_text(SUBTITLES)
    pictures.write_bytes(_pgs([(0.1, 0.5), (0.6, 0.9)]))
    tone = "-f lavfi -i sine=sample_rate=48000:duration=3"
    languages = {"a": ("ger", "eng", "eng", "fre", "und"), "s": ("ger", "eng", "ger", "fre")}
    tags = [
        f"-metadata:s:{kind}:{number} language={language}"
        for kind, tracks in languages.items()
        for number, language in enumerate(tracks)
    ]
    _make(
        f"-f lavfi -i testsrc2=size=160x90:rate=25:duration=3 {4 * (tone + ' ')}"
        f" -itsoffset 1.2 -f lavfi -i sine=sample_rate=44100:duration=1.8"
        f" {3 * f'-i {words} '} -i {pictures} {' '.join(f'-map {n}' for n in range(10))}"
        f" {H264} -c:a aac -ac:a:0 2 -c:s:0 srt -c:s:1 ass -c:s:2 webvtt -c:s:3 copy"
        f" {' '.join(tags)} -disposition:a:0 default -disposition:a:1 0"
        " -disposition:s:2 forced",
        target,
    )


def _bitmap_subtitles(target: Path) -> None:
    """As discs have them: pictures of words."""
    pictures = target.with_suffix(".sup")
    pictures.write_bytes(_pgs([(0.1, 0.5), (0.6, 0.9)]))
    _make(f"{PICTURE} -i {pictures} -map 0 -map 1 {H264} -c:s copy", target)


def _cover(target: Path) -> None:
    """A song whose file also has a picture."""
    art = sample("still.jpg")
    _make(f"{TONE} -i {art} -map 0 -map 1 -c:a aac -c:v copy -disposition:v attached_pic", target)


def _film_with_cover(target: Path) -> None:
    """The cover comes first, where a careless reader takes it for the film."""
    art = sample("still.jpg")
    film = sample("plain.mp4")
    _make(f"-i {art} -i {film} -map 0 -map 1 -c copy -disposition:v:0 attached_pic", target)


def _jumping_clock(target: Path) -> None:
    """Two recordings in one file: the clock begins again in the middle."""
    once = target.with_suffix(".once")
    _make(f"{PICTURE} {TONE} {H264} -c:a aac -f mpegts", once)
    target.write_bytes(2 * once.read_bytes())


def _turned(target: Path) -> None:
    """As phones record: the picture lies on its side, and the file says so."""
    rotate(sample("plain.mp4"), target)


def _trimmed(target: Path) -> None:
    """As editors and phones trim: all pictures from the keyframe on, and a list of what to show."""
    _make(f"-ss 0.4 -i {sample('plain.mp4')} -c copy", target)


def _cut_short(target: Path) -> None:
    """A download that was cut: the index is whole, the pictures are not."""
    _cut(sample("plain.mp4"), "-movflags +faststart", 0.6, target)


def _cut_in_half(target: Path) -> None:
    """The same without an index, where only the header knows how long it should be."""
    _cut(sample("long.mkv"), "", 0.5, target)


def _cut(source: Path, options: str, share: float, target: Path) -> None:
    whole = target.with_name(f"whole-{target.name}")
    _make(f"-i {source} -c copy {options}", whole)
    data = whole.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])


def _no_frames(target: Path) -> None:
    """A header that promises a film, and nothing behind it."""
    whole = target.with_name(f"whole-{target.name}")
    _make(f"-i {sample('nosound.mp4')} -c copy -movflags frag_keyframe+empty_moov", whole)
    data = whole.read_bytes()
    target.write_bytes(data[: data.index(b"moof") - 4])


MADE: Final[dict[str, Callable[[Path], None]]] = {
    "rotated.mp4": _turned,
    "trimmed.mp4": _trimmed,
    "words.mkv": _text_subtitles,
    "world.mkv": _several_countries,
    "pictures.mkv": _bitmap_subtitles,
    "cover.m4a": _cover,
    "covered.mp4": _film_with_cover,
    "jumping.ts": _jumping_clock,
    "cut.mp4": _cut_short,
    "cut.mkv": _cut_in_half,
    "noframes.mp4": _no_frames,
}
"""What takes more than one run of ffmpeg."""

VERSION: Final = 2  # of the functions above, whose text is no part of the recipe


@functools.cache
def sample(name: str) -> Path:
    """The path of a source. Read only: all tests share it."""
    recipe = RECIPES.get(name, f"{VERSION}")

    def build(folder: Path) -> None:
        if name in MADE:
            MADE[name](folder / name)
        else:
            _make(recipe, folder / name)

    return built("corpus", "\n".join((name, recipe, ffmpeg_version())), build) / name


def _make(arguments: str, target: Path) -> None:
    ffmpeg("-v", "error", "-y", *arguments.split(), str(target))


# --- Presentation graphics, which ffmpeg reads and cannot make ----------------------------------


def _pgs(shows: Sequence[tuple[float, float]]) -> bytes:
    """A grey box shown from and until these seconds."""
    width, height, left, top, box_width, box_height = 160, 90, 40, 60, 80, 16
    # One run of the whole line in colour 1, then the end of the line.
    line = struct.pack(">BHB", 0, 0xC000 | box_width, 1) + b"\0\0"
    picture = line * box_height
    window = struct.pack(">BBHHHH", 1, 0, left, top, box_width, box_height)
    palette = bytes([0, 0, 1, 200, 128, 128, 255])
    item = (
        struct.pack(">HBB", 0, 0, 0xC0)
        + struct.pack(">I", len(picture) + 4)[1:]
        + struct.pack(">HH", box_width, box_height)
        + picture
    )
    data = b""
    for number, (start, end) in enumerate(shows):
        shown = struct.pack(">HHBHBBBB", width, height, 0x10, 2 * number, 0x80, 0, 0, 1)
        gone = struct.pack(">HHBHBBBB", width, height, 0x10, 2 * number + 1, 0, 0, 0, 0)
        where = struct.pack(">HBBHH", 0, 0, 0, left, top)
        for kind, body in ((0x16, shown + where), (0x17, window), (0x14, palette), (0x15, item)):
            data += _segment(kind, body, start)
        data += _segment(0x80, b"", start)
        for kind, body in ((0x16, gone), (0x17, window), (0x80, b"")):
            data += _segment(kind, body, end)
    return data


def _segment(kind: int, body: bytes, at_s: float) -> bytes:
    return b"PG" + struct.pack(">IIBH", round(at_s * 90_000), 0, kind, len(body)) + body
