"""The system calls that the sandbox refuses, by name, on both architectures."""

from __future__ import annotations

import ctypes
import struct

import pytest

from encoder_worker.launcher import (
    ALLOW,
    AND,
    ANSWER,
    ANY_BIT,
    ARGUED,
    AT_LEAST,
    CLONE3,
    CLONE_THREAD,
    ENOSYS,
    EPERM,
    EQUAL,
    KILL,
    LANDLOCK_ADD_RULE,
    LANDLOCK_CREATE_RULESET,
    LANDLOCK_RESTRICT_SELF,
    LOAD,
    MACHINES,
    REFUSE,
    REFUSED,
    build_filter,
)

pytestmark = pytest.mark.fast

OWN = 4711
NEEDED = ("read", "write", "openat", "mmap", "futex", "exit_group", "execve", "sched_getaffinity")

#: apt and systemd need it, so every Debian has it; it knows the calls of all architectures.
LIBSECCOMP = ctypes.CDLL("libseccomp.so.2")


def number_of(name: str, machine: str) -> int | None:
    """By libseccomp's own tables; None: that architecture has no such call."""
    audit = ctypes.c_uint32(MACHINES[machine].audit)
    number: int = LIBSECCOMP.seccomp_syscall_resolve_name_arch(audit, name.encode())
    assert number != -1, f"libseccomp knows no call {name}"
    return None if number < 0 else number


BOTH = pytest.mark.parametrize("machine", ["x86_64", "aarch64"])


@BOTH
def test_every_number_is_the_one_of_its_name(machine: str) -> None:
    column = list(MACHINES).index(machine)
    ours: dict[str, int | None] = {
        "clone3": CLONE3,
        "landlock_create_ruleset": LANDLOCK_CREATE_RULESET,
        "landlock_add_rule": LANDLOCK_ADD_RULE,
        "landlock_restrict_self": LANDLOCK_RESTRICT_SELF,
    }
    for table in (ARGUED, REFUSED):
        ours |= {name: numbers[column] for name, numbers in table.items()}
    assert ours == {name: number_of(name, machine) for name in ours}


@BOTH
@pytest.mark.parametrize("inet", [False, True], ids=["no sockets", "one port"])
def test_the_filter_refuses_each_of_them_and_lets_ffmpeg_work(machine: str, inet: bool) -> None:
    refused = {name for name in REFUSED if number_of(name, machine) is not None}
    assert {answer(machine, name, inet=inet) for name in refused} == {REFUSE | EPERM}
    assert {answer(machine, name, inet=inet) for name in NEEDED} == {ALLOW}
    # libc then asks for a thread by the call whose flags can be seen.
    assert answer(machine, "clone3", inet=inet) == REFUSE | ENOSYS
    assert answer(machine, "clone", CLONE_THREAD, inet=inet) == ALLOW
    assert answer(machine, "clone", inet=inet) == REFUSE | EPERM


@BOTH
def test_what_an_argument_decides(machine: str) -> None:
    for name in ("kill", "tgkill"):
        assert answer(machine, name, OWN) == ALLOW
        assert answer(machine, name, OWN + 1) == REFUSE | EPERM
    assert answer(machine, "prlimit64", 0) == ALLOW
    assert answer(machine, "prlimit64", OWN + 1) == REFUSE | EPERM
    tcp, udp, unix = (2, 1, 6), (2, 2, 0), (1, 1, 0)
    assert [answer(machine, "socket", *kind) for kind in (tcp, udp, unix)] == [REFUSE | EPERM] * 3
    assert [answer(machine, "socket", *kind, inet=True) for kind in (tcp, udp, unix)] == [
        ALLOW, REFUSE | EPERM, REFUSE | EPERM,
    ]  # fmt: skip


def test_calls_of_another_architecture_end_the_process() -> None:
    number = number_of("read", "x86_64")
    assert number is not None
    program = build_filter(MACHINES["x86_64"], own=OWN, inet=False)
    assert judge(program, number, MACHINES["aarch64"].audit) == KILL
    x32 = number | 0x40000000
    assert judge(program, x32, MACHINES["x86_64"].audit) == KILL


def answer(machine: str, name: str, *arguments: int, inet: bool = False) -> int:
    number = number_of(name, machine)
    assert number is not None
    made = MACHINES[machine]
    return judge(build_filter(made, own=OWN, inet=inet), number, made.audit, *arguments)


def judge(program: bytes, number: int, audit: int, *arguments: int) -> int:
    """What the kernel would answer: its machine of filters, as far as ours uses it."""
    # struct seccomp_data { int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6]; }
    data = struct.pack("=IIQ6Q", number, audit, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    steps = list(struct.iter_unpack("HBBI", program))
    at = loaded = 0
    while True:
        code, yes, no, value = steps[at]
        at += 1
        if code == ANSWER:
            return int(value)
        if code == LOAD:
            [loaded] = struct.unpack_from("=I", data, value)
        elif code == AND:
            loaded &= value
        else:
            tests = {EQUAL: loaded == value, AT_LEAST: loaded >= value, ANY_BIT: loaded & value}
            at += yes if tests[code] else no
