"""What a locked-in child can and cannot do, tried from inside."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from encoder_worker.sandbox import Box, active_layers, clean_environment, launch_arguments

PYTHON = str(Path(sys.executable).resolve())


def run_inside(
    code: str, folder: Path, *, read: tuple[Path, ...] = (), port: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python locked in like ffmpeg: it may write `folder` and read `read`."""
    argv = launch_arguments(
        [PYTHON, "-I", "-S", "-c", code],
        Box(read=(Path(PYTHON).parents[1] / "lib", *read), write=(folder,), port=port),
        layers=active_layers(),
    )
    return subprocess.run(
        argv,
        cwd=folder,
        env=clean_environment(str(folder)),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    (tmp_path / "inside").mkdir()
    return tmp_path / "inside"


def test_this_kernel_offers_every_layer() -> None:
    """On one that does not, what follows has nothing to test: say so here, in one place."""
    layers = active_layers()
    assert any(layer.startswith("landlock:") for layer in layers)
    assert "seccomp" in layers


def test_it_writes_its_own_folder_and_reads_its_source(inside: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("media")
    code = f"open('out', 'w').write(open({str(source)!r}).read())"
    ended = run_inside(code, inside, read=(source,))
    assert ended.returncode == 0, ended.stderr
    assert (inside / "out").read_text() == "media"


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("open('../secret').read()", id="read another job's file"),
        pytest.param("open('../new', 'w')", id="write beside its folder"),
        pytest.param("open('/proc/1/environ').read()", id="read another process"),
        pytest.param("open('/etc/passwd').read()", id="read the machine's files"),
        pytest.param("import os; os.listdir('/root')", id="list a folder"),
        pytest.param("import os; os.symlink('/etc/passwd', 'l'); open('l')", id="follow a link"),
        pytest.param("import _socket as s; s.socket(s.AF_INET)", id="open an IPv4 socket"),
        pytest.param("import _socket as s; s.socket(s.AF_INET6)", id="open an IPv6 socket"),
        pytest.param("import _socket as s; s.socket(16, 3)", id="open a netlink socket"),
        pytest.param(
            "import ctypes; l = ctypes.CDLL(None, use_errno=True)\n"
            "if l.ptrace(0, 0, 0, 0) < 0: raise PermissionError(ctypes.get_errno(), 'ptrace')",
            id="trace a process",
        ),
        pytest.param(
            "import ctypes; l = ctypes.CDLL(None, use_errno=True)\n"
            "if l.unshare(0x10000000) < 0: raise PermissionError(ctypes.get_errno(), 'unshare')",
            id="make a namespace",
        ),
    ],
)
def test_it_cannot(code: str, inside: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    ended = run_inside(f"print('began', flush=True)\n{code}", inside)
    assert (ended.returncode, ended.stdout) == (1, "began\n"), ended.stderr
    assert "Permission" in ended.stderr or "not permitted" in ended.stderr, ended.stderr
    assert not (tmp_path / "new").exists()


class TestWithAPort:
    """What a run gets that reads from the gateway."""

    def test_it_reaches_the_port(self, inside: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            code = f"import _socket as s; s.socket(2, 1).connect(('127.0.0.1', {port}))"
            ended = run_inside(code, inside, port=port)
        assert ended.returncode == 0, ended.stderr

    @pytest.mark.parametrize(
        "code",
        [
            pytest.param("s.socket(2, 1).connect(('127.0.0.1', OTHER))", id="reach another port"),
            pytest.param("s.socket(2, 1).bind(('127.0.0.1', 0))", id="take a port"),
            pytest.param("s.socket(2, 2)", id="open a UDP socket"),
            pytest.param("s.socket(2, 3, 1)", id="open a raw socket"),
            pytest.param("s.socket(2, 1, 262)", id="open a multipath TCP socket"),
            pytest.param("s.socket(10, 1)", id="open an IPv6 socket"),
            pytest.param("s.socket(1, 1)", id="open a Unix socket"),
            pytest.param(
                "s.socket(2, 1).sendto(b'x', 0x20000000, ('127.0.0.1', OTHER))",
                id="connect by sending",
            ),
        ],
    )
    def test_it_cannot(self, code: str, inside: Path) -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as own,
            socket.create_server(("127.0.0.1", 0)) as other,
        ):
            code = code.replace("OTHER", str(other.getsockname()[1]))
            code = f"import _socket as s; print('began', flush=True); {code}"
            ended = run_inside(code, inside, port=own.getsockname()[1])
        assert (ended.returncode, ended.stdout) == (1, "began\n"), ended.stderr
        assert "Permission" in ended.stderr or "not permitted" in ended.stderr, ended.stderr


def test_it_sees_nothing_of_our_environment(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    ended = run_inside("import os; print(sorted(os.environ))", inside)
    assert ended.stdout.strip() == "['HOME', 'LANG', 'PATH', 'TMPDIR']"


def test_it_leaves_no_core_file(inside: Path) -> None:
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))"
    assert run_inside(code, inside).stdout.strip() == "(0, 0)"


def test_a_layer_that_fails_stops_it(inside: Path) -> None:
    argv = launch_arguments([PYTHON, "-c", "print('ran')"], Box(), layers=["landlock:not-a-number"])
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0
    assert "ran" not in ended.stdout
