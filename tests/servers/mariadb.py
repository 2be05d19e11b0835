"""MariaDB, from the machine's Debian packages: own data folder, never the packaged service."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.cache import built
from tests.servers.database import AS_ROOT, INIT_SQL, THROW_AWAY_OPTIONS, DatabaseServer, version_of
from tests.servers.process import ServerFailed, ServerProcess, free_port

SERVER = "/usr/sbin/mariadbd"  # sbin is not on every user's path
INITIALIZE = (
    "mariadb-install-db",
    "--no-defaults",
    "--force",  # or it looks the host name up, which not every container can
    "--auth-root-authentication-method=normal",
    "--skip-test-db",
    "--skip-name-resolve",
    "--innodb-log-file-size=8M",  # the folder is copied at each start: keep it small
)


@contextmanager
def mariadb_server(folder: Path, *, host: str = "127.0.0.1") -> Iterator[DatabaseServer]:
    """Run a server with its data in `folder` (new or empty) as long as the block."""
    shutil.copytree(initialised() / "data", folder / "data")
    init = folder / "init.sql"
    init.write_text(INIT_SQL)
    port = free_port()
    argv = [
        SERVER,
        "--no-defaults",
        *AS_ROOT,
        f"--datadir={folder / 'data'}",
        # Paths of sockets end at 107 characters, those of test folders do not: relative to datadir.
        "--socket=s",
        f"--pid-file={folder / 'pid'}",
        f"--init-file={init}",
        f"--bind-address={host}",
        f"--port={port}",
        "--skip-name-resolve",
        *THROW_AWAY_OPTIONS,
    ]
    with ServerProcess(argv, log=folder / "mariadbd.log") as process:
        process.wait_until(lambda: bool(version_of(host, port)))
        yield DatabaseServer(host=host, port=port, version=f"MariaDB {version_of(host, port)}")


def initialised() -> Path:
    version = subprocess.run([SERVER, "--version"], capture_output=True, text=True, check=True)
    return built("mariadb", repr((version.stdout, INITIALIZE)), _build)


def _build(folder: Path) -> None:
    argv = [*INITIALIZE, *AS_ROOT, f"--datadir={folder / 'data'}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServerFailed(f"mariadb-install-db: {done.stdout[-2000:]}{done.stderr[-2000:]}")
