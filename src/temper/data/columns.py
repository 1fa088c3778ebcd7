"""The columns of a file and what stands in them: found by name or by a path of names with dots, told apart by value."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, get_args

from temper.data.gold import agree
from temper.data.messages import is_dialogue, is_message, is_messages, turns_of
from temper.data.names import folded
from temper.data.rows import NOTHING, Number, Row, decode
from temper.types import AnswerType

ANSWER_TYPES: tuple[AnswerType, ...] = get_args(AnswerType)
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")


def value_at(values: Mapping[str, Any], path: str) -> Any:
    """What stands in a column, or below it where `path` has dots; `NOTHING` where there is none. A column whose own
    name has dots comes first; a text that holds a JSON object is opened.

    >>> value_at({"reward_model": {"ground_truth": "5"}}, "reward_model.ground_truth")
    '5'
    >>> value_at({"info": '{"gold": ["7"]}'}, "info.gold.0")
    '7'
    """
    if path in values:
        return values[path]
    head, dot, rest = path.partition(".")
    while dot:
        if head in values:
            return _inside(values[head], rest)
        more, dot, rest = rest.partition(".")
        head = f"{head}.{more}"
    return NOTHING


def _inside(value: Any, path: str) -> Any:
    if isinstance(value, str):
        value = opened(value)
    if isinstance(value, list):
        head, _, rest = path.partition(".")
        if not (head.isascii() and head.isdigit()) or int(head) >= len(value):
            return NOTHING
        return _inside(value[int(head)], rest) if rest else value[int(head)]
    return value_at(value, path) if isinstance(value, dict) else NOTHING


@lru_cache(maxsize=64)
def opened(text: str) -> Any:
    """The list or object that a text holds as JSON; the text itself where it holds none."""
    if not text.lstrip().startswith(("{", "[")) or len(text) > 1 << 20:
        return text
    try:
        decoded = decode(text)
    except json.JSONDecodeError:
        return text
    whole = not text[decoded.end :].strip() and not decoded.problems
    return decoded.value if whole and isinstance(decoded.value, (dict, list)) else text


def paths(value: Any, below: str = "", deep: int = 3) -> Iterable[str]:
    """Every path below a column, for what a fault may offer."""
    if isinstance(value, dict) and deep:
        for key, inner in list(value.items())[:40]:
            path = f"{below}.{key}" if below else key
            yield path
            yield from paths(inner, path, deep - 1)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_answer(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, Number) or _is_text(item) for item in value)
    return isinstance(value, Number) or _is_text(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        try:
            return bool(float(value) + 1)
        except ValueError:
            return False
    return isinstance(value, (bool, Number))


def number_of(value: Any) -> float | None:
    """Numbers, true and false, and numbers written as text (all that a CSV file has).

    >>> number_of(True), number_of("0.5"), number_of("good")
    (1.0, 0.5, None)
    """
    if isinstance(value, bool):
        return float(value)
    text = value.text if isinstance(value, Number) else value
    try:
        return float(text) if isinstance(text, str) and text.strip() else None
    except ValueError:
        return None


def share_of(value: Any) -> float | None:
    """A number from 0 to 1: how right a reply or a step is."""
    number = number_of(value)
    return number if number is not None and 0 <= number <= 1 else None


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


def _is_tests(value: Any) -> bool:
    """Tests for programs; an object that holds something else, a gold answer for example, is none."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    return any(name in value for name in _OF_TESTS) if isinstance(value, dict) else bool(value)


def _is_ranking(value: Any) -> bool:
    items = value if isinstance(value, list) else []
    return len(items) > 1 and all(_is_text(item) or isinstance(item, dict | list) for item in items)


_OF_TESTS = ("test_cases", "tests", "inputs", "input", "functional", "fn_name")

# Whether a value can play a role. A column of which no row can means something else.
PLAYS: dict[str, Callable[[Any], bool]] = {
    "prompt": lambda value: _is_text(value) or is_messages(value),
    "answer": _is_answer,
    "thinking": _is_text,
    "completion": lambda value: _is_text(value) or is_messages(value),
    "messages": lambda value: is_messages(value) or is_dialogue(value),
    "chosen": lambda value: _is_text(value) or is_messages(value) or is_message(value),
    "rejected": lambda value: _is_text(value) or is_messages(value) or is_message(value),
    "label": _is_number,
    "labels": lambda value: isinstance(value, list) and bool(value),
    "ranking": _is_ranking,
    "ranks": lambda value: isinstance(value, list) and bool(value),
    "steps": _is_texts,
    "tests": _is_tests,
    "text": _is_text,
    "id": lambda value: isinstance(value, Number) or _is_text(value),
    "language": lambda value: isinstance(value, str) and LANGUAGE.fullmatch(value) is not None,
    "answer_type": lambda value: isinstance(value, str) and value in ANSWER_TYPES,
    "margin": _is_number,
    "letter": lambda value: isinstance(value, str) and re.fullmatch("[A-J]", value.strip()) is not None,
    "context": _is_text,
    "system": _is_text,
}


class Table:
    """The columns of a file by name, and where its rows are known what stands in them.

    >>> Table(["Question", "answer"]).named("question")
    ['Question']
    """

    def __init__(self, columns: Iterable[str], rows: Sequence[Row] = ()):
        self.columns = list(dict.fromkeys(columns))
        self.rows = rows
        self._folded: dict[str, list[str]] = {}
        for column in self.columns:
            self._folded.setdefault(folded(column), []).append(column)
        self._usable: dict[tuple[str, str], bool] = {}

    def named(self, name: str) -> list[str]:
        """The columns of this name, as the file writes it; a path with dots is looked for in the rows."""
        if name in self.columns:
            return [name]
        if found := self._folded.get(folded(name)):
            return found
        return [name] if "." in name and self.has(name) else []

    def has(self, column: str) -> bool:
        """Whether there is such a column, or such a path in any row."""
        if column in self.columns:
            return True
        return "." in column and any(value_at(row.values, column) is not NOTHING for row in self.rows)

    def values(self, column: str) -> Iterable[Any]:
        return (value_at(row.values, column) for row in self.rows)

    def can(self, column: str, role: str) -> bool:
        """Whether any row's value can play this role; true where no row is known."""
        if not self.rows or role not in PLAYS:
            return True
        key = (column, role)
        if key not in self._usable:
            self._usable[key] = any(map(PLAYS[role], self.values(column)))
        return self._usable[key]

    def any(self, column: str, test: Callable[[Any], bool]) -> bool:
        return any(map(test, self.values(column)))

    def same(self, role: str, one: str, other: str) -> bool:
        """Whether two columns say the same in every row: word for word, one holding the other's words (a prompt and the
        messages it is in), or answers of one value."""
        if not self.rows:
            return False
        alike = _SAME.get(role, _equal)
        return all(alike(a, b) for a, b in zip(self.values(one), self.values(other), strict=True))


def _equal(one: Any, other: Any) -> bool:
    return one == other


def _same_prompt(one: Any, other: Any) -> bool:
    """Equal, or the first holds the second: a question inside the messages that ask it."""
    wanted = " ".join(_asked(other).split())
    return one == other or (bool(wanted) and wanted in " ".join(_asked(one).split()))


def _asked(value: Any) -> str:
    """All that the user says."""
    if isinstance(value, str):
        return value
    if is_dialogue(value):
        return "\n".join(value[::2])
    return "\n".join(text for role, text in turns_of(value) if role == "user")


def _same_answer(one: Any, other: Any) -> bool:
    if one == other:
        return True
    texts = [value.text if isinstance(value, Number) else value for value in (one, other)]
    return all(isinstance(text, str) for text in texts) and agree(*texts)


_SAME: dict[str, Callable[[Any, Any], bool]] = {"prompt": _same_prompt, "answer": _same_answer}
