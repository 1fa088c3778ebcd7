"""SIGTERM and Ctrl-C: the first asks the running stage to save and stop; a second Ctrl-C stops at once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from temper.errors import Exit


def _say(text: str) -> None:
    """To standard error, past Python's buffers: a signal may come while they are being written."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())


class Stopper:
    """A context in which signals are requests. `code` is the exit code of the first that came, None before.

    Whatever is being written when the process ends is whole or absent, so a second Ctrl-C loses at most one step. A
    second SIGTERM changes nothing: the checkpoint is on its way. While nothing runs yet (`busy` is false) a signal ends
    the process at once.
    """

    def __init__(self, say: Callable[[str], None] | None = None):
        self.code: Exit | None = None
        self.busy = False
        self._say = say or _say
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self.code is not None

    def __enter__(self) -> Stopper:
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._before[number] = signal.signal(number, self._take)
            except ValueError:  # not the main thread: signals are somebody else's
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if not self.busy:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            self._say("stopped before anything ran; run the same command again")
            raise SystemExit(int(Exit.PREEMPTED))
        if self.code is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.code = Exit.PREEMPTED if number == signal.SIGTERM else Exit.INTERRUPTED
        more = " (Ctrl-C again stops at once)" if number == signal.SIGINT else ""
        self._say(f"stopping: this step is finished and a checkpoint saved{more}")
