"""Processes forked from this one: they hold its models without a copy, use one thread each, and end when it does."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from temper.errors import Fault, ResourceError

ALIGNMENT = 64  # bytes
_ended_seconds = [0.0]  # CPU seconds of forked processes that have ended


def may_fork() -> bool:
    """Whether processes are forked here: on Linux, unless TEMPER_FORK=0 forbids it. macOS' own libraries do not bear
    it."""
    return sys.platform == "linux" and os.environ.get("TEMPER_FORK") != "0"


def in_main_memory(model: Any) -> bool:
    """Whether other processes can share all weights of `model`."""
    return all(weight.device.type == "cpu" for weight in model.parameters())


def start_fork(process: Any) -> None:
    """Start a process that is forked."""
    with _threads_wait():
        process.start()


def fork(work: Callable[[], None]) -> int:
    """The number of a process, forked from this one, that does `work` and ends, without what Python does at its own
    end: for who waits for each that it starts."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # there is none, or it is closed
            stream.flush()
    with _threads_wait():
        pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def has_ended(pid: int) -> bool:
    """Whether a process that was forked from this one is gone."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


@contextlib.contextmanager
def _threads_wait() -> Iterator[None]:
    """Python 3.12 and later warn of other threads at a fork: here they are torch's, which wait between two calls and
    hold no lock, and what is forked starts none and asks nothing of them (`settle_fork`)."""
    with warnings.catch_warnings():
        about = r".*use of fork\(\) may lead to deadlocks"
        warnings.filterwarnings("ignore", message=about, category=DeprecationWarning)
        yield


def settle_fork(*kept: int) -> None:
    """To be called first in a forked process: interrupts are its parent's to handle, of the open files it keeps the
    descriptors `kept` and the standard ones (the run's lock is among the others), and it uses one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    before = 2
    for number in (*sorted(kept), os.sysconf("SC_OPEN_MAX")):
        os.closerange(before + 1, number)
        before = number
    torch.set_num_threads(1)


def killed(what: str, code: int | None, fix: str) -> ResourceError:
    """To be raised where a process that shared the work has gone without a word."""
    why = f"it ended with code {code}; the system kills processes when memory runs out"
    return ResourceError(Fault(f"a {what} process was killed", why=why, fix=fix))


def cpu_seconds(more: float = 0.0) -> float:
    """CPU seconds of this process and of those that shared its training; `more` are of such a one that has ended."""
    _ended_seconds[0] += more
    return time.process_time() + _ended_seconds[0]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within it, torch uses one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def shared_like(tensors: Sequence[Tensor], file: int = -1) -> list[Tensor]:
    """Tensors like each of `tensors`, in memory that processes forked later share with this one, zeros at first; or
    what lies in `file`, a descriptor, for who maps it with tensors of these shapes.

    >>> [tensor.shape for tensor in shared_like([torch.ones(2, 3), torch.ones(0)])]
    [torch.Size([2, 3]), torch.Size([0])]
    """
    sizes = [-(-tensor.nbytes // ALIGNMENT) * ALIGNMENT for tensor in tensors]
    whole = max(ALIGNMENT, sum(sizes))
    if file >= 0 and os.fstat(file).st_size < whole:
        os.ftruncate(file, whole)
    memory = mmap.mmap(file, whole)
    made, start = [], 0
    for tensor, size in zip(tensors, sizes, strict=True):
        place = torch.empty(0, dtype=tensor.dtype)
        if tensor.numel():
            place = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=start)
        made.append(place.view(tensor.shape))
        start += size
    return made
