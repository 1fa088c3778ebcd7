"""C files of this package as libraries: compiled when first needed by the machine's own compiler, kept in its cache.

Nothing depends on it: who asks for a library has another way for where there is none.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math",
         "-shared", "-fPIC")  # fmt: skip
# Threads of the OpenMP that torch has loaded, so none is linked: those of a second one would compete with them.
OPENMP = ("-fopenmp", "-nodefaultlibs", "-lc")
HERE = Path(__file__).parent


def compiler() -> str | None:
    """The C compiler that is used here; None where there is none, or `TEMPER_COMPILE=0`."""
    if os.environ.get("TEMPER_COMPILE") == "0":
        return None
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


@functools.cache
def load_library(source: Path, flags: tuple[str, ...] = ()) -> ctypes.CDLL | None:
    """The functions of a C file, or None where they cannot be had: no compiler, or `TEMPER_COMPILE=0`."""
    program = compiler()
    if program is None:
        return None
    try:
        return ctypes.CDLL(str(_built(source, program, FLAGS + flags)))
    except (OSError, subprocess.SubprocessError):
        return None


class Functions:
    """Functions of a C file by name, told what they take, and what they return where that is not nothing; compiled when
    first asked for."""

    def __init__(
        self, source: Path, arguments: Mapping[str, list[Any]], results: Mapping[str, Any] = {},
        flags: tuple[str, ...] = OPENMP,
    ):  # fmt: skip
        self._source, self._arguments, self._results, self._flags = source, arguments, results, flags
        self._found: dict[str, Any] = {}

    @property
    def available(self) -> bool:
        """Whether they can be had here."""
        return load_library(self._source, self._flags) is not None

    def __getitem__(self, name: str) -> Any:
        """For who knows that they are `available`."""
        if name not in self._found:
            library = load_library(self._source, self._flags)
            assert library is not None, "asked only where they can be had"
            function = getattr(library, name)
            function.argtypes, function.restype = self._arguments[name], self._results.get(name)
            self._found[name] = function
        return self._found[name]


def _built(source: Path, compiler: str, flags: tuple[str, ...]) -> Path:
    """The shared library for this source, compiler and processor; made once, then found in the user's cache."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=20).stdout
    shared = sorted(HERE.glob("*.h"))  # what the C files include
    sources = [path.read_bytes() for path in (source, *shared)]
    key = hashlib.sha256(b"\0".join([*sources, version, " ".join(flags).encode(), processor()]))
    folder = cache_folder()
    library = folder / f"{source.stem}-{key.hexdigest()[:16]}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as made:
            target = Path(made) / library.name
            command = [compiler, f"-I{HERE}", str(source), "-o", str(target), *flags, "-lm"]
            subprocess.run(command, capture_output=True, check=True, timeout=60)
            target.replace(library)  # whole or not at all, however many processes build it
    return library


def cache_folder() -> Path:
    """Where what depends on this machine alone is kept for the user's next process."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "temper"


def processor() -> bytes:
    """What `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        return "".join(sorted({line for line in lines if line.startswith(("model name", "flags"))})).encode()
    except OSError:
        return f"{platform.machine()} {platform.processor()}".encode()
