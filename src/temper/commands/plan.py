"""`temper plan RECIPE`: what would run and why, what is done, and what it takes. Writes nothing."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from temper.commands.run import add_recipe_arguments

if TYPE_CHECKING:
    from temper.pipeline.plan import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from temper.pipeline.preflight import prepare
    from temper.pipeline.run import say

    plan, warnings = prepare(args.recipe, args.settings, args.out)
    for text in [*warnings, *(f"{fault.what} ({fault.why})" for _, fault in plan.damaged)]:
        say(f"warning: {text}")
    data = describe(plan)
    print(json.dumps(data, ensure_ascii=False) if args.json else render(data))
    return 0


def describe(plan: Plan) -> dict[str, Any]:
    """The plan as one JSON value; what cannot be known before a stage ran is None."""
    from temper.pipeline.cost import memory_available
    from temper.pipeline.estimate import estimate, model_sizes
    from temper.pipeline.preflight import disk_free

    sizes = model_sizes(plan.recipe, plan.artifacts())
    before = plan.folder.record().get("stages")
    stages = []
    for planned in plan.stages:
        need = estimate(planned.stage, sizes)
        entry = before.get(planned.stage.name, {}) if isinstance(before, dict) else {}
        stages.append(
            {
                "stage": planned.stage.name,
                "kind": planned.stage.kind,
                "state": planned.state,
                "runs": planned.runs,
                "why": list(planned.why),
                "fingerprint": planned.fingerprint,
                "seconds": entry.get("seconds") if entry.get("state") == "done" else None,
                "memory_bytes": need.memory_bytes if planned.runs else None,
                "cache_bytes": need.cache_bytes if planned.runs else None,
                "disk_bytes": need.disk_bytes if planned.runs else 0,
            }
        )
    available = memory_available()
    needs = [stage["memory_bytes"] for stage in stages if stage["memory_bytes"] is not None]
    return {
        "recipe": plan.recipe.name,
        "seed": plan.recipe.seed,
        "run": str(plan.folder.root),
        "exists": plan.folder.root.exists(),
        "stages": stages,
        "half_done": [{"stage": h.name, "step": h.step, "changes": list(h.changes)} for h in plan.half_done],
        "memory_bytes": max(needs, default=None),
        "memory_available_bytes": available,
        "fits": None if not needs or available is None else max(needs) <= available,
        "disk_free_bytes": disk_free(plan.folder.root),
    }


STATES = {"cached": "done", "continue": "goes on", "run": "will run"}


def render(data: dict[str, Any]) -> str:
    """The plan as a table and a few lines below it."""
    from temper.pipeline.cost import show_bytes
    from temper.report.lines import duration

    rows: list[tuple[str, ...]] = [("stage", "kind", "", "time", "memory", "of it cache", "disk", "why")]
    for stage in data["stages"]:
        time = "unknown" if stage["seconds"] is None else "~" + duration(stage["seconds"])
        cache = show_bytes(stage["cache_bytes"]) if stage["cache_bytes"] else "–"
        needs = (time, show_bytes(stage["memory_bytes"]), cache, show_bytes(stage["disk_bytes"]))
        needs = needs if stage["runs"] else ("", "", "", "")
        rows.append((stage["stage"], stage["kind"], STATES[stage["state"]], *needs, "; ".join(stage["why"])))
    widths = [max(len(row[column]) for row in rows) for column in range(7)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[7]]).rstrip()
             for row in rows]  # fmt: skip
    count = sum(stage["runs"] for stage in data["stages"])
    free, available = show_bytes(data["disk_free_bytes"]), show_bytes(data["memory_available_bytes"])
    fits = {True: "it fits", False: "IT DOES NOT FIT", None: "what the stages need is not known before they ran"}
    lines += [
        "",
        f"run:     {data['run']}" + ("" if data["exists"] else " (new)"),
        f"stages:  {count} to run, {len(data['stages']) - count} done",
        f"memory:  {available} available: {fits[data['fits']]}",
        f"disk:    {free} free",
    ]
    for half in data["half_done"]:
        changes = "; ".join(half["changes"]) or "its config changed"
        lines.append(f"note:    `{half['stage']}` stopped at step {half['step']} under another config ({changes});")
        lines.append("         `temper run` asks for `--changed` before it starts that stage again")
    return "\n".join(lines)
