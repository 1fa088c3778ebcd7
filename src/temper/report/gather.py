"""Everything a report says about a run, as one JSON value: `temper report RUN --json` prints it, the page draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from temper.recipe.rounds import unrolled
from temper.record.metrics import RL_KINDS
from temper.record.runfiles import read_lines, stage_work
from temper.record.trust import RECIPE, RunFiles
from temper.report.explain import diagnose
from temper.report.heldout import add_held_out, rows_of
from temper.report.picks import pick

# Of other kinds, how the others refer to it tells
MAKES = {"sample": "dataset", "edit": "dataset", "preferences": "dataset", "step_labels": "dataset",
         "evaluate": "evaluation"}  # fmt: skip
MODEL_KEYS = (
    "model", "models", "reference", "teacher", "student", "value_model_from", "reward_model", "reward_funcs",
    "step_rewards", "judge",
)  # fmt: skip
TASK_KEYS = (
    "n",
    "k",
    "temperature",
    "accuracy",
    "accuracy_interval",
    "format",
    "language_consistency",
    "truncated",
    "mean_tokens",
)
Json = dict[str, Any]


def gather(run_dir: Path) -> Json:
    """What is known of a run, finished or not; `missing` says what is not there yet, in sentences.

    Keys: recipe, seed, cpu_seconds, wall_seconds, peak_memory_bytes, models, stages, comparisons, claims,
    samples, missing, damaged, run.
    Numbers nobody recorded are None. Torn files read as far as they go; nothing is raised for them. A file that is not
    as it was written is left out and named in `damaged`.
    """
    run_dir = Path(run_dir)
    files = RunFiles(run_dir)
    run = files.object(run_dir / "run.json")
    recipe = _read_recipe(run_dir, files, run)
    stages = gather_stages(run_dir, files)
    evaluations = [found for stage in stages if (found := _evaluation(run_dir, stage, files)) is not None]
    models = _models(evaluations)
    add_held_out(stages, models)
    for stage in stages:
        stage["findings"] = _findings(stage)
    tasks = recipe.get("tasks")
    return {
        "recipe": run.get("recipe") or recipe.get("name") or run_dir.name,
        "description": recipe.get("description"),
        "seed": run.get("seed", recipe.get("seed")),
        "cpu_seconds": run.get("cpu_seconds", _total(stages, "cpu_seconds")),
        "wall_seconds": run.get("wall_seconds", _total(stages, "seconds")),
        "peak_memory_bytes": run.get("peak_memory_bytes", _most(stages, "peak_memory_bytes")),
        "sampling": {key: evaluations[-1].get(key) for key in ("temperature", "top_p", "k")} if evaluations else {},
        "models": models,
        "comparisons": [row for e in evaluations for row in e.get("comparisons") or [] if isinstance(row, dict)],
        "claims": [claim for e in evaluations for claim in e.get("claims") or [] if isinstance(claim, dict)],
        "stages": stages,
        "samples": _samples(run_dir, stages, evaluations, files),
        "tasks": list(tasks) if isinstance(tasks, dict) else [],
        "rounds": _mapping(run.get("rounds")),
        "missing": _missing(stages, evaluations),
        "damaged": files.told(),
        "run": {"directory": str(run_dir)} | {key: run.get(key) for key in ("command", "versions", "started", "state")},
    }


def gather_stages(run_dir: Path, files: RunFiles) -> list[Json]:
    """The `stages` of `gather` alone."""
    run = files.object(run_dir / "run.json")
    recipe = _read_recipe(run_dir, files, run)
    return [_stage(run_dir, run, recipe, name, files) for name in _stage_names(run, recipe)]


def held_out(run_dir: Path) -> list[Json]:
    """The `models` of `gather` alone: the scores of every model that the run evaluated."""
    files = RunFiles(run_dir)
    found = [_evaluation(run_dir, stage, files) for stage in gather_stages(run_dir, files)]
    return _models([evaluation for evaluation in found if evaluation is not None])


def _findings(stage: Json) -> list[Json]:
    """What there is to say of a stage: of one that learns from rewards what `temper explain` says, of others what was
    said while it went on."""
    rows = rows_of(stage["metrics"])
    if stage["kind"] not in RL_KINDS or not rows:
        return [{"key": row["key"], "level": row.get("level"), "text": row["text"]} for row in stage["warnings"]]
    config = {entry["key"]: entry["value"] for entry in stage["config"]}
    found = diagnose(stage["kind"], config, rows, stage["warnings"])
    return [{"key": finding.key, "level": finding.level, "text": finding.text} for finding in found]


def _read_recipe(run_dir: Path, files: RunFiles, run: Json) -> Json:
    """The resolved recipe, the rounds of its blocks written out as far as they ran."""
    path = run_dir / RECIPE
    try:
        value = {} if path in files.damaged else yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    return unrolled(value, _entries(run)) if isinstance(value, dict) else {}


# -- stages -----------------------------------------------------------------------------------------------------------


def _stage_names(run: Json, recipe: Json) -> list[str]:
    """In the order of the recipe; what only run.json knows comes last."""
    return list(dict.fromkeys([*_mapping(recipe.get("stages")), *_entries(run)]))


def _entries(run: Json) -> dict[str, Json]:
    """run.json's stages by name."""
    stages = run.get("stages")
    if isinstance(stages, list):
        stages = {entry.get("name"): entry for entry in stages if isinstance(entry, dict)}
    return {str(name): entry for name, entry in _mapping(stages).items() if isinstance(entry, dict)}


def _stage(run_dir: Path, run: Json, recipe: Json, name: str, files: RunFiles) -> Json:
    entry = _entries(run).get(name, {})
    config = _mapping(_mapping(recipe.get("stages")).get(name))
    work = stage_work(run_dir, name)
    rows = files.metrics(work)
    kind = str(config.get("stage") or entry.get("kind") or "")
    fingerprint = entry.get("fingerprint") or files.object(work / "stage.json").get("fingerprint")
    made = run_dir / "artifacts" / str(fingerprint)
    seconds, cpu = _sum(rows, "seconds"), _sum(rows, "cpu_seconds")
    return {
        "name": name,
        "kind": kind,
        "makes": entry.get("makes") or _makes(recipe, name),
        "state": entry.get("state") or ("running" if rows else "waiting"),
        "seconds": entry.get("seconds") or seconds,  # a stage that has not run is recorded with 0
        "cpu_seconds": entry.get("cpu_seconds") or cpu,
        "peak_memory_bytes": entry.get("peak_memory_bytes") or None,
        "steps": rows[-1]["step"] if rows else entry.get("steps"),
        "planned_steps": rows[-1].get("of") if rows else None,
        "fingerprint": fingerprint,
        "inputs": _inputs(recipe, name),
        "config": _settings(recipe, name),
        "metrics": _columns(rows),
        "warnings": files.warnings(work),
        "parameters": files.about(made).get("parameters") if fingerprint else None,
        "harvest": files.object(made / "harvest.json") if fingerprint else {},
    }


def _settings(recipe: Json, name: str) -> list[Json]:
    """Each setting of a stage with where its value came from."""
    config = _mapping(_mapping(recipe.get("stages")).get(name))
    origins = _mapping(recipe.get("origins"))

    def origin(key: str) -> str:
        """Of the value, or of the parts of a table that were given."""
        path = f"stages.{name}.{key}"
        parts = dict.fromkeys(str(o) for k, o in origins.items() if k == path or k.startswith(f"{path}."))
        return ", ".join(part for part in parts if part != "default") or "default"

    return [{"key": key, "value": value, "origin": origin(key)} for key, value in config.items()]


def _inputs(recipe: Json, name: str) -> list[Json]:
    """The stages whose products this one reads: {"stage", "carries": "model"|"data"}, each once."""
    stages, tasks = _mapping(recipe.get("stages")), _mapping(recipe.get("tasks"))
    config = _mapping(stages.get(name))
    found: dict[tuple[str, str], None] = {}
    for key, value in config.items():
        for source in _references(value):
            found[source, "model" if key in MODEL_KEYS else "data"] = None
    trained = config.get("tasks")
    for task in trained if isinstance(trained, list) else []:
        for source in _references(tasks.get(task)):
            found[source, "data"] = None
    return [{"stage": source, "carries": carries} for source, carries in found if source in stages]


def _makes(recipe: Json, name: str) -> str:
    """What a stage makes: "model", "dataset" or "evaluation"."""
    stages = _mapping(recipe.get("stages"))
    kind = str(_mapping(stages.get(name)).get("stage"))
    carried = {i["carries"] for other in stages for i in _inputs(recipe, other) if i["stage"] == name}
    return MAKES.get(kind) or ("dataset" if carried == {"data"} else "model")


def _references(value: Any) -> list[str]:
    """The stages that the strings in a value refer to: "@name" and "@name/file"."""
    return [text[1:].partition("/")[0] for text in _strings(value) if text.startswith("@")]


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    return [text for item in value for text in _strings(item)] if isinstance(value, list) else []


def _columns(rows: Sequence[Mapping[str, Any]]) -> Json:
    """Metrics as columns of equal length, `step` first; None where a step has no such metric.

    >>> _columns([{"step": 1, "of": 2, "loss": 2.0}, {"step": 2, "of": 2}])
    {'step': [1, 2], 'loss': [2.0, None]}
    """
    names = dict.fromkeys(["step", *(name for row in rows for name in row if name != "of")])
    return {name: [row.get(name) for row in rows] for name in names} if rows else {}


# -- evaluations ------------------------------------------------------------------------------------------------------


def _evaluation(run_dir: Path, stage: Json, files: RunFiles) -> Json | None:
    """evaluation.json of an evaluate stage, with `directory` added; None where it has made none."""
    if stage["makes"] != "evaluation" or not stage["fingerprint"]:
        return None
    directory = run_dir / "artifacts" / str(stage["fingerprint"])
    found = files.object(directory / "evaluation.json")
    return {**found, "directory": directory} if found else None


def _models(evaluations: Sequence[Json]) -> list[Json]:
    """One entry a model, in the order they were evaluated in; a later evaluation of the same task counts."""
    tasks: dict[str, Json] = {}
    for evaluation in evaluations:
        for model in evaluation.get("models") or []:
            mine = tasks.setdefault(str(model.get("stage")), {})
            for task, scores in _mapping(model.get("tasks")).items():
                mine[task] = {key: _mapping(scores).get(key) for key in TASK_KEYS} | _mapping(scores)
    return [{"stage": stage, "tasks": scores} for stage, scores in tasks.items()]


def _samples(run_dir: Path, stages: Sequence[Json], evaluations: Sequence[Json], files: RunFiles) -> Json:
    """{stage: {task: rows from the worst to the best}}: held-out samples, else the last kept rollouts of training."""
    found: dict[str, dict[str, list[Json]]] = {}
    for evaluation in evaluations:
        for path in files.samples(evaluation["directory"]):
            stage, _, task = path.name.removesuffix(".gz").removesuffix(".jsonl").rpartition(".")
            found.setdefault(stage, {})[task] = pick(list(read_lines(path)))
    for stage in stages:
        kept = files.rollouts(stage_work(run_dir, stage["name"]))
        if stage["name"] not in found and kept:
            by_task: dict[str, list[Json]] = {}
            for row in read_lines(kept[-1][1]):
                by_task.setdefault(str(row.get("task")), []).append(row)
            found[stage["name"]] = {task: pick(rows) for task, rows in by_task.items()}
    order = {stage["name"]: i for i, stage in enumerate(stages)}
    return {name: found[name] for name in sorted(found, key=lambda n: order.get(n, len(order)))}


# -- small things -----------------------------------------------------------------------------------------------------


def _missing(stages: Sequence[Json], evaluations: Sequence[Json]) -> list[str]:
    said, waiting = [], []
    for stage in stages:
        if stage["state"] == "waiting":
            waiting.append(stage["name"])
        elif stage["state"] not in ("done", "cached"):
            at = f", step {stage['steps']} of {stage['planned_steps']}" if stage["planned_steps"] else ""
            said.append(f"{stage['name']}: {stage['state']}{at}")
    if waiting:
        said.append(f"not started: {', '.join(waiting)}")
    if not evaluations:
        said.append("nothing has been evaluated yet, so there is no table and no verdict")
    return said


def _mapping(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _numbers(values: Sequence[Any]) -> list[float]:
    return [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]


def _sum(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    numbers = _numbers([row.get(name) for row in rows])
    return sum(numbers) if numbers else None


def _total(stages: Sequence[Json], key: str) -> float | None:
    return _sum(stages, key)


def _most(stages: Sequence[Json], key: str) -> float | None:
    return max(_numbers([stage[key] for stage in stages]), default=None)
