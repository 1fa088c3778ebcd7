"""Trackio: a local data base with a page of its own (`trackio show`). Its folder is TRACKIO_DIR, the project
TRACKIO_PROJECT or `temper`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from temper.record.metrics import Row
from temper.trackers.follow import table


class Trackio:
    """One run; every row has the step of its stage as `stage/step`, rows are numbered through."""

    def __init__(self, run: Any):
        self.run = run

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log({f"{stage}/step": step} | {f"{stage}/{name}": value for name, value in metrics.items()})

    def completions(self, stage: str, step: int, rows: Sequence[Row]) -> None:
        import trackio

        columns, cells = table(rows)
        self.run.log({f"{stage}/step": step, f"{stage}/completions": trackio.Table(columns=columns, data=cells)})

    def close(self) -> None:
        self.run.finish()


def open_tracker(run: str, key: str, config: dict) -> Trackio:
    import trackio

    project = os.environ.get("TRACKIO_PROJECT", "temper")
    name = f"{Path(run).name}-{key[:4]}"
    quiet: dict[str, Any] = {"embed": False, "auto_log_cpu": False, "auto_log_gpu": False}
    return Trackio(trackio.init(project=project, name=name, resume="allow", config=config, **quiet))
