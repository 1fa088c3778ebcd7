"""The trainer's end of the rewards' process: one for all rewards of a user's own, started when first asked, ended and
started again where a reward hangs or takes it down."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from temper.errors import ConfigError, Fault, Preempted, ResourceError
from temper.rewards.files import Source, Traits
from temper.rewards.returns import ONLY, RewardFailure, WrongReturn

TIMEOUT = 30.0  # seconds a reward may take for a reply, or for a batch where it takes one
START = 120.0  # seconds for Python to start, on a machine that is busy
STRIKES = 3  # replies in a row that may hang or end the process before the rest of a call is not asked any more
QUIET = 5.0  # seconds after which it is said that a reward is being waited for
GRACE = 2.0  # seconds that a reward still has once the process was asked to stop
LOOK = 100  # milliseconds between two looks at whether it was
_BOOT = "import json, sys; path, life = json.loads(sys.argv[1]); sys.path[:] = path\n"
_BOOT += "from temper.rewards.child import serve; serve(life)"


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return None


def never() -> bool:
    return False


@dataclass(frozen=True)
class Limits:
    """Seconds a call may take, how often in a row one may end badly, and whether the process was asked to stop."""

    timeout: float = TIMEOUT
    strikes: int = STRIKES
    stopping: Callable[[], bool] = never


class _Ended(Exception):
    """The process was ended, or ended itself, before it answered."""


class Worker:
    """The process. Threads take turns."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self._life: int | None = None  # a pipe that is open as long as this process is there
        self._lock = threading.RLock()
        self._told: set[Source] = set()
        self._owner = os.getpid()

    def traits(self, source: Source, limits: Limits) -> Traits:
        """What kind of function it is. Raises ConfigError with file and line for one that cannot be loaded."""
        try:
            with self._lock:
                (answer,) = self._exchange(source, None, False, limits, 1)
        except _Ended as end:
            fault = Fault("a reward file cannot be loaded", source.path, f"{end} while it was run")
            raise ConfigError(fault) from None
        if "fault" in answer:
            raise ConfigError(Fault(*answer["fault"]))
        return Traits(**answer["traits"])

    def ask(self, source: Source, items: Sequence[Any], together: bool | str, limits: Limits) -> list[Any]:
        """What the reward says of each item: a number, None, a list of numbers, or the exception by which it failed.
        Where it hangs or ends the process on one, the process is ended and the others are asked in a new one. Raises
        Preempted where the process is asked to stop and the reward does not come back."""
        found: list[Any] = []
        strikes = 0
        while len(found) < len(items):
            if strikes >= limits.strikes:
                unasked = RewardFailure(f"not asked: {strikes} calls before it ended badly", source.path)
                return found + [unasked] * (len(items) - len(found))
            try:
                with self._lock:
                    rest = items[len(found) :]
                    for answer in self._exchange(source, rest, together, limits, len(rest)):
                        found.append(_outcome(answer))
                        strikes = 0
            except _Ended as end:
                strikes += 1
                if together and together != ONLY and len(items) - len(found) > 1 and strikes < limits.strikes:
                    together = False  # each alone: one reply may be to blame
                    continue
                found.append(RewardFailure(str(end), source.path, ended=True))
        return found

    def close(self) -> None:
        """End the process, with all that its rewards started."""
        process, self._process, self._buffer = self._process, None, b""
        if process is None or os.getpid() != self._owner:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        if self._life is not None:
            os.close(self._life)
            self._life = None
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        process.wait()

    # -- one request ---------------------------------------------------------------------------------------------------

    def _exchange(
        self, source: Source, items: Sequence[Any] | None, together: bool | str, limits: Limits, count: int
    ) -> Iterator[Any]:
        """The `count` answers to a request, as they come. Raises _Ended; whatever ends it early ends the process."""
        whole = False
        try:
            process = self._started(source, limits)
            assert process.stdin is not None
            assert process.stdout is not None
            wait = _Wait(source, limits, self._told)
            self._send(process.stdin.fileno(), pickle.dumps((_folder(), source, items, together)), wait)
            while count > 0:
                answer = json.loads(self._line(process.stdout.fileno(), wait))
                wait.again()
                if answer == "ready":
                    continue
                answers = answer if isinstance(answer, list) else [answer]
                if len(answers) > count or not all(_is_answer(one) for one in answers):
                    raise ValueError
                count -= len(answers)
                yield from answers
                wait.again()
            whole = True
        except (BrokenPipeError, _Silent):
            raise _Ended(self._how_it_ended()) from None
        except ValueError:
            raise _Ended("its process gave no answer that can be read: it may have changed Python itself") from None
        finally:
            if not whole:
                self.close()

    def _started(self, source: Source, limits: Limits) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid():
            self._owner, self._buffer = os.getpid(), b""
            try:
                self._process = self._start()
            except OSError as error:
                raise ResourceError(Fault("the process for rewards cannot be started", why=str(error))) from None
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            os.set_blocking(self._process.stdin.fileno(), False)
            self._line(self._process.stdout.fileno(), _Wait(source, replace(limits, timeout=START), self._told))
        return self._process

    def _start(self) -> subprocess.Popen[bytes]:
        life, self._life = os.pipe()
        try:
            command = [sys.executable, "-B", "-P", "-c", _BOOT, json.dumps([sys.path, life])]
            pipe = subprocess.PIPE
            return subprocess.Popen(
                command, stdin=pipe, stdout=pipe, bufsize=0, start_new_session=True, pass_fds=[life]
            )
        finally:
            os.close(life)

    def _send(self, pipe: int, request: bytes, wait: _Wait) -> None:
        left = memoryview(len(request).to_bytes(8, "big") + request)
        poll = select.poll()
        poll.register(pipe, select.POLLOUT)
        while left:
            if poll.poll(LOOK):
                with contextlib.suppress(BlockingIOError):
                    left = left[os.write(pipe, left) :]
            else:
                wait.look()

    def _line(self, pipe: int, wait: _Wait) -> bytes:
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        while b"\n" not in self._buffer:
            if not poll.poll(LOOK):
                wait.look()
            elif part := os.read(pipe, 1 << 16):
                self._buffer += part
            else:
                raise _Silent
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _how_it_ended(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "it closed the pipe that it answers on"
        if code >= 0:
            return f"it ended its process with exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        memory = ", perhaps for its memory" if -code == signal.SIGKILL else ""
        return f"its process was ended by {name}{memory}"


class _Silent(Exception):
    """The pipe was closed."""


class _Wait:
    """How long a reward has been silent, and what comes of it."""

    def __init__(self, source: Source, limits: Limits, told: set[Source]):
        self.source, self.limits, self.told = source, limits, told
        self.asked_to_stop: float | None = None
        self.again()

    def again(self) -> None:
        self.since = time.monotonic()

    def look(self) -> None:
        """Say that it takes long; raise _Ended past the limit, Preempted where the process is to stop."""
        now = time.monotonic()
        if self.limits.stopping():
            self.asked_to_stop = self.asked_to_stop or now
            if now - self.asked_to_stop >= GRACE:
                raise Preempted(f"stopped while the reward `{self.source}` was at work: its step is taken again")
        silent, limit = now - self.since, self.limits.timeout
        if silent >= limit:
            raise _Ended(f"it gave no value within {limit:g} s")
        if silent >= QUIET and self.source not in self.told:
            self.told.add(self.source)
            said = f"the reward `{self.source}` has not answered for {silent:.0f} s; it has {limit:g} s"
            logging.getLogger("temper.rewards").warning(said)


def _is_answer(answer: Any) -> bool:
    if isinstance(answer, dict):
        return bool(answer.keys() & {"failed", "fault", "traits"})
    return answer is None or isinstance(answer, (int, float, list))


def _outcome(answer: Any) -> Any:
    if not isinstance(answer, dict):
        return float(answer) if isinstance(answer, int) else answer
    said = answer["failed"]
    return WrongReturn(said) if answer["wrong"] else RewardFailure(said, answer["where"])


WORKER = Worker()
atexit.register(WORKER.close)
