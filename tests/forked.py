"""The command line with the kinds of `fakes`, in processes of their own that cost little to start: a server that has
imported everything once forks them. To signals, files and exit codes each is what `python -m fakes` is."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

TESTS = Path(__file__).parent
PATHS = os.pathsep.join([str(TESTS), str(TESTS.parent / "src")])
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([
    "fakes.data", "fakes.train", "fakes.measure", "temper.commands.run", "temper.commands.sweep",
    "temper.commands.plan", "temper.pipeline.run", "temper.pipeline.sweep", "temper.api.running",
    "temper.report.sweep_page", "temper.report.ending",
])  # fmt: skip


class Command:
    """A command that runs. What it says goes to files, so that nobody has to read along."""

    def __init__(self, *arguments: str | Path, cwd: str | Path = ".", environment: dict[str, str] | None = None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", PATHS)
            forkserver.ensure_running()
        self._said = tempfile.TemporaryDirectory(prefix="temper-test-")
        for name in ("out", "err"):
            (Path(self._said.name) / name).touch()
        told = (list(map(str, arguments)), self._said.name, str(Path(cwd).resolve()), environment or dict(os.environ))
        self._process = SERVER.Process(target=_live, args=told, daemon=True)
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def finish(self, seconds: float = 120) -> tuple[int, str, str]:
        """The exit code, what was said on standard output, and on standard error."""
        self._process.join(seconds)
        code = self._process.exitcode
        assert code is not None, f"still running after {seconds} seconds"
        with self._said as folder:
            out, err = ((Path(folder) / name).read_text(encoding="utf-8") for name in ("out", "err"))
        return code, out, err


def wait_for(condition: Any, command: Command, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition() and command.poll() is None and time.monotonic() < until:
        time.sleep(0.002)


def _live(arguments: list[str], said: str, cwd: str, environment: dict[str, str]) -> None:
    """The process itself."""
    import fakes

    from temper.pipeline import sweep

    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, name in ((1, "out"), (2, "err")):
        _lead(number, os.open(Path(said) / name, os.O_WRONLY | os.O_APPEND))
    fakes.install()
    gc.freeze()  # what is imported is no garbage: a collection after each stage would walk it all
    sweep.subprocess = SimpleNamespace(Popen=_Point, PIPE=subprocess.PIPE, DEVNULL=subprocess.DEVNULL)  # type: ignore
    sys.exit(_run(arguments))


def _lead(number: int, handle: int) -> None:
    os.dup2(handle, number)
    os.close(handle)


def _run(arguments: list[str]) -> int:
    from temper.cli import command

    sys.argv = ["temper", *arguments]
    sys.stdout = open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, encoding="utf-8")  # noqa: SIM115
    return command()


class _Point:
    """What `subprocess.Popen` is to a sweep: one of its runs, in a fork of the sweep's own process."""

    def __init__(self, command: list[str], **asked: Any):
        assert asked == {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "start_new_session": True}
        theirs, ours = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                os.close(ours)
                os.setsid()
                _lead(0, theirs)
                _lead(1, os.open(os.devnull, os.O_WRONLY))
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                code = _run(command[command.index("run") :])
                sys.stdout.flush()
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 1
            finally:
                os._exit(code)
        os.close(theirs)
        self.stdin = open(ours, "wb")  # noqa: SIM115

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
