"""`temper compare A B`: two measured models on the same prompts, the difference prompt by prompt with its interval."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from temper.rollout.paired import PromptScore
    from temper.runs import Evaluated

SETTINGS = ("temperature", "top_p", "top_k", "min_p", "max_completion_length", "stop", "k")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = "RUN:stage, RUN (its last measured model), a directory of `temper eval --out`, or a model that a run made"
    parser.add_argument("a", metavar="A", help=what)
    parser.add_argument("b", metavar="B", help="the model it is compared with")
    parser.add_argument("--task", help="only this task (default: every task that both were measured on)")
    metrics = "accuracy, format, a reward, pass@K, cons@K, budget@N, extended@N, mean_tokens … (default: accuracy; of "
    metrics += "prompts without gold answers the first reward that was asked for)"
    parser.add_argument("--metric", help=metrics)
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    data = compare(args.a, args.b, args.task, args.metric)
    print(json.dumps(data, ensure_ascii=False) if args.json else render(data))
    return 0


def compare(first: str, second: str, task: str | None = None, metric: str | None = None) -> dict[str, Any]:
    """What is printed, as data. Raises ConfigError or ArtifactError where the two cannot be compared."""
    from temper.errors import ConfigError, Fault
    from temper.rollout.paired import main_metric, paired
    from temper.runs import find_evaluation

    a, b = find_evaluation(first), find_evaluation(second)
    if (a.folder.resolve(), a.model) == (b.folder.resolve(), b.model):
        raise ConfigError(Fault(f"`{first}` and `{second}` are the same measured model", str(a.folder)))
    tasks = common_tasks(a, b, task)
    check_same(a, b, tasks)
    found = {}
    for name in tasks:
        scores, others = load(a, name), load(b, name)
        chosen = metric or main_metric(scores, own_rewards(scores))
        check_metric(chosen, scores)
        check_metric(chosen, others)
        found[name] = paired(scores, others, chosen)
        if rows := _scores(a)[name].get("coverage"):
            found[name]["coverage"] = rows
    sides = {side: {"model": of.model, "evaluation": str(of.folder)} for side, of in (("a", a), ("b", b))}
    setting = {key: a.evaluation[key] for key in SETTINGS if key in a.evaluation}
    return {**sides, "metric": metric or "accuracy", **setting, "tasks": found}


def flipped(first: str, second: str, task: str, metric: str) -> list[dict[str, Any]]:
    """The prompts on which two models that can be compared differ, those with the largest difference first."""
    from temper.runs import find_evaluation

    a, b = find_evaluation(first), find_evaluation(second)
    other = {score.prompt_id: score.value(metric) for score in load(b, task)}
    rows = [{"prompt_id": s.prompt_id, "a": s.value(metric), "b": other[s.prompt_id]} for s in load(a, task)]
    return sorted((row for row in rows if row["a"] != row["b"]), key=lambda row: -abs(row["a"] - row["b"]))


# -- may they be compared? --------------------------------------------------------------------------------------------


def common_tasks(a: Evaluated, b: Evaluated, wanted: str | None) -> list[str]:
    """The tasks that both were measured on. Raises ConfigError if the one wanted, or any, is not among them."""
    from temper.errors import ConfigError, Fault
    from temper.recipe.words import did_you_mean

    first, second = (list(_scores(of)) for of in (a, b))
    both = [task for task in first if task in second]
    why = f"{a.folder}: {a.model} on {', '.join(first)}; {b.folder}: {b.model} on {', '.join(second)}"
    if wanted is not None and wanted not in both:
        raise ConfigError(Fault(f"task `{wanted}` was not measured of both", "", why, did_you_mean(wanted, both)))
    if not both:
        raise ConfigError(Fault("the two were measured on no task in common", why=why))
    return [wanted] if wanted is not None else both


def _scores(evaluated: Evaluated) -> dict[str, Any]:
    models = evaluated.evaluation["models"]
    return next(model["tasks"] for model in models if model["stage"] == evaluated.model)


def check_same(a: Evaluated, b: Evaluated, tasks: list[str]) -> None:
    """Raise ArtifactError if the prompts or the sampling of the two evaluations differ, with both values of each."""
    from temper.errors import ArtifactError, Fault

    faults = []
    for of in (a, b):
        if not isinstance(of.evaluation.get("sets"), dict):
            faults.append(Fault(f"`{of.folder}` does not say which prompts it measured", why="an older temper made it",
                                fix="run its recipe again: the evaluation is made anew"))  # fmt: skip
    if faults:
        raise ArtifactError(faults)
    for task in tasks:
        first, second = (of.evaluation["sets"].get(task) for of in (a, b))
        if first != second:
            counts = [_scores(of)[task]["n"] for of in (a, b)]
            why = f"{a.folder}: {first} ({counts[0]} prompts); {b.folder}: {second} ({counts[1]} prompts)"
            fix = "measure both on the same file: `temper eval MODEL --tasks FILE --out DIR`"
            faults.append(Fault(f"different prompts of `{task}` were measured", "", why, fix))
    differ = [key for key in SETTINGS if a.evaluation.get(key) != b.evaluation.get(key)]
    if differ:
        why = "; ".join(f"{key} {a.evaluation.get(key)} and {b.evaluation.get(key)}" for key in differ)
        fix = "measure both under one setting; it moves every score"
        faults.append(Fault("the two were sampled differently", "", why, fix))
    if faults:
        raise ArtifactError(faults)


def load(evaluated: Evaluated, task: str) -> list[PromptScore]:
    """What every prompt of a task scored. Raises ArtifactError if that is missing or damaged."""
    from temper.errors import ArtifactError, Fault
    from temper.record.rollouts import read_rows
    from temper.rollout.paired import read_score

    path = evaluated.folder / "prompts" / f"{evaluated.model}.{task}.jsonl"
    try:
        return [read_score(row) for row in read_rows(path)]
    except (OSError, ValueError, TypeError, KeyError) as error:
        why = f"{type(error).__name__}: {error}"
        raise ArtifactError(Fault("what every prompt scored cannot be read", str(path), why)) from None


def own_rewards(scores: list[PromptScore]) -> list[str]:
    """The rewards beside those that every evaluation measures."""
    from temper.rewards import MEASURED

    return [name for name in dict.fromkeys(name for score in scores for name in score.rewards) if name not in MEASURED]


def check_metric(metric: str, scores: list[PromptScore]) -> None:
    """Raise ConfigError for a metric that cannot be had of these scores."""
    from temper.errors import ConfigError, Fault
    from temper.recipe.words import did_you_mean

    judged = any(score.consensus is not None for score in scores)
    known = [*dict.fromkeys(name for score in scores for name in score.rewards), "mean_tokens", "truncated"]
    known += ["reflection_words", *dict.fromkeys(name for score in scores for name in score.forced)]
    known += ["pass@K", "cons@K"] * judged
    try:
        next((score for score in scores if score.has(metric)), scores[0]).value(metric)
    except KeyError:
        fix = did_you_mean(metric, known)
        raise ConfigError(Fault(f"unknown metric `{metric}`", "", f"there are {', '.join(known)}", fix)) from None
    except ValueError as error:
        raise ConfigError(Fault(str(error))) from None


# -- for people -------------------------------------------------------------------------------------------------------


def render(data: dict[str, Any]) -> str:
    a, b = data["a"], data["b"]
    setting = [f"{data['k']} samples a prompt"] + [
        f"{label} {data[key]:g}" for key, label in (("temperature", "T"), ("top_p", "top-p")) if key in data
    ]
    width = max(len(a["model"]), len(b["model"]))
    lines = [f"{side}  {of['model'].ljust(width)}  measured in {of['evaluation']}" for side, of in (("A", a), ("B", b))]
    lines.append(", ".join(setting))
    for task, found in data["tasks"].items():
        low, high = found["interval"]
        lines += [
            f"\n{task}, {found['metric'].replace('_', ' ')}: {found['n']} prompts"
            + (f" ({found['coverage']})" if found.get("coverage") else ""),
            f"  A {found['a']:.3f}   B {found['b']:.3f}   A - B {found['difference']:+.3f}"
            f"   95 % interval {low:+.3f} to {high:+.3f}",
            f"  prompts   A better on {found['better']}, worse on {found['worse']}, equal on {found['equal']}"
            f"   (sign test p = {found['p_value']:.2g})",
        ]
        if found["both_right"] + found["only_a"] + found["only_b"] + found["neither"]:
            lines.append(
                f"  samples   both right {found['both_right']}, only A {found['only_a']}, only B {found['only_b']}, "
                f"neither {found['neither']}"
            )
    return "\n".join(lines)
