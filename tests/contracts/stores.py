"""A place of every kind on a real server, and a way to look inside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from encoder_core.egress import Dialler
from encoder_core.specs import Destination, Source
from encoder_core.storage import open_destination, open_source
from encoder_core.storage.base import Access, SourceConnector, Upload
from tests.servers.ftp import FtpServer
from tests.servers.http import HttpServer
from tests.servers.s3 import S3Bucket

SOURCE: TypeAdapter[Any] = TypeAdapter(Source)
DESTINATION: TypeAdapter[Any] = TypeAdapter(Destination)
LOOPBACK = ["127.0.0.0/8"]
DATA = bytes(range(256)) * 5000  # 1.28 MB: more than one chunk


class PatientClock:
    """A clock on which pauses take no time; remembers how long they would have been."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@dataclass
class Store:
    """A server, the fields that name a place on it, and a way to look inside."""

    source: Callable[[str], dict[str, Any]]
    destination: Callable[[str], dict[str, Any]] | None
    put: Callable[[str, bytes], None]
    get: Callable[[str], bytes | None]
    names: Callable[[], list[str]]
    access: Access


def make_access(**more: Any) -> Access:
    return Access(dialler=Dialler(LOOPBACK), clock=PatientClock(), **more)


def void(_: object) -> None:
    pass


def http_store(server: HttpServer) -> Store:
    scheme = server.url.partition(":")[0]
    return Store(
        source=lambda path: {"kind": scheme, "url": f"{server.url}/{path}"},
        destination=lambda path: {"kind": scheme, "url": f"{server.url}/{path}"},
        put=lambda path, data: void(server.serve(f"/{path}", data)),
        get=lambda path: server.stored(f"/{path}") if server.has(f"/{path}") else None,
        names=list,
        access=make_access(),
    )


def ftp_store(server: FtpServer) -> Store:
    def put(path: str, data: bytes) -> None:
        target = server.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    return Store(
        source=server.fields,
        destination=server.fields,
        put=put,
        get=lambda path: _read(server.folder / path),
        names=lambda: _names(server.folder),
        access=make_access(),
    )


def s3_store(bucket: S3Bucket) -> Store:
    return Store(
        source=bucket.fields,
        destination=bucket.fields,
        put=bucket.put,
        get=lambda path: bucket.get(path) if path in bucket.keys() else None,  # noqa: SIM118
        names=bucket.keys,
        access=make_access(),
    )


def file_store(root: Path) -> Store:
    def put(path: str, data: bytes) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)

    return Store(
        source=lambda path: {"kind": "file", "path": path},
        destination=lambda path: {"kind": "file", "path": path},
        put=put,
        get=lambda path: _read(root / path),
        names=lambda: _names(root),
        access=make_access(files_root=root),
    )


def inline_store(path: Path) -> Store:
    return Store(
        source=lambda _: {"kind": "inline", "sizeBytes": 1},
        destination=None,
        put=lambda _, data: void(path.write_bytes(data)),
        get=lambda _: _read(path),
        names=list,
        access=make_access(inline_path=path),
    )


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


KINDS = ["file", "http", "https", "ftp", "ftps", "s3"]


def open_reader(store: Store, path: str) -> SourceConnector:
    return open_source(SOURCE.validate_python(store.source(path)), store.access)


def read_all(store: Store, path: str, first: int = 0) -> bytes:
    """What one request brings."""
    return read_once(open_reader(store, path), first)


def read_once(connector: SourceConnector, first: int = 0, *, validator: str | None = None) -> bytes:
    with closing(connector.open(first, validator=validator)) as reading:
        return b"".join(reading.chunks)


def deliver(store: Store, path: str, file: Path, *, name: str | None = None, **more: Any) -> str:
    assert store.destination is not None
    destination = DESTINATION.validate_python({**store.destination(path), **more})
    return open_destination(destination, store.access).put(make_upload(file, name)).url


def make_upload(file: Path, name: str | None = None) -> Upload:
    data = file.read_bytes()
    return Upload(
        path=file,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        content_type="video/mp4",
        name=name,
    )


def clock_of(access: Access) -> PatientClock:
    assert isinstance(access.clock, PatientClock)
    return access.clock
