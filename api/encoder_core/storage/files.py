"""Files of this machine: under `ENCODER_FILES_ROOT`, or the bytes of an inline source."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from encoder_core.errors import JobError
from encoder_core.specs import FileDestination, FileSource, InlineSource
from encoder_core.storage.base import Access, Delivered, Reading, SourceStat, Upload
from encoder_core.storage.failing import Side

CHUNK_BYTES: Final = 1024 * 1024
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def resolve_under(root: Path | None, path: str) -> Path:
    """
    The real path of a file under the root; symbolic links are followed, then checked.

    Raises JobError `file_not_allowed` for whatever ends up elsewhere, whether it exists or not, so
    that the answer tells nothing of what is outside.
    """
    if root is None:
        raise JobError(
            "file_not_allowed", "This engine serves no files: ENCODER_FILES_ROOT is not set."
        )
    base = root.resolve()
    real = (base / path.lstrip("/")).resolve()
    if real == base or not real.is_relative_to(base):
        raise JobError("file_not_allowed", "The path leads out of the folder of files.")
    return real


class _LocalSource:
    """A source that needs no fetching."""

    parallel = True

    def __init__(self, path: Path) -> None:
        self.local_path: Path | None = path
        self._path = path

    def open(
        self, first: int = 0, end: int | None = None, *, validator: str | None = None
    ) -> Reading:
        stat = self._stat()
        if validator is not None and stat.validator != validator:
            raise Side.SOURCE.fail("changed", "The file changed while it was read.")
        return Reading(stat, self._read(first, end))

    def _stat(self) -> SourceStat:
        try:
            found = self._path.stat()
        except OSError as error:
            raise _source_failure(error) from error
        if not self._path.is_file():
            raise Side.SOURCE.fail("not_found", "The source is not a file.")
        return SourceStat(found.st_size, f"{found.st_size}-{found.st_mtime_ns}", ranges=True)

    def _read(self, first: int, end: int | None) -> Iterator[bytes]:
        left = float("inf") if end is None else end - first
        try:
            with self._path.open("rb") as file:
                file.seek(first)
                while left > 0 and (chunk := file.read(int(min(CHUNK_BYTES, left)))):
                    left -= len(chunk)
                    yield chunk
        except OSError as error:
            raise _source_failure(error) from error


def _source_failure(error: OSError) -> JobError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Side.SOURCE.fail("not_found", "The source file does not exist.")
    if isinstance(error, PermissionError):
        return Side.SOURCE.fail("denied", "The service may not read the source file.")
    return Side.SOURCE.fail("unreachable", f"The source file cannot be read: {error.strerror}.")


class FileSourceConnector(_LocalSource):
    def __init__(self, source: FileSource, access: Access) -> None:
        super().__init__(resolve_under(access.files_root, source.path))


class InlineSourceConnector(_LocalSource):
    """The bytes that came with the request, where the engine has put them."""

    def __init__(self, source: InlineSource, access: Access) -> None:
        if access.inline_path is None:
            raise Side.SOURCE.fail("not_found", "The bytes of the inline source are not here.")
        super().__init__(access.inline_path)


class FileDestinationConnector:
    at_once = 1

    def __init__(self, destination: FileDestination, access: Access) -> None:
        self._root = access.files_root
        self._path = destination.path
        self._before_publish = access.before_publish

    def put(self, upload: Upload) -> Delivered:
        """Copied under a temporary name in the same folder, synced, then renamed."""
        name = self._path if upload.name is None else beside(self._path, upload.name)
        target = resolve_under(self._root, name)
        if target.is_dir():
            raise Side.DESTINATION.fail("rejected", "The destination is a folder; name a file.")
        part = target.with_name(f".{target.name[:200]}.{secrets.token_hex(6)}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with upload.path.open("rb") as source, part.open("xb") as copy:
                    shutil.copyfileobj(source, copy, CHUNK_BYTES)
                    copy.flush()
                    os.fsync(copy.fileno())
                self._before_publish()
                part.replace(target)
            finally:
                with suppress(OSError):
                    part.unlink(missing_ok=True)
        except OSError as error:
            raise _destination_failure(error) from error
        return Delivered(target.as_uri())


def beside(path: str, name: str) -> str:
    """The path of another file of a set: in the folder of the destination's own."""
    folder = path.rpartition("/")[0]
    return f"{folder}/{name}" if folder else name


def _destination_failure(error: OSError) -> JobError:
    if error.errno in FULL:
        return Side.DESTINATION.fail("full", "The folder of files has no room.")
    if isinstance(error, PermissionError):
        return Side.DESTINATION.fail("denied", "The service may not write in this folder.")
    return Side.DESTINATION.fail("rejected", f"The file cannot be written: {error.strerror}.")
