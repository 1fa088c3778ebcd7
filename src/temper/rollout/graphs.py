"""A decode step as one CUDA graph: captured once, replayed on new contents of the same tensors. Elsewhere: called."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from itertools import chain
from typing import Any

import torch

WARM_UP = 2  # steps taken one operation at a time before a capture: kernels are compiled and workspaces made in them

Step = Callable[[], None]


class Graphs:
    """Takes steps of a model; the same key means the same step on the same tensors."""

    def __init__(self, model: Any):
        self._model = model
        self._captures = model.device.type == "cuda"
        self.forget()

    def forget(self) -> None:
        """Drop every graph, since tensors that they read have moved."""
        self._repeated: dict[Hashable, Repeated] = {}
        self._weights = self._places()
        self._pool = torch.cuda.graph_pool_handle() if self._captures else None

    def run(self, key: Hashable, step: Step, times: int) -> None:
        """Take `step` `times` times. It must do the same operations whatever its tensors hold."""
        if self._captures:
            if self._weights != self._places():
                self.forget()
            step = self._repeated.setdefault(key, Repeated(step, self._pool))
        for _ in range(times):
            step()

    def _places(self) -> list[int]:
        return [tensor.data_ptr() for tensor in chain(self._model.parameters(), self._model.buffers())]


class Repeated:
    """A step that becomes a graph; it keeps the step, and what the step holds, alive."""

    def __init__(self, step: Step, pool: Any):
        self._step, self._pool = step, pool
        self._taken = 0
        self._replay: Step | None = None

    def __call__(self) -> None:
        if self._replay is None and self._taken >= WARM_UP:
            self._replay = self._capture()
        (self._replay or self._step)()
        self._taken += 1

    def _capture(self) -> Step:
        try:
            return capture(self._step, self._pool)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as problem:
            why = str(problem).partition("\n")[0]
            warnings.warn(f"this model's decode step cannot be captured, which is slower: {why}", stacklevel=2)
            return self._step


def capture(step: Step, pool: Any) -> Step:
    """Record `step` without taking it; what comes back takes it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        step()
    return graph.replay
