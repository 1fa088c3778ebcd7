"""`temper explain RUN`: why is my reward flat? Every stage that learns from rewards, diagnosed by its numbers."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run directory, or the name of one under runs/; RUN:stage for one")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    from temper.report.explain import render
    from temper.runs import read_run

    text, stage = args.run, ""
    if not Path(text).expanduser().is_dir() and ":" in text:
        text, _, stage = text.rpartition(":")
    folder = read_run(text)
    found = explain(folder, stage)
    data = {"run": str(folder), "stages": found}
    print(json.dumps(data, ensure_ascii=False) if args.json else "\n\n".join(map(render, found)))
    return 0


def explain(run: Path, wanted: str) -> list[dict[str, Any]]:
    """The diagnosis of each stage (of `wanted` alone, if given) that has taken a step and learns from rewards.

    Raises ConfigError for an unknown stage, ArtifactError where there is nothing to explain.
    """
    from temper.errors import ArtifactError, ConfigError, Fault
    from temper.recipe.words import did_you_mean
    from temper.record.metrics import RL_KINDS
    from temper.report.explain import is_flat, trend
    from temper.report.gather import gather
    from temper.report.heldout import rows_of
    from temper.report.programs import verdict_trend
    from temper.report.sections import kind_name

    stages = gather(run)["stages"]
    names = [stage["name"] for stage in stages]
    if wanted and wanted not in names:
        why = f"its stages are {', '.join(names)}"
        raise ConfigError(Fault(f"`{run}` has no stage `{wanted}`", "", why, did_you_mean(wanted, names)))
    found = []
    for stage in stages:
        rows = rows_of(stage["metrics"])
        if not rows or stage["kind"] not in RL_KINDS or wanted not in ("", stage["name"]):
            continue
        ends = trend(rows)
        found.append({
            "stage": stage["name"],
            "kind": kind_name(stage["kind"]),
            "step": rows[-1]["step"],
            "of": stage["planned_steps"],
            "flat": is_flat(ends),
            "trend": {name: list(pair) for name, pair in ends.items()},
            "verdicts": verdict_trend(rows),
            "findings": stage["findings"],
        })  # fmt: skip
    if not found:
        what = f"stage `{wanted}` of `{run}`" if wanted else f"`{run}`"
        why = "no stage that learns from rewards has taken a step"
        raise ArtifactError(Fault(f"{what} has nothing to explain yet", why=why, fix="let it run: `temper run RECIPE`"))
    return found
