"""Inline sources: bytes that came in the request, kept in chunks until a worker fetches them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, delete, insert, select

from encoder_db.tables import job_blobs

CHUNK_BYTES: Final = 1024 * 1024  # far below any server's max_allowed_packet


def write_blob(tx: Connection, job_id: int, data: bytes) -> None:
    """Store the bytes. Empty data is one empty chunk: a source of no bytes is still a source."""
    for chunk, start in enumerate(range(0, max(len(data), 1), CHUNK_BYTES)):
        part = data[start : start + CHUNK_BYTES]
        tx.execute(insert(job_blobs).values(job_id=job_id, chunk=chunk, data=part))


def read_blob(tx: Connection, job_id: int) -> Iterator[bytes]:
    """The bytes in order, one chunk in memory at a time. Nothing when there are none."""
    chunk = 0
    while True:
        query = select(job_blobs.c.data).where(
            job_blobs.c.job_id == job_id, job_blobs.c.chunk == chunk
        )
        data = tx.execute(query).scalar_one_or_none()
        if data is None:
            return
        yield bytes(data)
        chunk += 1


def has_blob(tx: Connection, job_id: int) -> bool:
    query = select(job_blobs.c.job_id).where(job_blobs.c.job_id == job_id, job_blobs.c.chunk == 0)
    return tx.execute(query).first() is not None


def delete_blob(tx: Connection, job_id: int) -> None:
    tx.execute(delete(job_blobs).where(job_blobs.c.job_id == job_id))
