"""Questions to an index: which completions fit, a page of them, how their rewards are spread, one prompt's group."""

from __future__ import annotations

import json
import re
import sqlite3
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from temper.ui.index import prompt_key, reward_names

PAGE = 50
MOST_GROUP = 512
BEGUN = 3  # letters from which a word stands for all that begin with it
BINS = 20
SORTS = {"": "id", "total": "total", "tokens": "tokens", "advantage": "advantage"}
MATCHES = "id IN (SELECT rowid FROM words WHERE words MATCH ?)"  # the last condition of a filter, if it is one
HELD_OUT = -1  # the step of completions that no training step drew

Json = dict[str, Any]


TEXTS = ("stage", "task", "language", "prompt", "prompt_id", "verdict", "text", "sort")


class WrongFilter(Exception):
    """A filter that cannot be."""


@dataclass(frozen=True)
class Filter:
    """Which completions: None and empty mean any. `step` -1 is held-out samples; `low` and `high` bound the reward
    `by` (or total, tokens, advantage), both inclusive."""

    stage: str = ""
    step: int | None = None
    task: str = ""
    language: str = ""  # of the thinking, by its first words; "mixed"
    prompt: str = ""  # its number in the index
    prompt_id: str = ""  # of `task`
    verdict: str = ""  # "right" or "wrong"
    truncated: bool | None = None
    by: str = "total"
    low: float | None = None
    high: float | None = None
    text: str = ""
    sort: str = ""
    down: bool = False


def read_filter(given: Mapping[str, str]) -> Filter:
    """A filter from the parameters of an address. Raises WrongFilter.

    >>> wanted = read_filter({"stage": "rl", "step": "10", "low": "0.5", "truncated": "no"})
    >>> wanted.stage, wanted.step, wanted.low, wanted.truncated, wanted.by
    ('rl', 10, 0.5, False, 'total')
    """
    try:
        step = int(given["step"]) if given.get("step") else None
        low, high = (float(given[key]) if given.get(key) else None for key in ("low", "high"))
    except ValueError:
        raise WrongFilter("`step`, `low` and `high` are numbers") from None
    if step is not None and abs(step) >= 1 << 62:
        raise WrongFilter("`step` is out of range")
    if given.get("verdict", "") not in ("", "right", "wrong"):
        raise WrongFilter("`verdict` is right or wrong")
    if given.get("sort", "") not in SORTS:
        raise WrongFilter(f"`sort` is one of {', '.join(filter(None, SORTS))}")
    truncated = {"yes": True, "no": False}.get(given.get("truncated", ""))
    texts = {key: given.get(key, "") for key in TEXTS}
    return Filter(**texts, step=step, truncated=truncated, by=given.get("by") or "total", low=low, high=high,
                  down=given.get("down") == "yes")  # fmt: skip


def words_of(text: str) -> str | None:
    """What is asked of the index of words: all of them; the last, from three letters on, may only have begun. None for
    no word.

    >>> words_of('38+33 "carry'), words_of("carry 38"), words_of("…")
    ('"38" AND "33" AND "carry"*', '"carry" AND "38"', None)
    """
    words = re.findall(r"[^\W_]+", text)[:20]
    if not words:
        return None
    return " AND ".join(f'"{word}"' for word in words) + ("*" if len(words[-1]) >= BEGUN else "")


class Reader:
    """One connection to an index, for one question."""

    def __init__(self, connection: sqlite3.Connection):
        self.connection = connection
        self.rewards = reward_names(connection)

    def number(self, kind: str, name: str) -> int:
        """-1 for a name that no completion has."""
        found = self.connection.execute("SELECT id FROM names WHERE kind = ? AND name = ?", (kind, name)).fetchone()
        return found[0] if found else -1

    def name(self, number: int) -> str:
        found = self.connection.execute("SELECT name FROM names WHERE id = ?", (number,)).fetchone()
        return found[0] if found else ""

    def column(self, name: str) -> str:
        """Where a reward, or what else can be measured, stands. Raises WrongFilter."""
        if name in ("total", "tokens", "advantage"):
            return name
        if name in self.rewards:
            return f"r{self.rewards.index(name)}"
        raise WrongFilter(f"no reward `{name[:100]}` here")

    def where(self, wanted: Filter, but: str = "") -> tuple[str, list[Any]]:
        """The condition of a filter and its values; `but` leaves one part out."""
        parts: list[tuple[str, str, Any]] = []
        for key in ("stage", "task", "language"):
            if value := getattr(wanted, key):
                parts.append((key, f"{key} = ?", self.number(key, value)))
        if wanted.prompt:
            parts.append(("prompt", "prompt = ?", _whole(wanted.prompt)))
        if wanted.prompt_id:
            parts.append(("prompt", "prompt = ?", self.number("prompt", prompt_key(wanted.task, wanted.prompt_id))))
        if wanted.step is not None:
            parts.append(("step", "step = ?", wanted.step))
        if wanted.verdict:
            parts.append(("verdict", "verdict = ?", int(wanted.verdict == "right")))
        if wanted.truncated is not None:
            parts.append(("truncated", "truncated = ?", int(wanted.truncated)))
        for sign, bound in ((">=", wanted.low), ("<=", wanted.high)):
            if bound is not None:
                parts.append(("reward", f"{self.column(wanted.by)} {sign} ?", bound))
        if wanted.text and (words := words_of(wanted.text)):
            parts.append(("text", MATCHES, words))
        kept = [(sql, value) for key, sql, value in parts if key != but]
        return " AND ".join(sql for sql, _ in kept) or "1", [value for _, value in kept]

    def page(self, wanted: Filter, start: int, count: int = PAGE) -> Json:
        """{"rows", "total"}: the completions from the `start`-th on that fit, and how many do."""
        condition, values = self.where(wanted)
        if wanted.text and words_of(wanted.text):  # looked up once for the count and the page
            self.connection.execute("DROP TABLE IF EXISTS temp.hits")
            self.connection.execute("CREATE TEMP TABLE hits (id INTEGER PRIMARY KEY)")
            self.connection.execute("INSERT INTO hits SELECT rowid FROM words WHERE words MATCH ?", [values.pop()])
            condition = condition.replace(MATCHES, "id IN hits")
        total = self.connection.execute(f"SELECT count(*) FROM rows WHERE {condition}", values).fetchone()[0]
        order = SORTS[wanted.sort]
        down = "DESC" if wanted.down else "ASC"
        ranked = f"{order} IS NULL, {order} {down}, id" if wanted.sort else f"id {down}"
        found = self.connection.execute(
            f"SELECT id FROM rows WHERE {condition} ORDER BY {ranked} LIMIT ? OFFSET ?",
            [*values, max(1, min(count, 500)), max(0, min(start, 1 << 40))],
        ).fetchall()
        return {"rows": self.bodies([number for (number,) in found]), "total": total}

    def bodies(self, numbers: list[int]) -> list[Json]:
        """The completions with these numbers, in this order."""
        marks = ", ".join("?" * len(numbers))
        query = (
            "SELECT rows.id, body, s.name, step, t.name, prompt FROM rows JOIN bodies USING (id) "
            f"JOIN names s ON s.id = stage JOIN names t ON t.id = task WHERE rows.id IN ({marks})"
        )
        found = {}
        for number, body, stage, step, task, prompt in self.connection.execute(query, numbers):
            row = json.loads(zlib.decompress(body))
            about = {"id": number, "stage": stage, "step": None if step == HELD_OUT else step, "task": task}
            found[number] = {**row, **about, "prompt_number": prompt}
        return [found[number] for number in numbers if number in found]

    def group(self, number: int) -> list[Json]:
        """All completions of the same prompt, by the same stage at the same step as one of them."""
        found = self.connection.execute("SELECT prompt, stage, step FROM rows WHERE id = ?", (number,)).fetchone()
        if found is None:
            return []
        query = "SELECT id FROM rows WHERE prompt = ? AND stage = ? AND step = ? ORDER BY sample, id LIMIT ?"
        return self.bodies([n for (n,) in self.connection.execute(query, (*found, MOST_GROUP))])

    def elsewhere(self, number: int) -> list[Json]:
        """Where else the prompt of a completion was sampled: stage, step, how many, their mean total, one's number."""
        found = self.connection.execute("SELECT prompt FROM rows WHERE id = ?", (number,)).fetchone()
        return self.samples_of(found[0]) if found else []

    def of_prompt(self, task: str, prompt_id: str, text: str) -> list[Json]:
        """As `elsewhere`, of the prompt that another run calls so, where it reads the same here."""
        found = self.samples_of(self.number("prompt", prompt_key(task, prompt_id)))
        same = [row["prompt"] == text for row in self.bodies([at["id"] for at in found[:1]])]
        return found if any(same) else []

    def samples_of(self, prompt: int) -> list[Json]:
        """Where a prompt was sampled, by its number."""
        query = (
            "SELECT s.name, step, count(*), avg(total), min(rows.id) FROM rows JOIN names s ON s.id = stage "
            "WHERE prompt = ? GROUP BY stage, step ORDER BY stage, step LIMIT 200"
        )
        names = ("stage", "step", "count", "mean", "id")
        rows = [dict(zip(names, row, strict=True)) for row in self.connection.execute(query, (prompt,))]
        return [{**row, "step": None if row["step"] == HELD_OUT else row["step"]} for row in rows]

    def facets(self) -> Json:
        """What can be filtered by: stages with their steps, tasks, rewards, and how many rows there are."""
        steps: dict[str, list[Json]] = {}
        query = "SELECT stage, step, count(*) FROM rows GROUP BY stage, step ORDER BY stage, step"
        for stage, step, count in self.connection.execute(query):
            at = None if step == HELD_OUT else step
            steps.setdefault(self.name(stage), []).append({"step": at, "count": count})
        tasks, languages = (
            [name for (name,) in self.connection.execute(
                "SELECT name FROM names WHERE kind = ? ORDER BY name LIMIT 200", (kind,))]
            for kind in ("task", "language")
        )  # fmt: skip
        stages = [{"stage": stage, "steps": found} for stage, found in steps.items()]
        return {"stages": stages, "tasks": tasks, "languages": languages, "rewards": self.rewards,
                "rows": sum(at["count"] for found in steps.values() for at in found)}  # fmt: skip

    def histogram(self, wanted: Filter, name: str) -> Json:
        """How the values of a reward are spread over those that fit: `bins` are [low, high, count], equal in width;
        the filter's own bounds on a reward are left out."""
        column = self.column(name)
        condition, values = self.where(wanted, but="reward")
        among = f"FROM rows WHERE {column} IS NOT NULL AND {condition}"
        low, high = self.connection.execute(f"SELECT min({column}), max({column}) {among}", values).fetchone()
        if low is None:
            return {"name": name, "bins": []}
        count = BINS if high > low and high - low < float("inf") else 1
        width = (high - low) / count if count > 1 else 0.0
        bins = [[low + i * width, low + (i + 1) * width, 0] for i in range(count)]
        bins[-1][1] = high
        place = f"min({count - 1}, CAST(({column} - ?) / ? AS INTEGER))"
        query = f"SELECT {place} AS bin, count(*) {among} GROUP BY bin"
        for i, found in self.connection.execute(query, [low, width or 1.0, *values]):
            bins[i][2] = found
        return {"name": name, "bins": bins}


def _whole(text: str) -> int:
    return int(text) if re.fullmatch(r"\d{1,18}", text) else -1
