"""What a program may use, and what came of running one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Limits:
    """Limits of one run of a program: seconds of CPU time, seconds on the clock (None: twice those and a second), bytes
    of address space, bytes of output. Time in which a busy machine had no core for it is not counted, up to three
    times its seconds on the clock.

    >>> Limits(seconds=1.5).deadline
    4.0
    """

    seconds: float = 2.0
    wall: float | None = None
    memory: int = 512 << 20
    output: int = 4 << 20

    @property
    def deadline(self) -> float:
        return self.wall if self.wall is not None else 2 * self.seconds + 1


DEFAULTS = Limits()


@dataclass(frozen=True)
class Ran:
    """What came of one run. `status` is the exit status, negative for the signal that ended it."""

    status: int
    stdout: bytes
    stderr: bytes = b""
    cpu: float = 0.0
    memory: int = 0
    late: bool = False  # ended at its deadline
    flooded: bool = False  # ended for writing too much
    broken: str = ""  # why the sandbox could not run it: says nothing of the program
    report: bytes = b""  # what a test script said of it
    answer: bytes = b""  # what it answered to a call
    ended: bool = False  # ended by us, because no more was wanted of it

    @property
    def verdict(self) -> str:
        """What went wrong by itself: `timeout`, `memory`, `output_limit`, `runtime_error`, `infrastructure`, or "".

        >>> Ran(1, b"", b"Traceback\\nMemoryError").verdict, Ran(-24, b"").verdict, Ran(0, b"hi").verdict
        ('memory', 'timeout', '')
        """
        if self.broken:
            return "infrastructure"
        if self.flooded or self.status == -25:  # SIGXFSZ
            return "output_limit"
        if self.late or self.status == -24:  # SIGXCPU
            return "timeout"
        if self.status == 0:
            return ""
        tail = self.stderr[-2000:]
        out_of_memory = (b"MemoryError", b"std::bad_alloc", b"can't start new thread", b"Cannot allocate memory")
        return "memory" if any(sign in tail for sign in out_of_memory) else "runtime_error"


class Runner(Protocol):
    """A sandbox of any make: a container, a remote service. What it gives `grade` is all that grading asks of it."""

    def run(self, program: str, stdin: bytes, limits: Limits) -> Ran: ...
