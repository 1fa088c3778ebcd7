"""The steps of a training stage, each taken exactly once however often the process dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from temper.distributed.ranks import ranks
from temper.errors import Preempted
from temper.halting import rescued_by, shielded
from temper.record.checkpoints import last_checkpoint
from temper.train.checkpoint import Checkpoint, latest_checkpoint, save_checkpoint
from temper.train.learner import Learner


class Log(Protocol):
    """What the loop needs of a stage's log."""

    def resume_at(self, step: int, kept: Path | None = None) -> None: ...
    def warn(self, text: str) -> None: ...
    def info(self, text: str) -> None: ...


@runtime_checkable
class Kept(Protocol):
    """What a checkpoint holds beside learners and modules."""

    def settle(self) -> None:
        """Have what `state` needs; every rank calls it, before the first one saves."""

    def state(self, step: int) -> dict[str, Tensor] | None:
        """What has to be known before `step` is taken; None where that is not known."""

    def load_state(self, tensors: Mapping[str, Tensor]) -> None: ...


def resumable_steps(
    learner: Learner,
    folder: Path,
    log: Log,
    stopping: Callable[[], bool],
    others: Mapping[str, torch.nn.Module | Learner | Kept] | None = None,
    total: int | None = None,
) -> Iterator[int]:
    """Yield the number of each loop step still to take, from 0, and keep the learner's checkpoints in `folder`.

    There are `total` loop steps, each of which may make several updates; not given, they are the learner's updates.
    `others` change during training too: further learners, or modules such as a reference that is replaced. Raises
    Preempted, after saving, once `stopping()` is true.
    """
    others = others or {}
    total = learner.total_steps if total is None else total
    found = latest_checkpoint(folder, log.warn)
    start = 0 if found is None else found.step
    if found is not None:
        learner.load_state(found.tensors, found.meta["updates"], found.parts)
        for name, other in others.items():
            _load(other, name, found)
        log.info(f"resuming after step {start} of {total}{_other_size(found.meta.get('ranks', ranks().size), learner)}")
    log.resume_at(start, found.folder if found is not None else None)
    kept = [other for other in others.values() if isinstance(other, Kept)]
    learners = [learner, *(other for other in others.values() if isinstance(other, Learner))]

    def save(step: int) -> None:
        tensors, meta = learner.state(), {"updates": learner.step, "ranks": ranks().size}
        for name, other in others.items():
            tensors |= {f"{name}.{key}": tensor for key, tensor in (_state(other, step) or {}).items()}
            meta |= {f"{name}.updates": other.step} if isinstance(other, Learner) else {}
        if not ranks().rank or learner.is_sharded:  # the first one writes, and of a model in parts each its own
            save_checkpoint(folder, Checkpoint(step, tensors, meta), learner.parts())

    def give_up(step: int, updates: list[int]) -> str:
        """Save the state before `step`, which is given up, unless it has moved a weight already."""
        is_untouched = [one.step for one in learners] == updates
        is_untouched = is_untouched and all(one.is_whole and not one.is_moving for one in learners)
        is_untouched = is_untouched and all(_state(other, step) is not None for other in kept)
        if step and is_untouched and step % learner.config.save_steps:
            save(step)
        saved = (step if is_untouched else last_checkpoint(folder.parent)) or 0
        return f"step {step + 1} of {total} was given up and is taken again; checkpoint after step {saved}"

    for step in range(start, total):
        with rescued_by(partial(give_up, step, [one.step for one in learners])):
            yield step
            stop = ranks().send(stopping())  # what the first one says: all stop at the same step
            is_due = stop or (step + 1) % learner.config.save_steps == 0
            if is_due:
                for one in learners:
                    one.gather_state()
                for other in kept:
                    other.settle()
        with shielded():
            if is_due:
                save(step + 1)
        if stop:
            ranks().together(lambda: [])  # the others stay until the first one has saved
            raise Preempted(f"checkpoint saved after step {step + 1} of {total}")


def _other_size(before: int, learner: Learner) -> str:
    """What to say where another number of ranks goes on."""
    if before == ranks().size:
        return ""
    rounding = "the same samples" if learner.team is not None else "the same samples, sums rounded otherwise"
    return f"; {before} rank{'s' * (before > 1)} saved, {ranks().size} go{'es' * (ranks().size == 1)} on: {rounding}"


def _state(other: torch.nn.Module | Learner | Kept, step: int) -> dict[str, Tensor] | None:
    if isinstance(other, Learner):
        return other.state()
    if isinstance(other, torch.nn.Module):
        return {key: parameter.detach() for key, parameter in other.named_parameters()}
    return other.state(step)


@torch.no_grad()
def _load(other: torch.nn.Module | Learner | Kept, name: str, found: Checkpoint) -> None:
    prefix = f"{name}."
    tensors = {key.removeprefix(prefix): tensor for key, tensor in found.tensors.items() if key.startswith(prefix)}
    if isinstance(other, Learner):
        other.load_state(tensors, found.meta[f"{name}.updates"])
    elif isinstance(other, Kept):
        other.load_state(tensors)
    else:
        for key, parameter in other.named_parameters():
            parameter.copy_(tensors[key])
