"""The steps of a training stage, each taken exactly once however often the process dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import torch

from temper.errors import Preempted
from temper.train.checkpoint import Checkpoint, latest_checkpoint, save_checkpoint
from temper.train.learner import Learner


class Log(Protocol):
    """What the loop needs of a stage's log."""

    def resume_at(self, step: int) -> None: ...
    def warn(self, text: str) -> None: ...
    def info(self, text: str) -> None: ...


def resumable_steps(
    learner: Learner,
    folder: Path,
    log: Log,
    stopping: Callable[[], bool],
    others: Mapping[str, torch.nn.Module] | None = None,
) -> Iterator[int]:
    """Yield the number of each loop step still to take, from 0, and keep the learner's checkpoints in `folder`.

    A loop step may make several updates. `others` are further modules whose weights change during training (a
    reference that is replaced, say). Raises Preempted, after saving, once `stopping()` is true.
    """
    others = others or {}
    start = 0
    found = latest_checkpoint(folder, log.warn)
    if found is not None:
        learner.load_state(found.tensors, found.meta["updates"])
        for name, module in others.items():
            with torch.no_grad():
                for key, parameter in module.named_parameters():
                    parameter.copy_(found.tensors[f"{name}.{key}"])
        start = found.step
        log.info(f"resuming after step {start} of {learner.total_steps}")
    log.resume_at(start)
    for step in range(start, learner.total_steps):
        yield step
        stop = stopping()
        if stop or (step + 1) % learner.config.save_steps == 0:
            tensors = learner.state()
            for name, module in others.items():
                tensors |= {f"{name}.{key}": p.detach() for key, p in module.named_parameters()}
            save_checkpoint(folder, Checkpoint(step + 1, tensors, {"updates": learner.step}))
        if stop:
            raise Preempted(f"checkpoint saved after step {step + 1} of {learner.total_steps}")
