"""What stands around a program: Landlock (the default), bubblewrap where a kernel has no Landlock, or nothing, where
somebody asked for that. Which one is said, never guessed: a lesser one is never taken by itself."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable
from typing import Literal

from temper.code.refusals import SandboxError
from temper.errors import Fault

Tier = Literal["landlock", "bubblewrap", "none"]
LOUD = (
    "sandbox: none: programs that the model writes run as you, with your files and your network: only limits of time"
    " and memory hold"
)
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo", "/etc/localtime")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")


def wrapped(tier: Tier, python: str, guest: str, reads: Iterable[str]) -> list[str]:
    """The words before a zygote's own: none, or bubblewrap's with all that programs may see. Raises SandboxError."""
    if tier != "bubblewrap":
        return []
    bwrap = bubblewrap()
    library = sysconfig.get_path("stdlib")
    installed = [path for name in ("site-packages", "dist-packages") if os.path.isdir(path := f"{library}/{name}")]
    shared = glob.glob(os.path.join(sysconfig.get_config_var("LIBDIR") or library, "libpython*.so*"))
    words = [bwrap, "--unshare-user-try", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    words += ["--cap-drop", "ALL", "--chdir", "/"] if os.geteuid() else ["--chdir", "/"]
    for path in (*_SYSTEM, library, python, *shared):
        words += ["--ro-bind-try", path, path]
    for path in installed:
        words += ["--tmpfs", path, "--remount-ro", path]
    for path in (os.path.dirname(guest), *reads):
        words += ["--ro-bind-try", path, path]
    for path in _DEVICES:
        words += ["--dev-bind-try", path, path]
    return [*words, "--remount-ro", "/", "--"]


def bubblewrap() -> str:
    """Raises SandboxError where it is not installed."""
    found = shutil.which("bwrap")
    if found is None:
        fix = "install bubblewrap, or leave `sandbox` out where the kernel has Landlock (5.13 or newer)"
        raise SandboxError(Fault("`sandbox: bubblewrap`: there is no bwrap here: nothing was run", fix=fix))
    return found


def name_of(tier: Tier, abi: int, kernel: str) -> str:
    """What records and cards say of it."""
    if tier == "landlock":
        return f"landlock (ABI {abi}) + seccomp, Linux {kernel}"
    if tier == "bubblewrap":
        said = subprocess.run([bubblewrap(), "--version"], capture_output=True, text=True, check=False, timeout=20)
        return f"{said.stdout.strip() or 'bubblewrap'} + seccomp, Linux {kernel}"
    return f"none (limits alone), Linux {kernel}"
