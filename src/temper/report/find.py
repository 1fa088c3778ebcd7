"""Finding completions of a run: held-out samples and kept rollouts of training, filtered by stage, step and reward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from temper.errors import ArtifactError, ConfigError, Fault
from temper.record.runfiles import read_lines, stage_work
from temper.record.trust import RunFiles
from temper.report.gather import gather_stages
from temper.report.picks import total

Row = dict[str, Any]
OTHER_KEYS = ("total", "tokens", "advantage", "step")  # what rows can be sorted by beside their rewards


@dataclass(frozen=True)
class Query:
    """Which completions: None and empty mean any. `below` and `above` are (reward or total, bound), exclusive."""

    stage: str | None = None
    task: str | None = None
    step: int | None = None
    below: tuple[tuple[str, float], ...] = ()
    above: tuple[tuple[str, float], ...] = ()
    verdict: str | None = None  # "right", "wrong" or "truncated"
    sort: str | None = None
    reverse: bool = False


@dataclass
class Source:
    """One file of completions: what made them, and at which training step (None: held-out samples)."""

    stage: str
    step: int | None
    path: Path
    task: str | None = field(default=None)


def sources(run_dir: Path, files: RunFiles | None = None) -> list[Source]:
    """Every file of completions of a run: of each stage its held-out samples, then its kept rollouts. `files`: what was
    looked up of the run's hashes already."""
    files = files or RunFiles(run_dir)
    stages = gather_stages(run_dir, files)
    found: list[Source] = []
    for stage in stages:
        if stage["makes"] == "evaluation" and stage["fingerprint"]:
            for path in files.samples(run_dir / "artifacts" / str(stage["fingerprint"])):
                name, _, task = path.name.removesuffix(".gz").removesuffix(".jsonl").rpartition(".")
                found.append(Source(name, None, path, task))
        for step, path in files.rollouts(stage_work(run_dir, stage["name"])):
            found.append(Source(stage["name"], step, path))
    order = {stage["name"]: i for i, stage in enumerate(stages)}
    return sorted(found, key=lambda s: (order.get(s.stage, len(order)), s.step or 0, s.task or ""))


def find(run_dir: Path, query: Query) -> list[Row]:
    """The rows that fit, each with its `stage` (and `step` in training).

    Of a step of which none were kept, those of the nearest that has some; without a step: held-out samples, or, of a
    stage that was not evaluated, its last kept rollouts.
    Raises ConfigError for a stage, task, step or reward that the run does not have, with the nearest name;
    ArtifactError for a run without completions.
    """
    found = sources(run_dir)
    if not found:
        fix = "let it run: training keeps rollouts (`keep_rollouts_steps`), an evaluate stage keeps samples"
        raise ArtifactError(Fault(f"no completions in {run_dir}", why="nothing was sampled there yet", fix=fix))
    chosen = _chosen(found, query)
    rows = [row for source in chosen for row in _rows(source)]
    _check_names(rows, query)
    fits = [row for row in rows if _fits(row, query)]
    if query.sort is not None:
        fits.sort(key=lambda row: _value(row, query.sort or ""), reverse=query.reverse)
    elif query.reverse:
        fits.reverse()
    return fits


def _chosen(found: Sequence[Source], query: Query) -> list[Source]:
    stages = list(dict.fromkeys(source.stage for source in found))
    if query.stage is not None and query.stage not in stages:
        raise ConfigError(_unknown("stage", query.stage, stages, "has no completions in this run"))
    mine = [source for source in found if query.stage in (None, source.stage)]
    if query.step is not None:
        steps = sorted({source.step for source in mine if source.step is not None})
        if not steps:
            why = "rollouts are kept at every `keep_rollouts_steps`-th step of stages that train on their own samples"
            raise ConfigError(Fault(f"no rollouts of step {query.step}", why=why, fix="kept steps: none"))
        nearest = nearest_step(steps, query.step)
        return [source for source in mine if source.step == nearest]
    held_out = {source.stage for source in mine if source.step is None}
    last = {source.stage: source.step for source in mine if source.stage not in held_out}
    return [s for s in mine if (s.step is None if s.stage in held_out else s.step == last[s.stage])]


def nearest_step(kept: Sequence[int], wanted: int) -> int:
    """The kept step nearest to the wanted one; of two, the earlier.

    >>> nearest_step([1, 10, 30], 20), nearest_step([1, 10, 30], 21)
    (10, 30)
    """
    return min(kept, key=lambda step: (abs(step - wanted), step))


def _rows(source: Source) -> Iterator[Row]:
    for row in read_lines(source.path):
        extra: Row = {"stage": source.stage} | ({} if source.step is None else {"step": source.step})
        yield {**extra, **row} | ({"task": source.task} if source.task and "task" not in row else {})


def _check_names(rows: Sequence[Row], query: Query) -> None:
    """Every fault of the query's names, together."""
    tasks = sorted({str(row.get("task")) for row in rows})
    rewards = sorted({name for row in rows for name in _rewards(row)})
    faults = []
    if query.task is not None and query.task not in tasks:
        faults.append(_unknown("task", query.task, tasks, "has no completions here"))
    bounds: list[tuple[str, Sequence[str]]] = [(name, ("total",)) for name, _ in (*query.below, *query.above)]
    bounds += [(query.sort, OTHER_KEYS)] if query.sort is not None else []
    for name, others in bounds:
        if name not in rewards and name not in others:
            faults.append(_unknown("reward", name, [*rewards, *others], "was not measured here"))
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))


def _unknown(what: str, name: str, known: Sequence[str], why: str) -> Fault:
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    fix = f"did you mean `{near[0]}`?" if near else f"one of: {', '.join(known) or 'none'}"
    return Fault(f"unknown {what} `{name}`", why=f"it {why}", fix=fix)


def _fits(row: Row, query: Query) -> bool:
    verdicts: dict[str, Callable[[], bool]] = {
        "right": lambda: is_right(row) is True,
        "wrong": lambda: is_right(row) is False,
        "truncated": lambda: row.get("finish_reason") == "length",
    }
    return (
        query.task in (None, row.get("task"))
        and all(_value(row, name) < bound for name, bound in query.below)
        and all(_value(row, name) > bound for name, bound in query.above)
        and (query.verdict is None or verdicts[query.verdict]())
    )


def is_right(row: Mapping[str, Any]) -> bool | None:
    """By its accuracy, or by that of its program where only programs were judged; None of an open prompt.

    >>> is_right({"rewards": {"accuracy": 0.5}}), is_right({"rewards": {"helpful": 1.0}})
    (False, None)
    """
    rewards = _rewards(row)
    value = rewards.get("accuracy", rewards.get("code"))
    return None if value is None else value == 1.0


def _rewards(row: Mapping[str, Any]) -> dict[str, Any]:
    rewards = row.get("rewards")
    return rewards if isinstance(rewards, dict) else {}


def _value(row: Row, name: str) -> float:
    if name == "total":
        return total(row)
    value = _rewards(row).get(name, row.get(name))
    return float(value) if isinstance(value, (int, float)) and value == value else float("-inf")
