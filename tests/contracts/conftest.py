"""One store of each kind, for the tests that run over all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contracts.stores import (
    DATA,
    KINDS,
    Store,
    file_store,
    ftp_store,
    http_store,
    inline_store,
    s3_store,
)
from tests.servers.tls import TlsFiles


@pytest.fixture
def make_store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Store]:
    def make(kind: str) -> Store:
        if kind in ("https", "ftps"):
            files: TlsFiles = request.getfixturevalue("tls_files")
            monkeypatch.setenv("SSL_CERT_FILE", str(files.authority))
        match kind:
            case "file":
                root = tmp_path / "files"
                root.mkdir()
                return file_store(root)
            case "inline":
                return inline_store(tmp_path / "inline")
            case "http" | "https":
                return http_store(request.getfixturevalue(f"{kind}_server"))
            case "ftp" | "ftps":
                return ftp_store(request.getfixturevalue(f"{kind}_server"))
        return s3_store(request.getfixturevalue("s3_bucket"))

    return make


@pytest.fixture(params=[*KINDS, "inline"])
def source_store(request: pytest.FixtureRequest, make_store: Callable[[str], Store]) -> Store:
    return make_store(request.param)


@pytest.fixture(params=KINDS)
def destination_store(request: pytest.FixtureRequest, make_store: Callable[[str], Store]) -> Store:
    return make_store(request.param)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "encoded.mp4"
    path.write_bytes(DATA)
    return path
