"""One process that samples for the trainer: asked over a pipe, it answers with each completion as it is finished."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Protocol

from temper.models.forks import killed, settle_fork, start_fork
from temper.rollout.engine import Finished, Request, Sampling
from temper.rollout.native import NativeEngine
from temper.rollout.plain import PlainEngine

Question = tuple[Sequence[Request], Sampling, int]  # with the version of the weights


class Process(Protocol):
    """What is asked of a process, however it was started."""

    @property
    def exitcode(self) -> int | None: ...
    def kill(self) -> None: ...
    def join(self) -> None: ...


class Worker:
    """The trainer's end of it."""

    def __init__(self, connection: Connection, process: Process):
        self._connection, self._process = connection, process

    def ask(self, requests: Sequence[Request], sampling: Sampling, version: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # told of by `answer`
            self._connection.send((requests, sampling, version))

    def answer(self, finish: Finished) -> float:
        """Pass on the completions as they come; returns the CPU seconds they took. Raises ResourceError if the process
        was killed."""
        try:
            while isinstance(message := self._connection.recv(), tuple):
                finish(*message)
        except (EOFError, ConnectionResetError):
            self._process.join()
            fix = "free memory, or lower `num_generations` or `prompts_per_step`; then run again"
            raise killed("sampler", self._process.exitcode, fix) from None
        if isinstance(message, str):
            raise RuntimeError(f"in a sampler process:\n{message}")
        return message

    def kill(self) -> None:
        self._process.kill()  # it holds nothing that could be lost
        self._process.join()

    def end(self) -> None:
        self.kill()
        self._connection.close()


def fork_worker(engine: NativeEngine | PlainEngine, first: Question | None = None) -> Worker:
    """A process forked from this one, which holds its model; `first`, where given, is answered before all."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_forked, args=(engine, theirs, os.getpid(), first), daemon=True)
    start_fork(process)
    theirs.close()
    return Worker(ours, process)


def _forked(
    engine: NativeEngine | PlainEngine, connection: Connection, parent: int, first: Question | None = None
) -> None:
    settle_fork(connection.fileno())
    if first is not None:
        _answer(engine, connection, first)
    serve(engine, connection, parent)


def serve(engine: NativeEngine | PlainEngine, connection: Connection, parent: int) -> None:
    """The life of a sampler process: it ends when its parent does."""
    while os.getppid() == parent:
        if not connection.poll(1.0):
            continue
        try:
            question = connection.recv()
        except EOFError:
            return
        _answer(engine, connection, question)


def _answer(engine: NativeEngine | PlainEngine, connection: Connection, question: Question) -> None:
    requests, sampling, version = question
    began = time.process_time()
    engine.version = lambda: version
    last: float | str  # after the completions: the seconds they took, or what went wrong
    try:
        engine.generate(requests, sampling, None, lambda place, completion: connection.send((place, completion)))
        last = time.process_time() - began
    except Exception:
        last = traceback.format_exc()
    with contextlib.suppress(BrokenPipeError):
        connection.send(last)
