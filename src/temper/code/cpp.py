"""C++17 programs: the system's compiler, inside the sandbox; then its program, inside the sandbox."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from temper.code.limits import Limits, Ran
from temper.code.refusals import SandboxError
from temper.code.sandbox import Sandbox, source
from temper.code.zygote import Job
from temper.errors import Fault

COMPILING = Limits(seconds=20, wall=30, memory=2 << 30, output=1 << 20)
BINARY_SIZE = 64 << 20
SYSTEM = ("/usr/bin", "/bin", "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/libexec", "/usr/local/lib")


def compiler() -> str:
    """The path of the system's C++ compiler. Raises SandboxError where there is none."""
    found = next((path for name in ("g++", "clang++", "c++") if (path := shutil.which(name))), None)
    if found is None:
        raise SandboxError(Fault("no C++ compiler here", why="a row has tests for C++ programs", fix="install g++"))
    return os.path.realpath(found)


@contextmanager
def compiled(sandbox: Sandbox, program: str) -> Iterator[tuple[Path | None, Ran]]:
    """The compiled program (None where it is none) and what the compiler said; it goes when the context is left.
    Raises SandboxError where there is no compiler, or the sandbox has no place for it."""
    if sandbox.kind == "bubblewrap":
        raise SandboxError(Fault("C++ programs cannot be compiled under bubblewrap", fix="use `sandbox: landlock`"))
    made = Path(tempfile.mkdtemp(prefix="temper-cpp-"))
    try:
        if sandbox.user is not None:
            os.chown(made, sandbox.user, sandbox.user)
        (made / "solution.cpp").write_bytes(source(program))
        flags = ["-std=c++17", "-O2", "-pipe", "-static", "-w", "-o", "solution", "solution.cpp"]
        more = {"argv": [compiler(), *flags], "cwd": str(made), "profile": "compiles", "writes": [str(made)]}
        more |= {"runs": list(SYSTEM), "reads": ["/usr/include", "/usr/local/include", "/usr/share"]}
        ran = sandbox.run_jobs([Job(b"", b"", limits=COMPILING, more=more, file_size=BINARY_SIZE)])[0]
        binary = made / "solution"
        good = ran.status == 0 and not ran.broken and binary.is_file() and not binary.is_symlink()
        yield (binary if good else None), ran
    finally:
        shutil.rmtree(made, ignore_errors=True)


def run_binary(sandbox: Sandbox, binary: Path, stdin: bytes, limits: Limits) -> Ran:
    """Runs a compiled program on an input."""
    more = {"argv": [str(binary)], "profile": "runs", "runs": [str(binary)]}
    return sandbox.run_jobs([Job(b"", stdin, limits=replace(limits), more=more)])[0]
