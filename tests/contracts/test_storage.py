"""Every storage connector keeps the same promises, against real servers."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from encoder_core.egress import Dialler
from encoder_core.errors import JobError
from encoder_core.reports import AmbientCredentials, OutputResult
from encoder_core.specs import OutputSpec
from encoder_core.storage import open_destination, open_source
from encoder_core.storage.base import Access
from encoder_worker.deliver import deliver as send_encoded
from encoder_worker.manifest import Encoded, EncodedFile, hash_file
from tests.contracts.stores import (
    DATA,
    DESTINATION,
    LOOPBACK,
    SOURCE,
    PatientClock,
    Store,
    deliver,
    ftp_store,
    http_store,
    make_access,
    make_upload,
    open_reader,
    read_all,
    read_once,
    s3_store,
)
from tests.servers.ftp import FtpServer
from tests.servers.http import Fault, HttpServer
from tests.servers.s3 import S3Bucket

STORED_WITH = {
    "x-amz-acl",
    "cache-control",
    "x-amz-storage-class",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-meta-film",
}


class TestEverySource:
    def test_says_how_large_it_is(self, source_store: Store) -> None:
        source_store.put("a/clip.mp4", DATA)
        reading = open_reader(source_store, "a/clip.mp4").open()
        reading.close()
        assert reading.stat.size_bytes == len(DATA)

    def test_gives_its_bytes_in_chunks_of_at_most_a_mebibyte(self, source_store: Store) -> None:
        source_store.put("clip.mp4", DATA)
        reading = open_reader(source_store, "clip.mp4").open()
        chunks = list(reading.chunks)
        reading.close()
        assert b"".join(chunks) == DATA
        assert max(map(len, chunks)) <= 1024 * 1024

    def test_gives_a_part_and_says_how_large_the_whole_is(self, source_store: Store) -> None:
        source_store.put("clip.mp4", DATA)
        reading = open_reader(source_store, "clip.mp4").open(0, 1000)
        assert reading.stat.size_bytes == len(DATA)
        assert reading.stat.resumable
        assert b"".join(reading.chunks) == DATA[:1000]
        reading.close()

    def test_goes_on_from_an_offset_while_it_is_unchanged(self, source_store: Store) -> None:
        source_store.put("clip.mp4", DATA)
        connector = open_reader(source_store, "clip.mp4")
        first = connector.open(0, 10)
        first.close()
        rest = connector.open(1_000_000, validator=first.stat.validator)
        assert rest.stat == first.stat
        assert b"".join(rest.chunks) == DATA[1_000_000:]
        rest.close()

    def test_notices_that_it_was_replaced(self, source_store: Store) -> None:
        source_store.put("clip.mp4", DATA)
        connector = open_reader(source_store, "clip.mp4")
        first = connector.open(0, 10)
        first.close()
        source_store.put("clip.mp4", DATA[:-1])
        with pytest.raises(JobError) as caught:
            read_once(connector, 10, validator=first.stat.validator)
        assert caught.value.code == "source_changed"

    def test_that_does_not_exist_is_not_found(self, source_store: Store) -> None:
        with pytest.raises(JobError) as caught:
            open_reader(source_store, "none.mp4").open()
        assert caught.value.code == "source_not_found"

    def test_that_is_empty_is_known_to_be(self, source_store: Store) -> None:
        source_store.put("clip.mp4", b"")
        reading = open_reader(source_store, "clip.mp4").open(0, 1000)
        assert reading.stat.size_bytes == 0
        assert b"".join(reading.chunks) == b""


class TestEveryDestination:
    def test_has_exactly_the_file_when_put_returns(
        self, destination_store: Store, file: Path
    ) -> None:
        deliver(destination_store, "a/b/clip.mp4", file)
        assert destination_store.get("a/b/clip.mp4") == DATA

    def test_has_the_bytes_whose_checksum_the_result_tells(
        self, destination_store: Store, file: Path
    ) -> None:
        assert destination_store.destination is not None
        place = destination_store.destination("clip.mp4")
        spec = OutputSpec.model_validate({"container": "mp4", "destination": place})
        verified = EncodedFile(
            path=str(file), size_bytes=len(DATA), sha256=hash_file(file), content_type="video/mp4"
        )
        measured = OutputResult(files=[], size_bytes=1, container="mp4")
        encoded = Encoded(path=str(file), spec_hash="-", files=[verified], measured=measured)
        [told] = send_encoded(encoded, spec, destination_store.access).files
        there = destination_store.get("clip.mp4")
        assert there is not None
        assert (told.sha256, told.size_bytes) == (sha256(there).hexdigest(), len(there))

    def test_takes_the_same_file_again(self, destination_store: Store, file: Path) -> None:
        deliver(destination_store, "clip.mp4", file)
        deliver(destination_store, "clip.mp4", file)
        assert destination_store.get("clip.mp4") == DATA

    def test_replaces_what_was_there(self, destination_store: Store, file: Path) -> None:
        destination_store.put("clip.mp4", b"older")
        deliver(destination_store, "clip.mp4", file)
        assert destination_store.get("clip.mp4") == DATA

    def test_puts_the_files_of_a_set_beside_its_own_name(
        self, destination_store: Store, file: Path
    ) -> None:
        deliver(destination_store, "set/thumb.jpg", file, name="thumb-00001.jpg")
        assert destination_store.get("set/thumb-00001.jpg") == DATA
        assert destination_store.get("set/thumb.jpg") is None

    def test_publishes_nothing_without_leave(self, destination_store: Store, file: Path) -> None:
        class Fenced(BaseException):
            pass

        def refuse() -> None:
            raise Fenced

        store = replace(
            destination_store, access=replace(destination_store.access, before_publish=refuse)
        )
        with pytest.raises(Fenced):
            deliver(store, "clip.mp4", file)
        assert store.get("clip.mp4") is None
        assert store.names() == []

    def test_answers_an_address_without_credentials(
        self, destination_store: Store, file: Path
    ) -> None:
        url = deliver(destination_store, "clip.mp4", file)
        assert url.endswith("clip.mp4")
        assert "secret" not in url
        assert "only-for-tests" not in url


@pytest.mark.parametrize("kind", ["http", "ftp", "s3"])
def test_a_private_address_is_refused_and_nothing_is_told(
    kind: str, make_store: Callable[[str], Store], file: Path
) -> None:
    store = replace(make_store(kind), access=Access(dialler=Dialler(), clock=PatientClock()))
    with pytest.raises(JobError) as source:
        read_all(store, "clip.mp4")
    with pytest.raises(JobError) as destination:
        deliver(store, "clip.mp4", file)
    assert (source.value.code, str(source.value)) == (
        "address_not_allowed",
        "The address is not allowed.",
    )
    assert destination.value.code == "address_not_allowed"


class TestHttp:
    @pytest.mark.parametrize(
        ("status", "code"),
        [
            pytest.param(404, "source_not_found", id="404 is not found"),
            pytest.param(410, "source_not_found", id="410 is not found"),
            pytest.param(401, "source_denied", id="401 is denied"),
            pytest.param(403, "source_denied", id="403 is denied"),
            pytest.param(418, "source_rejected", id="another 4xx is rejected"),
        ],
    )
    def test_a_permanent_refusal_is_final_at_once(
        self, http_server: HttpServer, status: int, code: str
    ) -> None:
        http_server.misbehave("/clip.mp4", Fault(status=status))
        store = http_store(http_server)
        with pytest.raises(JobError) as caught:
            read_all(store, "clip.mp4")
        assert caught.value.code == code
        assert len(http_server.requests) == 1
        assert f"127.0.0.1 answered {status}" in str(caught.value)

    def test_a_cut_is_a_truncated_source(self, http_server: HttpServer) -> None:
        http_server.serve("/clip.mp4", DATA)
        http_server.misbehave("/clip.mp4", Fault(cut_at=0.5))
        with pytest.raises(JobError) as caught:
            read_all(http_store(http_server), "clip.mp4")
        assert caught.value.code == "source_truncated"

    def test_a_part_from_another_place_is_not_taken(self, http_server: HttpServer) -> None:
        http_server.serve("/clip.mp4", DATA)
        http_server.misbehave("/clip.mp4", Fault(lying_range=True))
        with pytest.raises(JobError) as caught:
            read_all(http_store(http_server), "clip.mp4", 1000)
        assert caught.value.code == "source_rejected"

    def test_a_whole_file_is_not_taken_for_its_rest(self, http_server: HttpServer) -> None:
        http_server.serve("/clip.mp4", DATA)
        http_server.misbehave("/clip.mp4", Fault(ignore_range=True))
        with pytest.raises(JobError) as caught:
            read_all(http_store(http_server), "clip.mp4", 1000)
        assert caught.value.code == "source_unreachable"

    def test_redirects_are_followed(self, http_server: HttpServer) -> None:
        http_server.serve("/clip.mp4", DATA)
        http_server.misbehave("/old.mp4", Fault(redirect_to="/clip.mp4"))
        assert read_all(http_store(http_server), "old.mp4") == DATA

    def test_a_loop_of_redirects_ends(self, http_server: HttpServer) -> None:
        http_server.misbehave("/clip.mp4", Fault(redirect_to="/clip.mp4"))
        with pytest.raises(JobError) as caught:
            read_all(http_store(http_server), "clip.mp4")
        assert caught.value.code == "source_rejected"
        assert len(http_server.requests) == 6

    def test_a_redirect_to_a_private_address_is_refused(self, http_server: HttpServer) -> None:
        http_server.misbehave("/clip.mp4", Fault(redirect_to="http://169.254.169.254/latest/"))
        with pytest.raises(JobError) as caught:
            read_all(http_store(http_server), "clip.mp4")
        assert caught.value.code == "address_not_allowed"

    def test_headers_go_to_the_origin_they_were_set_for_and_no_further(
        self, http_server: HttpServer
    ) -> None:
        with HttpServer() as other:
            other.serve("/clip.mp4", DATA)
            http_server.misbehave("/clip.mp4", Fault(redirect_to=f"{other.url}/clip.mp4"))
            source = {
                "kind": "http",
                "url": f"{http_server.url}/clip.mp4".replace("http://", "http://me:pass@"),
                "headers": {"X-Token": "very-secret"},
            }
            connector = open_source(SOURCE.validate_python(source), make_access())
            assert read_once(connector) == DATA
            first, second = http_server.requests[0].headers, other.requests[0].headers
        assert first["x-token"] == "very-secret"
        assert first["authorization"] == "Basic bWU6cGFzcw=="
        assert not {"x-token", "authorization"} & set(second)

    @pytest.mark.parametrize("status", [307, 308])
    def test_an_upload_goes_where_it_is_sent_on_to(
        self, status: int, http_server: HttpServer, file: Path
    ) -> None:
        http_server.misbehave("/old.mp4", Fault(redirect_to="/new.mp4", redirect_status=status))
        deliver(http_store(http_server), "old.mp4", file)
        assert http_server.stored("/new.mp4") == DATA

    @pytest.mark.parametrize("status", [301, 302, 303])
    def test_a_redirect_that_would_lose_the_upload_is_no_delivery(
        self, status: int, http_server: HttpServer, file: Path
    ) -> None:
        http_server.misbehave("/old.mp4", Fault(redirect_to="/new.mp4", redirect_status=status))
        with pytest.raises(JobError) as caught:
            deliver(http_store(http_server), "old.mp4", file)
        assert caught.value.code == "destination_rejected"
        assert not http_server.has("/new.mp4")

    def test_an_upload_is_not_sent_on_to_a_private_address(
        self, http_server: HttpServer, file: Path
    ) -> None:
        inside = "http://169.254.169.254/latest"
        http_server.misbehave("/clip.mp4", Fault(redirect_to=inside, redirect_status=307))
        with pytest.raises(JobError) as caught:
            deliver(http_store(http_server), "clip.mp4", file)
        assert caught.value.code == "address_not_allowed"

    def test_an_upload_is_tried_again_with_put(self, http_server: HttpServer, file: Path) -> None:
        http_server.misbehave("/clip.mp4", Fault(status=503, times=1))
        deliver(http_store(http_server), "clip.mp4", file)
        assert http_server.stored("/clip.mp4") == DATA
        last = http_server.requests[-1]
        assert (last.method, last.headers["content-length"], last.headers["content-type"]) == (
            "PUT",
            str(len(DATA)),
            "video/mp4",
        )

    def test_a_post_whose_fate_is_unknown_is_not_repeated(
        self, http_server: HttpServer, file: Path
    ) -> None:
        http_server.misbehave("/clip.mp4", Fault(status=503))
        with pytest.raises(JobError) as caught:
            deliver(http_store(http_server), "clip.mp4", file, method="POST")
        assert caught.value.code == "destination_unreachable"
        assert [request.method for request in http_server.requests] == ["POST"]


class TestFtp:
    def test_a_wrong_password_is_denied(self, ftp_server: FtpServer) -> None:
        fields = ftp_server.fields("clip.mp4", password="wrong-password")
        connector = open_source(SOURCE.validate_python(fields), make_access())
        with pytest.raises(JobError) as caught:
            connector.open()
        assert caught.value.code == "source_denied"
        assert "wrong-password" not in str(caught.value)

    @pytest.mark.parametrize(
        "reply",
        [
            pytest.param("426 Connection closed; transfer aborted.", id="the server says so"),
            pytest.param("226 Transfer complete.", id="the server says that all is well"),
        ],
    )
    def test_a_cut_is_a_truncated_source(self, ftp_server: FtpServer, reply: str) -> None:
        store = ftp_store(ftp_server)
        store.put("clip.mp4", DATA)
        ftp_server.faults.cut_after_bytes = 100_000
        ftp_server.faults.cut_reply = reply
        with pytest.raises(JobError) as caught:
            read_all(store, "clip.mp4")
        assert caught.value.code == "source_truncated"

    def test_data_connections_are_dialled_by_the_dialler_to_the_host_that_was_reached(
        self, ftp_server: FtpServer, file: Path
    ) -> None:
        """Whatever address the server names: that is how one sends its clients elsewhere."""
        dialled: list[tuple[str, int]] = []

        def resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
            dialled.append((host, port))
            return [(socket.AF_INET, "127.0.0.1")]

        ftp_server.faults.names_address = "169.254.169.254"
        dialler = Dialler(LOOPBACK, resolve=resolve)
        store = replace(ftp_store(ftp_server), access=Access(dialler=dialler, clock=PatientClock()))
        deliver(store, "clip.mp4", file)
        assert read_all(store, "clip.mp4") == DATA
        assert [host for host, _ in dialled] == ["127.0.0.1"] * 4
        assert [port == ftp_server.port for _, port in dialled] == [True, False] * 2

    def test_a_data_connection_is_checked_like_any_other(self, ftp_server: FtpServer) -> None:
        """As if the name had another address the second time."""
        answers = iter(["127.0.0.1", "10.0.0.1"])
        dialler = Dialler(LOOPBACK, resolve=lambda _host, _port: [(socket.AF_INET, next(answers))])
        store = replace(ftp_store(ftp_server), access=Access(dialler=dialler, clock=PatientClock()))
        store.put("clip.mp4", DATA)
        with pytest.raises(JobError) as caught:
            read_all(store, "clip.mp4")
        assert caught.value.code == "address_not_allowed"

    def test_a_cut_upload_leaves_no_file(self, ftp_server: FtpServer, file: Path) -> None:
        store = ftp_store(ftp_server)
        ftp_server.faults.cut_after_bytes = 100_000
        ftp_server.faults.cut_reply = "226 Transfer complete."
        with pytest.raises(JobError) as caught:
            deliver(store, "clip.mp4", file)
        assert caught.value.code == "destination_unreachable"
        assert store.names() == []

    def test_a_refused_rename_leaves_no_file(self, ftp_server: FtpServer, file: Path) -> None:
        store = ftp_store(ftp_server)
        ftp_server.faults.refuse_rename = True
        with pytest.raises(JobError) as caught:
            deliver(store, "clip.mp4", file)
        assert caught.value.code in ("destination_denied", "destination_rejected")
        assert store.names() == []

    def test_a_url_says_the_same_as_host_and_path(self, ftp_server: FtpServer) -> None:
        store = ftp_store(ftp_server)
        store.put("a/clip.mp4", DATA)
        user, password = ftp_server.user, ftp_server.password
        url = f"ftp://{user}:{password}@127.0.0.1:{ftp_server.port}/a/clip.mp4"
        connector = open_source(SOURCE.validate_python({"kind": "ftp", "url": url}), store.access)
        assert read_once(connector) == DATA

    @pytest.mark.parametrize(
        "path", [pytest.param("%0d%0aDELE x", id="a command"), pytest.param("a/%2e%2e/b", id="..")]
    )
    def test_a_path_that_smuggles_is_refused(self, path: str) -> None:
        url = f"ftp://127.0.0.1/{path.replace(' ', '%20')}"
        with pytest.raises(JobError) as caught:
            open_source(SOURCE.validate_python({"kind": "ftp", "url": url}), make_access())
        assert caught.value.code == "source_rejected"


class TestS3:
    def test_a_large_file_goes_in_parts_and_keeps_its_type(
        self, s3_bucket: S3Bucket, tmp_path: Path
    ) -> None:
        large = tmp_path / "large.mp4"
        large.write_bytes(DATA * 14)  # 17.9 MB: three parts
        store = s3_store(s3_bucket)
        deliver(store, "a/ü +large.mp4", large)
        assert s3_bucket.get("a/ü +large.mp4") == DATA * 14
        head = s3_bucket.client.head_object(Bucket=s3_bucket.name, Key="a/ü +large.mp4")
        assert head["ContentType"] == "video/mp4"
        assert head["ETag"].strip('"').endswith("-3")
        assert s3_bucket.unfinished_uploads() == []

    @pytest.mark.parametrize("copies", [pytest.param(1, id="one"), pytest.param(14, id="parts")])
    def test_what_an_object_is_stored_with_is_sent_when_asked_for_and_only_then(
        self, copies: int, http_server: HttpServer, tmp_path: Path
    ) -> None:
        """The gateway of these tests keeps no ACL and no class, so the request is looked at."""
        large = tmp_path / "encoded.mp4"
        large.write_bytes(DATA * copies)
        fields = {
            "kind": "s3",
            "bucket": "b00",
            "path": "clip.mp4",
            "endpoint": http_server.url,
            "access_key_id": "AKIA",
            "access_key_secret": "secret-key",
        }
        asked = {
            "acl": "public-read",
            "cacheControl": "public, max-age=60",
            "storageClass": "STANDARD_IA",
            "serverSideEncryption": "aws:kms",
            "kmsKeyId": "alias/video",
            "metadata": {"film": "one two"},
        }
        for more in (asked, {}):
            destination = DESTINATION.validate_python({**fields, **more})
            with suppress(JobError):  # it is no store: it takes a single PUT and no parts
                open_destination(destination, make_access()).put(make_upload(large))
        first, *_, last = http_server.requests
        assert (first.method, last.method) == (("PUT",) * 2 if copies == 1 else ("POST",) * 2)
        assert {name: value for name, value in first.headers.items() if name in STORED_WITH} == {
            "x-amz-acl": "public-read",
            "cache-control": "public, max-age=60",
            "x-amz-storage-class": "STANDARD_IA",
            "x-amz-server-side-encryption": "aws:kms",
            "x-amz-server-side-encryption-aws-kms-key-id": "alias/video",
            "x-amz-meta-film": "one two",
        }
        assert not STORED_WITH & set(last.headers)

    def test_metadata_and_cache_control_are_kept(self, s3_bucket: S3Bucket, file: Path) -> None:
        more: dict[str, Any] = {"cacheControl": "no-store", "metadata": {"film": "one"}}
        deliver(s3_store(s3_bucket), "clip.mp4", file, **more)
        head = s3_bucket.client.head_object(Bucket=s3_bucket.name, Key="clip.mp4")
        assert (head["CacheControl"], head["Metadata"]) == ("no-store", {"film": "one"})

    def test_a_redirect_of_the_endpoint_is_not_followed(
        self, http_server: HttpServer, file: Path
    ) -> None:
        with HttpServer() as other:
            elsewhere = f"{other.url}/b00/clip.mp4"
            http_server.misbehave(
                "/b00/clip.mp4", Fault(redirect_to=elsewhere, redirect_status=307)
            )
            fields = {
                "kind": "s3",
                "bucket": "b00",
                "path": "clip.mp4",
                "endpoint": http_server.url,
            }
            with pytest.raises(JobError) as source:
                open_source(SOURCE.validate_python(fields), make_access()).open()
            target = open_destination(DESTINATION.validate_python(fields), make_access())
            with pytest.raises(JobError) as destination:
                target.put(make_upload(file))
            assert other.requests == []
        assert source.value.code == "source_rejected"
        assert destination.value.code == "destination_rejected"

    def test_a_fenced_large_upload_is_aborted(self, s3_bucket: S3Bucket, tmp_path: Path) -> None:
        class Fenced(BaseException):
            pass

        def refuse() -> None:
            raise Fenced

        large = tmp_path / "large.mp4"
        large.write_bytes(DATA * 14)
        store = s3_store(s3_bucket)
        store = replace(store, access=replace(store.access, before_publish=refuse))
        with pytest.raises(Fenced):
            deliver(store, "large.mp4", large)
        assert s3_bucket.keys() == []
        assert s3_bucket.unfinished_uploads() == []

    def test_a_content_type_of_the_request_wins(self, s3_bucket: S3Bucket, file: Path) -> None:
        deliver(s3_store(s3_bucket), "clip.mp4", file, contentType="video/x-own")
        head = s3_bucket.client.head_object(Bucket=s3_bucket.name, Key="clip.mp4")
        assert head["ContentType"] == "video/x-own"

    def test_strange_credentials_are_denied(self, s3_bucket: S3Bucket, file: Path) -> None:
        store = s3_store(s3_bucket)
        with pytest.raises(JobError) as caught:
            deliver(
                store,
                "clip.mp4",
                file,
                access_key_id="AKIANOBODY",
                access_key_secret="nobody-secret",
            )
        assert caught.value.code == "destination_denied"
        assert "nobody" not in str(caught.value).lower()

    def test_a_missing_bucket_is_not_found(self, s3_bucket: S3Bucket, file: Path) -> None:
        with pytest.raises(JobError) as caught:
            deliver(s3_store(s3_bucket), "clip.mp4", file, bucket="no-such-bucket")
        assert caught.value.code == "destination_not_found"

    def test_borrowed_credentials_never_go_to_an_endpoint_of_the_request(
        self, s3_bucket: S3Bucket, http_server: HttpServer
    ) -> None:
        root = s3_bucket.server.root
        ambient = AmbientCredentials(
            access_key_id=SecretStr(root.access_key), access_key_secret=SecretStr(root.secret_key)
        )
        source = {"kind": "s3", "bucket": "b00", "path": "x", "endpoint": http_server.url}
        connector = open_source(SOURCE.validate_python(source), make_access(ambient=ambient))
        with pytest.raises(JobError) as caught:
            connector.open()
        assert caught.value.code == "source_not_found"
        [request] = http_server.requests
        assert "authorization" not in request.headers
        assert root.access_key not in json.dumps(request.headers)

    def test_why_it_was_denied_without_credentials_is_said(self, s3_bucket: S3Bucket) -> None:
        s3_bucket.put("clip.mp4", DATA)
        fields = s3_bucket.fields("clip.mp4")
        del fields["access_key_id"], fields["access_key_secret"]
        connector = open_source(SOURCE.validate_python(fields), make_access())
        with pytest.raises(JobError, match="asked without credentials") as caught:
            connector.open()
        assert caught.value.code == "source_denied"


class TestFiles:
    @pytest.mark.parametrize("path", ["link/secret", "loop", "../secret", "/link/secret"])
    def test_nothing_outside_the_root_is_reached(self, tmp_path: Path, path: str) -> None:
        root, outside = tmp_path / "root", tmp_path / "outside"
        root.mkdir()
        outside.mkdir()
        (outside / "secret").write_bytes(b"secret")
        (root / "link").symlink_to(outside)
        (root / "loop").symlink_to(tmp_path)
        source = SOURCE.validate_python({"kind": "file", "path": "x"})
        with pytest.raises(JobError) as caught:
            open_source(source.model_copy(update={"path": path}), make_access(files_root=root))
        assert caught.value.code == "file_not_allowed"

    def test_without_a_root_no_file_is_served(self) -> None:
        source = SOURCE.validate_python({"kind": "file", "path": "x"})
        with pytest.raises(JobError) as caught:
            open_source(source, make_access())
        assert caught.value.code == "file_not_allowed"
