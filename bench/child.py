"""The measured side of a run: a job read from a file, steps timed, events written to the parent as JSON lines.

A measuring script is started as `python SCRIPT.py SPEC.json` (see `children.py`). Its standard output carries events
and nothing else: whatever a library prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import cpu_seconds, machine_cpu_seconds
from workloads import Workload


@dataclass
class Job:
    """What the parent asks for: step 0 warms up, then `steps` timed ones; with `watch` one more, in which the parent
    reads the memory in use. (That reading takes time, 6 ms a gigabyte: it must not fall into a timed step.)"""

    work: Workload
    model: Path
    steps: int
    watch: bool
    sample_only: bool
    variant: str
    channel: Any
    timings: list[dict[str, float]] = field(default_factory=list)
    _began: tuple[float, float, float] = (0.0, 0.0, 0.0)
    _sampled: float = 0.0

    @property
    def numbers(self) -> range:
        """The numbers of all steps to take."""
        return range(1 + self.steps + self.watch)

    def send(self, event: str, **values: Any) -> None:
        self.channel.write(json.dumps({"event": event, **values}) + "\n")
        self.channel.flush()

    def result(self, **values: Any) -> None:
        """The last event; `values` are what the parent gets."""
        import torch

        self.send("result", timings=self.timings, torch_threads=torch.get_num_threads(), **values)

    def begin_step(self, number: int) -> None:
        self._sampled = 0.0
        if number == 1:
            _reset_peak(self.work)
        if number == self.steps + 1:
            self.send("watch")
        _wait(self.work)
        self._began = _clocks()

    def end_step(self, number: int, tokens: int) -> None:
        _wait(self.work)
        seconds, own, everyones = (now - then for now, then in zip(_clocks(), self._began, strict=True))
        timing = {
            "seconds": seconds,
            "cpu_seconds": own,
            "others_cpu_seconds": max(0.0, everyones - own),
            "sampling_seconds": self._sampled,
            "tokens": tokens,
        }
        if number == self.steps + 1:
            self.send("watched")
        elif number > 0:
            self.timings.append(timing)
        self.send("step", number=number, **timing)

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Around the generation part of a step."""
        _wait(self.work)
        began = time.perf_counter()
        yield
        _wait(self.work)
        self._sampled += time.perf_counter() - began


def connect() -> Job:
    """The job named on the command line."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    work = Workload(**spec["workload"])
    return Job(work, Path(spec["model"]), spec["steps"], spec["watch"], spec["sample_only"], spec["variant"], channel)


def _clocks() -> tuple[float, float, float]:
    """Wall time, CPU time of this process and its descendants, CPU time of the whole machine."""
    now = time.perf_counter()
    return now, cpu_seconds(os.getpid()), machine_cpu_seconds()


def cuda_peak(work: Workload) -> int | None:
    """Bytes of device memory at the peak of the timed steps; None where there is no device."""
    if work.device != "cuda":
        return None
    import torch

    return torch.cuda.max_memory_allocated()


def _reset_peak(work: Workload) -> None:
    if work.device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()


def _wait(work: Workload) -> None:
    if work.device == "cuda":
        import torch

        torch.cuda.synchronize()
