"""Each test server does what the tests that use it take for granted."""

from __future__ import annotations

import pymysql
import pytest

from tests.servers.database import Database, DatabaseServer


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
