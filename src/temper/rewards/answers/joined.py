"""Values out of values: unions, intersections, pairs as intervals, digits in a base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from temper.rewards.answers.tokens import Token
from temper.rewards.answers.values import Interval, Number, Several, Union, Value, Words, same


def renamed(value: Value, name: str) -> Value:
    """The same value under a name."""
    return value if value.name == name else replace(value, name=name)


def intersection(items: Sequence[Value]) -> Value | None:
    """`x >= -2 and x <= 7`: what lies in two half lines that point at each other."""
    ends = [item for item in items if isinstance(item, Interval) and item.name]
    if len(items) != 2 or len(ends) != 2 or ends[0].name != ends[1].name:
        return None
    up, down = ends if ends[0].low is not None else ends[::-1]
    if up.low is None or up.high is not None or down.low is not None or down.high is None:
        return None
    return Interval(up.brackets[0] + down.brackets[1], up.low, down.high, name=up.name)


def repeats(items: Sequence[Value]) -> bool:
    """Whether a value stands twice."""
    return any(same(item, other) for i, item in enumerate(items) for other in items[:i])


def as_interval(value: Value) -> Value:
    """A pair as the interval that it can be, anything else as it is."""
    if isinstance(value, Several) and value.form in ("(", "[") and len(value.items) == 2:
        low, high = value.items
        if isinstance(low, Number) and isinstance(high, Number):
            return Interval("()" if value.form == "(" else "[]", low.exact, high.exact)
    return value


def union(items: Sequence[Value]) -> Value:
    """Intervals and sets as one union. Raises ValueError for anything else."""
    parts: list[Value] = []
    name = ""
    for item in items:
        item = as_interval(item)
        name = name or item.name
        if item.name not in ("", name):
            raise ValueError("the inequalities have several variables")
        if isinstance(item, Union):
            parts += item.parts
        elif isinstance(item, Several) and item.form == "set":
            parts += item.items
        elif isinstance(item, Interval):
            parts.append(renamed(item, ""))
        else:
            raise ValueError("a part of the union is no interval")
    return Union(tuple(parts), name=name)


def in_base(tokens: Sequence[Token]) -> Value | None:
    """Digits with the base as a subscript: `2516_8`, `1A3_{16}`."""
    words = [token for token in tokens if token.text not in ("(", ")", "{", "}")]
    if len(words) == 3 and words[1].text.lower() == "base" and words[0].kind == "number":
        tokens = [words[0], words[1]._replace(text="_"), words[2]]
    at = next((i for i, token in enumerate(tokens) if token.text == "_"), 0)
    if not at or any(token.kind not in ("number", "word", "name") for token in tokens[:at]):
        return None
    if not any(token.kind == "number" for token in tokens[:at]) and not all(token.roman for token in tokens[:at]):
        return None
    base = [token for token in tokens[at + 1 :] if token.text not in ("{", "}")]
    digits = "".join(token.text for token in tokens[:at]).upper()
    if len(base) != 1 or not digits.isalnum():
        raise ValueError("the base of the number is none")
    name = _BASES.get(base[0].text.lower(), base[0].text)
    if not name.isdigit() or not 2 <= int(name[:4]) <= 36 or any(int(digit, 36) >= int(name) for digit in digits):
        raise ValueError("the base of the number is none")
    return Words("base", (digits.lstrip("0") or "0", name))


_BASE_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_BASES = {word: str(i + 2) for i, word in enumerate(_BASE_WORDS)} | {"sixteen": "16"}


def is_plain(tokens: Sequence[Token]) -> bool:
    """Whether no variable stands there."""
    return all(token.kind != "name" or token.text in ("e", "i") for token in tokens)
