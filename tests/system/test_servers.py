"""Each test server does what the tests that use it take for granted."""

from __future__ import annotations

import pymysql
import pytest
import requests
from botocore.exceptions import ClientError

from tests.servers.database import Database, DatabaseServer
from tests.servers.s3 import S3Bucket


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
