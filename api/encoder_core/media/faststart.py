"""
Find the index of an MP4 that stands behind its data, and say what it has to be in front of it.

A player needs the index first; a muxer knows it last. `ffmpeg -movflags +faststart` therefore
rewrites the file when all is written, in which nobody can follow it. Without, it only ever appends,
but for the length of the data right at the beginning, and the index is moved afterwards. Pure.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

NARROW_MAX: Final = 2**32 - 1  # the greatest offset that a table of the short kind can hold
_PARENTS: Final = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl"})
_TABLES: Final = {b"stco": "I", b"co64": "Q"}
_HEADER: Final = 8
_TABLE_HEADER: Final = 16  # size, kind, version and flags, number of entries


class BadIndex(Exception):
    """The file is not what a muxer that ended well leaves behind."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where in a file whose index is at the end everything is."""

    front: int
    """Where the index belongs: behind the first box, which says what kind of file it is."""
    index: int
    """Where the index is, which goes on to the end of the file."""


def find_places(file: BinaryIO, size: int) -> Places:
    """Raises BadIndex unless the file is a type, its data, and at the very end its index."""
    at, front = 0, None
    while at < size:
        file.seek(at)
        header = file.read(16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:], "big")
        if length < _HEADER or at + length > size:
            raise BadIndex("a box of it goes on beyond the end")
        if front is None:
            if kind != b"ftyp":
                raise BadIndex("it does not begin with its type")
            front = length
        if kind == b"moov":
            if at + length != size:
                raise BadIndex("its index is not the last that is in it")
            return Places(front, at)
        at += length
    raise BadIndex("it has no index")


@dataclass(frozen=True, slots=True)
class _Table:
    """Where in the file the chunks of one track are."""

    offsets: array[int]
    wide: bool


def relocate(index: bytes) -> bytes:
    """
    The index for a place before the data that it was written behind.

    Every offset grows by the length of the index, which itself grows where offsets get too great
    for the short kind of table, as happens with data of 4 GiB and more.
    """
    tables = list(_read_tables(index, 0, len(index)))
    length = len(index)
    while True:
        widened = [
            not table.wide and max(table.offsets, default=0) + length > NARROW_MAX
            for table in tables
        ]
        grown = sum(
            4 * len(table.offsets) for table, wider in zip(tables, widened, strict=True) if wider
        )
        if len(index) + grown == length:
            break
        length = len(index) + grown
    moved = (
        _write_table(table.offsets, length, wide=table.wide or wider)
        for table, wider in zip(tables, widened, strict=True)
    )
    return _rebuild(index, 0, len(index), moved)


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, beginning and end of each box."""
    while at < end:
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if length < _HEADER or at + length > end:
            raise BadIndex("a box of its index is longer than what holds it")
        yield kind, at, at + length
        at += length


def _read_tables(data: bytes, at: int, end: int) -> Iterator[_Table]:
    for kind, begin, after in _boxes(data, at, end):
        if kind in _PARENTS:
            yield from _read_tables(data, begin + _HEADER, after)
        elif kind in _TABLES:
            offsets = array(_TABLES[kind])
            count = int.from_bytes(data[begin + 12 : begin + _TABLE_HEADER], "big")
            entries = data[begin + _TABLE_HEADER : after]
            if len(entries) != count * offsets.itemsize:
                raise BadIndex("a table of its index is not as long as it says")
            offsets.frombytes(entries)
            _swap(offsets)
            yield _Table(offsets, wide=kind == b"co64")


def _write_table(offsets: array[int], by: int, *, wide: bool) -> bytes:
    kind = b"co64" if wide else b"stco"
    moved = array(_TABLES[kind], [offset + by for offset in offsets])
    _swap(moved)
    length = _TABLE_HEADER + len(moved) * moved.itemsize
    return b"".join(
        [length.to_bytes(4, "big"), kind, bytes(4), len(moved).to_bytes(4, "big"), moved.tobytes()]
    )


def _swap(numbers: array[int]) -> None:
    """Between the file's order of bytes and this machine's."""
    if sys.byteorder == "little":
        numbers.byteswap()


def _rebuild(data: bytes, at: int, end: int, tables: Iterator[bytes]) -> bytes:
    """The same boxes with these tables, in the order in which they were read."""
    rebuilt = []
    for kind, begin, after in _boxes(data, at, end):
        if kind in _PARENTS:
            inner = _rebuild(data, begin + _HEADER, after, tables)
            rebuilt += [(_HEADER + len(inner)).to_bytes(4, "big"), kind, inner]
        elif kind in _TABLES:
            rebuilt.append(next(tables))
        else:
            rebuilt.append(data[begin:after])
    return b"".join(rebuilt)
