"""What a confined process may still do: Landlock, seccomp, limits and no privileges, by system calls alone.

Imported by the guest's interpreter, which has no other module of temper: standard library only. Nothing here falls
back: what the kernel refuses raises OSError, and the process that asked ends.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
MACHINE = {"x86_64": 0, "amd64": 0, "aarch64": 1, "arm64": 1}.get(platform.machine().lower())
AUDIT_ARCH = (0xC000003E, 0xC00000B7)  # x86-64, aarch64

# Calls by their numbers on x86-64 and aarch64; -1: the machine has none of that name
ALWAYS = {
    "read": (0, 63), "write": (1, 64), "open": (2, -1), "openat": (257, 56), "close": (3, 57), "stat": (4, -1),
    "fstat": (5, 80), "lstat": (6, -1), "newfstatat": (262, 79), "statx": (332, 291), "poll": (7, -1),
    "ppoll": (271, 73), "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215),
    "brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "pread64": (17, 67), "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66), "access": (21, -1),
    "faccessat": (269, 48), "faccessat2": (439, 439), "pipe": (22, -1), "pipe2": (293, 59), "select": (23, -1),
    "pselect6": (270, 72), "sched_yield": (24, 124), "mremap": (25, 216), "madvise": (28, 233), "dup": (32, 23),
    "dup2": (33, -1), "dup3": (292, 24), "nanosleep": (35, 101), "clock_nanosleep": (230, 115),
    "getitimer": (36, 102), "alarm": (37, -1), "setitimer": (38, 103), "getpid": (39, 172), "exit": (60, 93),
    "exit_group": (231, 94), "uname": (63, 160), "getcwd": (79, 17), "readlink": (89, -1), "readlinkat": (267, 78),
    "getrlimit": (97, 163), "setrlimit": (160, 164), "getrusage": (98, 165), "sysinfo": (99, 179),
    "times": (100, 153), "gettimeofday": (96, 169), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "time": (201, -1), "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175), "getegid": (108, 177),
    "getppid": (110, 173), "getpgrp": (111, -1), "gettid": (186, 178), "futex": (202, 98),
    "sched_getaffinity": (204, 123), "set_tid_address": (218, 96), "set_robust_list": (273, 99),
    "rseq": (334, 293), "getrandom": (318, 278), "getdents64": (217, 61), "sigaltstack": (131, 132),
    "restart_syscall": (219, 128), "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, -1),
    "epoll_pwait": (281, 22), "eventfd2": (290, 19), "recvfrom": (45, 207), "arch_prctl": (158, -1),
    "membarrier": (324, 283), "getcpu": (309, 168), "fadvise64": (221, 223),
}  # fmt: skip
EXECUTE = {"execve": (59, 221)}
COMPILE = {
    "execve": (59, 221), "fork": (57, -1), "vfork": (58, -1), "clone_any": (56, 220), "wait4": (61, 260),
    "unlink": (87, -1), "unlinkat": (263, 35), "umask": (95, 166), "chmod": (90, -1), "fchmod": (91, 52),
    "fchmodat": (268, 53), "ftruncate": (77, 46), "rename": (82, -1), "renameat": (264, 38), "renameat2": (316, 276),
    "mkdir": (83, -1), "mkdirat": (258, 34), "sched_setaffinity": (203, 122), "copy_file_range": (326, 285),
}  # fmt: skip
CLONE, CLONE3, TGKILL, KILL = (56, 220), (435, 435), (234, 131), (62, 129)
FCNTL, IOCTL, PRLIMIT, SOCKETPAIR, SENDTO = (72, 25), (16, 29), (302, 261), (53, 199), (44, 206)
CAPSET, SECCOMP = (126, 91), (317, 277)
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446

_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
_LOAD, _EQUAL, _AND, _SET, _RETURN, _AT_LEAST = 0x20, 0x15, 0x54, 0x45, 0x06, 0x35
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
_FCNTLS = (0, 1, 2, 3, 4, 5, 1030, 1031, 1032, 6, 7)  # no F_SETOWN, F_SETSIG: they send signals; no leases
_CLONE_THREAD = 0x00010000
_CLONE_NEW = 0x7E020080  # every CLONE_NEW* flag


def call(number: int, *arguments: int | bytes | ctypes.Array | ctypes.Structure | None) -> int:
    """A system call. Raises OSError."""
    passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    passed = [ctypes.byref(value) if isinstance(value, ctypes.Structure) else value for value in passed]
    found = _libc.syscall(ctypes.c_long(number), *passed)
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found


def prctl(option: int, value: int = 0, more: int = 0) -> None:
    zero = ctypes.c_ulong(0)
    if _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), ctypes.c_ulong(more), zero, zero) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


# --- Landlock -----------------------------------------------------------------------------------------------------

READ_FILE, READ_DIR, RUN_FILE, WRITE_FILE = 1 << 2, 1 << 3, 1 << 0, 1 << 1
_OF_FILES = RUN_FILE | WRITE_FILE | READ_FILE | 1 << 14 | 1 << 15


def landlock_abi() -> int:
    """The version of Landlock that the kernel speaks, 0 where it speaks none or is not let."""
    try:
        return call(CREATE_RULESET, None, 0, 1)
    except OSError:
        return 0


def make_ruleset(reads: Iterable[str], runs: Iterable[str] = (), writes: Iterable[str] = ()) -> int:
    """A descriptor of a rule set: every access to files is denied but these, below these paths; so are, where the
    kernel can, TCP, abstract sockets and signals to processes outside. Raises OSError where there is no Landlock."""
    abi = landlock_abi()
    if abi < 1:
        raise OSError(38, "the kernel has no Landlock, or a filter refuses it")
    handled = (1 << 13) - 1 | (1 << 13 if abi >= 2 else 0) | (1 << 14 if abi >= 3 else 0) | (1 << 15 if abi >= 5 else 0)
    fields = [handled, *([3] if abi >= 4 else []), *([3] if abi >= 6 else [])]
    packed = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = call(CREATE_RULESET, packed, len(packed), 0)
    every = [(reads, READ_FILE | READ_DIR), (runs, READ_FILE | READ_DIR | RUN_FILE)]
    for paths, rights in [*every, (writes, handled & ~RUN_FILE & ~(1 << 15))]:
        for path in paths:
            _allow(ruleset, path, rights)
    return ruleset


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no rule
    try:
        import stat

        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= _OF_FILES
        call(ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)


# --- seccomp ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Profile:
    """What a kind of program needs beyond threads: to become another program, or to start others (a compiler)."""

    runs: bool = False
    compiles: bool = False


def _instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)


def filter_program(profile: Profile, pid: int) -> bytes:
    """The allow-list as a BPF program: other machines' calls end the process, `clone3` is unknown (threads then use
    `clone`), `clone` makes threads only, signals go to the process itself only, all else is refused with EPERM.

    >>> len(filter_program(Profile(), 1)) % 8
    0
    """
    assert MACHINE is not None
    done = _instruction(_RETURN, _ALLOW)
    lines = [_instruction(_LOAD, 4), _instruction(_EQUAL, AUDIT_ARCH[MACHINE], 1, 0), _instruction(_RETURN, _KILL)]
    lines.append(_instruction(_LOAD, 0))
    if MACHINE == 0:  # the x32 numbers
        lines += [_instruction(_AT_LEAST, 0x40000000, 0, 1), _instruction(_RETURN, _KILL)]
    calls = ALWAYS | (EXECUTE if profile.runs else {}) | (COMPILE if profile.compiles else {})
    for numbers in calls.values():
        if numbers[MACHINE] >= 0 and not (profile.compiles and numbers == CLONE):
            lines += [_instruction(_EQUAL, numbers[MACHINE], 0, 1), done]
    lines += [_instruction(_EQUAL, CLONE3[MACHINE], 0, 1), _instruction(_RETURN, _ENOSYS)]
    lines += _when(CLONE, _clone(profile))
    for numbers in (TGKILL, KILL):
        lines += _when(numbers, _one_of(0, (pid,)))
    lines += _when(IOCTL, _one_of(1, _IOCTLS)) + _when(FCNTL, _one_of(1, _FCNTLS))
    lines += _when(PRLIMIT, _one_of(0, (0,)))
    stream = [_load(0), _instruction(_EQUAL, 1, 0, 4), _load(1), _instruction(_AND, ~(0o2000000 | 0o4000) & 0xFFFFFFFF)]
    lines += _when(SOCKETPAIR, [*stream, _instruction(_EQUAL, 1, 0, 1), done])  # AF_UNIX, SOCK_STREAM
    nobody = [_load(4), _instruction(_EQUAL, 0, 0, 3), _load(4, 4), _instruction(_EQUAL, 0, 0, 1), done]
    lines += _when(SENDTO, nobody)  # to whom it is connected, without an address
    lines.append(_instruction(_RETURN, _EPERM))
    return b"".join(lines)


def _load(argument: int, half: int = 0) -> bytes:
    return _instruction(_LOAD, 16 + 8 * argument + half)


def _one_of(argument: int, values: Sequence[int]) -> list[bytes]:
    lines = [_load(argument)]
    for value in values:
        lines += [_instruction(_EQUAL, value, 0, 1), _instruction(_RETURN, _ALLOW)]
    return lines


def _clone(profile: Profile) -> list[bytes]:
    if profile.compiles:  # processes, but no new namespaces
        return [_load(0), _instruction(_SET, _CLONE_NEW, 1, 0), _instruction(_RETURN, _ALLOW)]
    return [_load(0), _instruction(_SET, _CLONE_THREAD, 0, 1), _instruction(_RETURN, _ALLOW)]


def _when(numbers: tuple[int, int], lines: list[bytes]) -> list[bytes]:
    assert MACHINE is not None
    body = [*lines, _instruction(_RETURN, _EPERM)]
    return [_instruction(_EQUAL, numbers[MACHINE], 0, len(body)), *body]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("lines", ctypes.c_char_p)]


def restrict_calls(program: bytes) -> None:
    """This process and all it starts keep to the filter from now on. Raises OSError."""
    assert MACHINE is not None
    call(SECCOMP[MACHINE], 1, 0, _Program(len(program) // 8, program))


# --- privileges and limits ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bounds:
    """Limits of a process, in seconds of its CPU time and bytes."""

    cpu: float = 2.0
    memory: int = 512 << 20
    file_size: int = 1 << 20


def set_limits(bounds: Bounds) -> None:
    seconds = max(1, int(bounds.cpu + 0.999))
    for name, soft, hard in (
        (resource.RLIMIT_CPU, seconds, seconds + 1),
        (resource.RLIMIT_AS, bounds.memory, bounds.memory),
        (resource.RLIMIT_FSIZE, bounds.file_size, bounds.file_size),
        (resource.RLIMIT_NOFILE, 64, 64),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_STACK, 128 << 20, resource.RLIM_INFINITY),  # its memory is limited anyway
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
    ):
        most = resource.getrlimit(name)[1]
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), most if hard == resource.RLIM_INFINITY else min(hard, most)
        resource.setrlimit(name, (soft, hard))


def drop_privileges(user: int | None) -> None:
    """No capability is left, and none can be had again; another user where `user` is given."""
    assert MACHINE is not None
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    prctl(38, 1)  # no new privileges
    header, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    call(CAPSET[MACHINE], header, none)
    prctl(4, 0)  # not dumpable: nobody else of this user looks into it


def die_with(parent: int) -> None:
    """Ends this process when its parent ends (or has already)."""
    prctl(1, 9)
    if os.getppid() != parent:
        os._exit(1)


def confine(
    ruleset: int, profile: Profile, bounds: Bounds, user: int | None, parent: int, tier: str = "landlock"
) -> None:
    """All of it, in the one order that works; `ruleset` is closed. Raises OSError: the process must then end. Under
    `bubblewrap` what it may see of the files was settled before it began; `none` leaves limits alone."""
    set_limits(bounds)
    drop_privileges(user)
    die_with(parent)
    if tier == "landlock":
        call(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    if tier != "none":
        restrict_calls(filter_program(profile, os.getpid()))
