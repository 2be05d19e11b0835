"""
Inline sources: bytes that came in the request, kept in chunks until a worker fetches them.

A job has one for its source, under number 0, and one for the watermark of output N under N + 1.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from itertools import count
from typing import Final

from sqlalchemy import Connection, delete, insert, select

from encoder_core.specs import InlineSource, JobSpec
from encoder_db.tables import job_blobs

CHUNK_BYTES: Final = 1024 * 1024  # far below any server's max_allowed_packet
SOURCE_BLOB: Final = 0


def image_blob(index: int) -> int:
    """The number of what the watermark of an output brought."""
    return index + 1


def find_inline(spec: JobSpec) -> dict[int, InlineSource]:
    """What a request has in itself, by the number that it is stored under."""
    places = {SOURCE_BLOB: spec.source} | {
        image_blob(index): output.watermark.source
        for index, output in enumerate(spec.outputs)
        if output.watermark is not None
    }
    return {number: place for number, place in places.items() if isinstance(place, InlineSource)}


def decode_inline(spec: JobSpec) -> dict[int, bytes]:
    """Its bytes."""
    return {
        number: base64.b64decode(place.data or "") for number, place in find_inline(spec).items()
    }


def write_blob(tx: Connection, job_id: int, number: int, data: bytes) -> None:
    """Store the bytes. Empty data is one empty chunk: a source of no bytes is still a source."""
    for chunk, start in enumerate(range(0, max(len(data), 1), CHUNK_BYTES)):
        part = data[start : start + CHUNK_BYTES]
        row = {"job_id": job_id, "number": number, "chunk": chunk, "data": part}
        tx.execute(insert(job_blobs).values(row))


def read_blob(tx: Connection, job_id: int, number: int) -> Iterator[bytes]:
    """The bytes in order, one chunk in memory at a time. Nothing when there are none."""
    for chunk in count():
        data = read_chunk(tx, job_id, number, chunk)
        if data is None:
            return
        yield data


def read_chunk(tx: Connection, job_id: int, number: int, chunk: int) -> bytes | None:
    """One part of them, counted from 0; None behind the last."""
    query = select(job_blobs.c.data).where(
        job_blobs.c.job_id == job_id, job_blobs.c.number == number, job_blobs.c.chunk == chunk
    )
    data = tx.execute(query).scalar_one_or_none()
    return None if data is None else bytes(data)


def list_blobs(tx: Connection, job_id: int) -> frozenset[int]:
    """The numbers of those that a job has."""
    query = select(job_blobs.c.number).where(job_blobs.c.job_id == job_id, job_blobs.c.chunk == 0)
    return frozenset(tx.execute(query).scalars())


def delete_blobs(tx: Connection, job_id: int) -> None:
    tx.execute(delete(job_blobs).where(job_blobs.c.job_id == job_id))
