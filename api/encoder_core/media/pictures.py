"""
Read what a JPEG or PNG file says of itself, and whether it is all there. Pure.

A set may have a thousand pictures: a process for each would take longer than making them.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG_END: Final = b"\xff\xd9"
_JPEG_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive


class BadPicture(ValueError):
    """The bytes are no whole picture; the message says why."""


@dataclass(frozen=True, slots=True)
class Picture:
    codec: str
    """As ffprobe names it."""
    width: int
    height: int


def parse_picture(data: bytes) -> Picture:
    """Raises BadPicture, also for a picture that ends too early."""
    try:
        if data.startswith(_PNG):
            return _parse_png(data)
        if data.startswith(b"\xff\xd8\xff"):
            return _parse_jpeg(data)
    except (struct.error, IndexError):
        raise BadPicture("it ends in the middle of its header") from None
    raise BadPicture("it is neither JPEG nor PNG")


def _parse_jpeg(data: bytes) -> Picture:
    if not data.endswith(_JPEG_END):
        raise BadPicture("it ends too early")
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return Picture("mjpeg", width, height)
        at += 2 + length
    raise BadPicture("it has no frame header")


def _parse_png(data: bytes) -> Picture:
    width, height = struct.unpack_from(">II", data, 16)
    at = len(_PNG)
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        (checksum,) = struct.unpack_from(">I", data, at + 8 + length)
        if zlib.crc32(data[at + 4 : at + 8 + length]) != checksum:
            raise BadPicture("a part of it is damaged")
        at += 12 + length
        if kind == b"IEND":
            return Picture("png", width, height)
    raise BadPicture("it ends too early")
