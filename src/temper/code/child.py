"""In the fork: a process becomes one that runs a program. For the guest's interpreter: standard library only."""

from __future__ import annotations

import builtins
import os
import sys
import threading
import types
from typing import Any

confine = sys.modules.get("temper_confine") or __import__("temper.code.confine", fromlist=["confine"])
speak = sys.modules.get("temper_speak") or __import__("temper.code.speak", fromlist=["speak"])
scripts = sys.modules.get("temper_scripts") or __import__("temper.code.scripts", fromlist=["scripts"])
LINE, REPORT, RULES, READY, FIRST_FREE = 3, 4, 5, 6, 7
LARGEST_STACK = 128 << 20  # of a thread: what people ask for beyond it would be all their memory


def stack_size(size: int = 0, _set=threading.stack_size) -> int:
    return _set(min(size, LARGEST_STACK))


def as_people_know_it() -> None:
    """What an interpreter that was started without `site` lacks, and what its limits cannot give."""
    try:
        import _sitebuiltins
    except ImportError:
        return
    for name in ("exit", "quit"):
        builtins.__dict__[name] = _sitebuiltins.Quitter(name, "Ctrl-D")
    threading.stack_size = stack_size


STREAMS = (
    ("stdin", "r", -1, "surrogateescape", None),
    ("stdout", "w", -1, "surrogateescape", "\n"),
    ("stderr", "w", 1, "backslashreplace", "\n"),
)


def open_streams() -> None:
    """`sys.stdin` and its like, made anew: those of the zygote take what it had for what is there now."""
    for number, (name, mode, buffering, errors, newline) in enumerate(STREAMS):
        stream: Any = open(number, mode, buffering, "utf-8", errors, newline, closefd=False)  # noqa: SIM115
        stream.buffer.raw.name = f"<{name}>"
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def begin(header: dict, given: dict[str, int], rules: int, told: int, user: int | None, parent: int, tier: str) -> None:
    """Takes its descriptors, gives up everything else and becomes the program. Does not return."""
    status = 1
    try:
        os.setpgid(0, 0)
        places = {"in": 0, "out": 1, "err": 2, "line": LINE, "report": REPORT, "rules": RULES, "ready": READY}
        import fcntl

        given = {**given, "rules": rules, "ready": told}
        high = {name: fcntl.fcntl(number, fcntl.F_DUPFD, 64) for name, number in given.items()}
        source = _read_all(high.pop("program")) if "program" in high else b""
        os.closerange(0, 64)
        for name, number in high.items():
            os.dup2(number, places[name], inheritable=True)
        os.closerange(FIRST_FREE, 256)
        if "cwd" in header:
            os.chdir(header["cwd"])
        profile = confine.Profile(**{header["profile"]: True} if header.get("profile") else {})
        bounds = confine.Bounds(header["cpu"], header["memory"], header["file_size"])
        sys.set_int_max_str_digits(0)
        open_streams()
        confine.confine(RULES, profile, bounds, user, parent, tier)
    except BaseException as problem:
        try:
            os.write(READY, f"!{type(problem).__name__}: {problem}".encode())
        finally:
            os._exit(97)
    os.write(READY, b"+")
    os.close(READY)
    if "argv" in header:
        try:
            os.execve(header["argv"][0], header["argv"], {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TMPDIR": "."})
        finally:
            os._exit(127)
    del high, given, told, rules, user, parent, tier
    status = finish({"run": run, "serve": speak.serve, "check": scripts.check}[header["mode"]], source, header)
    os._exit(status)


def _read_all(number: int) -> bytes:
    parts = []
    os.lseek(number, 0, os.SEEK_SET)
    while part := os.read(number, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def run(source: bytes, header: dict) -> None:
    """The program as people start it: `__main__`, its input on descriptor 0."""
    module = types.ModuleType("__main__")
    module.__file__ = "solution.py"
    sys.modules["__main__"] = module
    sys.argv = ["solution.py"]
    exec(compile(source, "solution.py", "exec"), module.__dict__)


def finish(program, source: bytes, header: dict) -> int:
    """Runs it and does what an interpreter does at its end; the exit status."""
    status = 0
    try:
        program(source, header)
    except SystemExit as stop:
        status = _status_of(stop)
    except BaseException as problem:
        own = _own_part(problem.__traceback__)
        sys.excepthook(type(problem), problem.with_traceback(own), own)
        status = 1
    try:
        import atexit

        threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
        atexit._run_exitfuncs()
    except BaseException:
        status = status or 1
    for stream in (sys.stdout, sys.__stdout__, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except BaseException:
            status = status or 120
    return status


def _own_part(place: types.TracebackType | None) -> types.TracebackType | None:
    """A traceback from the program's first line on."""
    while place is not None and place.tb_frame.f_code.co_filename in (__file__, speak.__file__):
        place = place.tb_next
    return place


def _status_of(stop: SystemExit) -> int:
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code & 0xFF
    print(stop.code, file=sys.stderr)
    return 1
