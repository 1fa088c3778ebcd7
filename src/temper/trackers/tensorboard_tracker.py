"""Event files that TensorBoard reads, in `<run>/tensorboard/<key>/<stage>`; look at them with
`tensorboard --logdir RUN/tensorboard`. Written by tensorboard's own writer, without torch."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from temper.record.metrics import Row
from temper.trackers.follow import table

FOLDER = "tensorboard"


class TensorBoard:
    """One writer a stage, each counting its own steps."""

    def __init__(self, folder: Path, config: Mapping[str, Any]):
        self.folder, self.config = folder, config
        self.writers: dict[str, Any] = {}

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        values = [Summary.Value(tag=f"{stage}/{name}", simple_value=value) for name, value in metrics.items()]
        self._write(stage, step, Summary(value=values))

    def completions(self, stage: str, step: int, rows: Sequence[Row]) -> None:
        columns, cells = table(rows)
        lines = [columns, ["---"] * len(columns), *cells]
        text = "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)
        self._write(stage, step, _text(f"{stage}/completions", text))

    def _write(self, stage: str, step: int, summary: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if stage not in self.writers:
            self.writers[stage] = EventFileWriter(str(self.folder / stage))
            settings = json.dumps(self.config.get("stages", {}).get(stage, {}), indent=1, ensure_ascii=False)
            about = _text(f"{stage}/settings", "    " + settings.replace("\n", "\n    "))
            self.writers[stage].add_event(Event(wall_time=time.time(), step=0, summary=about))
        self.writers[stage].add_event(Event(wall_time=time.time(), step=step, summary=summary))
        self.writers[stage].flush()

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()


def _text(tag: str, text: str) -> Any:
    from tensorboard.plugins.text.summary_v2 import text_pb

    return text_pb(tag, text)


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def open_tracker(run: str, key: str, config: dict) -> TensorBoard:
    return TensorBoard(Path(run) / FOLDER / key, config)
