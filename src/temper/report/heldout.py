"""What the held-out scores say of the stages that learned from rewards: was the reward gamed, was a skill forgotten?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from temper.record.metrics import RL_KINDS
from temper.record.warnings import Finding, forgot, held_out_fell

Json = dict[str, Any]


def add_held_out(stages: Sequence[Json], models: Sequence[Json]) -> None:
    """Add to `warnings` of each stage of `gather` what its model scored against the model it started from."""
    accuracy = {model["stage"]: {task: of.get("accuracy") for task, of in model["tasks"].items()} for model in models}
    for stage in stages:
        config = {entry["key"]: entry["value"] for entry in stage["config"]}
        start, trained = str(config.get("model")).removeprefix("@"), config.get("tasks")
        is_measured = start in accuracy and stage["name"] in accuracy
        if stage["kind"] not in RL_KINDS or not is_measured or not isinstance(trained, list):
            continue
        last = accuracy[models[-1]["stage"]]
        for found in findings(config, rows_of(stage["metrics"]), accuracy[start], accuracy[stage["name"]], last):
            row = {"step": stage["steps"], "key": found.key, "level": found.level, "text": found.text}
            stage["warnings"] = [*stage["warnings"], row]


def findings(
    config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], before: Json, after: Json, last: Json
) -> list[Finding]:
    """`before`, `after` and `last` are held-out accuracies by task: of the model the stage started from, of the one it
    made, of the last one that the run measured."""
    trained = config["tasks"]
    found = [held_out_fell(rows, *(_average([of.get(task) for task in trained]) for of in (before, after)))]
    for task, was in before.items():
        now, at_last = after.get(task), last.get(task)
        if task not in trained and was is not None and now is not None and at_last is not None:
            found.append(forgot(config, task, was, now, at_last))
    return [finding for finding in found if finding is not None]


def rows_of(columns: Mapping[str, Sequence[Any]]) -> list[Json]:
    """The rows that `gather` made columns of.

    >>> rows_of({"step": [1, 2], "loss": [2.0, None]})
    [{'step': 1, 'loss': 2.0}, {'step': 2, 'loss': None}]
    """
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _average(values: Sequence[Any]) -> float | None:
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    return sum(numbers) / len(numbers) if numbers else None
