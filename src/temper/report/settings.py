"""The parts of the report page that count: what was harvested, what the run was given, what it cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from temper.report.sections import kind_name, memory, share

MOST_CHARACTERS = 400
Json = Mapping[str, Any]


def harvests(data: Json) -> str:
    """What rejection sampling kept, and why the rest was dropped."""
    blocks = []
    for stage in data["stages"]:
        verdicts = stage["harvest"].get("verdicts")
        counts = {k: v for k, v in verdicts.items() if isinstance(v, int)} if isinstance(verdicts, dict) else {}
        if not counts:
            continue
        ordered = sorted(counts.items(), key=lambda item: (item[0] != "kept", -item[1]))
        rows = "".join(_harvest_row(name, count, sum(counts.values())) for name, count in ordered)
        mixed = stage["harvest"].get("mixed")
        note = f'<p class="small">{mixed} other conversations were mixed in.</p>' if mixed else ""
        blocks.append(f'<h3>{escape(stage["name"])}</h3>{_table(rows)}{note}')
    return f"<section><h2>Rejection sampling</h2>{''.join(blocks)}</section>" if blocks else ""


def _table(rows: str) -> str:
    return f'<div class="scroll"><table class="cost harvest"><tbody>{rows}</tbody></table></div>'


def _harvest_row(name: str, count: int, of: int) -> str:
    part = count / max(1, of)
    return f'<tr><th scope="row">{escape(name)}</th><td>{_bar(part)}</td><td>{count}</td><td>{part:.0%}</td></tr>'


def settings(data: Json) -> str:
    """Every stage's settings with where each came from, those that were given first."""
    blocks = [_stage_settings(stage) for stage in data["stages"] if stage["config"]]
    return f"<section><h2>Settings, and where each came from</h2>{''.join(blocks)}</section>" if blocks else ""


def _stage_settings(stage: Json) -> str:
    given = [item for item in stage["config"] if item["origin"] != "default"]
    default = [item for item in stage["config"] if item["origin"] == "default"]
    rows = "".join([_row(item, "set") for item in given] + [_row(item, "default") for item in default])
    about = f"{escape(kind_name(stage['kind']))}, {len(given)} set, {len(default)} by default"
    table = f'<div class="scroll"><table class="settings"><tbody>{rows}</tbody></table></div>'
    return f"<details><summary><b>{escape(stage['name'])}</b> {about}</summary>{table}</details>"


def _row(item: Json, css: str) -> str:
    value = item["value"]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + " …"
    cells = f"<td><code>{escape(str(item['key']))}</code></td><td><code>{escape(text)}</code></td>"
    return f'<tr class="{css}">{cells}<td>{escape(str(item["origin"]))}</td></tr>'


def cost(data: Json) -> str:
    """CPU time, wall time and peak memory of every stage."""
    stages = [stage for stage in data["stages"] if stage["seconds"] is not None or stage["cpu_seconds"] is not None]
    if not stages:
        return ""
    most = max(_spent(stage) for stage in stages) or 1.0
    rows = "".join(_cost_row(s["name"], _bar(_spent(s) / most), s["cpu_seconds"], s["seconds"], s) for s in stages)
    total = _cost_row("whole run", "", data["cpu_seconds"], data["wall_seconds"], data, css="total")
    heads = "<thead><tr><th></th><th></th><th>CPU, s</th><th>wall, s</th><th>peak memory</th></tr></thead>"
    table = f'<div class="scroll"><table class="cost">{heads}<tbody>{rows}{total}</tbody></table></div>'
    return f"<section><h2>Cost</h2>{table}</section>"


def memory_parts(data: Json) -> str:
    """Bytes of weights, gradients and optimisers of every stage that counted them, part by part."""
    columns = {stage["name"]: _first_numbers(stage["metrics"], "memory/") for stage in data["stages"]}
    counted = {name: parts for name, parts in columns.items() if parts}
    if not counted:
        return ""
    names = list(dict.fromkeys(part for parts in counted.values() for part in parts if part != "total"))
    heads = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in [*names, "together"])
    rows = "".join(
        f'<tr><th scope="row">{escape(stage)}</th>'
        + "".join(f"<td>{memory(parts.get(name))}</td>" for name in [*names, "total"])
        + "</tr>"
        for stage, parts in counted.items()
    )
    table = f'<table class="cost"><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<section><h2>Memory of training, without activations</h2><div class="scroll">{table}</div></section>'


def _first_numbers(metrics: Json, prefix: str) -> dict[str, float]:
    """The first number of each metric whose name starts with `prefix`, by the rest of its name."""
    named = {name.removeprefix(prefix): values for name, values in metrics.items() if name.startswith(prefix)}
    numbers = {name: [value for value in values if isinstance(value, (int, float))] for name, values in named.items()}
    return {name: values[0] for name, values in numbers.items() if values}


def _spent(stage: Json) -> float:
    return stage["cpu_seconds"] or stage["seconds"] or 0.0


def _cost_row(name: str, bar: str, cpu: Any, wall: Any, owner: Json, css: str = "") -> str:
    numbers = f"<td>{share(cpu, 0)}</td><td>{share(wall, 0)}</td><td>{memory(owner['peak_memory_bytes'])}</td>"
    return f'<tr class="{css}"><th scope="row">{escape(name)}</th><td>{bar}</td>{numbers}</tr>'


def _bar(part: float) -> str:
    size = 'viewBox="0 0 160 10" width="160" height="10"'
    rect = f'<rect width="{max(1.0, 160 * part):.1f}" height="10" rx="2"/>'
    return f'<svg class="bar" {size} aria-hidden="true">{rect}</svg>'
