"""Tasks shared out to forked one-thread processes: on a CPU, two train a small model faster than one with two threads.

The processes are forked from this one when there is something to do, so a task may be any function: it finds this
process's models and batches where they are, and nothing is sent to it. Each process takes the next task from one queue
when it is done with the last; what a task returns goes back. No result depends on who did what: every task is computed
with one thread, where there is one process too.
"""

from __future__ import annotations

import gc
import io
import multiprocessing
import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import torch

from temper.distributed.ranks import ranks
from temper.models.forks import cpu_seconds, fork, has_ended, killed, may_fork, one_thread, settle_fork

T = TypeVar("T")
SHARE_SECONDS = 0.1  # with less work each, a second process saves little: half of that goes into pages it copies
NUMBER = 4  # bytes of a task's number in the queue
MOST = 8192  # tasks in the queue: a pipe takes 64 kB without waiting


class Team:
    """Up to `processes` that do tasks together, this one among them; by default one for each thread torch may use.
    Where nothing may be forked this one does all of them, with the same results.

    How many take part depends on how long tasks of the `kind` took the last time.
    """

    def __init__(self, processes: int | None = None, share_seconds: float = SHARE_SECONDS):
        self._processes, self._share_seconds = processes, share_seconds
        self._seconds: dict[str, float] = {}  # of a task, by kind

    def run(self, tasks: Sequence[Callable[[], T]], kind: str) -> list[T]:
        """What each task returns, in their order. What one of them raises is raised here, and the others are given up.
        Raises ResourceError if a process was killed."""
        found: list[T] = []
        while len(found) < len(tasks):
            found += self._run(tasks[len(found) :][: self.at_once(kind)], kind)
        return found

    def at_once(self, kind: str) -> int:
        """Tasks that `run` does together: of a kind that is not known yet one alone, which makes what is made once and
        tells how long they take."""
        known = kind in self._seconds or not self._share_seconds or self._most() == 1
        return MOST if known else 1

    def processes(self, tasks: int, kind: str) -> int:
        """How many processes so many tasks are worth."""
        seconds = tasks * self._seconds.get(kind, 0.0)
        worth = int(seconds / self._share_seconds) if self._share_seconds else tasks
        return max(1, min(self._most(), tasks, worth))

    def _most(self) -> int:
        return (self._processes or torch.get_num_threads()) if may_fork() else 1

    def _run(self, tasks: Sequence[Callable[[], T]], kind: str) -> list[T]:
        processes, began, theirs = self.processes(len(tasks), kind), time.thread_time(), 0.0
        with one_thread():
            if processes == 1:
                found = [task() for task in tasks]
            else:
                found, theirs = _together(tasks, processes)
        cpu_seconds(more=theirs)
        self._seconds[kind] = (time.thread_time() - began + theirs) / len(tasks)
        return found


class Together(Protocol):
    """Ranks that have to compute with a model together."""

    def ask(self, tasks: Sequence[Callable[[], T]]) -> list[T]: ...


def run_all(team: Team | Together | None, tasks: Sequence[Callable[[], T]], kind: str) -> list[T]:
    """What each task returns: of a team, or without one of this process with all its threads; with several ranks, each
    does its share."""
    if team is not None and not isinstance(team, Team):
        return team.ask(tasks)
    if ranks().size > 1:
        return ranks().together(lambda: _all(team, ranks().share(tasks), kind))
    return _all(team, tasks, kind)


def _all(team: Team | None, tasks: Sequence[Callable[[], T]], kind: str) -> list[T]:
    return [task() for task in tasks] if team is None else team.run(tasks, kind)


def _together(tasks: Sequence[Callable[[], T]], processes: int) -> tuple[list[T], float]:
    """What the tasks return, and the CPU seconds of the other processes."""
    _ended[:] = [pid for pid in _ended if not has_ended(pid)]
    queue = _queue(len(tasks))
    helpers: list[_Helper] = []
    found: dict[int, T] = {}
    seconds = 0.0
    gc.freeze()  # what exists now is walked by no collector meanwhile, which would copy its pages
    try:
        for _ in range(processes - 1):
            helpers.append(_Helper(tasks, queue))
        _work(tasks, queue, found)
        for helper in helpers:
            theirs, used = helper.answer()
            found |= theirs
            seconds += used
    finally:
        gc.unfreeze()
        os.close(queue)
        for helper in helpers:
            helper.end()
    return [found[number] for number in range(len(tasks))], seconds


def _queue(tasks: int) -> int:
    """The end to read from of a pipe that holds the number of every task; it is empty once all are taken."""
    numbers, begin = os.pipe()
    os.write(begin, b"".join(number.to_bytes(NUMBER, "little") for number in range(tasks)))
    os.close(begin)
    return numbers


def _work(tasks: Sequence[Callable[[], T]], queue: int, found: dict[int, T], parent: int | None = None) -> None:
    """Do tasks until none is left, or the parent has ended."""
    while (data := os.read(queue, NUMBER)) and parent in (None, os.getppid()):
        number = int.from_bytes(data, "little")
        found[number] = tasks[number]()


class _Helper:
    """A forked process that does tasks of the queue."""

    def __init__(self, tasks: Sequence[Callable[[], Any]], queue: int):
        self._answers, theirs = multiprocessing.Pipe(duplex=False)
        self._pid = fork(partial(_help, tasks, queue, theirs, os.getpid()))
        self._has_answered = False
        theirs.close()

    def answer(self) -> tuple[dict[int, Any], float]:
        """What it found, and the CPU seconds it used. Raises what a task of its raised."""
        try:
            message = pickle.loads(self._answers.recv_bytes())
        except (EOFError, ConnectionResetError):
            fix = "free memory, lower `micro_batch_tokens`, or set `parallel: threads`; then run again"
            raise killed("training", self._ended(), fix) from None
        self._has_answered = True
        if isinstance(message, BaseException):
            raise message
        return message

    def end(self) -> None:
        self._answers.close()
        if self._has_answered:
            _ended.append(self._pid)  # nobody waits while the system takes it apart
        elif self._pid:
            os.kill(self._pid, signal.SIGKILL)  # it holds nothing that could be lost
            self._ended()

    def _ended(self) -> int:
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        return os.waitstatus_to_exitcode(status)


_ended: list[int] = []  # processes that have said what they had to say


def _help(tasks: Sequence[Callable[[], Any]], queue: int, answers: Any, parent: int) -> None:
    """The life of a forked process. One message goes back: what it found and how long it took, or what went wrong."""
    settle_fork(queue, answers.fileno())
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # sent to the whole group, it is the parent's to handle too
    began = time.process_time()
    found: dict[int, Any] = {}
    try:
        _work(tasks, queue, found, parent)
        message = _pickled((found, time.process_time() - began))
    except Exception as problem:
        message = _told(problem)
    answers.send_bytes(message)


class _Pickler(pickle.Pickler):
    """Tensors in main memory as their bytes: torch's own way makes a file of each."""

    def reducer_override(self, obj: Any) -> Any:  # pickle asks for this name
        if type(obj) is not torch.Tensor or obj.device.type != "cpu" or obj.requires_grad or not obj.numel():
            return NotImplemented
        data = obj.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        return _tensor, (data, obj.dtype, obj.shape)


def _tensor(data: bytes, dtype: torch.dtype, shape: Sequence[int]) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=dtype).view(shape)


def _pickled(value: Any) -> bytes:
    out = io.BytesIO()
    _Pickler(out, pickle.HIGHEST_PROTOCOL).dump(value)
    return out.getvalue()


def _told(problem: Exception) -> bytes:
    """The exception as it crosses to the parent: itself where it can be made again there, with where it was raised."""
    where = f"in a training process:\n{traceback.format_exc()}"
    try:
        problem.add_note(where)
        message = pickle.dumps(problem)
        pickle.loads(message)
    except Exception:
        return pickle.dumps(RuntimeError(where))
    return message
