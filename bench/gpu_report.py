"""The results table of what `gpu.sh` measured, as Markdown.

    python bench/gpu_report.py gpu-results

Every measurement has its row: what failed, was late or was not run says so there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PLANNED = {  # the file of each measurement, and what it is
    "1-checks": "kernels and engine against plain torch",
    "1-tests": "the project's tests that touch a device",
    "2-smoke": "recipe `smoke`",
    "2-tiny": "recipe `tiny`",
    "3-sample-alone": "generation, temper alone",
    "3-step-alone": "whole step, temper alone",
    "3-step-trl": "whole step beside TRL",
    "3-sample-trl": "generation beside TRL",
    "4-decode": "profile of a decode step",
    "4-training": "profile of training",
    "4-compiled": "profile of training, layers compiled",
    "5-ragged-alone": "ragged step, temper alone",
    "5-15b-alone": "1.5 B step, temper alone",
    "5-ragged-trl": "ragged step beside TRL",
}
STEPS = [name for name in PLANNED if name.endswith(("-alone", "-trl"))]
PROFILES = [name for name in PLANNED if name.startswith("4-")]

Entry = Mapping[str, Any]


def load(folder: Path) -> dict[str, Entry]:
    """The measurements that were taken, by name. Raises OSError, ValueError for a file that is none."""
    return {
        file.stem: json.loads(file.read_text(encoding="utf-8"))
        for file in sorted(folder.glob("*.json"))
        if file.stem in PLANNED
    }


def rows(head: str, lines: Iterable[Iterable[object]]) -> str:
    cells = head.split("|")
    table = [f"| {head.replace('|', ' | ')} |", "|" + "---|" * len(cells)]
    return "\n".join([*table, *("| " + " | ".join(map(str, line)) + " |" for line in lines)])


def became(taken: Mapping[str, Entry]) -> str:
    """What became of each measurement."""
    lines = []
    for name, what in PLANNED.items():
        entry = taken.get(name)
        if entry is None:
            lines.append((name, what, "not run", ""))
            continue
        said = entry["said"][-1].replace("|", "/")[:120] if entry["ended"] != "ok" and entry["said"] else ""
        lines.append((name, what, f"{entry['ended']}, {entry['seconds']:.0f} s", said))
    return rows("file|what|ended|said", lines)


def checks(figures: Entry) -> str:
    lines = []
    for name, found in figures["checks"].items():
        errors = "–" if found["error"] is None else f"{found['error']:.2g} of {found['allowed']:.2g}"
        lines.append((name, "passed" if found["passed"] else "**failed**", found.get("raised", errors)))
    return rows("check|outcome|error of what is allowed", lines)


def step(name: str, figures: Entry) -> tuple[object, ...]:
    """One line of the table of steps: lengths, rows, tokens a second, share of the floor, training's share of the rate
    of large products (MFU), memory, ratio."""
    config, ours, spread = figures["config"], figures["temper"], figures["spread"]["temper"]
    low, high = (figures["lengths"][key] for key in ("min", "max"))
    lengths = f"{config['prompt_tokens']} + {low if low == high else f'{low}…{high}'}"
    alone = spread["training_seconds"] < 0.01 * ours["seconds"]  # generation is all of it
    mfu = "" if alone else f"{figures['floor']['training'] / spread['training_seconds']:.2f}"
    other = figures["other"]
    beside = "" if other is None else f"{other['seconds']:.2f} s, {other['peak_memory_bytes'] / 1e9:.0f} GB"
    return (
        figures["workload"], f"{figures['parameters'] / 1e6:,.0f} M", f"{config['prompts']} × {config['group']}",
        lengths, f"{ours['seconds']:.2f} s", f"{spread['sampling_seconds']:.2f} s",
        f"{ours['tokens_per_second']:,.0f}", mfu,
        f"{figures['floor_share']:.2f}", f"{ours['peak_memory_bytes'] / 1e9:.1f} GB", beside,
        "" if figures["ratio"] is None else f"**{figures['ratio']:.2f}**",
    )  # fmt: skip


STEP_HEAD = "workload|model|rows|tokens|step|of it sampling|tokens/s|MFU|share of floor|memory|TRL|ratio"


def recipe(figures: Entry) -> str:
    lines = [
        (
            name,
            stage["state"],
            stage["steps"] or "",
            f"{stage['seconds'] or 0:.1f} s",
            f"{stage['cpu_seconds'] or 0:.1f} s",
        )
        for name, stage in figures["stages"].items()
    ]
    return rows("stage|state|steps|seconds|CPU", lines)


def profile(name: str, figures: Entry) -> str:
    found = figures["step"]
    keys = {"graph_milliseconds": "as a graph", "called_milliseconds": "called", "milliseconds": "a step"}
    times = ", ".join(f"{text} {figures[key]:.2f} ms" for key, text in keys.items() if key in figures)
    lines = [
        (f"`{one['name'].replace('|', '/')}`", one["count"], f"{one['milliseconds']:.3f}", f"{one['share']:.1%}")
        for one in found["operations"][:12]
    ]
    return f"{times}; {found['launches']:,} launches\n\n" + rows("operation|count|ms|share", lines)


def render(taken: Mapping[str, Entry]) -> str:
    """All tables that there are figures for."""
    with_figures = {name: entry["figures"] for name, entry in taken.items() if entry["figures"]}
    parts = ["# Measured on a GPU", became(taken)]
    if figures := with_figures.get("1-checks"):
        parts += [
            "**" + ", ".join(f"{key} {value}" for key, value in figures["machine"].items()) + "**",
            checks(figures),
        ]
    if figures := with_figures.get("1-tests"):
        counts = ", ".join(f"{figures[key]} {key}" for key in ("passed", "failed", "skipped"))
        parts.append("\n".join([f"Tests: {counts}", *(f"* failed: {name}" for name in figures["failures"])]))
    for name in ("2-smoke", "2-tiny"):
        if figures := with_figures.get(name):
            parts += [f"## {PLANNED[name]}: {figures['state']}, {figures['seconds']:.0f} s", recipe(figures)]
    if steps := [step(name, with_figures[name]) for name in STEPS if name in with_figures]:
        parts += ["## Steps", rows(STEP_HEAD, steps)]
    for name in PROFILES:
        if figures := with_figures.get(name):
            parts += [f"## {PLANNED[name]}", profile(name, figures)]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: gpu_report.py FOLDER", file=sys.stderr)
        return 2
    taken = load(Path(sys.argv[1]))
    if not taken:
        print(f"error: no measurement of gpu.sh in `{sys.argv[1]}`", file=sys.stderr)
        return 3
    print(render(taken), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
