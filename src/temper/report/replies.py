"""The replies that the page holds beside the picked ones: training's kept rollouts, and what was wrong held out.

A page is a file to open and to send, so it holds so much text and no more; `temper samples` and `temper ui` show all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from temper.record.runfiles import read_lines
from temper.report.completions import card
from temper.report.find import Source, is_right, sources
from temper.report.picks import pick

MOST_WRONG = 1_200_000  # characters of replies
MOST_TRAINED = 1_200_000
MOST_CHARACTERS = 3000  # of one reply, as it is shown
BESIDE = 900  # what a reply takes beside its text: prompt, rewards, markup
STEPS = 40  # of a stage, evenly spaced
A_STEP = (4, 16)  # replies of a step: at least, at most
ALL = 800  # of a stage

Json = dict[str, Any]


@dataclass
class Replies:
    """`rows` have "stage", "task" and, from training, "step"; `left` counts what there was no room for, by stage."""

    rows: list[Json] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)


def wrong(found: Iterable[Source], most: int = MOST_WRONG) -> Replies:
    """Every held-out reply that was wrong, as far as there is room; each model and task has its share of it, and what
    some do not need is the others'."""
    replies = Replies()
    files = [(source, _wrong_of(source, most, replies.left)) for source in found if source.step is None]
    shares = shared([sum(map(size, rows)) for _, rows in files], most)
    for (source, rows), share in zip(files, shares, strict=True):
        for row in rows:
            share -= size(row)
            if share < 0:
                replies.left[source.stage] += 1
            else:
                replies.rows.append(row)
    return replies


def _wrong_of(source: Source, most: int, left: Counter[str]) -> list[Json]:
    rows: list[Json] = []
    for row in read_lines(source.path):
        if is_right(row) is False:
            most -= size(row)
            if most < 0:
                left[source.stage] += 1
            else:
                rows.append({**row, "stage": source.stage, "task": source.task or row.get("task")})
    return rows


def shared(wanted: Sequence[int], room: int) -> list[int]:
    """What each gets of `room`: all it wants, or as much as any other that wants more.

    >>> shared([10, 500, 40], 100)
    [10, 50, 40]
    """
    found, left = [0] * len(wanted), len(wanted)
    for i in sorted(range(len(wanted)), key=lambda i: wanted[i]):
        found[i] = min(wanted[i], room // left)
        room, left = room - found[i], left - 1
    return found


def trained(found: Iterable[Source], most: int = MOST_TRAINED) -> Replies:
    """Rollouts of the kept steps of each stage, steps evenly spaced, of each some from the worst to the best."""
    stages: dict[str, list[Source]] = {}
    for source in found:
        if source.step is not None:
            stages.setdefault(source.stage, []).append(source)
    replies = Replies()
    for stage, steps in stages.items():
        chosen = spaced(steps, STEPS)
        replies.left[stage] += len(steps) - len(chosen)
        room, a_step = most // len(stages) // len(chosen), max(A_STEP[0], min(A_STEP[1], ALL // len(chosen)))
        for source in chosen:
            replies.rows += _of_step(source, a_step, room)
    return replies


def _of_step(source: Source, count: int, room: int) -> list[Json]:
    rows = []
    for row in pick(list(read_lines(source.path)), count):
        room -= size(row)
        if room >= 0 or not rows:
            rows.append({**row, "stage": source.stage, "step": source.step})
    return rows


def spaced(steps: Sequence[Source], count: int) -> list[Source]:
    """At most `count` of them, the first and the last among them."""
    if len(steps) <= count:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / (count - 1))] for i in range(count)]


def size(row: Json) -> int:
    return min(len(str(row.get("reply") or "")), MOST_CHARACTERS) + BESIDE


def more_completions(run_dir: Path) -> str:
    """The part of the page's completions; "" where there is nothing."""
    found = sources(run_dir)
    missed, kept = wrong(found), trained(found)
    return "".join((
        _group("Wrong replies, held out", missed.rows, lambda row: f"{row['stage']}, {row['task']}",
               [f"{n:,} more of {stage}" for stage, n in missed.left.items() if n]),
        _group("Rollouts of training", kept.rows, lambda row: f"{row['stage']}, step {row['step']}",
               [f"{n:,} more kept steps of {stage}" for stage, n in kept.left.items() if n]),
    ))  # fmt: skip


def _group(title: str, rows: Sequence[Json], name: Callable[[Json], str], left: Sequence[str]) -> str:
    groups: dict[str, list[Json]] = {}
    for row in rows:
        groups.setdefault(name(row), []).append(row)
    folds = "".join(
        f"<details><summary><b>{escape(key)}</b> {len(mine)}</summary>"
        f"{''.join(card(str(row['stage']), str(row.get('task')), named(row)) for row in mine)}</details>"
        for key, mine in groups.items()
    )
    more = f"Not on this page: {escape(', '.join(left))}; <code>temper ui</code> shows all." if left else ""
    about = f'<p class="small">{more}</p>' if more else ""
    return f"<h3>{title}</h3>{about}{folds}" if rows else ""


def named(row: Json) -> Json:
    """A row that says where it stands: at its prompt and sample."""
    told = [str(row.get("prompt_id") or ""), f"sample {row['sample']}" if isinstance(row.get("sample"), int) else ""]
    told += [str(row["rank"])] if "rank" in row else []
    return {**row, "rank": ", ".join(filter(None, told))}
