"""Completions on the page: worst, median and best of each stage and task, every reward beside the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from temper.errors import escape as escape_controls
from temper.record.lines import number
from temper.report.find import is_right
from temper.report.programs import program_card

MOST_CHARACTERS = 3000
OPEN_RANKS = ("best", "median", "worst")
Json = Mapping[str, Any]


def completions(data: Json, more: str = "") -> str:
    """The section, `more` at its end; the filter row appears only where scripts run, everything is readable without."""
    blocks = [_stage(stage, tasks) for stage, tasks in data["samples"].items() if any(rows for rows in tasks.values())]
    if not blocks and not more:
        return ""
    note = (
        '<p class="small">Taken at even distances of rank by total reward, from the worst to the best, so nothing is '
        "picked by hand. Rewards that do not count in the total have weight 0 there.</p>"
    )
    filters = '<div id="filters" hidden></div>'
    shown = f'<div id="blocks">{"".join(blocks)}{more}</div>'
    return f'<section id="completions"><h2>Completions</h2>{note}{filters}{shown}</section>'


def _stage(stage: str, tasks: Mapping[str, Sequence[Json]]) -> str:
    parts = [_task(stage, task, rows) for task, rows in tasks.items() if rows]
    return f"<h3>{escape(stage)}</h3>{''.join(parts)}"


def _task(stage: str, task: str, rows: Sequence[Json]) -> str:
    first = [row for rank in OPEN_RANKS for row in rows if row.get("rank") == rank] or list(rows[:1])
    rest = [row for row in reversed(rows) if row not in first]
    shown = "".join(card(stage, task, row) for row in first)
    hidden = "".join(card(stage, task, row) for row in rest)
    more = f"<details><summary>{len(rest)} more, best first</summary>{hidden}</details>" if rest else ""
    return f'<div class="task"><h4>{escape(task)}</h4>{shown}{more}</div>'


def card(stage: str, task: str, row: Json) -> str:
    """One completion."""
    rewards = row.get("rewards")
    rewards = rewards if isinstance(rewards, dict) else {}
    right = is_right(row)
    verdict = "open" if right is None else "right" if right else "wrong"
    cut = row.get("finish_reason") == "length"
    facts = [f"<span class='reward total'>total <b>{number(row.get('total'))}</b></span>"]
    facts += [
        f"<span class='reward'>{escape(str(name))} <b>{number(value)}</b></span>" for name, value in rewards.items()
    ]
    if isinstance(row.get("advantage"), (int, float)):
        facts.append(f"<span class='reward'>advantage <b>{number(row['advantage'])}</b></span>")
    tokens = f"{row['tokens']} tokens" if isinstance(row.get("tokens"), int) else ""
    ended = ", truncated" if cut else ""
    count = row.get("equal")
    equal = f'<span class="tokens">{count} equal replies</span>' if isinstance(count, int) and count > 1 else ""
    known = "" if right is None else int(right)
    step = row["step"] if isinstance(row.get("step"), int) else ""
    data = f'data-stage="{escape(stage)}" data-task="{escape(task)}" data-right="{known}" data-cut="{int(cut)}"'
    rank, prompt, gold = (_shown(row.get(key)) for key in ("rank", "prompt", "gold"))
    return (
        f'<article class="completion {verdict}" {data} data-step="{step}">'
        f'<p class="ask"><span class="rank">{rank}</span><code>{prompt}</code>'
        f'<span class="gold">gold <code>{gold}</code></span>{equal}<span class="tokens">{tokens}{ended}</span></p>'
        f'<pre>{_reply(row.get("reply"))}</pre>{program_card(row)}<p class="rewards">{"".join(facts)}</p></article>'
    )


def _shown(value: Any) -> str:
    text = "" if value is None else str(value)
    text = text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + f" … ({len(text) - MOST_CHARACTERS} more)"
    return escape("\n".join(escape_controls(line) for line in text.split("\n")))


def _reply(value: Any) -> str:
    """The text, escaped, with the thinking in a quieter colour."""
    text = _shown(value)
    for tag in ("think", "answer"):
        for mark in (f"&lt;{tag}&gt;", f"&lt;/{tag}&gt;"):
            text = text.replace(mark, f'<span class="markup">{mark}</span>')
    return text
