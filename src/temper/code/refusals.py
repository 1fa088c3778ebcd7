"""Where there is no sandbox, and what to do about it."""

from __future__ import annotations

import platform
from collections.abc import Iterable

from temper.errors import Exit, Fault, TemperError


class SandboxError(TemperError):
    """The sandbox cannot be had here: exit code 8."""

    def __init__(self, faults: Fault | Iterable[Fault]):
        super().__init__(faults, Exit.SANDBOX)


def check_system() -> None:
    """Raises SandboxError where there is no sandbox for this system or processor."""
    system, machine = platform.system(), platform.machine().lower()
    if system != "Linux" or machine not in ("x86_64", "amd64", "aarch64", "arm64"):
        what = f"no sandbox for programs on {system} {machine}"
        fix = "use Linux on x86-64 or aarch64 (a container or virtual machine will do), or give a runner of your own"
        raise SandboxError(Fault(what, why="Landlock and seccomp are parts of Linux", fix=fix))


def refusal(why: str) -> Fault:
    fix = "a kernel of 5.13 or newer with Landlock; in a container, a seccomp profile that lets landlock_* through"
    return Fault("the sandbox for programs cannot be had here: nothing was run", why=why, fix=fix)
