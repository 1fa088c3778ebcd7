"""The model card of an exported model: what its run knows of it beyond how it was made. Scores with their intervals,
the model it comes from, the data, the command."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from temper.errors import TemperError
from temper.hub.names import is_hub_data, is_hub_model
from temper.masking import mask
from temper.recipe.rounds import unrolled
from temper.record.rundir import read_object
from temper.runs import find_evaluation, maker_of

BEFORE = "## How to use it"  # the section of the card (`models/save.py`) that what is known stands before


def complete(card: str, model: Path) -> str:
    """The text of a model's card with what its run knows; as it is for a model that no run made."""
    made = maker_of(model)
    if made is None or BEFORE not in card:
        return card
    run, stage = made
    recipe = _recipe(run)
    way = list(dict.fromkeys(_way(recipe, stage)))
    base = next((text for name in way if (text := _base(recipe, name))), "")
    data = list(dict.fromkeys(text for name in way for text in _data(recipe, name)))
    parts = [_scores(run, stage), _origin(base, data), _command(run)]
    told = mask("\n".join(part for part in parts if part))
    return _with_head(card.replace(BEFORE, f"{told}\n{BEFORE}", 1), base, data)


def _recipe(run: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load((run / "recipe.resolved.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    stages = read_object(run / "run.json").get("stages")
    return unrolled(found, stages if isinstance(stages, dict) else ()) if isinstance(found, dict) else {}


def _stage(recipe: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    stages = recipe.get("stages")
    found = stages.get(name) if isinstance(stages, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _way(recipe: Mapping[str, Any], stage: str, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """The stages that a model comes from, itself first."""
    if stage in seen or not _stage(recipe, stage):
        return
    yield stage
    for text in _texts(_stage(recipe, stage)):
        if text.startswith("@"):
            yield from _way(recipe, text[1:].partition("/")[0], seen | {stage})


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _base(recipe: Mapping[str, Any], name: str) -> str:
    stage = _stage(recipe, name)
    return str(stage.get("model", "")) if stage.get("stage") == "import_model" else ""


def _data(recipe: Mapping[str, Any], name: str) -> Iterator[str]:
    """What a stage reads that no stage makes."""
    stage, tasks = _stage(recipe, name), recipe.get("tasks")
    for text in (*_texts(stage.get("data")), *_texts(stage.get("mix"))):
        if not text.startswith("@"):
            yield text
    for named in _texts(stage.get("tasks")):
        task = tasks.get(named) if isinstance(tasks, Mapping) else None
        if isinstance(task, Mapping):
            text = f"reasoning-gym: {task['gym']}" if task.get("gym") else str(task.get("train") or "")
            if text and not text.startswith("@"):
                yield text


def _scores(run: Path, stage: str) -> str:
    try:
        found = find_evaluation(f"{run}:{stage}").evaluation
        model = next(one for one in found["models"] if one["stage"] == stage)
        rows = [_row(name, task) for name, task in model["tasks"].items()]
    except (TemperError, StopIteration, KeyError, TypeError, ValueError):
        return ""
    table = "\n".join(
        ["| task | accuracy | 95 % interval | format | prompts × samples |", "|---|---|---|---|---|", *rows]
    )
    setting = f"T {found['temperature']:g}, top-p {found['top_p']:g}"
    return f"## Scores\n\nOn held-out prompts, {setting}, as the run measured them:\n\n{table}\n"


def _row(name: str, task: Mapping[str, Any]) -> str:
    low, high = task["accuracy_interval"]
    counted = f"{task['n']:,} × {task['k']}" + (f" ({task['coverage']})" if task.get("coverage") else "")
    return f"| {name} | {task['accuracy']:.3f} | {low:.3f} to {high:.3f} | {task['format']:.3f} | {counted} |"


def _origin(base: str, data: list[str]) -> str:
    lines = [f"It was trained from `{base}`."] if base else []
    if data:
        lines.append(f"It was trained on {', '.join(f'`{text}`' for text in data)}.")
    return "## Model and data it comes from\n\n" + "\n".join(lines) + "\n" if lines else ""


def _command(run: Path) -> str:
    record = read_object(run / "run.json")
    command = record.get("command")
    if not isinstance(command, list) or not command:
        return ""
    words = shlex.join(str(word) for word in (Path(str(command[0])).name, *command[1:]))
    versions = record.get("versions")
    with_them = ", ".join(f"{name} {of}" for name, of in versions.items()) if isinstance(versions, Mapping) else ""
    return f"## How to make it again\n\n```sh\n{words}\n```\n\nSeed {record.get('seed')}; {with_them}.\n"


def _with_head(card: str, base: str, data: list[str]) -> str:
    """The card's front matter with what the Hub reads of it."""
    lines = [f"base_model: {base.partition('@')[0].removeprefix('hf://')}"] if base and is_hub_model(base) else []
    sets = [text.removeprefix("hf://").partition("?")[0].partition("@")[0] for text in data if is_hub_data(text)]
    lines += [f"datasets: {json.dumps(list(dict.fromkeys(sets)))}"] if sets else []
    return card.replace("library_name: transformers\n", "\n".join(["library_name: transformers", *lines, ""]), 1)
