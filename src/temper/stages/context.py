"""What a stage is given to run: where it reads, where it writes, how it speaks, when it must stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from temper.config import TaskConfig

if TYPE_CHECKING:
    from temper.record.progress import StageLog


@dataclass(frozen=True)
class Task:
    """A task of the recipe with its files found. A path is None where the recipe names no file or, in a stage's
    `check`, where an earlier stage has yet to make it (`config` tells which)."""

    name: str
    train: Path | None
    test: Path | None
    config: TaskConfig


@dataclass(frozen=True)
class StageContext:
    """What `run(config, ctx)` and `check(config, ctx)` of a stage get besides their config.

    `inputs` has the path of every model, data file and reward file that the config names, by the string that names it:
    `ctx.inputs["@cold_start"]` is the model directory that the stage `cold_start` made. `check` gets those that exist.
    """

    name: str
    seed: int
    out: Path  # an empty directory; what run() leaves here becomes the artifact, its manifest written by the pipeline
    work: Path  # <run>/stages/<nn>-<name>/: metrics, rollouts, checkpoints; survives a kill
    inputs: Mapping[str, Path]
    tasks: Mapping[str, Task]  # those the config names
    log: StageLog
    stopping: Callable[[], bool]  # true once the process was asked to stop: save a checkpoint and raise Preempted
    meant: Mapping[str, str] = field(default_factory=dict)  # the stage that each "@name" of the config means

    def labels(self, models: Sequence[str]) -> dict[str, str]:
        """What tables call each model: the stage that made it, its round too, or the text that names it; two names of
        one stage are told apart as they are written."""
        found: dict[str, str] = {}
        for ref in models:
            label = self.meant.get(ref, ref.removeprefix("@"))
            found[ref] = ref.removeprefix("@") if label in found.values() else label
        return found
