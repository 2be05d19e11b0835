"""
Sources as people really have them, a second long and tiny, made once per machine by ffmpeg.

Each is one way in which a source can be unlike the clean clip that everybody tests with.
"""

from __future__ import annotations

import functools
import math
import operator
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


# The picture is white while the tone sounds, twice: a clapperboard shows what is out of step.
_CLAPS: Final = (
    "-f lavfi -i color=black:size=160x90:rate=25:duration=1,"
    r"drawbox=c=white:t=fill:enable=between(n\,5\,6)+between(n\,20\,21)"
    r" -f lavfi -i aevalsrc=0.8*sin(6000*PI*t)*(between(t\,0.2\,0.28)+between(t\,0.8\,0.88))"
    ":s=48000:d=1 -ac 2"
)


def _halves(size: str) -> str:
    """Green on the left and red on the right, by the matrix of BT.709, which no tag tells."""
    return (
        f"-f lavfi -i color=red:size={size}:rate=25:duration=0.2,format=gbrp,"
        f"drawbox=w=iw/2:c=lime:t=fill -vf scale=out_color_matrix=bt709,format=yuv420p {FAST} -qp 4"
    )


def _pitch(hertz: int) -> str:
    return f"-f lavfi -i sine=frequency={hertz}:sample_rate=48000:duration=1"


def _hdr(transfer: str) -> str:
    tags = f"-color_primaries bt2020 -color_trc {transfer} -colorspace bt2020nc"
    inside = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
    return f"{PICTURE} {tags} {_DEEP} -x265-params log-level=error:{inside}"


RECIPES: Final = {
    "plain.mp4": f"{PICTURE} {TONE} -ac 2 {H264} -c:a aac",
    "uhd.mp4": (
        "-f lavfi -i testsrc2=size=3840x2160:rate=25:duration=0.2 -c:v libx264 -preset ultrafast"
    ),
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
    "untagged.mp4": _halves("640x720"),
    "bt709.mp4": _halves("160x90") + " -colorspace bt709 -color_primaries bt709 -color_trc bt709",
    "fullrange.mp4": (
        "-f lavfi -i color=0xE0E0E0:size=160x90:rate=25:duration=0.2,drawbox=w=80:c=0x202020:t=fill"
        f" -vf scale=out_range=pc,format=yuvj420p {FAST} -qp 4 -color_range pc"
    ),
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
        f"{PICTURE} {_pitch(400)} {_pitch(1000)} {_pitch(2500)}"
        f" -map 0 -map 1 -map 2 -map 3 {H264} -c:a aac"
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
    "still.webp": f"{PICTURE} -frames:v 1 -c:v libwebp -lossless 1",
    "moving.webp": f"{PICTURE} -frames:v 5 -c:v libwebp_anim",
    "film.avi": f"{PICTURE} {TONE} -ac 2 -c:v mpeg4 -c:a libmp3lame",
    "film.flv": f"{PICTURE} {TONE} -ac 2 {H264} -c:a aac",
    "film.mxf": f"{PICTURE} {TONE} -ac 2 -c:v mpeg2video -pix_fmt yuv420p -c:a pcm_s16le",
    "film.webm": f"{PICTURE} {TONE} -ac 2 -c:v libvpx -deadline realtime -c:a libopus",
    "song.ogg": f"{TONE} -ac 2 -c:a libvorbis",
    "animation.gif": f"{PICTURE} -vf fps=10",
    "claps.flv": f"{_CLAPS} {H264} -g 5 -c:a aac",
    "claps.wmv": f"{_CLAPS} -c:v wmv2 -c:a wmav2",
    "anhour.ts": f"{_CLAPS} {H264} -c:a aac -output_ts_offset 3600",
    "anhour.mkv": f"{_CLAPS} {H264} -c:a aac -output_ts_offset 3600",
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


def _before_zero(target: Path) -> None:
    """A clock that begins at -0.6 s."""
    _retime(lambda _, ms: ms - 600, target)


def _leaping_ahead(target: Path) -> None:
    """A clock that leaps 0.8 s ahead: a recorder that was halted between the claps."""
    _retime(lambda _, ms: ms + 800 if ms >= 480 else ms, target)


def _with_a_hole(target: Path) -> None:
    """Pictures and sound of 0.32 s that never arrived."""
    _retime(lambda _, ms: None if 400 <= ms < 720 else ms, target)


def _going_back(target: Path) -> None:
    """Every sixth packet says that it comes before the one that it follows."""
    _retime(lambda number, ms: ms - 60 if number % 6 == 5 else ms, target)


_FLV_SOUND_AND_PICTURE: Final = (8, 9)


def _retime(clock: Callable[[int, int], int | None], target: Path) -> None:
    """
    `claps.flv` with another time in its packets, which FLV writes as signed milliseconds.

    `clock` is called with a packet's number within its stream and its time; None leaves it out.
    """
    data = sample("claps.flv").read_bytes()
    at, numbers = 13, dict.fromkeys(_FLV_SOUND_AND_PICTURE, 0)  # after the header, an empty tag
    made = bytearray(data[:at])
    while at < len(data):
        kind, size = data[at], int.from_bytes(data[at + 1 : at + 4], "big")
        tag = bytearray(data[at : (at := at + 11 + size + 4)])
        if kind in numbers:
            new = clock(numbers[kind], int.from_bytes(tag[4:7], "big"))
            numbers[kind] += 1
            if new is None:
                continue
            high, *low = new.to_bytes(4, "big", signed=True)
            tag[4:8] = bytes([*low, high])
        made += tag
    target.write_bytes(made)


# --- Light and colour ---------------------------------------------------------------------------

GREYS_NITS: Final = (0, 10, 100, 400, 1000)
"""The patches of a film of light from the left, as a screen of 1000 cd/m2 shows PQ."""

COLOURS: Final = ((100, 0, 0), (0, 100, 0), (0, 0, 100))
"""The patches after them: red, green and blue of BT.709, in the wider space of the film."""

# BT.2087: linear light of BT.709 in the primaries of BT.2020.
_TO_BT2020: Final = (
    (0.6274, 0.3293, 0.0433), (0.0691, 0.9195, 0.0114), (0.0164, 0.0880, 0.8956),
)  # fmt: skip


def _pq(nits: float) -> float:
    """The signal of SMPTE ST 2084 for a light."""
    y = (max(0.0, nits) / 10_000) ** 0.1593017578125
    return float(((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375)


def _hlg(nits: float) -> float:
    """The signal of ARIB STD-B67 for a light of the scene, 1000 being the most."""
    e = max(0.0, nits) / 1000
    return (
        math.sqrt(3 * e) if e <= 1 / 12 else 0.17883277 * math.log(12 * e - 0.28466892) + 0.559911
    )


def _light(transfer: str, signal: Callable[[float], float], target: Path) -> None:
    """Columns of known light, as 10 bits of BT.2020."""
    columns = [
        _y_cb_cr([signal(sum(map(operator.mul, row, light))) for row in _TO_BT2020])
        for light in (*((nits,) * 3 for nits in GREYS_NITS), *COLOURS)
    ]
    picture = b""
    for plane, (width, height) in enumerate(((160, 90), (80, 45), (80, 45))):
        row = [columns[x * len(columns) // width][plane] for x in range(width)]
        picture += struct.pack(f"<{width}H", *row) * height
    raw = target.with_suffix(".raw")
    raw.write_bytes(picture * 5)
    inside = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
    _make(
        f"-f rawvideo -pix_fmt yuv420p10le -s 160x90 -r 25 -i {raw} {_DEEP}"
        f" -color_primaries bt2020 -color_trc {transfer} -colorspace bt2020nc -color_range tv"
        f" -x265-params log-level=error:crf=8:{inside}",
        target,
    )


def _y_cb_cr(signal: Sequence[float]) -> tuple[int, int, int]:
    """BT.2020's matrix, in 10 bits of the narrow range."""
    red, green, blue = signal
    luma = 0.2627 * red + 0.6780 * green + 0.0593 * blue
    return (
        round(64 + 876 * luma),
        round(512 + 896 * (blue - luma) / 1.8814),
        round(512 + 896 * (red - luma) / 1.4746),
    )


def _quarters(target: Path) -> None:
    """Red, green, blue and white quarters in a black frame: what is turned or cut shows."""
    quarters = ",".join(
        f"drawbox=x={x}:y={y}:w=80:h=45:t=fill:c={colour}"
        for x, y, colour in ((80, 0, "lime"), (0, 45, "blue"), (80, 45, "white"))
    )
    film = "color=red:size=160x90:rate=25:duration=0.2,format=yuv444p"
    _make(f"-f lavfi -i {film},{quarters},drawbox=c=black:t=20 {FAST} -qp 4", target)


def _quarters_turned(target: Path) -> None:
    rotate(sample("quarters.mp4"), target)


MADE: Final[dict[str, Callable[[Path], None]]] = {
    "rotated.mp4": _turned,
    "trimmed.mp4": _trimmed,
    "light-hdr10.mkv": functools.partial(_light, "smpte2084", _pq),
    "light-hlg.mkv": functools.partial(_light, "arib-std-b67", _hlg),
    "quarters.mp4": _quarters,
    "quarters-turned.mp4": _quarters_turned,
    "words.mkv": _text_subtitles,
    "world.mkv": _several_countries,
    "pictures.mkv": _bitmap_subtitles,
    "cover.m4a": _cover,
    "covered.mp4": _film_with_cover,
    "jumping.ts": _jumping_clock,
    "negative.flv": _before_zero,
    "ahead.flv": _leaping_ahead,
    "hole.flv": _with_a_hole,
    "back.flv": _going_back,
    "cut.mp4": _cut_short,
    "cut.mkv": _cut_in_half,
    "noframes.mp4": _no_frames,
}
"""What takes more than one run of ffmpeg."""

VERSION: Final = 3  # of the functions above, whose text is no part of the recipe


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
