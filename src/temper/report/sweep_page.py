"""A sweep as one HTML file: its tables, and the curves of every value in one picture a metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from temper.record.runfiles import stage_work
from temper.record.trust import RunFiles
from temper.report.charts import Series, line_chart
from temper.report.html import document
from temper.report.seeds import drawn_by_step
from temper.report.sweep import columns_of, short_names, shown, tables, telling_keys, which_is_best

Json = Mapping[str, Any]
SHARES = ("reward/accuracy", "reward/format", "groups/dead", "completion/truncated")


def page(data: Json) -> str:
    """The page of what `report/sweep.py` gathered; the curves are read from the runs."""
    what = " × ".join(", ".join(axis["keys"]) for axis in data["over"])
    head = f'<header><p class="over">temper sweep</p><h1>{escape(data["recipe"])}: {escape(what)}</h1></header>'
    parts = [head, *(_table(*table) for table in tables(dict(data))), _best(data), _curves(data), _runs(data)]
    return document(f"{data['recipe']}: temper sweep", "".join(parts))


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    heads = "".join(f"<th scope='col'>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    table = f'<table class="cost"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'
    return f'<section><h2>{escape(title)}</h2><div class="scroll">{table}</div></section>'


def _best(data: Json) -> str:
    """Which setting is best, in a sentence a score."""
    said = "".join(f"<p>{escape(line)}</p>" for line in which_is_best(dict(data)))
    return f"<section><h2>Which is best</h2>{said}</section>" if said else ""


def _curves(data: Json) -> str:
    """One chart a metric, one line a combination of values: the mean over its seeds."""
    by_value: dict[str, list[list[dict[str, Any]]]] = {}
    keys = telling_keys([point["values"] for point in data["points"]])
    for point in data["points"]:
        named = zip(short_names(keys), keys, strict=True)
        label = ", ".join(f"{name} {shown(point['values'].get(key))}" for name, key in named)
        rows = RunFiles(run := Path(point["run"])).metrics(stage_work(run, data["stage"]))
        if rows:
            by_value.setdefault(label or "all", []).append(rows)
    last = [rows[-1] for runs in by_value.values() for rows in runs]
    names = dict.fromkeys(name for row in last for name in columns_of(row))
    charts = [
        line_chart(
            name,
            [Series(label, mean_curve(runs, name)) for label, runs in by_value.items()],
            y_to=1.0 if name in SHARES else None,
            y_from=None if name == "completion/length" else 0.0,
        )
        for name in names
    ]
    rewards = [name for name in names if name.startswith("reward/")]
    charts += [
        line_chart(
            f"{name} by completions",
            [Series(label, mean_curve(runs, name, by_drawn=True)) for label, runs in by_value.items()],
            x_label="completions drawn",
            y_to=1.0 if name in SHARES else None,
        )
        for name in rewards
    ]
    drawn = "".join(chart for chart in charts if chart)
    title = f"<h2>{escape(data['stage'])}, step by step</h2>"
    return f'<section>{title}<div class="charts">{drawn}</div></section>' if drawn else ""


def mean_curve(
    runs: Sequence[Sequence[Mapping[str, Any]]], name: str, by_drawn: bool = False
) -> tuple[tuple[float, float], ...]:
    """(step, mean over the runs that have that step and metric); `by_drawn`: over the completions drawn up to the step,
    a mean over the runs as well, so that settings of other sizes are compared at equal samples.

    >>> mean_curve([[{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}], [{"step": 1, "loss": 4.0}]], "loss")
    ((1.0, 3.0), (2.0, 1.0))
    """
    found: dict[int, list[tuple[float, float]]] = {}
    for rows in runs:
        drawn = drawn_by_step(rows) if by_drawn else {row["step"]: row["step"] for row in rows}
        for row in rows:
            value = row.get(name)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and row["step"] in drawn:
                found.setdefault(row["step"], []).append((drawn[row["step"]], value))
    count = {step: len(pairs) for step, pairs in found.items()}
    return tuple(
        (sum(x for x, _ in pairs) / count[step], sum(y for _, y in pairs) / count[step])
        for step, pairs in sorted(found.items())
    )


def _runs(data: Json) -> str:
    rows = ""
    for point in data["points"]:
        name = escape(Path(point["run"]).name)
        link = f'<a href="{name}/report/index.html">{name}</a>'
        rows += f'<tr><th scope="row">{link}</th><td>{escape(point["state"])}</td></tr>'
    return f'<section><h2>Runs</h2><table class="cost"><tbody>{rows}</tbody></table></section>'
