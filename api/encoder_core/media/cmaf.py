"""
Read the segments of a CMAF track: what the header says, and what each segment really holds.

Only boxes and the first sample of a segment are read, so a segment costs a few kilobytes however
large it is. ffprobe would cost a process each, and would believe a segment that was cut off.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO, Final

MAX_HEADER_BYTES: Final = 16 * 1024**2  # a moof of a minute has 60 kB; a damaged size may say 4 GB

_CONTAINERS: Final = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"mvex",
                                b"moof", b"traf"})  # fmt: skip
_VIDEO_ENTRY: Final = 78  # bytes of a sample entry before the boxes inside of it
_AUDIO_ENTRY: Final = 28
_FAMILIES: Final = {
    b"avc1": "h264", b"hvc1": "hevc", b"av01": "av1", b"vp09": "vp9",
    b"mp4a": "aac", b"Opus": "opus", b"ac-3": "ac3", b"ec-3": "eac3",
}  # fmt: skip
_IDR: Final = {"h264": frozenset({5}), "hevc": frozenset({19, 20})}
"""Types of NAL units that begin a picture which needs none before it."""


class BadSegment(ValueError):
    """The bytes are not what a CMAF track has; the message says in which way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """What an initialisation segment says."""

    family: str
    """The codec as ffprobe names it."""
    codecs: str
    """The codec as manifests name it (RFC 6381)."""
    timescale: int
    width: int = 0
    height: int = 0
    channels: int = 0
    """0: the header does not tell, as with AC-3."""
    sample_rate: int = 0
    delay_s: Fraction = Fraction(0)
    """What an edit list puts before its first sample."""

    @property
    def is_video(self) -> bool:
        return self.width > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What one media segment holds, in the ticks of its track."""

    start: int
    duration: int
    samples: int
    keyframes: tuple[int, ...]
    """When those are shown that can be decoded by themselves."""
    size_bytes: int


# --- Boxes -----------------------------------------------------------------------------------


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, and where the payload begins and ends, of each box in a range."""
    while start < end:
        if end - start < 8:
            raise BadSegment("a box has no room for its own header")
        size, kind = struct.unpack_from(">I4s", data, start)
        header = 8
        if size == 1 and end - start >= 16:
            (size,) = struct.unpack_from(">Q", data, start + 8)
            header = 16
        if size < header or start + size > end:
            raise BadSegment(f"the box {kind.decode('latin1')} is longer than its file")
        yield kind, start + header, start + size
        start += size


def _find(data: bytes, *path: bytes, start: int = 0, end: int | None = None) -> tuple[int, int]:
    """The payload of the first box on a path. Raises BadSegment when there is none."""
    end = len(data) if end is None else end
    for kind in path:
        found = next((box for box in _boxes(data, start, end) if box[0] == kind), None)
        if found is None:
            raise BadSegment(f"there is no box {kind.decode('latin1')}")
        _, start, end = found
    return start, end


def _read(layout: str, data: bytes, offset: int) -> tuple[int, ...]:
    try:
        values: tuple[int, ...] = struct.unpack_from(layout, data, offset)
    except struct.error:
        raise BadSegment("a box ends in the middle of a field") from None
    return values


# --- The initialisation segment --------------------------------------------------------------


def parse_init(data: bytes) -> Track:
    """Raises BadSegment when it is no initialisation segment of one track that we make."""
    _find(data, b"ftyp")
    trak = _find(data, b"moov", b"trak")
    mdhd, _ = _find(data, b"mdia", b"mdhd", start=trak[0], end=trak[1])
    version = _read(">B", data, mdhd)[0]
    [timescale] = _read(">I", data, mdhd + (20 if version == 1 else 12))
    delay_s = _delay(data, *trak)
    stsd, stsd_end = _find(data, b"mdia", b"minf", b"stbl", b"stsd", start=trak[0], end=trak[1])
    entry = next(_boxes(data, stsd + 8, stsd_end), None)
    if entry is None or timescale == 0:
        raise BadSegment("the track describes no samples")
    kind, start, end = entry
    family = _FAMILIES.get(kind)
    if family is None:
        raise BadSegment(f"the samples are {kind.decode('latin1')}, which is none of our codecs")
    if kind in (b"avc1", b"hvc1", b"av01", b"vp09"):
        width, height = _read(">HH", data, start + 24)
        return Track(
            family=family,
            codecs=_video_codecs(kind, data, start + _VIDEO_ENTRY, end),
            timescale=timescale,
            width=width,
            height=height,
            delay_s=delay_s,
        )
    [channels] = _read(">H", data, start + 16)
    [rate] = _read(">I", data, start + 24)
    if kind == b"mp4a":
        codecs, channels = _aac_codecs(data, start + _AUDIO_ENTRY, end)
    else:
        codecs = kind.decode().lower()
        channels = channels if kind == b"Opus" else 0
    return Track(
        family=family,
        codecs=codecs,
        timescale=timescale,
        channels=channels,
        sample_rate=rate >> 16,
        delay_s=delay_s,
    )


def _delay(data: bytes, start: int, end: int) -> Fraction:
    """How long the edit list shows nothing before it shows the first sample."""
    if all(kind != b"edts" for kind, *_ in _boxes(data, start, end)):
        return Fraction(0)
    elst, _ = _find(data, b"edts", b"elst", start=start, end=end)
    mvhd, _ = _find(data, b"moov", b"mvhd")
    [version] = _read(">B", data, mvhd)
    [timescale] = _read(">I", data, mvhd + (20 if version == 1 else 12))
    version, count = _read(">B3xI", data, elst)
    layout = ">Qq4x" if version == 1 else ">Ii4x"
    empty, at = 0, elst + 8
    for _ in range(count):
        duration, begin = _read(layout, data, at)
        if begin != -1:
            break
        empty += duration
        at += struct.calcsize(layout)
    return Fraction(empty, timescale or 1)


def _video_codecs(kind: bytes, data: bytes, start: int, end: int) -> str:
    box = {b"avc1": b"avcC", b"hvc1": b"hvcC", b"av01": b"av1C", b"vp09": b"vpcC"}[kind]
    at, _ = _find(data, box, start=start, end=end)
    if kind == b"avc1":
        return "avc1.{:02x}{:02x}{:02x}".format(*_read(">3B", data, at + 1))
    if kind == b"hvc1":
        return _hevc_codecs(_read(">BI6BB", data, at + 1))
    if kind == b"av01":
        _, sequence, depths = _read(">3B", data, at)
        tier = "H" if depths & 0x80 else "M"
        depth = (12 if depths & 0x20 else 10) if depths & 0x40 else 8
        return f"av01.{sequence >> 5}.{sequence & 31:02d}{tier}.{depth:02d}"
    profile, level, depths = _read(">3B", data, at + 4)
    return f"vp09.{profile:02d}.{level:02d}.{depths >> 4:02d}"


def _hevc_codecs(fields: tuple[int, ...]) -> str:
    general, compatibility, *constraints, level = fields
    space = ("", "A", "B", "C")[general >> 6]
    reverse = int(f"{compatibility:032b}"[::-1], 2)
    while constraints and constraints[-1] == 0:
        constraints.pop()
    tier = "H" if general & 0x20 else "L"
    parts = [f"{space}{general & 31}", f"{reverse:x}", f"{tier}{level}"]
    return ".".join(["hvc1", *parts, *(f"{byte:x}" for byte in constraints)])


def _aac_codecs(data: bytes, start: int, end: int) -> tuple[str, int]:
    """
    The object types and the channels, out of the descriptors that esds nests.

    The sample entry has a number of channels, too, and by tradition it is 2.
    """
    at, end = _find(data, b"esds", start=start, end=end)
    at += 4
    object_type = 0
    while at < end:
        [tag] = _read(">B", data, at)
        at, length = _descriptor_length(data, at + 1)
        if tag == 3:  # ES_Descriptor: its own fields, then those inside
            [flags] = _read(">B", data, at + 2)
            if flags & 0xE0:
                raise BadSegment("the sound's descriptor depends on another stream")
            at += 3
        elif tag == 4:  # DecoderConfigDescriptor
            [object_type] = _read(">B", data, at)
            at += 13
        elif tag == 5:  # DecoderSpecificInfo: the AudioSpecificConfig
            first, second = _read(">2B", data, at)
            channels = second >> 3 & 15
            return f"mp4a.{object_type:02x}.{first >> 3}", 8 if channels == 7 else channels
        else:
            at += length
    raise BadSegment("the sound's descriptor does not say what it is")


def _descriptor_length(data: bytes, at: int) -> tuple[int, int]:
    length = 0
    for _ in range(4):
        [byte] = _read(">B", data, at)
        at += 1
        length = length << 7 | byte & 0x7F
        if not byte & 0x80:
            break
    return at, length


# --- Media segments --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sample:
    duration: int
    size: int
    sync: bool
    shown_after: int
    """Ticks between when it is decoded and when it is shown."""


def read_segment(file: BinaryIO, size_bytes: int, track: Track) -> Segment:
    """
    What a segment holds. Raises BadSegment when boxes, samples and bytes do not agree.

    A file that was cut off anywhere is found: its last box is longer than what is there.
    """
    at = 0
    start: int | None = None
    clock = 0
    samples = 0
    keyframes: list[int] = []
    pending: list[_Sample] = []
    while at < size_bytes:
        kind, header, size = _box_at(file, at, size_bytes)
        if kind == b"moof":
            if size > MAX_HEADER_BYTES:
                raise BadSegment("the box moof is longer than any of ours")
            base, pending = _parse_moof(_exactly(file, at, size), header)
            if start is None:
                start = clock = base
            elif base != clock:
                raise BadSegment("there is a gap between its fragments")
            for sample in pending:
                if sample.sync and track.is_video:
                    keyframes.append(clock + sample.shown_after)
                clock += sample.duration
        elif kind == b"mdat":
            if size - header != sum(sample.size for sample in pending) or not pending:
                raise BadSegment("its data is not as long as its samples are together")
            if samples == 0:
                _check_first(file, at + header, pending[0], track)
            samples += len(pending)
            pending = []
        at += size
    if start is None or samples == 0 or pending:
        raise BadSegment("there are no samples in it")
    return Segment(
        start=start,
        duration=clock - start,
        samples=samples,
        keyframes=tuple(keyframes),
        size_bytes=size_bytes,
    )


def _box_at(file: BinaryIO, at: int, end: int) -> tuple[bytes, int, int]:
    """Type, length of the header and whole length of the box at an offset."""
    data = _exactly(file, at, min(16, end - at))
    size, kind = struct.unpack_from(">I4s", data) if len(data) >= 8 else (0, b"")
    header = 8
    if size == 1 and len(data) == 16:
        (size,) = struct.unpack_from(">Q", data, 8)
        header = 16
    if size < header or at + size > end:
        raise BadSegment(f"the box {kind.decode('latin1') or '?'} is longer than its file")
    return kind, header, size


def _exactly(file: BinaryIO, at: int, length: int) -> bytes:
    file.seek(at)
    data = file.read(length)
    if len(data) < length:
        raise BadSegment("the file ends in the middle of a box")
    return data


def _parse_moof(data: bytes, header: int) -> tuple[int, list[_Sample]]:
    """When the fragment is decoded, and its samples."""
    traf = _find(data, b"traf", start=header)
    tfhd, _ = _find(data, b"tfhd", start=traf[0], end=traf[1])
    tfdt, _ = _find(data, b"tfdt", start=traf[0], end=traf[1])
    [version_flags] = _read(">I", data, tfdt)
    [base] = _read(">Q" if version_flags >> 24 else ">I", data, tfdt + 4)
    defaults = _parse_tfhd(data, tfhd)
    samples: list[_Sample] = []
    for kind, at, _end in _boxes(data, *traf):
        if kind == b"trun":
            samples += _parse_trun(data, at, defaults)
    return base, samples


_NO_SYNC: Final = 1 << 16
_TFHD: Final = ((0x01, 8), (0x02, 4))  # base data offset, sample description index
_TFHD_DEFAULTS: Final = (0x08, 0x10, 0x20)  # duration, size, flags


def _parse_tfhd(data: bytes, at: int) -> tuple[int, int, int]:
    """The duration, size and flags of samples that say nothing of their own."""
    flags = _read(">I", data, at)[0] & 0xFFFFFF
    at += 8 + sum(length for bit, length in _TFHD if flags & bit)
    values = []
    for bit in _TFHD_DEFAULTS:
        values.append(_read(">I", data, at)[0] if flags & bit else 0)
        at += 4 if flags & bit else 0
    return values[0], values[1], values[2]


def _parse_trun(data: bytes, at: int, defaults: tuple[int, int, int]) -> Iterator[_Sample]:
    version_flags, count = _read(">II", data, at)
    version, flags = version_flags >> 24, version_flags & 0xFFFFFF
    at += 8 + (4 if flags & 0x01 else 0)
    first_flags: int | None = None
    if flags & 0x04:
        [first_flags] = _read(">I", data, at)
        at += 4
    fields = [bit for bit in (0x100, 0x200, 0x400, 0x800) if flags & bit]
    layout = ">" + "".join("i" if bit == 0x800 and version else "I" for bit in fields)
    width = 4 * len(fields)
    for number in range(count):
        values = dict(zip(fields, _read(layout, data, at), strict=True))
        at += width
        own = values.get(0x400, first_flags if number == 0 else None)
        sample_flags = defaults[2] if own is None else own
        yield _Sample(
            duration=values.get(0x100, defaults[0]),
            size=values.get(0x200, defaults[1]),
            sync=not sample_flags & _NO_SYNC,
            shown_after=values.get(0x800, 0),
        )


def _check_first(file: BinaryIO, at: int, sample: _Sample, track: Track) -> None:
    """
    Look into the first sample: its flags may lie, and zeros may be where a picture should be.

    H.264 and HEVC put the length of each NAL unit before it; they have to add up to the sample.
    """
    if track.is_video and not sample.sync:
        raise BadSegment("it does not begin with a keyframe")
    wanted = _IDR.get(track.family)
    if wanted is None:
        return
    end, types = at + sample.size, set()
    while at < end:
        length, head = struct.unpack(">IB", _exactly(file, at, 5))
        if length == 0 or at + 4 + length > end:
            raise BadSegment("its first picture is not made of whole units")
        types.add(head & 0x1F if track.family == "h264" else head >> 1 & 0x3F)
        at += 4 + length
    if not types & wanted:
        raise BadSegment("it does not begin with a keyframe that stands by itself")


def seconds(ticks: int, track: Track) -> Fraction:
    return Fraction(ticks, track.timescale)
