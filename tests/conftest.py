"""
Fixtures that every ring may use, the rings, and the rule that nothing is skipped in CI.

Rings: `fast` (no servers, seconds), `system` (databases, S3, FTP, ffmpeg, browser), `cluster`
and `kill`. A folder decides; a test of the fast ring that asks for a server belongs to `system`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import figures
from tests.honesty import pytest_make_collect_report, pytest_runtest_makereport, tell_reruns
from tests.servers import clips
from tests.servers.broker import Broker, ask
from tests.servers.cache import cache_root
from tests.servers.database import Database, DatabaseServer
from tests.servers.ftp import FtpServer
from tests.servers.ftp import ftp_server as run_ftp
from tests.servers.http import HttpServer
from tests.servers.mariadb import mariadb_server as run_mariadb
from tests.servers.mysql import mysql_server as run_mysql
from tests.servers.s3 import S3Bucket, S3Server
from tests.servers.s3 import s3_server as run_s3
from tests.servers.tls import TlsFiles, make_certificates
from tests.servers.webhooks import WebhookReceiver

# Hooks count when conftest has their names.
__all__ = ["pytest_make_collect_report", "pytest_runtest_makereport"]

TESTS = Path(__file__).parent
RINGS = ("fast", "system", "cluster", "kill")
SHARED_SERVERS = {"mysql": run_mysql, "mariadb": run_mariadb, "s3": run_s3}
SERVER_FIXTURES = {"mysql_server", "mariadb_server", "s3_server", "clip"}

BROKER: pytest.StashKey[Broker] = pytest.StashKey()


# A machine that is busy with other test processes is slow now and then; that is no finding.
settings.register_profile("encoder", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("encoder")


# --- Rings -----------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(figures)
    for ring in RINGS:
        config.addinivalue_line("markers", f"{ring}: the {ring} ring")
    config.addinivalue_line("markers", "full: takes minutes; only in a full run of its ring")
    if not hasattr(config, "workerinput"):
        config.stash[BROKER] = Broker(SHARED_SERVERS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(ring_of(item))


def ring_of(item: pytest.Item) -> str:
    folder = item.path.relative_to(TESTS).parts[0]
    if folder in RINGS:
        return folder
    return "system" if needs_server(item) else "fast"


def needs_server(item: pytest.Item) -> bool:
    if SERVER_FIXTURES.intersection(getattr(item, "fixturenames", ())):
        return True
    callspec = getattr(item, "callspec", None)
    return callspec is not None and callspec.params.get("database_url") in {"mysql", "mariadb"}


# --- Servers shared by all test processes of a run -------------------------------------------


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    # `node` is a WorkerController of xdist, which has no types.
    broker = node.config.stash[BROKER]
    if not Path(broker.address).exists():
        broker.listen()
    node.workerinput["broker"] = broker.address


def pytest_report_header() -> str:
    return f"test servers: built once in {cache_root()}"


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    tell_reruns(terminalreporter)
    started = config.stash[BROKER].started.values()
    if started:
        names = ", ".join(server.version for server in started)
        terminalreporter.write_line(f"test servers: {names}")


def pytest_unconfigure(config: pytest.Config) -> None:
    if BROKER in config.stash:
        config.stash[BROKER].close()


def shared_server(config: pytest.Config, kind: str) -> Any:
    if BROKER in config.stash:
        return config.stash[BROKER].get(kind)
    return ask(config.workerinput["broker"], kind)  # type: ignore[attr-defined]  # set by xdist


@pytest.fixture(scope="session")
def mysql_server(pytestconfig: pytest.Config) -> DatabaseServer:
    """MySQL 9, the database of record. One a run; tests use `mysql_database`."""
    server: DatabaseServer = shared_server(pytestconfig, "mysql")
    return server


@pytest.fixture(scope="session")
def mariadb_server(pytestconfig: pytest.Config) -> DatabaseServer:
    server: DatabaseServer = shared_server(pytestconfig, "mariadb")
    return server


# --- Databases -------------------------------------------------------------------------------


@pytest.fixture
def mysql_database(mysql_server: DatabaseServer) -> Iterator[Database]:
    """An empty database on MySQL 9, dropped after the test."""
    with mysql_server.fresh_database() as database:
        yield database


@pytest.fixture
def mariadb_database(mariadb_server: DatabaseServer) -> Iterator[Database]:
    with mariadb_server.fresh_database() as database:
        yield database


@pytest.fixture
def mariadb_url(mariadb_database: Database) -> str:
    return mariadb_database.url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'encoder.db'}"


@pytest.fixture
def mysql_url(mysql_database: Database) -> str:
    return mysql_database.url


@pytest.fixture(params=["sqlite", "mysql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database as SQLAlchemy names it: the test runs once per kind of database."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


# --- Places to fetch from and to deliver to --------------------------------------------------


@pytest.fixture(scope="session")
def s3_server(pytestconfig: pytest.Config) -> S3Server:
    """One a run; tests use `s3_bucket`."""
    server: S3Server = shared_server(pytestconfig, "s3")
    return server


@pytest.fixture
def s3_bucket(s3_server: S3Server) -> S3Bucket:
    """An empty bucket that honours ACLs."""
    return s3_server.make_bucket()


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """Certificates for servers on loopback; clients trust `tls_files.authority`."""
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def ftp_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FtpServer]:
    """Plain FTP over an empty folder."""
    with run_ftp(tmp_path_factory.mktemp("ftp")) as server:
        yield server


@pytest.fixture
def ftps_server(
    tmp_path_factory: pytest.TempPathFactory, tls_files: TlsFiles
) -> Iterator[FtpServer]:
    """Explicit FTPS over an empty folder."""
    with run_ftp(tmp_path_factory.mktemp("ftps"), tls=tls_files) as server:
        yield server


@pytest.fixture
def http_server() -> Iterator[HttpServer]:
    """Serves and stores what it is told, and misbehaves as told."""
    with HttpServer() as server:
        yield server


@pytest.fixture
def https_server(tls_files: TlsFiles) -> Iterator[HttpServer]:
    with HttpServer(tls_files.server_context()) as server:
        yield server


@pytest.fixture
def webhook_receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def clip() -> Callable[[str], Path]:
    """Path of a named clip of tests/servers/clips.py; made by ffmpeg at its first use."""
    return clips.clip
