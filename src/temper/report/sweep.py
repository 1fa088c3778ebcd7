"""What a sweep found: the numbers of each of its runs, side by side, as one JSON value, a table and a CSV file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from temper.record.lines import shown_metrics
from temper.record.runfiles import stage_work
from temper.record.trust import RunFiles
from temper.report.best import sentences
from temper.report.gather import held_out
from temper.report.seeds import mean_interval
from temper.report.table import grid, spelled

Json = dict[str, Any]
WINDOW = 5  # steps that a number is the mean of, so that one odd batch of prompts says nothing
COLUMNS = (
    "reward/total", "groups/dead", "advantage/std", "completion/length", "completion/truncated", "policy/kl_divergence",
    "policy/entropy", "value/loss",
)  # fmt: skip
SCORES = ("accuracy", "format", "language_consistency")
COSTS = ("seconds", "cpu_seconds", "peak_memory_bytes")
NOTHING = "–"


def measure(run: Path, stage: str, models: Sequence[str], at: Sequence[int] = (), window: int = WINDOW) -> Json:
    """The numbers of one finished run: of `stage`'s training at its end and at the steps `at` (each the mean of the
    `window` steps up to there; none where no steps are logged), what the stage cost, the held-out scores of `models`.

    Keys: steps, metrics, at, held_out; names of held-out scores are `model/task/score`.
    """
    files = RunFiles(run)
    rows = files.metrics(stage_work(run, stage))
    last = rows[-1]["step"] if rows else None
    names = columns_of(rows[-1]) if rows else []
    entry = files.object(run / "run.json").get("stages")
    cost = entry.get(stage, {}) if isinstance(entry, dict) else {}
    scores = {
        f"{model['stage']}/{task}/{key}": values[key]
        for model in held_out(run)
        if model["stage"] in models
        for task, values in model["tasks"].items()
        for key in SCORES
        if _is_number(values.get(key))
    }
    return {
        "steps": last,
        "metrics": means(rows, names, window) | {key: cost[key] for key in COSTS if _is_number(cost.get(key))},
        "at": {str(step): means([r for r in rows if r["step"] <= step], names, window) for step in at
               if last is not None and last >= step},
        "held_out": scores,
    }  # fmt: skip


def columns_of(row: Mapping[str, Any]) -> list[str]:
    """The metrics of a stage that a sweep compares: of RL each reward and COLUMNS, of other stages what they show.

    >>> columns_of({"step": 9, "loss": 0.0, "groups/dead": 0.1, "reward/total": 1.1, "reward/accuracy": 1.0})
    ['reward/accuracy', 'reward/total', 'groups/dead']
    >>> columns_of({"step": 9, "loss": 2.5, "gradient_norm": 0.3})
    ['loss', 'gradient_norm']
    """
    if "reward/total" in row:
        rewards = [name for name in row if name.startswith("reward/") and name != "reward/total"]
        return [*rewards, *(name for name in COLUMNS if name in row)]
    return [name for name in shown_metrics(row) if name != "tokens_per_second"]


def means(rows: Sequence[Mapping[str, Any]], names: Sequence[str], window: int) -> dict[str, float]:
    """The mean of each metric over the last `window` rows.

    >>> means([{"loss": 4.0}, {"loss": 2.0}, {"loss": 1.0}], ["loss"], 2)
    {'loss': 1.5}
    """
    found = {}
    for name in names:
        values = [row[name] for row in rows[-window:] if _is_number(row.get(name))]
        if values:
            found[name] = sum(values) / len(values)
    return found


def merge_seeds(points: Sequence[Json]) -> list[Json]:
    """One row for each combination of values: of every number the mean over the points that have it, half of the range
    between the smallest and the largest of them, and the 95 % interval of the mean (None for one point).

    >>> numbers = [{"metrics": {"loss": 1.0 + s}, "at": {}, "held_out": {}} for s in (0, 1, 2)]
    >>> [row] = merge_seeds([{"values": {"lr": 1}, **of_seed} for of_seed in numbers])
    >>> row["runs"], row["metrics"]
    (3, {'loss': {'mean': 2.0, 'half_range': 1.0, 'interval': (-0.4843, 4.4843)}})
    """
    groups: dict[str, list[Json]] = {}
    for point in points:
        groups.setdefault(repr(point["values"]), []).append(point)
    rows = []
    for of_value in groups.values():
        done = [point for point in of_value if "metrics" in point]
        steps = dict.fromkeys(step for point in done for step in point["at"])
        rows.append({
            "values": of_value[0]["values"],
            "runs": len(done),
            "metrics": _spread([point["metrics"] for point in done]),
            "at": {step: _spread([p["at"][step] for p in done if step in p["at"]]) for step in steps},
            "held_out": _spread([point["held_out"] for point in done]),
        })  # fmt: skip
    return rows


def _spread(found: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    spread = {}
    for name in dict.fromkeys(name for values in found for name in values):
        values = [of[name] for of in found if name in of]
        half = (max(values) - min(values)) / 2
        spread[name] = {"mean": sum(values) / len(values), "half_range": half, "interval": mean_interval(values)}
    return spread


# -- for people -------------------------------------------------------------------------------------------------------


def render(data: Json, width: int | None = None, color: bool = False) -> str:
    """The tables of a sweep for a terminal or a pipe: the training at each moment asked for, then its end."""
    blocks = []
    for title, head, rows in tables(data):
        blocks.append(f"{title}\n{grid(head, rows, width, color)}")
    failed = [f"failed:  {p['run']} (exit code {p['exit_code']})" for p in data["points"] if p["state"] == "failed"]
    waiting = sum(p["state"] in ("waiting", "stopped") for p in data["points"])
    blocks += ["\n".join(of_best)] if (of_best := which_is_best(data)) else []
    blocks += ["\n".join(failed)] if failed else []
    blocks += [f"{waiting} of {len(data['points'])} runs are still to be done"] if waiting else []
    return spelled("\n\n".join(blocks))


def tables(data: Json) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, head, rows) of each table, every cell as text; a key that is the same everywhere has no column, and a
    step that is the end of every run no table of its own."""
    keys = telling_keys([row["values"] for row in data["rows"]])
    rows, found = data["rows"], []
    ends = {str(point["steps"]) for point in data["points"] if point.get("steps") is not None}
    groups = [(f"{data['stage']} at step {step}", [row["at"].get(step, {}) for row in rows])
              for step in dict.fromkeys(step for row in rows for step in row["at"]) if ends != {step}]  # fmt: skip
    groups += [(f"{data['stage']} at its end", [row["metrics"] for row in rows])]
    most = max((row["runs"] for row in rows), default=0)
    groups += [("held-out scores", [row["held_out"] for row in rows])]
    for title, numbers in groups:
        names = list(dict.fromkeys(name for values in numbers for name in values))
        if names:
            cells = [
                [
                    *(shown(row["values"].get(key)) for key in keys),
                    *(_cell(name, values.get(name), most) for name in names),
                ]
                for row, values in zip(rows, numbers, strict=True)
            ]
            found.append((title + _about(data, title), [*short_names(keys), *map(_head, names)], cells))
    return found + difference_table(data, keys)


def difference_table(data: Json, keys: Sequence[str]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Held-out scores against the first setting, seed by seed, where several seeds were run."""
    rows = [row for row in data.get("differences", ()) if row["seeds"] > 1]
    if not rows:
        return []
    names = list(dict.fromkeys(name for row in rows for name in row["held_out"]))
    first = data["rows"][0]["values"]
    against = ", ".join(f"{short} {shown(first.get(key))}" for short, key in zip(short_names(keys), keys, strict=True))
    cells = [
        [*(shown(row["values"].get(key)) for key in keys), *(_gain(row["held_out"].get(name)) for name in names)]
        for row in rows
    ]
    title = f"held-out scores less those of {against} (same seeds; 95 % interval over {max(r['seeds'] for r in rows)})"
    return [(title, [*short_names(keys), *names], cells)]


def which_is_best(data: Json) -> list[str]:
    """Sentences on the best setting, each setting named by the keys that tell it."""
    keys = telling_keys([row["values"] for row in data["rows"]])
    named = list(zip(short_names(keys), keys, strict=True))
    return sentences(data.get("best", ()), lambda of: ", ".join(f"{name} {shown(of.get(key))}" for name, key in named))


def _gain(found: Mapping[str, Any] | None) -> str:
    if found is None or found["interval"] is None:
        return NOTHING
    low, high = found["interval"]
    return f"{found['mean']:+.3f} [{low:+.3f}, {high:+.3f}]"


def telling_keys(values: Sequence[Mapping[str, Any]]) -> list[str]:
    """The swept keys that have more than one value; all of them if none has.

    >>> telling_keys([{"rl.lr": 1, "rl.kl": 0}, {"rl.lr": 2, "rl.kl": 0}])
    ['rl.lr']
    """
    keys = list(dict.fromkeys(key for row in values for key in row))
    return [key for key in keys if len({shown(row.get(key)) for row in values}) > 1] or keys


def short_names(keys: Sequence[str]) -> list[str]:
    """The last part of each dotted key, the whole of those that would be alike.

    >>> short_names(["rl.num_generations", "rl.learning_rate", "sft.learning_rate"])
    ['num_generations', 'rl.learning_rate', 'sft.learning_rate']
    """
    lasts = [key.rpartition(".")[2] for key in keys]
    return [last if lasts.count(last) == 1 else key for key, last in zip(keys, lasts, strict=True)]


def _about(data: Json, title: str) -> str:
    """How the numbers of a table came about."""
    runs = max((row["runs"] for row in data["rows"]), default=0)
    parts = [f"means of {data['window']} steps"] if title != "held-out scores" and data["window"] > 1 else []
    parts += [f"mean ± half the range over {runs} seeds"] if runs == 2 else []
    parts += [f"mean ± half the 95 % interval over {runs} seeds"] if runs > 2 else []
    return f" ({'; '.join(parts)})" if parts else ""


def _head(name: str) -> str:
    return {"peak_memory_bytes": "peak memory, MB"}.get(name, name)


def _cell(name: str, value: Mapping[str, Any] | None, runs: int) -> str:
    if value is None:
        return NOTHING
    scale = 1e-6 if name == "peak_memory_bytes" else 1.0
    interval, mean = value.get("interval"), value["mean"] * scale
    # the interval of two seeds is 6 times their range and hides it
    wide = value["half_range"] if runs < 3 or interval is None else (interval[1] - interval[0]) / 2
    half = wide * scale
    digits = 0 if abs(mean) >= 100 else 1 if abs(mean) >= 10 else 3
    return f"{mean:.{digits}f}" + (f" ±{half:.{digits}f}" if half else "")


def shown(value: Any) -> str:
    """A swept value on one line.

    >>> shown([1.0, 0.1]), shown("std"), shown(0.00001), shown(None)
    ('[1.0, 0.1]', 'std', '1e-05', 'null')
    """
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def as_csv(data: Json) -> str:
    """One line a run: its values and seed, how it ended, and every number under its own name."""
    points = data["points"]
    flat = []
    for point in points:
        numbers = {**point.get("metrics", {}), **point.get("held_out", {})}
        for step, values in point.get("at", {}).items():
            numbers |= {f"{name}@{step}": value for name, value in values.items()}
        own = {**{k: shown(v) for k, v in point["values"].items()}, "seed": point["seed"], "state": point["state"]}
        flat.append(own | {"run": point["run"], "steps": point.get("steps")} | numbers)
    names = list(dict.fromkeys(name for row in flat for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
