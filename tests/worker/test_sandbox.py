"""What a locked-in child can and cannot do, tried from inside."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from encoder_worker.sandbox import Box, active_layers, clean_environment, launch_arguments

PYTHON = str(Path(sys.executable).resolve())


def run_inside(
    code: str,
    folder: Path,
    *,
    read: tuple[Path, ...] = (),
    port: int | None = None,
    **limits: Any,
) -> subprocess.CompletedProcess[str]:
    """Run Python locked in like ffmpeg: it may write `folder` and read `read`."""
    argv = launch_arguments(
        [PYTHON, "-I", "-S", "-c", code],
        Box(read=(Path(PYTHON).parents[1] / "lib", *read), write=(folder,), port=port, **limits),
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
        pytest.param(
            "import os; open(f'/proc/{os.getppid()}/environ').read()", id="read another process"
        ),
        pytest.param("open('/etc/passwd').read()", id="read the machine's files"),
        pytest.param("import os; os.listdir('/etc')", id="list a folder"),
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
    code = f"print('began', flush=True)\n{code}"
    succeeds_without_the_sandbox(code, tmp_path)
    (tmp_path / "new").unlink(missing_ok=True)
    ended = run_inside(code, inside)
    assert (ended.returncode, ended.stdout) == (1, "began\n"), ended.stderr
    assert "Permission" in ended.stderr or "not permitted" in ended.stderr, ended.stderr
    assert not (tmp_path / "new").exists()


def succeeds_without_the_sandbox(code: str, folder: Path) -> None:
    """What fails anyway would prove nothing."""
    (folder / "free").mkdir()
    argv = [PYTHON, "-I", "-S", "-c", code]
    free = subprocess.run(
        argv, cwd=folder / "free", capture_output=True, text=True, timeout=60, check=False
    )
    assert free.returncode == 0, free.stderr


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("os.execv('/bin/true', ['true'])", id="become another program"),
        pytest.param("os.execv('own', ['own'])", id="become a program that it wrote"),
        pytest.param(
            "fd = os.memfd_create('x'); os.write(fd, open('own', 'rb').read())\n"
            "os.execve(fd, ['own'], {})",
            id="become a program in memory",
        ),
        pytest.param("os.fork() or os._exit(0)", id="fork"),
        pytest.param("os.posix_spawn('/bin/true', ['true'], {})", id="start a program"),
        pytest.param("os.kill(os.getppid(), 0)", id="signal its parent"),
        pytest.param("os.killpg(os.getpgid(os.getppid()), 0)", id="signal a group"),
    ],
)
def test_it_stays_the_one_process_that_it_is(code: str, inside: Path) -> None:
    shutil.copy("/bin/true", inside / "own")
    code = f"import os; print('began', flush=True)\n{code}"
    free = subprocess.run([PYTHON, "-I", "-S", "-c", code], cwd=inside, timeout=60, check=False)
    assert free.returncode == 0, "what fails anyway would prove nothing"
    ended = run_inside(code, inside)
    assert (ended.returncode, ended.stdout) == (1, "began\n"), ended.stderr
    assert "PermissionError" in ended.stderr, ended.stderr


class TestResourceLimits:
    def test_it_opens_at_most_1024_files(self, inside: Path) -> None:
        code = (
            "kept = []\n"
            "try:\n    while len(kept) < 2000: kept.append(open('/dev/null'))\n"
            "except OSError as error: print(error.errno, kept[-1].fileno())"
        )
        assert run_inside(code, inside).stdout == "24 1023\n"

    def test_it_cannot_raise_what_was_lowered(self, inside: Path) -> None:
        code = "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (8192, 8192))"
        ended = run_inside(code, inside, file_bytes=4096)
        assert ended.returncode == 1
        assert "ValueError" in ended.stderr or "not permitted" in ended.stderr, ended.stderr

    def test_a_file_ends_at_the_limit(self, inside: Path) -> None:
        code = "import os; fd = os.open('f', 65); os.write(fd, b'x' * 8192); os.write(fd, b'x')"
        ended = run_inside(code, inside, file_bytes=4096)
        assert "File too large" in ended.stderr
        assert (inside / "f").stat().st_size == 4096

    def test_the_kernel_ends_it_after_its_cpu_time(self, inside: Path) -> None:
        ended = run_inside("while True: pass", inside, cpu_s=1)
        assert ended.returncode in (-signal.SIGKILL, -signal.SIGXCPU)


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
            pytest.param("s.socket(10, 1)", id="open an IPv6 socket"),
            pytest.param("s.socket(1, 1)", id="open a Unix socket"),
            pytest.param(
                "s.socket(2, 1).sendto(b'x', 0x20000000, ('127.0.0.1', OTHER))",
                id="connect by sending",
            ),
        ],
    )
    def test_it_cannot(self, code: str, inside: Path, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            code = code.replace("OTHER", str(other.getsockname()[1]))
            succeeds_without_the_sandbox(f"import _socket as s; {code}", tmp_path)
            self.is_refused(code, inside)

    @pytest.mark.parametrize(
        "code",
        [
            pytest.param("s.socket(2, 3, 1)", id="open a raw socket, as root may"),
            pytest.param("s.socket(2, 1, 262)", id="open a multipath TCP socket, as kernels allow"),
        ],
    )
    def test_it_cannot_even_where_the_machine_lets_it(self, code: str, inside: Path) -> None:
        self.is_refused(code, inside)

    @staticmethod
    def is_refused(code: str, inside: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as own:
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
