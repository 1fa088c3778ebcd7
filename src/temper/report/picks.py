"""Which completions a report shows: from the worst to the best, evenly spaced, so that nothing is cherry-picked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = 9


def total(row: Mapping[str, Any]) -> float:
    """A row's total reward; rows that have none (or no finite one) rank last."""
    value = row.get("total")
    return value if isinstance(value, (int, float)) and value == value else float("-inf")


def rank(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows from the worst to the best total; equal ones by all their rewards, then by prompt and sample."""
    return sorted(rows, key=lambda row: (total(row), _all(row), str(row.get("prompt_id")), str(row.get("sample"))))


def _all(row: Mapping[str, Any]) -> float:
    rewards = row.get("rewards")
    values = rewards.values() if isinstance(rewards, dict) else ()
    return sum(value for value in values if isinstance(value, (int, float)) and value == value)


def pick(rows: Sequence[Mapping[str, Any]], count: int = SHOWN) -> list[dict[str, Any]]:
    """`count` rows at even distances of rank, worst first, each with its `rank`: "worst", "median", "best" or a share,
    and how many are `equal` to it (the same reply to the same prompt), itself among them; of equal ones one is shown.

    >>> [(row["total"], row["rank"]) for row in pick([{"total": t} for t in (3, 1, 2, 5, 4)], count=3)]
    [(1, 'worst'), (3, 'median'), (5, 'best')]
    """
    ordered = rank(rows)
    if not ordered:
        return []
    last = len(ordered) - 1
    slots = min(count, len(ordered))
    places = [round(i * last / max(1, slots - 1)) for i in range(slots)] if slots > 1 else [last]
    names = {0: "worst", len(places) // 2: "median", len(places) - 1: "best"} if len(places) > 2 else {}
    names = names or ({0: "worst", 1: "best"} if len(places) == 2 else {0: "only one"})
    equal = Counter(map(_key, rows))
    shown: dict[tuple[Any, ...], dict[str, Any]] = {}
    for i, place in enumerate(places):
        row = ordered[place]
        told = {**row, "rank": names.get(i, f"better than {place / max(1, last):.0%}"), "equal": equal[_key(row)]}
        shown.setdefault(_key(row) if i not in names else (i,), told)
    return list(shown.values())


def folded(rows: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], int]]:
    """Rows in order, equal replies to the same prompt once, each with how many there are of it.

    >>> reply = {"stage": "rl", "prompt_id": "a:1", "reply": "4", "total": 1.0}
    >>> [(row["sample"], count) for row, count in folded([{**reply, "sample": i} for i in range(3)])]
    [(0, 3)]
    """
    counts: dict[tuple[str, ...], tuple[dict[str, Any], int]] = {}
    for row in rows:
        first, count = counts.get(_key(row), (row, 0))
        counts[_key(row)] = first, count + 1
    return list(counts.values())


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row.get(name)) for name in ("stage", "step", "task", "prompt_id", "reply", "total"))
