"""The table at the end of a run, for a terminal or a pipe: one row a model, then the verdict of each claim."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from temper.errors import escape
from temper.report.thinking import length_name, lengths_of
from temper.rewards import MEASURED

PLAIN = str.maketrans({"✓": "+", "✗": "x", "±": "~", "≥": ">=", "≤": "<=", "–": "-", "×": "x", "…": "..."})
GREEN, RED, BOLD, OFF = "\x1b[32m", "\x1b[31m", "\x1b[1m", "\x1b[0m"
NOTHING = "–"


def render(
    evaluation: Mapping[str, Any], width: int | None = None, color: bool | None = None, encoding: str = ""
) -> str:
    """The table of an evaluation.json (or of `gather`'s value), no line end at the end.

    Tables wider than `width` columns become one block a model. Signs that `encoding` lacks are spelled in ASCII.
    What is not given is asked of standard output: its width and colour if it is a terminal, its encoding.

    >>> scores = {"n": 500, "k": 4, "accuracy": 0.93, "accuracy_interval": [0.91, 0.95], "format": 1.0,
    ...           "language_consistency": None, "truncated": 0.0, "mean_tokens": 41.2}
    >>> print(render({"models": [{"stage": "final_rl", "tasks": {"arithmetic": scores}}]}, encoding="utf-8"))
    stage     accuracy     format  language  truncated  tokens
    final_rl  0.930 ±0.02  1.000   –         0.000          41
    """
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns if width is None else width
        color = not os.environ.get("NO_COLOR") if color is None else color
    models, color = evaluation.get("models") or [], bool(color)
    blocks = ["\n".join([_scores(models, width, color), *coverage(models)])] if models else []
    blocks += _lengths(models, width, color)
    blocks += [text for text in (_claims(evaluation.get("claims") or [], color),) if text]
    return spelled("\n\n".join(blocks), encoding)


def round_lines(blocks: Any) -> list[str]:
    """What the rules of blocks that repeat found, as run.json has it.

    >>> round_lines({"loop": {"of": 4, "what": "accuracy", "values": [0.5, 0.91], "why": "it is at least 0.9"}})
    ['loop: 2 of at most 4: accuracy 0.500, 0.910: it is at least 0.9']
    """
    found = []
    for name, of in blocks.items() if isinstance(blocks, dict) else ():
        values = ", ".join("not measured" if value is None else f"{value:.3f}" for value in of["values"])
        why = f": {of['why']}" if of["why"] else ""
        found.append(f"{name}: {len(of['values'])} of at most {of['of']}: {of['what']} {values}{why}")
    return found


def _scores(models: Sequence[Mapping[str, Any]], width: int | None, color: bool) -> str:
    tasks = list(dict.fromkeys(task for model in models for task in model["tasks"]))
    ks = several_ks(models, tasks[0]) if tasks else []
    others = [(task, "accuracy") for task in tasks[1:]]
    others += [(task, reward) for task in tasks for reward in rewards_instead(models, task)]
    names = [task if key == "accuracy" else f"{task} {key}" for task, key in others]
    head = ["stage", "accuracy", *(f"pass@{k}" for k in ks), "format", "language", *names, "truncated", "tokens"]
    return grid([escape(name) for name in head], [_cells(m, tasks, ks, others) for m in models], width, color)


def _lengths(models: Sequence[Mapping[str, Any]], width: int | None, color: bool) -> list[str]:
    """For each task whose thoughts were cut or extended, the accuracy at each length."""
    blocks = []
    for task in dict.fromkeys(task for model in models for task in model["tasks"]):
        if found := lengths_of(models, task):
            names = list(dict.fromkeys(name for forced in found.values() for name in forced))
            rows = [
                [escape(model), *(_share(forced.get(name, {}).get("value")) for name in names)]
                for model, forced in found.items()
            ]
            head = [escape(f"thinking, {task}"), *map(length_name, names)]
            blocks.append(grid(head, rows, width, color))
    return blocks


def rewards_instead(models: Sequence[Mapping[str, Any]], task: str) -> list[str]:
    """What is shown of a task without gold answers: the rewards that the evaluation was asked for.

    >>> poems = {"accuracy": None, "open": 3, "rewards": {"format": 1.0, "rhyme": 0.5}}
    >>> rewards_instead([{"tasks": {"poems": poems}}], "poems")
    ['rhyme']
    """
    measured = [of for model in models if (of := model["tasks"].get(task))]
    if not measured or any(of.get("accuracy") is not None or not of.get("open") for of in measured):
        return []
    return list(dict.fromkeys(name for of in measured for name in of.get("rewards") or () if name not in MEASURED))


def coverage(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each task that some rows of its file were left out of.

    >>> coverage([{"tasks": {"sums": {"coverage": "410 of 500 rows"}, "facts": {}}}])
    ['sums: 410 of 500 rows; the gold answers of the others cannot be verified']
    """
    told = {
        task: scores["coverage"]
        for model in models
        for task, scores in model["tasks"].items()
        if scores.get("coverage")
    }
    return [escape(f"{task}: {rows}; the gold answers of the others cannot be verified") for task, rows in told.items()]


def several_ks(models: Sequence[Mapping[str, Any]], task: str) -> list[str]:
    """The k above 1 at which pass@k of a task was asked for, if it was asked for at more than one.

    >>> several_ks([{"tasks": {"sums": {"pass_at": {"1": {}, "4": {}, "16": {}}}}}], "sums")
    ['4', '16']
    """
    measured = [of for model in models if isinstance(of := model["tasks"].get(task, {}).get("pass_at"), dict)]
    ks = dict.fromkeys(k for of in measured for k in of)
    return [k for k in ks if k != "1"] if len(ks) > 1 else []


def grid(head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None, color: bool = False) -> str:
    """Rows under a head; one block a row where they would be wider than `width` columns.

    >>> print(grid(["stage", "steps"], [["cold_start", "9"], ["rl", "110"]]))
    stage       steps
    cold_start      9
    rl            110
    """
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    if width is not None and sum(widths) + 2 * (len(widths) - 1) > width:
        return _stacked(head, rows, color)
    lines = [_line(row, widths) for row in [head, *rows]]
    return "\n".join([f"{BOLD}{lines[0]}{OFF}" if color else lines[0], *lines[1:]])


def _cells(
    model: Mapping[str, Any], tasks: Sequence[str], ks: Sequence[str], others: Sequence[tuple[str, str]]
) -> list[str]:
    main = model["tasks"].get(tasks[0], {}) if tasks else {}
    return [
        escape(called(model, main)),
        _with_interval(main, "accuracy"),
        *(_share(main.get("pass_at", {}).get(k, {}).get("value")) for k in ks),
        _share(main.get("format")),
        _share(main.get("language_consistency")),
        *(_of_other(model["tasks"].get(task, {}), key) for task, key in others),
        _share(main.get("truncated")),
        _share(main.get("mean_tokens"), 0),
    ]


def called(model: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    """A model's name in a table, with the form its replies were read in where that is not `tags`.

    >>> called({"stage": "base"}, {"reply": "plain"}), called({"stage": "final_rl"}, {"reply": "tags"})
    ('base (plain)', 'final_rl')
    """
    form = scores.get("reply", "tags")
    return str(model["stage"]) if form == "tags" else f"{model['stage']} ({form})"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Cells side by side; the last column, a count, to the right."""
    padded = [cell.ljust(width) for cell, width in zip(cells[:-1], widths[:-1], strict=True)]
    return "  ".join([*padded, cells[-1].rjust(widths[-1])]).rstrip()


def _stacked(head: Sequence[str], rows: Sequence[Sequence[str]], color: bool) -> str:
    label = max(len(name) for name in head[1:])
    blocks = []
    for row in rows:
        name = f"{BOLD}{row[0]}{OFF}" if color else row[0]
        lines = [f"  {key.ljust(label)}  {cell}" for key, cell in zip(head[1:], row[1:], strict=True)]
        blocks.append("\n".join([name, *lines]))
    return "\n".join(blocks)


def _claims(claims: Sequence[Mapping[str, Any]], color: bool) -> str:
    if not claims:
        return ""
    names = [escape(str(claim.get("claim"))) for claim in claims]
    longest = max(map(len, names))
    lines = []
    for name, claim in zip(names, claims, strict=True):
        holds = claim.get("holds") is True
        mark = "✓" if holds else "✗"
        mark = f"{GREEN if holds else RED}{mark}{OFF}" if color else mark
        target = f"  wanted {escape(str(claim['target']))}" if claim.get("target") else ""
        lines.append(f"{mark} {name.ljust(longest)}  {_share(claim.get('value'))}{target}")
    good = sum(claim.get("holds") is True for claim in claims)
    verdict = f"all {good} claims hold" if good == len(claims) else f"{good} of {len(claims)} claims hold"
    return "\n".join([*lines, f"{BOLD}{verdict}{OFF}" if color else verdict])


def _share(value: Any, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) else NOTHING


def _of_other(scores: Mapping[str, Any], key: str) -> str:
    return _with_interval(scores, key) if key == "accuracy" else _share((scores.get("rewards") or {}).get(key))


def _with_interval(scores: Mapping[str, Any], key: str) -> str:
    interval = scores.get(f"{key}_interval")
    known = isinstance(interval, (list, tuple)) and len(interval) == 2 and None not in interval
    half = f" ±{(interval[1] - interval[0]) / 2:.2f}" if known and interval else ""
    return _share(scores.get(key)) + half


def spelled(text: str, encoding: str = "") -> str:
    """`text` in signs that `encoding` (not given: standard output's) has."""
    encoding = encoding or getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        text = text.translate(PLAIN)
    return text.encode(encoding, "backslashreplace").decode(encoding) if encoding else text
