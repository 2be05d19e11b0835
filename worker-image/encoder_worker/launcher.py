"""
Lock this process in and become the program that follows: what runs between the worker and ffmpeg.

Runs once for each ffprobe and ffmpeg, so it imports next to nothing, and takes its orders as
arguments that need no parser: `name=value …` up to `--`, then the program with its arguments.
Whatever cannot be applied ends it with code 126 before the program has begun.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys

FAILED = 126
ORPHANED = 125

PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
SIGKILL = 9

LANDLOCK_CREATE_RULESET = 444
LANDLOCK_ADD_RULE = 445
LANDLOCK_RESTRICT_SELF = 446
RULE_PATH_BENEATH, RULE_NET_PORT = 1, 2

# Landlock's rights, as bits. Each version of the kernel's interface knows some more.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_FILE, MAKE_REG, TRUNCATE, IOCTL_DEV = 1 << 5, 1 << 8, 1 << 14, 1 << 15
FILES_BY_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}
CONNECT_TCP, BIND_OR_CONNECT_TCP = 1 << 1, 3
SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS = 3
READ = READ_FILE | READ_DIR
MAKE = READ | WRITE_FILE | REMOVE_FILE | MAKE_REG | TRUNCATE

LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/etc/ld.so.cache",
             "/nix/store", "/gnu/store")  # fmt: skip
DATA = ("/etc/fonts", "/etc/localtime", "/usr/share/fonts", "/usr/share/fontconfig",
        "/usr/share/ffmpeg", "/usr/share/zoneinfo", "/dev/urandom", "/dev/zero",
        # What codecs look at to count the processors.
        "/proc/cpuinfo", "/sys/devices/system/cpu", "/sys/devices/system/node")  # fmt: skip
# Nothing but the program can be executed, and the loader that its libraries need.
LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1", "/lib/ld-musl-x86_64.so.1",
           "/lib/ld-musl-aarch64.so.1")  # fmt: skip

# Some systems wrap ffmpeg into a script, which has to execute its shell and the real one.
PROGRAMS = ("/bin", "/usr/bin", "/usr/local/bin", "/nix/store", "/gnu/store")

AF_INET, SOCK_STREAM, SOCK_KINDS, IPPROTO_TCP = 2, 1, 0xF, 6
MSG_FASTOPEN = 0x20000000  # connects without the hook in which Landlock looks at the port
CLONE_THREAD = 0x10000
EPERM, ENOSYS = 1, 38


# The numbers of the system calls, on x86_64 and on aarch64, which never had the oldest of them.
ARGUED = {
    "socket": (41, 198), "sendto": (44, 206), "sendmsg": (46, 211), "clone": (56, 220),
    "kill": (62, 129), "tgkill": (234, 131), "prlimit64": (302, 261),
}  # fmt: skip
"""Allowed or refused by an argument."""

# Calls that ffmpeg has no use for, and that escapes are made of.
REFUSED: dict[str, tuple[int, int | None]] = {
    # Processes, and what belongs to other processes: signals, memory, descriptors.
    "fork": (57, None), "vfork": (58, None), "ptrace": (101, 117), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    # A program in such a file could be executed, since Landlock knows paths only.
    "memfd_create": (319, 279),
    # Sockets, and what `sendmsg` is looked at for, many at once.
    "socketpair": (53, 199), "sendmmsg": (307, 269),
    # Namespaces and mounts; handles that open files past Landlock.
    "unshare": (272, 97), "setns": (308, 268), "chroot": (161, 51), "pivot_root": (155, 41),
    "mount": (165, 40), "umount2": (166, 39), "move_mount": (429, 429), "open_tree": (428, 428),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    # The operations of io_uring are seen by no filter; the others have been the door of exploits.
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "modify_ldt": (154, None), "ioperm": (173, None), "iopl": (172, None),
    # The machine itself.
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "acct": (163, 89), "swapon": (167, 224), "swapoff": (168, 225), "settimeofday": (164, 170),
}  # fmt: skip


class Machine:
    """What seccomp knows an architecture's calls by."""

    def __init__(self, audit: int, column: int) -> None:
        self.audit = audit
        self.calls = {name: numbers[column] for name, numbers in ARGUED.items()}
        self.refused = [numbers[column] for numbers in REFUSED.values()]


MACHINES = {"x86_64": Machine(0xC000003E, 0), "aarch64": Machine(0xC00000B7, 1)}
CLONE3 = 435  # its flags are behind a pointer: libc falls back to clone when it is not there


def main() -> None:
    border = sys.argv.index("--")
    box: dict[str, list[str]] = {}
    for argument in sys.argv[1:border]:
        name, _, value = argument.partition("=")
        box.setdefault(name, []).append(value)
    program = sys.argv[border + 1 :]
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        die_with_parent(libc, int(box["parent"][0]))
        limit_resources(box)
        check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
        port = int(box["port"][0]) if "port" in box else None
        if "landlock" in box:
            apply_landlock(libc, int(box["landlock"][0]), program[0], box, port)
        if "seccomp" in box:
            apply_seccomp(libc, port)
        os.execv(program[0], program)
    except (OSError, KeyError, ValueError) as error:
        os.write(2, f"sandbox: {error}\n".encode())
        os._exit(FAILED)


def die_with_parent(libc: ctypes.CDLL, parent: int) -> None:
    check(libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "parent death signal")
    # The parent may have died before the line above took effect.
    if os.getppid() != parent:
        os._exit(ORPHANED)


def limit_resources(box: dict[str, list[str]]) -> None:
    lower(resource.RLIMIT_CORE, 0)  # a core file would hold the user's media
    lower(resource.RLIMIT_NOFILE, 1024)
    if "file_bytes" in box:
        lower(resource.RLIMIT_FSIZE, int(box["file_bytes"][0]))
    if "cpu_s" in box:
        lower(resource.RLIMIT_CPU, int(box["cpu_s"][0]))


def lower(which: int, limit: int) -> None:
    _, hard = resource.getrlimit(which)
    new = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(which, (new, new))


# --- Landlock --------------------------------------------------------------------------------


def apply_landlock(
    libc: ctypes.CDLL, version: int, program: str, box: dict[str, list[str]], port: int | None
) -> None:
    files = FILES_BY_VERSION[min(version, 3)] | (IOCTL_DEV if version >= 5 else 0)
    attributes = struct.pack("Q", files)  # older kernels refuse a longer structure than they know
    if version >= 4:
        attributes += struct.pack("Q", BIND_OR_CONNECT_TCP)
    if version >= 6:
        attributes += struct.pack("Q", SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS)
    rules = libc.syscall(LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    check(rules, "landlock ruleset")
    for path in (program, *LOADERS, *(PROGRAMS if is_script(program) else ())):
        allow(libc, rules, path, (READ_FILE | EXECUTE) & files)
    for path in (*LIBRARIES, *DATA, *box.get("read", ())):
        allow(libc, rules, path, READ & files)
    allow(libc, rules, "/dev/null", (READ_FILE | WRITE_FILE) & files)
    for path in box.get("write", ()):
        allow(libc, rules, path, MAKE & files)
    if port is not None:
        if version < 4:
            raise ValueError("this kernel cannot limit connections to one port")
        rule = struct.pack("=QQ", CONNECT_TCP, port)
        check(libc.syscall(LANDLOCK_ADD_RULE, rules, RULE_NET_PORT, rule, 0), "landlock port")
    check(libc.syscall(LANDLOCK_RESTRICT_SELF, rules, 0), "landlock")
    os.close(rules)


def is_script(program: str) -> bool:
    with open(program, "rb") as file:
        return file.read(2) == b"#!"


def allow(libc: ctypes.CDLL, rules: int, path: str, rights: int) -> None:
    try:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not os.path.isdir(path):
        rights &= EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
    rule = struct.pack("=Qi", rights, target)
    added = libc.syscall(LANDLOCK_ADD_RULE, rules, RULE_PATH_BENEATH, rule, 0)
    check(added, f"landlock rule for {path}")
    os.close(target)


# --- seccomp ---------------------------------------------------------------------------------

LOAD, EQUAL, AT_LEAST, ANY_BIT, AND, ANSWER = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000


def apply_seccomp(libc: ctypes.CDLL, port: int | None) -> None:
    program = build_filter(MACHINES[os.uname().machine], own=os.getpid(), inet=port is not None)
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog { unsigned short len; struct sock_filter *filter; }
    fprog = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, fprog, 0, 0), "seccomp")


def build_filter(machine: Machine, *, own: int, inet: bool) -> bytes:
    """
    `own`: the process's own number, the only one it may signal. `inet`: TCP over IPv4 is allowed,
    and Landlock says to which port; else there are no sockets at all.
    """
    calls = machine.calls
    refuse = step(ANSWER, REFUSE | EPERM)
    steps = [
        step(LOAD, 4),  # the architecture: the numbers below hold for one only
        step(EQUAL, machine.audit, yes=1),
        step(ANSWER, KILL),
        step(LOAD, 0),  # the number of the call
        step(AT_LEAST, 0x40000000, no=1),  # x32's numbers would slip past the list
        step(ANSWER, KILL),
        *on(CLONE3, [step(ANSWER, REFUSE | ENOSYS)]),
        # Threads, and no processes.
        *on(calls["clone"], unless(ANY_BIT, CLONE_THREAD, argument=0)),
        *on(calls["kill"], unless(EQUAL, own, argument=0)),
        *on(calls["tgkill"], unless(EQUAL, own, argument=0)),
        *on(calls["prlimit64"], unless(EQUAL, 0, argument=0)),  # 0 is the caller
    ]
    if inet:
        steps += on(calls["socket"], [
            step(LOAD, 16),
            step(EQUAL, AF_INET, yes=1), refuse,
            step(LOAD, 24), step(AND, SOCK_KINDS),
            step(EQUAL, SOCK_STREAM, yes=1), refuse,
            step(LOAD, 32),
            step(EQUAL, 0, yes=2), step(EQUAL, IPPROTO_TCP, yes=1), refuse,
            step(ANSWER, ALLOW),
        ])  # fmt: skip
        steps += on(calls["sendto"], refuse_bits(MSG_FASTOPEN, argument=3))
        steps += on(calls["sendmsg"], refuse_bits(MSG_FASTOPEN, argument=2))
    else:
        steps += on(calls["socket"], [refuse])
    for number in machine.refused:
        if number is not None:
            steps += on(number, [refuse])
    return b"".join([*steps, step(ANSWER, ALLOW)])


def step(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)


def on(number: int, steps: list[bytes]) -> list[bytes]:
    """`steps` for one call; each way through them ends in an answer."""
    return [step(EQUAL, number, no=len(steps)), *steps]


def unless(test: int, value: int, *, argument: int) -> list[bytes]:
    """Refuse the call unless the test of one argument holds."""
    return [
        step(LOAD, 16 + 8 * argument),
        step(test, value, yes=1),
        step(ANSWER, REFUSE | EPERM),
        step(ANSWER, ALLOW),
    ]


def refuse_bits(bits: int, *, argument: int) -> list[bytes]:
    return [
        step(LOAD, 16 + 8 * argument),
        step(ANY_BIT, bits, no=1),
        step(ANSWER, REFUSE | EPERM),
        step(ANSWER, ALLOW),
    ]


def check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
