"""Each test server does what the tests that use it take for granted."""

from __future__ import annotations

import contextlib
import ftplib
import json
import ssl
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pymysql
import pytest
import requests
from botocore.exceptions import ClientError
from standardwebhooks import Webhook

from tests.servers import clips
from tests.servers.database import Database, DatabaseServer
from tests.servers.ftp import FtpServer
from tests.servers.http import Fault, HttpServer
from tests.servers.s3 import S3Bucket
from tests.servers.tls import TlsFiles
from tests.servers.webhooks import Answer, WebhookReceiver


@pytest.mark.parametrize("fixture", ["mysql_database", "mariadb_database"])
def test_a_database_is_empty_and_writable(fixture: str, request: pytest.FixtureRequest) -> None:
    database: Database = request.getfixturevalue(fixture)
    with (
        pymysql.connect(
            host=database.host,
            port=database.port,
            user=database.user,
            password=database.password,
            database=database.database,
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SHOW TABLES")
        assert cursor.fetchall() == ()
        cursor.execute("CREATE TABLE t (id INT PRIMARY KEY)")
        cursor.execute("INSERT INTO t VALUES (1)")
        cursor.execute("SELECT id FROM t FOR UPDATE SKIP LOCKED")
        assert cursor.fetchall() == ((1,),)


def test_mysql_is_the_version_that_the_design_names(mysql_server: DatabaseServer) -> None:
    assert mysql_server.version.startswith("MySQL 9.")


def test_a_url_is_given_per_kind_of_database(database_url: str) -> None:
    assert database_url.split(":")[0] in ("sqlite", "mysql+pymysql")


# --- S3 --------------------------------------------------------------------------------------


def test_a_bucket_stores_what_is_put(s3_bucket: S3Bucket) -> None:
    s3_bucket.put("a/b.bin", b"bytes")
    assert s3_bucket.get("a/b.bin") == b"bytes"
    assert s3_bucket.keys() == ["a/b.bin"]


def test_s3_honours_content_type_ranges_and_preconditions(s3_bucket: S3Bucket) -> None:
    client, bucket = s3_bucket.client, s3_bucket.name
    client.put_object(Bucket=bucket, Key="clip", Body=b"0123456789", ContentType="video/mp4")
    head = client.head_object(Bucket=bucket, Key="clip")
    part = client.get_object(Bucket=bucket, Key="clip", Range="bytes=2-4", IfMatch=head["ETag"])
    assert (head["ContentType"], part["Body"].read()) == ("video/mp4", b"234")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.get_object(Bucket=bucket, Key="clip", IfMatch='"another"')


def test_only_a_public_bucket_is_readable_without_credentials(s3_bucket: S3Bucket) -> None:
    s3_bucket.put("clip", b"bytes")
    url = f"{s3_bucket.server.endpoint}/{s3_bucket.name}/clip"
    assert requests.get(url, timeout=5).status_code == 403
    s3_bucket.make_public()
    assert requests.get(url, timeout=5).content == b"bytes"


def test_unfinished_uploads_are_seen(s3_bucket: S3Bucket) -> None:
    s3_bucket.client.create_multipart_upload(Bucket=s3_bucket.name, Key="half")
    assert s3_bucket.unfinished_uploads() == ["half"]


def test_the_stranger_is_refused(s3_bucket: S3Bucket) -> None:
    stranger = s3_bucket.server.client(s3_bucket.server.stranger)
    with pytest.raises(ClientError, match="AccessDenied"):
        stranger.get_object(Bucket=s3_bucket.name, Key="any")


# --- HTTP with faults ------------------------------------------------------------------------

TIMEOUT_S = 5
DATA = bytes(range(256)) * 400


def test_http_serves_files_ranges_and_preconditions(http_server: HttpServer) -> None:
    url = http_server.serve("/clip.mp4", DATA)
    whole = requests.get(url, timeout=TIMEOUT_S)
    part = requests.get(url, headers={"Range": "bytes=10-19"}, timeout=TIMEOUT_S)
    tail = requests.get(url, headers={"Range": "bytes=-5"}, timeout=TIMEOUT_S)
    head = requests.head(url, timeout=TIMEOUT_S)
    assert (whole.status_code, whole.content) == (200, DATA)
    assert (part.status_code, part.content) == (206, DATA[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(DATA)}"
    assert tail.content == DATA[-5:]
    assert (head.headers["Content-Length"], head.content) == (str(len(DATA)), b"")
    beyond = {"Range": f"bytes={len(DATA)}-"}
    other = {"If-Match": '"other"'}
    assert requests.get(url, headers=beyond, timeout=TIMEOUT_S).status_code == 416
    assert requests.get(url, headers=other, timeout=TIMEOUT_S).status_code == 412
    assert requests.get(http_server.url + "/none", timeout=TIMEOUT_S).status_code == 404


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize(
    "body", [pytest.param([DATA], id="chunked"), pytest.param(DATA, id="with a length")]
)
def test_http_stores_uploads(
    http_server: HttpServer, method: str, body: bytes | list[bytes]
) -> None:
    sent = iter(body) if isinstance(body, list) else body
    answer = requests.request(
        method, http_server.url + "/up", data=sent, headers={"X-Own": "1"}, timeout=TIMEOUT_S
    )
    [seen] = http_server.requests
    assert (answer.status_code, http_server.stored("/up")) == (201, DATA)
    assert (seen.method, seen.path, seen.headers["x-own"], seen.status) == (method, "/up", "1", 201)


def test_http_works_through_its_faults_in_order(http_server: HttpServer) -> None:
    http_server.serve("/clip", DATA)
    url = http_server.misbehave(
        "/clip", Fault(status=503, retry_after="1", times=2), Fault(redirect_to="/clip", times=1)
    )
    answers = [requests.get(url, allow_redirects=False, timeout=TIMEOUT_S) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [503, 503, 302, 200]
    assert answers[0].headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(cut_at=0.5), id="cut"),
        pytest.param(Fault(cut_at=0.5, reset=True), id="reset"),
        pytest.param(Fault(length_off_by=10), id="a length that promises more"),
        pytest.param(Fault(cut_at=0.5, no_length=True), id="cut while chunked"),
    ],
)
def test_http_ends_a_body_early(http_server: HttpServer, fault: Fault) -> None:
    http_server.serve("/clip", DATA)
    url = http_server.misbehave("/clip", fault)
    with pytest.raises(requests.RequestException):
        requests.get(url, timeout=TIMEOUT_S)
    http_server.wait_for(lambda seen: seen[0].finished)
    assert http_server.requests[0].sent == len(DATA) * (fault.cut_at or 1)


def test_http_lies_about_ranges_and_files(http_server: HttpServer) -> None:
    url = http_server.serve("/clip", DATA)
    etag = requests.head(url, timeout=TIMEOUT_S).headers["ETag"]

    def ranged(fault: Fault, **headers: str) -> requests.Response:
        http_server.misbehave("/clip", fault)
        headers = {"Range": "bytes=10-19", **headers}
        return requests.get(url, headers=headers, timeout=TIMEOUT_S)

    ignored = ranged(Fault(ignore_range=True))
    lie = ranged(Fault(lying_range=True))
    changed = ranged(Fault(changed=True))
    assert (ignored.status_code, ignored.content) == (200, DATA)
    assert (lie.status_code, lie.content) == (206, DATA[9:19])
    assert lie.headers["Content-Range"] == f"bytes 9-18/{len(DATA)}"
    assert (changed.status_code, changed.content) == (206, DATA[::-1][10:20])
    assert changed.headers["ETag"] != etag
    assert ranged(Fault(changed=True), **{"If-Match": etag}).status_code == 412
    assert "Content-Length" not in ranged(Fault(no_length=True)).headers
    assert "ETag" not in ranged(Fault(no_etag=True)).headers


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(hang=True), id="without an answer"),
        pytest.param(Fault(stall_at=0.5), id="in the middle of the body"),
    ],
)
def test_http_keeps_a_client_waiting(http_server: HttpServer, fault: Fault) -> None:
    http_server.serve("/clip", DATA)
    url = http_server.misbehave("/clip", fault)
    with pytest.raises((requests.Timeout, requests.ConnectionError), match="timed out"):
        requests.get(url, timeout=0.2)


def test_http_drips(http_server: HttpServer) -> None:
    """A drip is no time-out of a socket: whoever reads has to notice the pace."""
    http_server.serve("/clip", DATA)
    url = http_server.misbehave("/clip", Fault(bytes_per_s=40))
    with requests.get(url, timeout=TIMEOUT_S, stream=True) as answer:
        assert answer.raw.read(3) == DATA[:3]
        [seen] = http_server.requests
        assert (seen.status, seen.finished) == (200, False)


def test_https_is_trusted_through_its_authority(
    https_server: HttpServer, tls_files: TlsFiles
) -> None:
    url = https_server.serve("/clip", DATA)
    answer = requests.get(url, verify=str(tls_files.authority), timeout=TIMEOUT_S)
    assert answer.content == DATA
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(url, timeout=TIMEOUT_S)


# --- FTP -------------------------------------------------------------------------------------


def plain(server: FtpServer) -> ftplib.FTP:
    client = ftplib.FTP(timeout=TIMEOUT_S)
    client.connect(server.host, server.port)
    client.login(server.user, server.password)
    return client


def upload(client: ftplib.FTP, data: bytes = DATA) -> str:
    return client.storbinary("STOR up.bin", BytesIO(data))


def download(client: ftplib.FTP) -> bytes:
    received = bytearray()
    client.retrbinary("RETR up.bin", received.extend)
    return bytes(received)


def test_ftp_stores_renames_and_serves(ftp_server: FtpServer) -> None:
    with plain(ftp_server) as client:
        assert upload(client).startswith("226")
        assert download(client) == DATA
        client.rename("up.bin", "final.bin")
        assert client.size("final.bin") == len(DATA)
    assert (ftp_server.folder / "final.bin").read_bytes() == DATA
    assert "STOR up.bin" in ftp_server.commands
    assert ftp_server.password not in " ".join(ftp_server.commands)


def test_ftp_refuses_a_wrong_password(ftp_server: FtpServer) -> None:
    with ftplib.FTP(timeout=TIMEOUT_S) as client:
        client.connect(ftp_server.host, ftp_server.port)
        with pytest.raises(ftplib.error_perm, match="530"):
            client.login(ftp_server.user, "wrong")


def test_ftps_stores_and_serves_over_tls_only(ftps_server: FtpServer, tls_files: TlsFiles) -> None:
    context = ssl.create_default_context(cafile=str(tls_files.authority))
    with ftplib.FTP_TLS(timeout=TIMEOUT_S, context=context) as client:
        client.connect(ftps_server.host, ftps_server.port)
        client.login(ftps_server.user, ftps_server.password)
        client.prot_p()
        assert upload(client).startswith("226")
        assert download(client) == DATA
    with ftplib.FTP(timeout=TIMEOUT_S) as client:
        client.connect(ftps_server.host, ftps_server.port)
        with pytest.raises(ftplib.error_perm, match="SSL/TLS required"):
            client.login(ftps_server.user, ftps_server.password)


def test_ftp_is_full_for_a_while(ftp_server: FtpServer) -> None:
    ftp_server.faults.refuse_logins = 1
    with ftplib.FTP(timeout=TIMEOUT_S) as client:
        client.connect(ftp_server.host, ftp_server.port)
        with pytest.raises(ftplib.error_temp, match="421"):
            client.login(ftp_server.user, ftp_server.password)
    plain(ftp_server).close()


def test_ftp_stores_and_never_says_so(ftp_server: FtpServer) -> None:
    ftp_server.faults.final_reply = "silent"
    client = plain(ftp_server)
    assert client.sock is not None
    client.sock.settimeout(0.3)
    with client, pytest.raises(TimeoutError):
        upload(client)
    assert (ftp_server.folder / "up.bin").read_bytes() == DATA


def test_ftp_hangs_up_after_storing(ftp_server: FtpServer) -> None:
    ftp_server.faults.final_reply = "hang_up"
    with plain(ftp_server) as client, pytest.raises((EOFError, ConnectionError)):
        upload(client)
    assert (ftp_server.folder / "up.bin").read_bytes() == DATA


def test_ftp_refuses_to_rename(ftp_server: FtpServer) -> None:
    ftp_server.faults.refuse_rename = True
    with plain(ftp_server) as client:
        upload(client)
        with pytest.raises(ftplib.error_perm, match="553"):
            client.rename("up.bin", "final.bin")


def test_ftp_cuts_a_transfer(ftp_server: FtpServer) -> None:
    with plain(ftp_server) as client:
        upload(client)
        ftp_server.faults.cut_after_bytes = 1000
        with pytest.raises(ftplib.error_temp, match="426"):
            download(client)
        ftp_server.faults.cut_reply = "226 Transfer complete."
        assert download(client) == DATA[:1000]


def test_ftp_cuts_an_upload(ftp_server: FtpServer) -> None:
    ftp_server.faults.cut_after_bytes = 1000
    # Not `with client`: its QUIT would meet the reply of the cut when the upload did not.
    with (
        contextlib.closing(plain(ftp_server)) as client,
        pytest.raises((ftplib.error_temp, ConnectionError)),
    ):
        upload(client)
    assert (ftp_server.folder / "up.bin").read_bytes() == DATA[:1000]


# --- Webhooks --------------------------------------------------------------------------------


def deliver(receiver: WebhookReceiver, *, secret: str | None = None) -> int:
    now = datetime.now(UTC)
    body = json.dumps({"type": "job.completed"})
    signature = Webhook(secret or receiver.secret).sign("msg_1", now, body)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
    url = receiver.url + "/hook"
    return requests.post(url, data=body, headers=headers, timeout=0.5).status_code


def test_a_delivery_is_kept_and_verified(webhook_receiver: WebhookReceiver) -> None:
    assert deliver(webhook_receiver) == 204
    [delivery] = webhook_receiver.wait_for(1)
    assert (delivery.path, delivery.id, delivery.refused) == ("/hook", "msg_1", "")
    assert delivery.body == {"type": "job.completed"}


def test_a_foreign_signature_is_seen(webhook_receiver: WebhookReceiver) -> None:
    deliver(webhook_receiver, secret="whsec_c29tZWJvZHkgZWxzZQ==")
    [delivery] = webhook_receiver.wait_for(1)
    assert delivery.refused != ""


def test_a_receiver_answers_as_told(webhook_receiver: WebhookReceiver) -> None:
    webhook_receiver.answer("/hook", Answer(status=500), Answer(status=410), Answer(hang=True))
    assert [deliver(webhook_receiver), deliver(webhook_receiver)] == [500, 410]
    with pytest.raises(requests.Timeout):
        deliver(webhook_receiver)
    assert deliver(webhook_receiver) == 204
    assert len(webhook_receiver.deliveries) == 4


def test_waiting_in_vain_says_what_came(webhook_receiver: WebhookReceiver) -> None:
    deliver(webhook_receiver)
    with pytest.raises(AssertionError, match=r"job\.completed"):
        webhook_receiver.wait_for(2, timeout_s=0.05)


# --- Clips -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*clips.RECIPES, clips.ROTATED])
def test_a_clip_can_be_decoded(name: str, clip: Callable[[str], Path]) -> None:
    decode = ["ffmpeg", "-v", "error", "-xerror", "-i", str(clip(name)), "-f", "null", "-"]
    done = subprocess.run(decode, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_rotated_clip_looks_upright(clip: Callable[[str], Path]) -> None:
    argv = ["ffmpeg", "-i", str(clip(clips.ROTATED)), "-vf", "showinfo", "-f", "null", "-"]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "s:180x320" in shown.stderr
