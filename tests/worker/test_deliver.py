"""The order in which the files of a set come to be visible."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from encoder_core.errors import JobError
from encoder_core.reports import OutputResult
from encoder_core.specs import OutputSpec
from encoder_worker.deliver import deliver
from encoder_worker.manifest import Encoded, EncodedFile, hash_file
from tests.contracts.stores import make_access
from tests.servers.http import Fault, HttpServer, Request

HLS, SEGMENT = "application/vnd.apple.mpegurl", "video/iso.segment"
MASTER, PLAYLIST = "/a/film.m3u8", "/a/film-0.m3u8"
SEGMENTS = [f"/a/film-0-{number}.m4s" for number in range(6)]
WAIT_S = 60


@pytest.fixture
def encoded(tmp_path: Path) -> Encoded:
    """A master that names a playlist, which names segments."""
    files = [(MASTER, HLS), (PLAYLIST, HLS), *((path, SEGMENT) for path in SEGMENTS)]
    made = []
    for number, (path, content_type) in enumerate(files):
        file = tmp_path / str(number)
        file.write_text(path)
        made.append(
            EncodedFile(
                path=str(file),
                name=None if path == MASTER else path.rpartition("/")[2],
                size_bytes=len(path),
                sha256=hash_file(file),
                content_type=content_type,
            )
        )
    measured = OutputResult(files=[], size_bytes=1, container="hls")
    return Encoded(path=made[0].path, spec_hash="-", files=made, measured=measured)


def to(server: HttpServer) -> OutputSpec:
    place = {"kind": "http", "url": server.url + MASTER}
    return OutputSpec.model_validate({"container": "hls", "destination": place})


def puts(requests: list[Request]) -> list[str]:
    return [request.path for request in requests]


def test_segments_go_together_and_what_names_them_after_them(
    encoded: Encoded, http_server: HttpServer
) -> None:
    let_go = threading.Event()
    for path in SEGMENTS:
        http_server.misbehave(path, Fault(until=let_go))
    delivering = threading.Thread(target=deliver, args=(encoded, to(http_server), make_access()))
    delivering.start()
    # None of them is answered, so all of them are under way at the same time.
    http_server.wait_for(lambda seen: len(seen) == 4, timeout_s=WAIT_S)
    assert set(puts(http_server.requests)) <= set(SEGMENTS)
    let_go.set()
    delivering.join(WAIT_S)
    assert set(puts(http_server.requests)[:-2]) == set(SEGMENTS)
    assert puts(http_server.requests)[-2:] == [PLAYLIST, MASTER]
    assert http_server.stored(SEGMENTS[3]) == SEGMENTS[3].encode()


def test_files_are_told_in_their_own_order(encoded: Encoded, http_server: HttpServer) -> None:
    result = deliver(encoded, to(http_server), make_access())
    wanted = [http_server.url + path for path in (MASTER, PLAYLIST, *SEGMENTS)]
    assert [file.url for file in result.files] == wanted


def test_without_all_segments_nothing_names_them(encoded: Encoded, http_server: HttpServer) -> None:
    http_server.misbehave(SEGMENTS[2], Fault(status=403))
    with pytest.raises(JobError) as caught:
        deliver(encoded, to(http_server), make_access())
    assert caught.value.code == "destination_denied"
    assert not {MASTER, PLAYLIST} & set(puts(http_server.requests))
