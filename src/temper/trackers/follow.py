"""From a run directory to trackers: new rows of metrics and new files of completions, each sent once.

How far a tracker has got stands in `trackers.json` and is counted by fingerprint, so a resumed run goes on in the same
run of the tracker, and a stage that is made anew is told from the one it replaces.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from temper.artifacts import write_atomically
from temper.record.metrics import Row, read_rows
from temper.record.rundir import RunDir
from temper.record.runfiles import read_lines, read_object, rollout_files
from temper.trackers import FILE

GROUPS = 2  # of a step, shown with all their completions


class Tracker(Protocol):
    """What a tracker can be told. A name is `stage/metric`; steps are those of the stage."""

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None: ...
    def completions(self, stage: str, step: int, rows: Sequence[Row]) -> None: ...
    def close(self) -> None: ...


@dataclass
class Position:
    """How far one tracker has got: `key` names its run, `steps` and `completions` the last step sent by fingerprint."""

    key: str = field(default_factory=lambda: uuid4().hex[:12])
    steps: dict[str, int] = field(default_factory=dict)
    completions: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def read(value: Any) -> Position:
        """What a JSON object says; a new position where it says nothing that can be used."""
        if not isinstance(value, dict) or not isinstance(value.get("key"), str) or not value["key"]:
            return Position()
        steps, shown = (_counts(value.get(name)) for name in ("steps", "completions"))
        return Position(value["key"], steps, shown)


def _counts(value: Any) -> dict[str, int]:
    items = value.items() if isinstance(value, dict) else ()
    return {name: step for name, step in items if isinstance(step, int)}


def read_positions(run: Path, names: Sequence[str]) -> dict[str, Position]:
    found = read_object(run / FILE)
    return {name: Position.read(found.get(name)) for name in names}


def write_positions(run: Path, positions: Mapping[str, Position]) -> None:
    """Keep the positions; those of trackers not named here stay as they are."""
    values = read_object(run / FILE) | {name: vars(position) for name, position in positions.items()}
    write_atomically(run / FILE, json.dumps(values, indent=1) + "\n")


def about_run(run: Path) -> dict[str, Any]:
    """What a tracker is told of a run as a whole: its recipe, and the settings of each stage."""
    record = read_object(run / "run.json")
    told = {name: record[name] for name in ("recipe", "seed", "settings", "versions") if name in record}
    stages = {name: read_object(folder / "stage.json") for name, folder in RunDir(run).work_folders().items()}
    return told | {"stages": {name: stage["config"] for name, stage in stages.items() if "config" in stage}}


def send_new(run: Path, tracker: Tracker, position: Position, damaged: Collection[Path] = ()) -> bool:
    """Everything the tracker has not had yet, in order, what is `damaged` left out; `position` moves along. Whether
    there was anything."""
    sent = False
    for stage, folder in RunDir(run).work_folders().items():
        fingerprint = str(read_object(folder / "stage.json").get("fingerprint", ""))
        path = folder / "metrics.jsonl"
        for row in read_rows(path) if path not in damaged else ():
            if row["step"] > position.steps.get(fingerprint, -1):
                tracker.log(stage, row["step"], numbers(row))
                position.steps[fingerprint] = row["step"]
                sent = True
        for step, file in rollout_files(folder):
            is_new = position.completions.get(fingerprint, -1) < step <= position.steps.get(fingerprint, -1)
            if is_new and file not in damaged:
                tracker.completions(stage, step, first_groups(list(read_lines(file))))
                position.completions[fingerprint] = step
                sent = True
    return sent


def numbers(row: Row) -> dict[str, float]:
    """The metrics of a row that are one number; a list becomes one number for each of its places.

    >>> numbers({"step": 3, "of": 9, "loss": 0.5, "groups/pass_rate": [0.25, 0.75], "x": None})
    {'loss': 0.5, 'groups/pass_rate/0': 0.25, 'groups/pass_rate/1': 0.75}
    """
    found: dict[str, float] = {}
    for name, value in row.items():
        if name in ("step", "of"):
            continue
        several = value if isinstance(value, list) else [value]
        for place, item in enumerate(several):
            if isinstance(item, (int, float)):
                found[f"{name}/{place}" if isinstance(value, list) else name] = item
    return found


def first_groups(rows: Sequence[Row], count: int = GROUPS) -> list[Row]:
    """The rows of the first prompts of a step."""
    prompts = list(dict.fromkeys(row.get("prompt_id") for row in rows))[:count]
    return [row for row in rows if row.get("prompt_id") in prompts]


COLUMNS = ("task", "prompt", "gold", "reply", "total", "advantage", "finish_reason", "tokens")


def table(rows: Sequence[Row]) -> tuple[list[str], list[list[Any]]]:
    """(columns, cells) of completions, each reward a column of its own."""
    rewards = list(dict.fromkeys(name for row in rows for name in row.get("rewards") or {}))
    cells = [
        [row.get(name) for name in COLUMNS] + [(row.get("rewards") or {}).get(name) for name in rewards] for row in rows
    ]
    return [*COLUMNS, *(f"reward/{name}" for name in rewards)], cells


@contextlib.contextmanager
def opened(name: str, run: Path, position: Position) -> Iterator[Tracker]:
    """The tracker, going on where it was; closed whatever happens."""
    from temper.trackers import open_tracker

    tracker = open_tracker(name, str(run.resolve()), position.key, about_run(run))
    try:
        yield tracker
    finally:
        tracker.close()
