"""SIGTERM and Ctrl-C: the first asks the running stage to save and stop, within seconds; a second one does not wait."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from temper.errors import Exit
from temper.halting import Halt, is_shielded


def _say(text: str) -> None:
    """To standard error, past Python's buffers: a signal may come while they are being written."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())


GRACE = 2.0  # seconds to reach the end of a step once asked to stop; then it is given up


class Stopper:
    """A context in which signals are requests. `code` is the exit code of the first that came, None before.

    A stage that reaches the end of its step within `GRACE` seconds saves and stops; else, or at a second SIGTERM, Halt
    is raised in the main thread, wherever it is. A second Ctrl-C ends the process at once: whatever is being written
    then is whole or absent. While nothing runs yet (`busy` is false) a signal ends the process at once.
    """

    def __init__(self, say: Callable[[str], None] | None = None, idle: str = "stopped before anything ran"):
        self.code: Exit | None = None
        self.busy = False
        self._say = say or _say
        self._idle = idle
        self._is_settled = False
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self.code is not None

    def __enter__(self) -> Stopper:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            try:
                self._before[number] = signal.signal(number, self._take)
            except ValueError:  # not the main thread: signals are somebody else's
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.settle()
        for number, before in self._before.items():
            signal.signal(number, before)

    def ask(self) -> None:
        """Stop once the running stage has saved, as at a Ctrl-C, in its own time."""
        self.code = self.code or Exit.INTERRUPTED

    def settle(self) -> None:
        """From here on the stop is under way: nothing is given up any more."""
        self._is_settled = True
        if self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGALRM:
            self._halt()
            return
        if not self.busy:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            self._say(f"{self._idle}; run the same command again")
            raise SystemExit(int(Exit.PREEMPTED))
        if self.code is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            self._halt()
            return
        self.code = Exit.PREEMPTED if number == signal.SIGTERM else Exit.INTERRUPTED
        more = " (Ctrl-C again stops at once)" if number == signal.SIGINT else ""
        self._say(f"stopping: a checkpoint is saved{more}")
        signal.setitimer(signal.ITIMER_REAL, GRACE, GRACE)  # again and again: somebody may swallow what it raises

    def _halt(self) -> None:
        if self.code is not None and not self._is_settled and not is_shielded():
            raise Halt
