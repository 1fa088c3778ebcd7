"""Sampling while the policy is trained, on a CPU: forked processes hold the weights as they were when drawing began.

Memory that a fork shares is copied as soon as either side writes to it, so an update moves the trainer's weights alone.
The processes end with what they were asked for; the next drawing forks new ones, from the weights of its time.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from temper.rollout.engine import Finished, Request, Sampling, Watch
from temper.rollout.memory import ROWS_A_PROCESS, default_budget, most_processes
from temper.rollout.native import NativeEngine
from temper.rollout.plain import PlainEngine
from temper.rollout.worker import Worker, fork_worker
from temper.rollout.workers import deal
from temper.types import Completion


class SnapshotEngine:
    """Implements `AheadEngine` over an engine whose model lies in main memory on Linux (`models/forks.py: may_fork`).

    Use as a context: leaving it ends the processes. `cpu_seconds` is what they have used.
    """

    def __init__(self, engine: NativeEngine | PlainEngine, processes: int | None = None):
        """At most so many `processes` draw; by default one for each thread that torch may use, and
        fewer where copies of the weights, one in each, would take too much memory."""
        self.engine = engine
        self.cpu_seconds = 0.0
        weights = sum(weight.numel() for weight in engine.model.parameters())
        self._processes = processes or most_processes(torch.get_num_threads(), weights, default_budget())
        self._drawing: SnapshotDrawing | None = None

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        watch: Watch | None = None,
        finished: Finished | None = None,
    ) -> list[Completion]:
        if watch is not None:  # told of every token, in this process
            return self.engine.generate(requests, sampling, watch, finished)
        return self.begin(requests, sampling, finished).result()

    def begin(
        self, requests: Sequence[Request], sampling: Sampling, finished: Finished | None = None
    ) -> SnapshotDrawing:
        count = max(1, min(self._processes, len(requests) // ROWS_A_PROCESS))
        shares = [share for share in deal(requests, count) if share]
        self._drawing = SnapshotDrawing(self, requests, sampling, shares, finished)
        return self._drawing

    def __enter__(self) -> SnapshotEngine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawing is not None:
            self._drawing.end()


class SnapshotDrawing:
    """Implements `Drawing`: one process a share, one thread here that reads what it finishes."""

    def __init__(
        self, owner: SnapshotEngine, requests: Sequence[Request], sampling: Sampling, shares: Sequence[list[int]],
        finished: Finished | None,
    ):  # fmt: skip
        self._owner, self._version = owner, owner.engine.version()
        self._done: list[Completion | None] = [None] * len(requests)
        self._finished = finished
        self._workers: list[Worker] = []
        self._answers: list[Future[float]] = []
        self._readers = ThreadPoolExecutor(max(1, len(shares)), "temper-sampler")
        gc.freeze()  # what exists now is not walked by the forked processes' collector, which would copy its pages
        try:
            for share in shares:
                question = ([requests[i] for i in share], sampling, self._version)
                self._workers.append(fork_worker(owner.engine, question))
        except BaseException:
            self.end()
            raise
        finally:
            gc.unfreeze()
        for worker, share in zip(self._workers, shares, strict=True):
            self._answers.append(self._readers.submit(worker.answer, self._told(share)))

    def result(self) -> list[Completion]:
        try:
            self._owner.cpu_seconds += sum(answer.result() for answer in self._answers)
        finally:
            self.end()
        nothing = Completion((), (), "length", self._version)
        return [completion or nothing for completion in self._done]

    def end(self) -> None:
        """End the processes, whatever they are at."""
        for worker in self._workers:
            worker.kill()  # or its reader would wait for the rest
        self._readers.shutdown()
        for worker in self._workers:
            worker.end()
        self._workers = []

    def _told(self, share: list[int]) -> Finished:
        def finish(place: int, completion: Completion) -> None:
            self._done[share[place]] = completion
            if self._finished is not None:
                self._finished(share[place], completion)

        return finish
