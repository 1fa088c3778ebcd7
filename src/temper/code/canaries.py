"""Does each protection hold here, now? A program tries what must not be possible whenever a sandbox is made."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from temper.code.limits import Limits
from temper.code.refusals import SandboxError
from temper.errors import Fault

if TYPE_CHECKING:
    from temper.code.sandbox import Sandbox

_PROBE = """
import ctypes, json, os, sys
outside, host = json.loads(input())
libc = ctypes.CDLL(None, use_errno=True)
found = {}

def denied(name, attempt):
    try:
        found[name] = bool(attempt())
    except OSError:
        found[name] = True

def refused(*call):
    return libc.syscall(*[ctypes.c_long(value) for value in call]) == -1

def fork():
    if os.fork() == 0:
        os._exit(0)

arm = os.uname().machine == "aarch64"
denied("read files", lambda: open(outside).read() and False)
denied("write files", lambda: open(outside + ".new", "w") and False)
denied("list folders", lambda: os.listdir(os.path.dirname(outside)) and False)
denied("see processes", lambda: open(f"/proc/{host}/environ", "rb") and False)
denied("start processes", fork)
denied("become another program", lambda: os.execv("/bin/true", ["true"]))
denied("open sockets", lambda: refused(198 if arm else 41, 2, 1, 0))
denied("signal others", lambda: os.kill(host, 0))
denied("trace others", lambda: refused(117 if arm else 101, 16, host, 0, 0))
denied("change namespaces", lambda: refused(97 if arm else 272, 0x10000000))
denied("use bpf, io_uring or keys", lambda: refused(280 if arm else 321, 0, 0, 0)
       and refused(425, 1, 0) and refused(219 if arm else 250, 0, 0, 0))
found["gain privileges"] = refused(91 if arm else 126, 0, 0) and libc.prctl(23, 0, 0, 0, 0) == -1
try:
    bytearray(1 << 40)
    found["allocate without end"] = False
except MemoryError:
    found["allocate without end"] = True
import resource
limits = [resource.getrlimit(kind)[1] for kind in (resource.RLIMIT_CORE, resource.RLIMIT_CPU)]
found["lift their limits"] = limits[0] == 0 and limits[1] < 60
print(json.dumps(found))
"""
PROTECTIONS = {
    "read files": "Landlock, Linux 5.13",
    "write files": "Landlock, Linux 5.13",
    "list folders": "Landlock, Linux 5.13",
    "see processes": "Landlock, Linux 5.13",
    "start processes": "seccomp, Linux 3.17",
    "become another program": "seccomp, Linux 3.17",
    "open sockets": "seccomp, Linux 3.17",
    "signal others": "seccomp, Linux 3.17",
    "trace others": "seccomp, Linux 3.17",
    "change namespaces": "seccomp, Linux 3.17",
    "use bpf, io_uring or keys": "seccomp, Linux 3.17",
    "gain privileges": "no new privileges, Linux 3.5",
    "allocate without end": "limits of processes",
    "lift their limits": "limits of processes",
    "outlive their deadline": "pidfd, Linux 5.3",
}


@dataclass(frozen=True)
class Protection:
    """A line of the table: what programs must not be able to do, what the kernel needs for it, whether it holds."""

    name: str
    needs: str
    on: bool


def examine(sandbox: Sandbox, quick: bool = False) -> list[Protection]:
    """Each protection, tried in this sandbox; `quick` leaves out what takes a second."""
    with tempfile.TemporaryDirectory(prefix="temper-canary-") as folder:
        outside = Path(folder, "secret")
        outside.write_text("secret")
        told = json.dumps([str(outside), os.getpid()]).encode()
        ran = sandbox.run(_PROBE, told, Limits(10, 20))
        made = Path(f"{outside}.new").exists()
    if ran.broken:
        found = {}
    else:
        try:
            found = json.loads(ran.stdout)
        except ValueError:
            found = {}
    if made:
        found["write files"] = False
    if not quick:
        late = sandbox.run("import time\ntime.sleep(60)", b"", Limits(1, 0.3))
        found["outlive their deadline"] = late.verdict == "timeout"
    names = [name for name in PROTECTIONS if not (quick and name == "outlive their deadline")]
    needs = {n: "bubblewrap" if sandbox.kind == "bubblewrap" and "Landlock" in t else t for n, t in PROTECTIONS.items()}
    return [Protection(name, needs[name], found.get(name) is True) for name in names]


def require(sandbox: Sandbox) -> None:
    """Raises SandboxError where a protection does not hold."""
    off = [protection for protection in examine(sandbox, quick=True) if not protection.on]
    if off:
        why = "; ".join(f"programs could {one.name} (needs {one.needs})" for one in off)
        what = "the sandbox for programs does not hold here: nothing was run"
        raise SandboxError(Fault(what, why=why, fix="`temper doctor` shows what holds; use a newer kernel"))
