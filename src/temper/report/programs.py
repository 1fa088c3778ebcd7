"""Programs that a model wrote, on the page and in lists: what became of them, and of one the first failing test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from temper.errors import escape as escape_controls
from temper.record.lines import number

EARLY = 10  # steps at either end that shares are means of, or a third of all
PREFIX = "code/"
FAILING = ("input", "expected", "got", "error")
LONGEST = 3000  # characters of a text that a page shows
Json = Mapping[str, Any]


def verdict_trend(rows: Sequence[Json]) -> dict[str, list[float]]:
    """Each verdict's mean share over the first and over the last steps; verdicts that neither saw are left out.

    >>> verdict_trend([{"code/passed": 0.25, "code/memory": 0.0}, {"code/passed": 0.5, "code/memory": 0.0}])
    {'passed': [0.25, 0.5]}
    """
    width = max(1, min(EARLY, len(rows) // 3))
    names = dict.fromkeys(name for row in rows for name in row if str(name).startswith(PREFIX))
    found = {}
    for name in names:
        ends = [_mean([row.get(name) for row in part]) for part in (rows[:width], rows[-width:])]
        if any(ends):
            found[name.removeprefix(PREFIX)] = ends
    return found


def facts(row: Json) -> list[tuple[str, str]]:
    """What a completion's row says of its program, as names and texts: the verdict, the program, and of the first
    failing test the input, what was expected, what came, and the error. Nothing where it has none.

    >>> facts({"code": {"verdict": "wrong", "passed": 1, "program": "print(1)",
    ...                 "failing": {"test": 2, "input": "2", "expected": "4", "got": "1", "error": ""}}})
    [('verdict', 'wrong (test 2)'), ('program', 'print(1)'), ('input', '2'), ('expected', '4'), ('got', '1')]
    >>> facts({"reply": "4"})
    []
    """
    code = row.get("code")
    if not isinstance(code, dict):
        return []
    failing = code.get("failing")
    failing = failing if isinstance(failing, dict) else {}
    at = f" (test {failing['test']})" if "test" in failing else ""
    told = [("verdict", f"{code.get('verdict')}{at}"), ("program", code.get("program"))]
    told += [(name, failing.get(name)) for name in FAILING if failing.get(name) or (name == "got" and failing)]
    return [(name, str(text or "")) for name, text in told if text or name == "got"]


def program_card(row: Json) -> str:
    """The program of a completion for the page, escaped; "" where it has none."""
    found = facts(row)
    if not found:
        return ""
    (_, verdict), *rest = found
    texts = "".join(f"<p class='rewards'>{escape(name)}</p><pre>{_text(text)}</pre>" for name, text in rest)
    return f"<details><summary>program: {_text(verdict)}</summary>{texts}</details>"


def verdict_tables(stages: Sequence[Json], models: Sequence[Json]) -> str:
    """The section: shares of verdicts along each training, and of every evaluated model; "" without programs."""
    rows = []
    for stage in stages:
        columns = {name: values for name, values in stage["metrics"].items() if str(name).startswith(PREFIX)}
        steps = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        if trend := verdict_trend(steps):
            rows.append((f"{stage['name']}, first steps", {name: ends[0] for name, ends in trend.items()}))
            rows.append((f"{stage['name']}, last steps", {name: ends[1] for name, ends in trend.items()}))
    for model in models:
        for task, scores in model["tasks"].items():
            shares = scores.get("verdicts")
            if isinstance(shares, dict):
                held = {str(n).removeprefix(PREFIX): v for n, v in shares.items() if isinstance(v, (int, float)) and v}
                rows.append((f"{model['stage']}, held-out {task}", held))
    if not rows:
        return ""
    names = list(dict.fromkeys(name for _, shares in rows for name in shares))
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in names)
    body = "".join(
        f"<tr><td>{escape(what)}</td>{''.join(f'<td>{number(shares.get(name, 0.0))}</td>' for name in names)}</tr>"
        for what, shares in rows
    )
    words = "What became of the programs in the replies, as shares of all. Shown only: they pass the tests in their "
    words += "question and fail one that is held back; hard coded: and compare with an input that stands there."
    note = f'<p class="small">{words}</p>'
    table = f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    return f'<section id="programs"><h2>Programs</h2>{note}{table}</section>'


def _text(text: str) -> str:
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]} … ({len(text) - LONGEST} more)"
    return escape("\n".join(escape_controls(line) for line in text.split("\n")))


def _mean(values: Sequence[Any]) -> float:
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool) and v == v]
    return sum(numbers) / len(numbers) if numbers else 0.0
