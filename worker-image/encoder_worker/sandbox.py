"""
Start a program with nothing but what it needs: run as a script, it locks itself in and executes.

Standard library only, and no import of ours: it runs as `python -I -S sandbox.py`, between the
worker and ffmpeg, in 20 ms. The worker imports it to ask which layers this kernel has; the script
then applies exactly those, and refuses to go on when one fails.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

PR_SET_PDEATHSIG: Final = 1
PR_GET_SECCOMP: Final = 21
PR_SET_SECCOMP: Final = 22
PR_SET_NO_NEW_PRIVS: Final = 38
SECCOMP_MODE_FILTER: Final = 2

LANDLOCK_CREATE_RULESET: Final = 444
LANDLOCK_ADD_RULE: Final = 445
LANDLOCK_RESTRICT_SELF: Final = 446

# Landlock's rights, as bits. Each version of the kernel's interface knows some more.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_FILE, MAKE_REG, TRUNCATE = 1 << 5, 1 << 8, 1 << 14
_FILES_BY_VERSION: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}
IOCTL_DEV: Final = 1 << 15
NET_BIND_CONNECT: Final = 3
READ: Final = READ_FILE | READ_DIR
MAKE: Final = READ | WRITE_FILE | REMOVE_FILE | MAKE_REG | TRUNCATE

SYSTEM_FOLDERS: Final = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/fonts",
                         "/etc/ssl", "/etc/alternatives", "/opt")  # fmt: skip
SYSTEM_FILES: Final = ("/dev/urandom", "/dev/zero", "/proc/cpuinfo", "/sys/devices/system/cpu",
                       "/sys/devices/system/node")  # fmt: skip
"""What codecs look at to count the processors."""

# The numbers of the system calls that ffmpeg has no use for and exploits do.
_DENIED_X86_64: Final = (101, 155, 161, 163, 164, 165, 166, 167, 168, 169, 175, 176, 246, 248, 249,
                         250, 272, 298, 303, 304, 308, 310, 311, 313, 320, 321, 323, 425, 426, 427,
                         428, 429, 430, 431, 432, 442)  # fmt: skip
_DENIED_AARCH64: Final = (117, 39, 40, 41, 51, 89, 97, 104, 105, 106, 142, 217, 218, 219, 224, 225,
                          241, 264, 265, 268, 270, 271, 273, 280, 282, 294, 425, 426, 427, 428, 429,
                          430, 431, 432, 442)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Machine:
    audit: int
    socket: int
    denied: tuple[int, ...]


_MACHINES: Final = {
    "x86_64": _Machine(0xC000003E, 41, _DENIED_X86_64),
    "aarch64": _Machine(0xC00000B7, 198, _DENIED_AARCH64),
}


def active_layers() -> list[str]:
    """What this machine's kernel offers, strongest first, as the script will apply it."""
    layers = []
    version = _landlock_version()
    if version > 0:
        layers.append(f"landlock:{version}")
    if platform.machine() in _MACHINES and _libc().prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0:
        layers.append("seccomp")
    return [*layers, "no_new_privs", "rlimits", "clean_environment", "format_whitelist"]


def launch_arguments(
    argv: Sequence[str], *, read: Iterable[str], write: Iterable[str], layers: Iterable[str]
) -> list[str]:
    """The command that runs `argv` locked in: reading `read` and the system, writing `write`."""
    box = {
        "read": list(read),
        "write": list(write),
        "layers": list(layers),
        "parent": os.getpid(),
    }
    return [sys.executable, "-I", "-S", __file__, json.dumps(box), *argv]


def clean_environment(folder: str) -> dict[str, str]:
    """All that ffmpeg sees of ours: no credential of the installation is among it."""
    return {"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": folder, "TMPDIR": folder}


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _landlock_version() -> int:
    version: int = _libc().syscall(LANDLOCK_CREATE_RULESET, None, 0, 1)
    return max(version, 0)


# --- In the child, before it becomes ffmpeg --------------------------------------------------


def main() -> None:
    box: dict[str, Any] = json.loads(sys.argv[1])
    argv = sys.argv[2:]
    libc = _libc()
    try:
        _die_with_parent(libc, box["parent"])
        _limit_resources()
        _check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
        for layer in box["layers"]:
            if layer.startswith("landlock:"):
                version = int(layer.partition(":")[2])
                _apply_landlock(libc, version, argv[0], box["read"], box["write"])
        if "seccomp" in box["layers"]:
            _apply_seccomp(libc)
    except OSError as error:
        os.write(2, f"sandbox: {error}\n".encode())
        os._exit(126)
    os.execv(argv[0], argv)


def _die_with_parent(libc: ctypes.CDLL, parent: int) -> None:
    _check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "parent death signal")
    # The parent may have died before the line above took effect.
    if os.getppid() != parent:
        os._exit(125)


def _limit_resources() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the user's media
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1024 if hard == resource.RLIM_INFINITY else min(1024, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, wanted), wanted))


def _apply_landlock(
    libc: ctypes.CDLL, version: int, program: str, read: Iterable[str], write: Iterable[str]
) -> None:
    files = _FILES_BY_VERSION[min(version, 3)] | (IOCTL_DEV if version >= 5 else 0)
    network = NET_BIND_CONNECT if version >= 4 else 0
    # Version 1 to 3 know the first field only, and refuse a longer structure.
    attributes = struct.pack("QQ", files, network) if version >= 4 else struct.pack("Q", files)
    rules = libc.syscall(LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    _check(rules, "landlock ruleset")
    for path in (*SYSTEM_FOLDERS, program):
        _allow(libc, rules, path, (READ | EXECUTE) & files)
    for path in (*SYSTEM_FILES, *read):
        _allow(libc, rules, path, READ & files)
    _allow(libc, rules, "/dev/null", (READ_FILE | WRITE_FILE) & files)
    for path in write:
        _allow(libc, rules, path, MAKE & files)
    _check(libc.syscall(LANDLOCK_RESTRICT_SELF, rules, 0), "landlock")
    os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, path: str, rights: int) -> None:
    try:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not os.path.isdir(path):
        rights &= EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
    rule = struct.pack("=Qi", rights, target)
    _check(libc.syscall(LANDLOCK_ADD_RULE, rules, 1, rule, 0), f"landlock rule for {path}")
    os.close(target)


def _apply_seccomp(libc: ctypes.CDLL) -> None:
    """Sockets other than Unix ones are refused, and so are the calls listed above."""
    program = _build_filter(_MACHINES[platform.machine()])
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog { unsigned short len; struct sock_filter *filter; }
    fprog = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    _check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, fprog, 0, 0), "seccomp")


def _build_filter(machine: _Machine) -> bytes:
    load, jump_equal, jump_above, answer = 0x20, 0x15, 0x35, 0x06
    allow, kill, refuse = 0x7FFF0000, 0x80000000, 0x00050000 | 1  # EPERM

    def step(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("HBBI", code, yes, no, value)

    steps = [
        step(load, 4),  # the architecture: the numbers below hold for one only
        step(jump_equal, machine.audit, yes=1),
        step(answer, kill),
        step(load, 0),  # the number of the call
        step(jump_above, 0x40000000, no=1),  # x32's numbers would slip past the list
        step(answer, kill),
        step(jump_equal, machine.socket, no=4),
        step(load, 16),  # socket's first argument, the family
        step(jump_equal, 1, no=1),  # AF_UNIX
        step(answer, allow),
        step(answer, refuse),
    ]
    for number in machine.denied:
        steps += [step(jump_equal, number, no=1), step(answer, refuse)]
    return b"".join([*steps, step(answer, allow)])


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    main()
