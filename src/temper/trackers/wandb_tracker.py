"""Weights & Biases. Project, entity and mode come from its environment variables (WANDB_PROJECT, WANDB_MODE, …)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from temper.record.metrics import Row
from temper.trackers.follow import table


class WandB:
    """One run of the tracker; every stage has a step of its own, `stage/step`, as the axis of its metrics."""

    def __init__(self, run: Any):
        self.run = run
        self.stages: set[str] = set()

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        if stage not in self.stages:
            self.run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            self.stages.add(stage)
        self.run.log({f"{stage}/step": step} | {f"{stage}/{name}": value for name, value in metrics.items()})

    def completions(self, stage: str, step: int, rows: Sequence[Row]) -> None:
        import wandb

        columns: list[Any]
        cells: list[Any]
        columns, cells = table(rows)
        self.run.log({f"{stage}/step": step, f"{stage}/completions": wandb.Table(columns=columns, data=cells)})

    def close(self) -> None:
        self.run.finish()


def open_tracker(run: str, key: str, config: dict) -> WandB:
    import wandb

    project = os.environ.get("WANDB_PROJECT", "temper")
    return WandB(wandb.init(project=project, id=key, name=Path(run).name, resume="allow", config=config, dir=run))
