"""Starting and stopping runs: what `temper run` does in a terminal, and what Ctrl-C there does.

A run that was started here is a process of its own: it goes on when the page ends, and the page that is opened again
finds it as it finds any other. One is stopped by a signal to the process that holds its lock, whoever started it.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from temper.errors import ConfigError, Exit, Fault, TemperError, escape
from temper.record.rundir import holder, read_object
from temper.ui.index import signature_of
from temper.ui.library import Library, Unknown, id_of
from temper.ui.recipes import Known, Recipes, check_settings

PROGRAM = (sys.executable, "-m", "temper")
PLAN_SECONDS = 300.0  # after which a plan is given up
MOST_PLANS = 50  # kept to be started
MOST_STARTED = 4  # runs of this page that go on at once
MOST_SAID = 8000  # characters shown of what a run or a plan said

Json = dict[str, Any]


@dataclass(frozen=True)
class Planned:
    """What a plan was made of, and what starting it will do."""

    known: Known
    settings: tuple[str, ...]
    out: Path
    signature: str  # of the recipe's file when it was planned


@dataclass
class Started:
    """A run that was started here; `said` is its standard error."""

    out: Path
    process: subprocess.Popen[bytes]
    said: IO[bytes]

    def about(self) -> Json:
        """What became of it: `code` is None while it goes on; `is_there`: there is something of it to look at."""
        self.said.flush()
        size = os.fstat(self.said.fileno()).st_size
        tail = os.pread(self.said.fileno(), MOST_SAID, max(0, size - MOST_SAID)).decode("utf-8", "replace")
        about = {"id": self.number, "name": self.out.name, "is_there": (self.out / "run.json").is_file()}
        return {**about, "code": self.process.poll(), "said": shown(tail)}

    @property
    def number(self) -> str:
        return id_of(self.out.resolve())


class Starts:
    """Plans and starts recipes, and stops runs. All of it may be asked from any thread."""

    def __init__(self, library: Library, recipes: Recipes, program: Sequence[str] = PROGRAM):
        self.library, self.recipes, self.program = library, recipes, tuple(program)
        self._plans: OrderedDict[str, Planned] = OrderedDict()
        self._started: list[Started] = []
        self._lock = threading.Lock()
        self._planning = threading.Lock()

    def plan(self, number: str, settings: Any) -> Json:
        """What `temper plan` tells, with the number of the `plan`, which starts it. Raises Unknown, TemperError with
        every fault, or Refused."""
        known = self.recipes.known(number)
        signature = signature_of(known.path)
        recipe = check_settings(known, settings)
        out = self.library.place_of(recipe.default_folder, recipe.output_dir is not None)
        if not self._planning.acquire(blocking=False):
            raise TemperError(Fault("another plan is being made", fix="wait for it"), Exit.LOCKED)
        try:
            found = self._ask("plan", known.reference, *_set(settings), "--out", str(out), "--json")
        finally:
            self._planning.release()
        made = secrets.token_hex(8)
        with self._lock:
            self._plans[made] = Planned(known, tuple(settings), out, signature)
            while len(self._plans) > MOST_PLANS:
                self._plans.popitem(last=False)
        return {**found, "run": out.name, "plan": made}

    def _ask(self, *arguments: str) -> Json:
        """What a command tells as JSON, and `said` beside it. Raises TemperError with its errors."""
        command = [*self.program, *arguments]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PLAN_SECONDS)
        except subprocess.TimeoutExpired:
            raise TemperError(Fault(f"the plan took more than {PLAN_SECONDS:.0f} s"), Exit.RESOURCES) from None
        said = shown(done.stderr.decode("utf-8", "replace"))
        if done.returncode:
            raise Refused(said or f"`temper {arguments[0]}` ended with exit code {done.returncode}")
        return {**json.loads(done.stdout), "said": said}

    def start(self, plan: str, changed: bool) -> Json:
        """Start what was planned, `changed` as `--changed`. Raises Unknown, or TemperError where it cannot be now."""
        with self._lock:
            planned = self._plans.get(plan)
            if planned is None:
                raise Unknown("no such plan: make it again")
            if signature_of(planned.known.path) != planned.signature:
                raise ConfigError(Fault(f"{planned.known.shown} has changed since it was planned", fix="plan it again"))
            if sum(one.process.poll() is None for one in self._started) >= MOST_STARTED:
                what = f"{MOST_STARTED} runs that were started here go on"
                raise TemperError(Fault(what, fix="wait for one, or stop it"), Exit.LOCKED)
            if holder(planned.out / "lock") is not None:
                raise TemperError(Fault(f"{planned.out.name} is running already"), Exit.LOCKED)
            del self._plans[plan]
            arguments = [planned.known.reference, *_set(planned.settings), "--out", str(planned.out)]
            self._started.append(self._begin([*arguments, *(["--changed"] if changed else [])], planned.out))
            self.library.add(planned.out)
            return self._started[-1].about()

    def _begin(self, arguments: Sequence[str], out: Path) -> Started:
        said = tempfile.TemporaryFile()  # noqa: SIM115  the run writes it for as long as it goes on
        process = subprocess.Popen(
            [*self.program, "run", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said,
            start_new_session=True,
        )  # fmt: skip
        return Started(out, process, said)

    def started(self) -> list[Json]:
        """The runs that were started here, the last first."""
        with self._lock:
            return [one.about() for one in reversed(self._started)]

    def stop(self, number: str) -> Json:
        """Ask a run to save and stop, as Ctrl-C would. Raises Unknown, or TemperError where nobody is at it."""
        path = self.library.path(number)
        with self._lock:
            own = next((one for one in self._started if one.number == number and one.process.poll() is None), None)
        if own is not None:
            own.process.send_signal(signal.SIGTERM)
            return {"stopping": True}
        pid = at_lock(path / "lock")
        if pid is None:
            what = "no process of this machine is known to be at this run"
            raise TemperError(Fault(what, fix="stop it where it was started"), Exit.LOCKED)
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            return {"stopping": False}
        except PermissionError:
            raise TemperError(Fault("the run is another user's: it is not stopped from here"), Exit.LOCKED) from None
        return {"stopping": True}


class Refused(Exception):
    """A command that did not do what it was asked; the message is all that it said."""


def _set(settings: Sequence[str]) -> list[str]:
    return [f"--set={setting}" for setting in settings]


def shown(text: str) -> str:
    """The last of what a command said, without control characters and secrets."""
    return "\n".join(escape(line) for line in text[-MOST_SAID:].splitlines())


def at_lock(path: Path) -> int | None:
    """The process that holds the lock of a run; None where the system does not tell. What the lock's file says of it
    is believed of a process that has that very file open and locked: anybody can have written it."""
    pid = read_object(path).get("pid")
    if type(pid) is not int or pid <= 1:
        return None
    try:
        wanted = path.stat()
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            found = handle.stat()
            is_it = (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)
            if is_it and "FLOCK" in Path(f"/proc/{pid}/fdinfo/{handle.name}").read_text(encoding="ascii"):
                return pid
    except (OSError, ValueError):
        return None
    return None
