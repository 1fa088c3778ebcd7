"""An answer beside the gold answer: what it may leave out or add, and when the two are equal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from temper.rewards.answers import units
from temper.rewards.answers.forms import factor_count, is_expanded, names_in
from temper.rewards.answers.ring import UNIT, Quotient
from temper.rewards.answers.units import NOTHING, Around
from temper.rewards.answers.values import Interval, Number, Relation, Several, Union, Value, Words, proportional, same
from temper.rewards.answers.words import LINKS, is_noun, singular

_PERCENT = re.compile(
    r"(?<![\d.])(?<![\d.]\s)(?<!\\)(?<!\d\\)(?:percent(?:age)?s?|per\s+cent|prozent|\\?%|百分)", re.IGNORECASE
)
_FACTOR = re.compile(r"\bfactor(?:i[sz]e|ed|i[sz]ed|ing)?\b", re.IGNORECASE)
_EXPAND = re.compile(r"\b(?:expand(?:ed)?|multiply out|distribut\w+)\b", re.IGNORECASE)
_PLANE = frozenset("xyz")


def in_light(wanted: Value, value: Value, question: str) -> tuple[Value, tuple[object, ...], bool]:
    """(the answer's value as the gold answer's kind, what it has that the gold answer has not, whether it is right)."""
    wanted, value = _one_kind(wanted, value, question)
    apart = tuple(_apart(wanted, value, question))
    right = not apart and _equal(wanted, value, question) and _formed(wanted, value, question)
    return replace(value, name="", around=NOTHING), apart, right


def _one_kind(wanted: Value, value: Value, question: str) -> tuple[Value, Value]:
    """Both as the same kind, where the writing leaves two readings: (1, 2) is a pair and an interval."""
    if isinstance(wanted, Interval | Union):
        return wanted, _as_span(value)
    if isinstance(value, Interval) and isinstance(wanted, Several) and wanted.form in ("(", "["):
        return _as_span(wanted), value
    if isinstance(wanted, Relation) and isinstance(value, Number) and value.equation is not None:
        return wanted, Relation("=", value.equation)
    if isinstance(value, Relation) and isinstance(wanted, Number) and wanted.equation is not None:
        return Relation("=", wanted.equation), value
    if isinstance(wanted, Words) and isinstance(value, Number) and _says_digits(wanted, value, question):
        return wanted, wanted
    if isinstance(value, Words) and isinstance(wanted, Number) and _says_digits(value, wanted, question):
        return wanted, replace(wanted, around=NOTHING, name="")
    return wanted, value


def _says_digits(based: Words, plain: Number, question: str) -> bool:
    """Whether a number without its base has the digits of one with it, in the base that the question asks for."""
    if based.form != "base" or plain.around != NOTHING or not _in_base(question, based.parts[-1]):
        return False
    return str(plain.exact.number) == based.parts[0]


def _in_base(question: str, base: str) -> bool:
    names = {"2": "binary|two", "3": "three", "4": "four", "5": "five", "6": "six", "7": "seven", "8": "eight|octal"}
    return bool(re.search(rf"\bbase[ $-]*(?:{base}\b|{names.get(base, base)})", question, re.IGNORECASE))


def _as_span(value: Value) -> Value:
    if isinstance(value, Several) and value.form in ("(", "[") and len(value.items) == 2:
        low, high = value.items
        if isinstance(low, Number) and isinstance(high, Number):
            return Interval("()" if value.form == "(" else "[]", low.exact, high.exact, name=value.name)
    return value


def _apart(wanted: Value, value: Value, question: str) -> list[object]:
    """What stands beside the value and is not the gold answer's: a name, a unit, a percent sign, a noun."""
    apart: list[object] = []
    if wanted.name and value.name not in ("", wanted.name) and not isinstance(value, Relation):
        equal_lines = isinstance(wanted, Number) and isinstance(value, Number) and _one_line(wanted, value)
        called = len(wanted.name) > 1 and len(value.name) > 1 and not {"("} <= set(wanted.name) & set(value.name)
        if not equal_lines and not called:
            apart.append(("name", value.name))
    mine, others = wanted.around, value.around
    if mine.percent != others.percent and not (_asks_percent(question) and not mine.unit and not others.unit):
        apart.append(("percent", others.percent))
    if mine.unit:
        if others.unit not in ((), mine.unit) and not _both_degrees(mine.unit, others.unit):
            apart.append(("unit", others.unit))
        if others.percent:
            apart.append(("percent", True))
    elif (mine.nouns and others.unit) or any(name in units.AMBIGUOUS for name, _ in others.unit):
        apart.append(("unit", others.unit))
    if others.nouns and (mine.percent != others.percent or not _may_stand(mine, others, question)):
        apart.append(("noun", *others.nouns))
    return apart


def _both_degrees(one: units.Unit, other: units.Unit) -> bool:
    names = {one[0][0], other[0][0]} if len(one) == len(other) == 1 else set()
    return units.DEGREES[0][0] in names and names <= {"deg", "degC", "degF", "degK"}


def _may_stand(mine: Around, others: Around, question: str) -> bool:
    """Whether the words beside an answer only name what is counted."""
    known = {singular(noun) for noun in mine.nouns}
    said = {singular(noun) for noun in others.nouns}
    if mine.nouns:
        own = known & said
        return bool(own) and all(noun in known or is_noun(noun, question) for noun in said)
    if mine.unit and not others.unit:
        return False
    if not all(is_noun(noun, question, units.COUNTED) for noun in others.nouns):
        return False
    return bool(others.unit) or others.percent or any(noun not in LINKS for noun in others.nouns)


@lru_cache(maxsize=512)
def _asks_percent(question: str) -> bool:
    return _PERCENT.search(question) is not None


def _one_line(wanted: Number, value: Number) -> bool:
    return (
        wanted.equation is not None
        and value.equation is not None
        and proportional(wanted.equation, value.equation, "=")
    )


def _equal(wanted: Value, value: Value, question: str) -> bool:
    if isinstance(wanted, Number) and isinstance(value, Number):
        if wanted.equation is not None and value.equation is not None and value.name != wanted.name:
            return proportional(wanted.equation, value.equation, "=")
        if not value.name and wanted.name in _PLANE and wanted.equation is not None and names_in(wanted.node) & _PLANE:
            return False  # a line needs its equation
        return wanted.exact == value.exact
    if isinstance(wanted, Several) and isinstance(value, Several):
        return _several(wanted, value, question)
    return same(wanted, value)


def _several(wanted: Several, value: Several, question: str) -> bool:
    if len(wanted.items) != len(value.items):
        return False
    mine, others = list(wanted.items), list(value.items)
    ordered = not wanted.is_unordered
    if _are_named(mine) or _are_named(others):
        if _are_named(mine) and _are_named(others):
            mine, others = _by_name(mine), _by_name(others)
            return [item.name for item in mine] == [item.name for item in others] and _each(mine, others, question)
        if _are_named(mine) and (value.form == "list" or _sorted_names(mine)) and value.form in ("list", "("):
            return _each(mine, others, question)
        if wanted.form == "(" and value.form == "list":
            return _each(mine, _by_name(others), question)
    if ordered:
        return wanted.form == value.form and _each(mine, others, question)
    if not value.is_unordered:
        return False
    for item in mine:
        at = next((i for i, other in enumerate(others) if _item(item, other, question)), None)
        if at is None:
            return False
        del others[at]
    return True


def _each(mine: Sequence[Value], others: Sequence[Value], question: str) -> bool:
    return all(_item(one, other, question) for one, other in zip(mine, others, strict=True))


def _item(wanted: Value, value: Value, question: str) -> bool:
    wanted, value = _one_kind(wanted, value, question)
    return not _apart(wanted, value, question) and _equal(wanted, value, question)


def _are_named(items: Sequence[Value]) -> bool:
    names = [item.name for item in items]
    return all(names) and len(set(names)) == len(names) > 1


def _by_name(items: Sequence[Value]) -> list[Value]:
    return sorted(items, key=lambda item: item.name)


def _sorted_names(items: Sequence[Value]) -> bool:
    names = [item.name for item in items]
    return names == sorted(names)


def _formed(wanted: Value, value: Value, question: str) -> bool:
    """Whether the form is right where it counts: reduced, and factored or expanded where the question says so."""
    if not isinstance(wanted, Number) or not isinstance(value, Number):
        return True
    if _degree(value.exact) > _degree(wanted.exact):
        return False
    if not names_in(wanted.node):
        return True
    if _FACTOR.search(question) and factor_count(wanted.node) > factor_count(value.node):
        return False
    return not (_EXPAND.search(question) and is_expanded(wanted.node) and not is_expanded(value.node))


def _degree(value: Quotient) -> int:
    """The degree of the divisor, 0 for a plain sum."""
    if value.below is UNIT:
        return 0
    return max(int(sum(abs(power) for _, power in term)) for term in value.below)
