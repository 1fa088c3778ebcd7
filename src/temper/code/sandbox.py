"""The sandbox: some zygotes, as many as cores, that run what they are given in confined processes of its own.

It fails closed: where the protections cannot be had, SandboxError (exit 8) is raised and nothing is run.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import platform
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from temper.code.canaries import require
from temper.code.limits import Limits, Ran
from temper.code.refusals import SandboxError, check_system, refusal
from temper.code.tiers import Tier, name_of
from temper.code.zygote import Job, Refused, Zygote

Item = TypeVar("Item")
Out = TypeVar("Out")
NUMPY = re.compile(r"^\s*(?:import|from)\s+numpy\b", re.MULTILINE)
NUMPY_MEMORY = 1 << 30


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Sandbox:
    """Runs programs, each in a process of its own that can do nothing but compute. To be used as a context, or closed;
    may be used from any thread. `workers` programs run at a time (None: as many as there are cores). `tier` is what
    stands around them (`tiers.py`): Landlock, bubblewrap, or, for programs that you trust as your own, nothing.

    Raises SandboxError where what the tier needs is not there.

    >>> with Sandbox() as sandbox:
    ...     sandbox.run("print(int(input()) + 1)", b"41").stdout
    b'42\\n'
    """

    def __init__(self, workers: int | None = None, tier: Tier = "landlock"):
        self.workers = workers or cores()
        self.kind: Tier = tier
        self._idle: dict[bool, list[Zygote]] = {False: [], True: []}
        self._every: list[Zygote] = []
        self._lock = threading.Lock()
        self._owner = os.getpid()
        check_system()
        with self.zygote(False) as zygote:  # what protects, for records
            self.tier = name_of(tier, zygote.hello["abi"], platform.release())
        try:
            if tier != "none":
                require(self)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends every process of it."""
        with self._lock:
            every, self._every, self._idle = self._every, [], {False: [], True: []}
        if os.getpid() == self._owner:
            for zygote in every:
                zygote.stop()

    @contextlib.contextmanager
    def zygote(self, numpy: bool) -> Iterator[Zygote]:
        """One that is free, or a new one."""
        if os.getpid() != self._owner:
            raise RuntimeError("a sandbox cannot be used in a fork of the process that made it")
        with self._lock:
            free = self._idle[numpy].pop() if self._idle[numpy] else None
        if free is None:
            free = Zygote(numpy, tier=self.kind)
            try:
                free.start()
            except Refused as refused:
                raise SandboxError(refusal(str(refused))) from None
            with self._lock:
                self._every.append(free)
        try:
            yield free
        finally:
            with self._lock:
                self._idle[numpy].append(free)

    @property
    def user(self) -> int | None:
        """Whom programs run as; None: as this process does."""
        with self.zygote(False) as zygote:
            return zygote.hello["user"]

    def run(self, program: str, stdin: bytes = b"", limits: Limits | None = None) -> Ran:
        """Runs a Python program as `python program < stdin` would."""
        return self.run_jobs([Job(source(program), stdin, limits=limits or Limits())], NUMPY.search(program))[0]

    def run_jobs(self, jobs: Sequence[Job], numpy: object = False, leads: int | None = None) -> list[Ran]:
        """Processes that run at the same time, forked from one zygote; what could not be run is `broken`."""
        more = [replace(job, limits=_with_numpy(job.limits)) for job in jobs] if numpy else list(jobs)
        with self.zygote(bool(numpy)) as zygote:
            try:
                return zygote.run(more, leads)
            except Refused as refused:
                raise SandboxError(refusal(str(refused))) from None

    def map(self, function: Callable[[Item], Out], items: Sequence[Item]) -> list[Out]:
        """The function of each item, as many at a time as there are workers, in order."""
        with ThreadPoolExecutor(min(self.workers, len(items)) or 1, "temper-code") as pool:
            return list(pool.map(function, items))


def _with_numpy(limits: Limits) -> Limits:
    return replace(limits, memory=max(limits.memory, NUMPY_MEMORY))


def source(program: str) -> bytes:
    """The program's text as bytes; lone surrogates, which no source has, become question marks."""
    return program.encode("utf-8", "replace")


_shared: dict[Tier, Sandbox] = {}
_shared_lock = threading.Lock()


def shared_sandbox(tier: Tier = "landlock") -> Sandbox:
    """The one sandbox of this process with that tier, made when it is first asked for."""
    with _shared_lock:
        found = _shared.get(tier)
        if found is None or found._owner != os.getpid():
            found = _shared[tier] = Sandbox(tier=tier)
            atexit.register(found.close)
        return found


def tier_in_use() -> str:
    """The tier of this process's sandbox (all of them, where stages ask for several); "" where none was asked for."""
    return ", ".join(sandbox.tier for sandbox in _shared.values())
