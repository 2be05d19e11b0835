"""
MySQL 9, the database of record, from Debian unstable without installing it.

mmdebstrap downloads and unpacks the server with its own C library beside it; the server is then
started by that library's loader. So it needs no root, no chroot, and leaves the machine's own
packages alone. Unstable cannot be pinned: the run prints the version it met.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.servers.cache import built
from tests.servers.database import AS_ROOT, INIT_SQL, THROW_AWAY_OPTIONS, DatabaseServer, version_of
from tests.servers.process import ServerFailed, ServerProcess, free_port

SUITE = "sid"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
BOOTSTRAP = (
    "mmdebstrap",
    "--mode=chrootless",  # neither root nor a user namespace
    "--variant=extract",  # unpack only: no chroot, no package scripts
    "--include=mysql-server-core",
    # Unstable's Release file expires within a week, and mirrors lag.
    '--aptopt=Acquire::Check-Valid-Until "false"',
    '--aptopt=APT::Install-Recommends "false"',
)
INITIALIZE = (
    "--initialize-insecure",
    "--innodb-redo-log-capacity=8M",  # the folder is copied at each start: keep it small
    "--innodb-flush-method=nosync",
)
# Perl, the clients and the manuals: two thirds of the download that no server needs.
UNUSED = ("usr/bin", "usr/share/doc", "usr/share/man", "usr/share/perl", "usr/share/locale")


@contextmanager
def mysql_server(folder: Path, *, host: str = "127.0.0.1") -> Iterator[DatabaseServer]:
    """Run a server with its data in `folder` (new or empty) as long as the block."""
    prepare(folder)
    port = free_port()
    argv = command(folder, host=host, port=port, options=THROW_AWAY_OPTIONS)
    with ServerProcess(argv, log=folder / "mysqld.log") as process:
        process.wait_until(lambda: bool(version_of(host, port)))
        yield DatabaseServer(host=host, port=port, version=f"MySQL {version_of(host, port)}")


def prepare(folder: Path) -> None:
    """Put an initialised data folder into this one."""
    shutil.copytree(unpacked() / "data", folder / "data")


def command(folder: Path, *, host: str, port: int, options: Sequence[str]) -> list[str]:
    """What starts a server over a prepared folder, the first time and every other time."""
    init = folder / "init.sql"
    init.write_text(INIT_SQL)
    return [
        *_mysqld(unpacked()),
        f"--datadir={folder / 'data'}",
        "--socket=",  # paths of sockets end at 107 characters, those of test folders do not
        f"--pid-file={folder / 'pid'}",
        f"--init-file={init}",
        f"--bind-address={host}",
        f"--port={port}",
        "--mysqlx=OFF",
        "--secure-file-priv=NULL",  # its default folder does not exist: it would refuse to start
        *options,
    ]


def unpacked() -> Path:
    """The folder with the server and an initialised data folder; made once per machine."""
    return built("mysql", repr((SUITE, BOOTSTRAP, INITIALIZE, UNUSED)), _build)


def _build(folder: Path) -> None:
    source = f"deb [signed-by={KEYRING}] {debian_mirror()} {SUITE} main"
    _run([*BOOTSTRAP, SUITE, str(folder), source])
    for unused in UNUSED:
        shutil.rmtree(folder / unused, ignore_errors=True)
    _run([*_mysqld(folder), *INITIALIZE, f"--datadir={folder / 'data'}"])


def _mysqld(root: Path) -> list[str]:
    usr = root / "usr"
    libraries = usr / "lib" / f"{platform.machine()}-linux-gnu"
    [loader] = libraries.glob("ld-linux-*.so.*")
    return [
        *(str(loader), "--library-path", str(libraries)),
        str(usr / "sbin" / "mysqld"),
        "--no-defaults",
        f"--basedir={usr}",
        *AS_ROOT,
    ]


def debian_mirror() -> str:
    """The mirror that this machine's apt uses: it is the one that is known to be reachable."""
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    if sources.exists():
        found = re.search(r"^URIs:\s*(\S+)", sources.read_text(), re.MULTILINE)
    else:
        lines = Path("/etc/apt/sources.list").read_text()
        found = re.search(r"^deb\s+(?:\[[^\]]*\]\s+)?(\S+)", lines, re.MULTILINE)
    if found is None:
        raise ServerFailed("apt names no Debian mirror in /etc/apt")
    return found[1]


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServerFailed(f"{argv[0]} ended with {done.returncode}:\n{done.stderr[-4000:]}")
