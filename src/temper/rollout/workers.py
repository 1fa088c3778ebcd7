"""One-thread sampler processes over shared weights: on a CPU, two decode faster than one that uses two threads.

The processes are forked from the trainer's, so they hold its model; the weights lie in memory that fork shares, so an
update is seen by every process at once and nothing is copied. Each takes a share of the requests; a draw depends on
its key alone, so the split changes no completion. What a process has finished comes over its pipe at once; one thread
a process reads here.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

import torch

from temper.errors import Fault, ResourceError
from temper.models.forks import can_fork, one_thread, settle_fork, shared_like, start_fork
from temper.rollout.engine import Finished, Request, Sampling, Watch
from temper.rollout.native import NativeEngine
from temper.rollout.plain import PlainEngine
from temper.types import Completion

ROWS_A_PROCESS = 32  # with fewer rows each, a second process costs more than it saves


class ParallelEngine:
    """Implements `Engine` over a `NativeEngine`: this process takes one share of the rows, forked ones the others.

    Use as a context: leaving it ends the processes. `cpu_seconds` is what they have used.
    """

    def __init__(self, engine: NativeEngine, processes: int | None = None):
        """`processes` counts this one; by default one for each thread that torch may use."""
        self.engine = engine
        self.cpu_seconds = 0.0
        wanted = torch.get_num_threads() if processes is None else processes
        self._processes = wanted if can_fork(engine.model) else 1
        self._workers: list[Worker] = []

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        watch: Watch | None = None,
        finished: Finished | None = None,
    ) -> list[Completion]:
        count = min(self._processes, len(requests) // ROWS_A_PROCESS)
        if count < 2 or watch is not None or sampling.stop_rule is not None:  # both are asked after every token
            return self.engine.generate(requests, sampling, watch, finished)
        if not self._workers:
            self._start()
        try:
            return self._together(requests, sampling, deal(requests, count), finished)
        except BaseException:  # what the others were asked must not be the answer to the next question
            self.end()
            raise

    def _together(
        self, requests: Sequence[Request], sampling: Sampling, shares: list[list[int]], finished: Finished | None
    ) -> list[Completion]:
        done: list[Completion | None] = [None] * len(requests)

        def of(share: list[int]) -> Finished:
            def finish(place: int, completion: Completion) -> None:
                done[share[place]] = completion
                if finished is not None:
                    finished(share[place], completion)

            return finish

        busy = list(zip(self._workers, shares[1:], strict=False))
        for worker, share in busy:
            worker.ask([requests[i] for i in share], sampling, self.engine.version())
        with ThreadPoolExecutor(len(busy), "temper-sampler") as readers:
            try:
                answers = [readers.submit(worker.answer, of(share)) for worker, share in busy]
                with one_thread():
                    self.engine.generate([requests[i] for i in shares[0]], sampling, None, of(shares[0]))
                self.cpu_seconds += sum(answer.result() for answer in answers)
            except BaseException:
                for worker in self._workers:  # or the readers would wait for the rest
                    worker.kill()
                raise
        nothing = Completion((), (), "length", self.engine.version())
        return [completion or nothing for completion in done]

    def _start(self) -> None:
        share_weights(self.engine.model)
        gc.freeze()  # what exists now is not walked by the forked processes' collector, which would copy its pages
        self._workers = [Worker(self.engine) for _ in range(self._processes - 1)]
        gc.unfreeze()

    def __enter__(self) -> ParallelEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End the processes; the next call starts new ones."""
        for worker in self._workers:
            worker.end()
        self._workers = []


Question = tuple[Sequence[Request], Sampling, int]  # with the version of the weights


class Worker:
    """One forked process that answers lists of requests, one after the other: `first`, where given, before all."""

    def __init__(self, engine: NativeEngine | PlainEngine, first: Question | None = None):
        context = multiprocessing.get_context("fork")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(engine, theirs, os.getpid(), first), daemon=True)
        start_fork(self._process)
        theirs.close()

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
            why = f"it ended with code {self._process.exitcode}; the system kills processes when memory runs out"
            fix = "free memory, or lower `num_generations` or `prompts_per_step`; then run again"
            raise ResourceError(Fault("a sampler process was killed", why=why, fix=fix)) from None
        if isinstance(message, str):
            raise RuntimeError(f"in a sampler process:\n{message}")
        return message

    def kill(self) -> None:
        self._process.kill()  # it holds nothing that could be lost
        self._process.join()

    def end(self) -> None:
        self.kill()
        self._connection.close()


def _serve(
    engine: NativeEngine | PlainEngine, connection: Connection, parent: int, first: Question | None = None
) -> None:
    """The life of a sampler process: it ends when its parent does."""
    settle_fork(connection.fileno())
    if first is not None:
        _answer(engine, connection, first)
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


def share_weights(model: torch.nn.Module) -> None:
    """Move every parameter and buffer of `model` into memory that forked processes see change."""
    tensors = [*model.parameters(), *model.buffers()]
    for tensor, place in zip(tensors, shared_like(tensors), strict=True):
        tensor.data = place.copy_(tensor.data)


def deal(requests: Sequence[Request], count: int) -> list[list[int]]:
    """Numbers of the requests in `count` shares of similar work, those of one prompt together where they fit.

    >>> deal([Request((1,), 0), Request((2,), 1), Request((1,), 2), Request((3, 4), 3)], 2)
    [[0, 2], [1, 3]]
    """
    families: dict[tuple[int, ...], list[int]] = {}
    for number, request in enumerate(requests):
        families.setdefault(request.prompt_ids + request.drawn, []).append(number)
    largest = -(-len(requests) // count)
    pieces = [family[i : i + largest] for family in families.values() for i in range(0, len(family), largest)]
    shares: list[list[int]] = [[] for _ in range(count)]
    for piece in sorted(pieces, key=lambda piece: (-len(piece), piece)):
        min(shares, key=len).extend(piece)
    return shares
