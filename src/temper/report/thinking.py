"""What more of the same costs and gives: accuracy against the length of thoughts, pass@k and cons@k against k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from temper.report.charts import Series, line_chart
from temper.report.stagechart import Score, stage_chart

Json = Mapping[str, Any]
Models = Sequence[Json]


def lengths_of(models: Models, task: str) -> dict[str, Json]:
    """By model, what each length of thinking gave on a task (`forced` in evaluation.json); those that were measured so.

    >>> lengths_of([{"stage": "rl", "tasks": {"sums": {"forced": {"drawn": {"value": 0.5}}}}}], "sums")
    {'rl': {'drawn': {'value': 0.5}}}
    """
    found = {str(model["stage"]): model["tasks"].get(task, {}).get("forced") for model in models}
    return {name: forced for name, forced in found.items() if isinstance(forced, Mapping)}


def length_name(metric: str) -> str:
    """A length in words.

    >>> [length_name(name) for name in ("budget@8", "drawn", "extended@2")]
    ['cut at 8', 'as drawn', 'extended twice']
    """
    kind, _, count = metric.partition("@")
    times = {"1": "once", "2": "twice"}.get(count, f"{count} times")
    return {"budget": f"cut at {count}", "extended": f"extended {times}"}.get(kind, "as drawn")


def thinking(models: Models, task: str) -> str:
    """Accuracy against the tokens of a thought, one line a model, and the numbers; "" where it was not measured."""
    found = lengths_of(models, task)
    known = {
        name: [row for row in forced.values() if isinstance(row.get("value"), (int, float))]
        for name, forced in found.items()
    }
    chart = line_chart(
        f"Accuracy against thinking on {task}",
        [
            Series(name, tuple(sorted((float(row["thinking_tokens"]), float(row["value"])) for row in rows)))
            for name, rows in known.items()
        ],
        unit="share right",
        x_label="mean tokens of a thought",
        y_to=1.0,
        smoothed=False,
    )
    if not chart:
        return ""
    about = "Budget forcing: the same thoughts, cut after so many tokens, or made to go on where they would have ended."
    return f'<h3>Accuracy against thinking</h3><p class="small">{about}</p>{chart}{_numbers(found)}'


def _numbers(found: Mapping[str, Json]) -> str:
    names = list(dict.fromkeys(name for forced in found.values() for name in forced))
    heads = "".join(f"<th scope='col'>{escape(length_name(name))}</th>" for name in names)
    rows = "".join(
        f"<tr><th scope='row'>{escape(model)}</th>{''.join(_cell(forced.get(name)) for name in names)}</tr>"
        for model, forced in found.items()
    )
    table = f'<table class="results"><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<div class="scroll">{table}</div><p class="small">Below each share: mean tokens of a thought.</p>'


def _cell(row: Any) -> str:
    if not isinstance(row, Mapping) or not isinstance(row.get("value"), (int, float)):
        return "<td>–</td>"
    return f"<td><b>{row['value']:.3f}</b><small>{row['thinking_tokens']:.0f}</small></td>"


def samples_curve(models: Models, task: str, key: str, name: str) -> str:
    """pass@k or cons@k against k, one line a model, where several k were asked for: RL that only makes likelier what
    the base model can do already wins at small k and loses at large k (2504.13837)."""
    measured = [(str(m["stage"]), of) for m in models if (of := m["tasks"].get(task, {}).get(key))]
    ks = list(dict.fromkeys(k for _, of in measured for k in of))
    if len(ks) < 2:
        return ""
    scores = [
        Score(
            stage,
            tuple(of.get(k, {}).get("value") for k in ks),
            tuple(bounds(of.get(k, {}).get("interval")) for k in ks),
        )
        for stage, of in measured
    ]
    return stage_chart(f"{name} on {task}", [f"k = {k}" for k in ks], scores)


def bounds(interval: Any) -> tuple[float, float] | None:
    good = isinstance(interval, (list, tuple)) and len(interval) == 2 and None not in interval
    return (float(interval[0]), float(interval[1])) if good else None
