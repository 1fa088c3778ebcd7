"""One-thread sampler processes over shared weights: on a CPU, two decode faster than one that uses two threads.

The processes are forked from the trainer's, so they hold its model; where nothing may be forked they are started as
programs (`started.py`). The weights lie in memory that all share, so an update is seen by every process at once and
nothing is copied. Each takes a share of the requests; a draw depends on its key alone, so the split changes no
completion. What a process has finished comes over its pipe at once; one thread a process reads here.
"""

from __future__ import annotations

import gc
import logging
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from temper.models.forks import in_main_memory, may_fork, one_thread
from temper.rollout.engine import Finished, Request, Sampling, Watch
from temper.rollout.memory import ROWS_A_PROCESS, default_budget, most_processes
from temper.rollout.native import NativeEngine
from temper.rollout.started import share_weights, start_workers
from temper.rollout.worker import Worker, fork_worker
from temper.types import Completion

MOST_STARTED = 4  # where they are programs, each with a torch of its own: a third of a gigabyte


class ParallelEngine:
    """Implements `Engine` over a `NativeEngine`: this process takes one share of the rows, others the rest.

    Use as a context: leaving it ends the processes. `cpu_seconds` is what they have used.
    """

    def __init__(self, engine: NativeEngine, processes: int | None = None):
        """`processes` counts this one; by default one for each thread that torch may use, and fewer where they are
        started as programs, or where copies of the weights, one in each, would take too much memory."""
        self.engine = engine
        self.cpu_seconds = 0.0
        weights = sum(weight.numel() for weight in engine.model.parameters())
        wanted = processes or most_processes(torch.get_num_threads(), weights, default_budget())
        wanted = wanted if may_fork() else min(wanted, MOST_STARTED)
        self._processes = wanted if in_main_memory(engine.model) else 1
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
        if not self._workers and not self._start():
            return self.engine.generate(requests, sampling, watch, finished)
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

    def _start(self) -> bool:
        """Whether there are processes now."""
        if not may_fork():
            try:
                self._workers = start_workers(self.engine, self._processes - 1)
            except (pickle.PicklingError, AttributeError, TypeError) as problem:
                self._processes = 1
                logging.getLogger("temper.rollout").warning(f"one process samples: {problem}")
            return bool(self._workers)
        share_weights(self.engine.model)
        gc.freeze()  # what exists now is not walked by the forked processes' collector, which would copy its pages
        self._workers = [fork_worker(self.engine) for _ in range(self._processes - 1)]
        gc.unfreeze()
        return True

    def __enter__(self) -> ParallelEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End the processes; the next call starts new ones."""
        for worker in self._workers:
            worker.end()
        self._workers = []


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
