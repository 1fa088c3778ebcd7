# ruff: noqa: E501 - programs stand as they are
"""The sandbox where people have it: other users, namespaces, filters around it, and a host that ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from temper.code import confine

SOURCE = Path(confine.__file__).parents[2]
TRY = """
import sys
sys.path.insert(0, {source!r})
from temper.code import Sandbox, SandboxError
from temper.code.canaries import examine
try:
    with Sandbox(workers=1) as sandbox:
        print(all(p.on for p in examine(sandbox)), sandbox.run("print(int(input()) + 1)", b"41").stdout.decode())
except SandboxError as error:
    print(error.render())
    sys.exit(int(error.code))
"""
FILTERED = """
import ctypes, struct, sys
sys.path.insert(0, {source!r})
from temper.code import confine as c
lines = [c._instruction(c._LOAD, 0)]
for number, answer in {denied!r}:
    lines += [c._instruction(c._EQUAL, number, 0, 1), c._instruction(c._RETURN, 0x50000 | answer)]
program = b"".join([*lines, c._instruction(c._RETURN, c._ALLOW)])
c.prctl(38, 1)
c.restrict_calls(program)
"""
X86 = {"unshare": 272, "mount": 165, "setns": 308, "keyctl": 250, "bpf": 321, "ptrace": 101, "userfaultfd": 323}


def tried(code, *before, **more):
    command = [*before, more.pop("python", sys.executable), "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)


def filtered(denied):
    return FILTERED.format(source=str(SOURCE), denied=denied) + TRY.format(source=str(SOURCE))


def test_without_landlock_nothing_is_run(sandbox):
    done = tried(filtered([(444, 1), (445, 1), (446, 1)]))
    assert done.returncode == 8, done
    assert "nothing was run" in done.stdout
    assert "Landlock" in done.stdout


def test_without_seccomp_nothing_is_run(sandbox):
    done = tried(filtered([(confine.SECCOMP[confine.MACHINE], 38)]).replace("c.restrict_calls(program)", RAW))
    assert done.returncode == 8, done


# the filter is set by prctl, so that it can refuse seccomp() itself
RAW = "import ctypes\nloaded = c._Program(len(program) // 8, program)\nc._libc.prctl(22, 2, ctypes.byref(loaded), 0, 0)"


@pytest.mark.skipif(confine.MACHINE != 0, reason="the numbers are those of x86-64")
def test_under_a_filter_like_dockers(sandbox):
    done = tried(filtered([(number, 1) for number in X86.values()] + [(435, 38), (425, 1)]))
    assert (done.returncode, done.stdout.split()) == (0, ["True", "42"]), done


@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare here")
def test_inside_a_user_namespace(sandbox):
    if subprocess.run(["unshare", "-Ur", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    done = tried(TRY.format(source=str(SOURCE)), "unshare", "-Ur")
    assert (done.returncode, done.stdout.split()) == (0, ["True", "42"]), done


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root becomes another user")
def test_as_an_ordinary_user(sandbox):
    become = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    python = next((p for p in ("/usr/bin/python3", sys.executable) if _runs(become, p)), None)
    if python is None:
        pytest.skip("no Python of 3.11 or newer that an ordinary user can read")
    done = tried(TRY.format(source=str(SOURCE)), *become, python=python, cwd="/")
    assert (done.returncode, done.stdout.split()) == (0, ["True", "42"]), done


def _runs(become, python):
    code = f"import os, sys; os.stat({str(SOURCE / 'temper' / 'errors.py')!r}); sys.exit(sys.version_info < (3, 11))"
    try:
        return subprocess.run([*become, python, "-c", code], capture_output=True, cwd="/", check=False).returncode == 0
    except OSError:
        return False


def test_a_host_that_is_killed_leaves_no_orphan(sandbox):
    code = (
        f"import sys\nsys.path.insert(0, {str(SOURCE)!r})\nfrom temper.code import Sandbox, Limits\n"
        "s = Sandbox(workers=1)\nprint(s._every[0].process.pid, flush=True)\ns.run('while True: pass', b'', Limits(50, 50))"
    )
    host = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    zygote = int(host.stdout.readline())
    children = Path(f"/proc/{zygote}/task/{zygote}/children")
    deadline = time.monotonic() + 20
    while not (children.exists() and children.read_text().split()) and time.monotonic() < deadline:
        time.sleep(0.02)
    (program,) = [int(pid) for pid in children.read_text().split()]
    host.send_signal(signal.SIGKILL)
    host.wait()
    host.stdout.close()
    while any(_alive(pid) for pid in (zygote, program)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(zygote)
    assert not _alive(program)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_memory_of_the_host_is_flat(sandbox):
    import resource

    def run(count):
        for _ in range(count):
            assert sandbox.run("print(1)").stdout == b"1\n"
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(os.listdir("/proc/self/fd"))

    before = run(20)
    after = run(150)
    assert after[0] - before[0] < 2048  # KiB
    assert after[1] <= before[1] + 2


def test_a_machine_without_a_free_core_is_not_the_programs_fault(monkeypatch):
    from temper.code import guest

    ended, child = [], guest.Child(1, os.getpid(), 0, 0, 1.0, time.monotonic() - 2, 0.0)
    zygote = types.SimpleNamespace(kill=ended.append)
    monkeypatch.setattr(guest, "kept_waiting", lambda pid: 1.8)
    guest.Zygote.end_or_wait(zygote, child)  # of 2 seconds it was let run for 0.2
    assert not child.late
    assert child.deadline > time.monotonic()
    child.began -= 1
    monkeypatch.setattr(guest, "kept_waiting", lambda pid: 100.0)
    guest.Zygote.end_or_wait(zygote, child)  # three times its seconds have gone
    assert child.late
    assert ended == [child]
