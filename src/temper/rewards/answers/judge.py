r"""Is an answer the gold answer? Gold answers are read once; what a model writes is read in their light.

    gold = read_gold(r"\frac{\sqrt{3}}{3}")
    answer_of(gold, r"so $x = \boxed{\frac{1}{\sqrt3}}$.").right    # True

Nothing of a model's text is evaluated beyond one bounded normal form; the time is bounded whatever the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from temper.rewards.answers import units
from temper.rewards.answers.boxes import boxes_of, has_box
from temper.rewards.answers.layout import MAX_CHARACTERS, undress, words_of
from temper.rewards.answers.normal import (
    factor_count,
    has_fraction,
    has_function,
    has_number_power,
    is_expanded,
    names_in,
)
from temper.rewards.answers.parser import Node
from temper.rewards.answers.read import Reader
from temper.rewards.answers.ring import UNIT, Quotient
from temper.rewards.answers.units import NOTHING, Around
from temper.rewards.answers.values import (
    Interval,
    Matrix,
    Number,
    Relation,
    Several,
    Union,
    Value,
    Words,
    proportional,
    same,
)
from temper.rewards.answers.words import (
    choice,
    choice_with_text,
    date_of,
    gold_words,
    is_noun,
    plain_words,
    says_option,
    singular,
    time_of,
)

_PERCENT = re.compile(
    r"(?<![\d.])(?<![\d.]\s)(?<!\\)(?<!\d\\)(?:percent(?:age)?s?|per\s+cent|prozent|\\?%|百分)", re.IGNORECASE
)
_FACTOR = re.compile(r"\bfactor(?:i[sz]e|ed|i[sz]ed|ing)?\b", re.IGNORECASE)
_EXPAND = re.compile(r"\b(?:expand(?:ed)?|multiply out|distribut\w+)\b", re.IGNORECASE)
_ONLY_WORDS = re.compile(r"[^\W\d_][^\W\d_'\-. ]*(?:[ '\-.]+[^\W\d_]+)*\.?")
_PHANTOM = re.compile(r"\\phantom\s*(?:\{[^{}]*\}|.)")
_NAMED = re.compile(r"\\(?:overline|angle|triangle|widehat)(?![A-Za-z])")  # the segment CD
_ECHO = 6  # characters from which on an expression that stands in the question is a copy of it
_PLANE = frozenset("xyz")


@dataclass(frozen=True)
class Gold:
    """A gold answer: its text, its value, and what that says about how an answer is to be read."""

    text: str
    value: Value
    names: frozenset[str] = frozenset()
    units: frozenset[str] = frozenset()
    powers: bool = False
    functions: bool = False
    fractions: bool = False
    written: tuple[Node, ...] = field(default=(), repr=False)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model answered, in the light of the gold answer. Two answers are equal where a majority should count them
    as one: the same value, the gold answer's unit and variable given or left out."""

    value: Value
    right: bool
    apart: tuple[object, ...] = ()  # a unit, a variable, a percent sign that the gold answer does not have

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Answer):
            return NotImplemented
        return (self.right, self.apart) == (other.right, other.apart) and (
            self.right or same(self.value, other.value)
        )

    def __hash__(self) -> int:
        return hash((type(self.value).__name__, self.right, self.apart))


@lru_cache(maxsize=4096)
def read_gold(text: str) -> Gold:
    r"""A gold answer in its final form. Raises ValueError with the reason where it cannot be verified.

    >>> read_gold(r"\$1,234.50").value.around.unit
    (('USD', 1),)
    >>> read_gold("so many things could be said here about it")
    Traceback (most recent call last):
        ...
    ValueError: it is no value, no choice and no few words: a value is missing
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"it is longer than {MAX_CHARACTERS} characters")
    plain = undress(_PHANTOM.sub("", _unboxed(text.strip())))
    said = words_of(plain)
    value = _gold_words(text, said)
    if value is not None:
        return Gold(text, value)
    reader = Reader(gold=True)
    try:
        return _gold_of(text, reader.text(plain), reader)
    except ValueError as error:
        words = gold_words(_NAMED.sub("", said))
        if words:
            return Gold(text, Words("words", (words,)))
        raise ValueError(f"it is no value, no choice and no few words: {error}") from None


def _unboxed(text: str) -> str:
    boxed = boxes_of(text) if has_box(text) else []
    return boxed[0].content if len(boxed) == 1 and text.startswith("\\") and text.endswith("}") else text


def _gold_words(text: str, said: str) -> Value | None:
    """The gold answer as words, where it holds nothing else."""
    letter = choice(said) if len(said) > 1 or said.isupper() else ""
    if letter:
        return Words("choice", (letter,))
    letter, _ = choice_with_text(said)
    if letter:
        return Words("choice", (letter,))
    for form, parts in (("time", time_of(said)), ("date", date_of(said))):
        if parts:
            return Words(form, parts)
    if _ONLY_WORDS.fullmatch(said) and (len(said) > 4 or "$" not in text) and len(said) > 1 and said not in ("pi",):
        words = gold_words(said)
        return Words("words", (words,)) if words else None
    return None


def _gold_of(text: str, value: Value, reader: Reader) -> Gold:
    written = tuple(reader.written)
    return Gold(
        text,
        value,
        names=frozenset().union(*(names_in(node) for node in written), _names(value)),
        units=frozenset(name for name, _ in value.around.unit),
        powers=any(has_number_power(node) for node in written),
        functions=any(has_function(node) for node in written),
        fractions=any(has_fraction(node) for node in written),
        written=written,
    )


def _names(value: Value) -> frozenset[str]:
    items = value.items if isinstance(value, Several) else ()
    return frozenset(name for name in (value.name, *(item.name for item in items)) if len(name) == 1)


def answer_of(gold: Gold, text: str, question: str = "") -> Answer | None:
    r"""What a model answered, None where that is not one final form.

    >>> gold = read_gold("x = 5")
    >>> [answer_of(gold, text).right for text in ("5", r"so \boxed{x=5}", "5.0", "y = 5")]
    [True, True, True, False]
    >>> answer_of(gold, "4 or 5").right, answer_of(gold, "2+3")
    (False, None)
    """
    try:
        if has_box(text):
            return _boxed_answer(gold, text, question)
        if len(text) > MAX_CHARACTERS:
            return None
        answer = _read(gold, text.strip(), question)
    except (ValueError, ZeroDivisionError, RecursionError):
        return None
    return _unless_copied(gold, text, question, answer)


def _boxed_answer(gold: Gold, text: str, question: str) -> Answer | None:
    boxes = boxes_of(text, question)
    if not boxes or _echoes(text, question):
        return None
    found = [_read(gold, box.money + box.content + box.unit, question) for box in dict.fromkeys(boxes)]
    if any(answer != found[0] for answer in found[1:]):
        return None
    return _unless_copied(gold, boxes[0].content, question, found[0])


def _echoes(text: str, question: str) -> bool:
    """Whether the answer is a part of the question that has a box, or holds all of it."""
    if "boxed" not in question or "\\boxed{}" in question.replace(" ", ""):
        return False
    said, asked = "".join(text.split()), "".join(question.split())
    return said != asked and len(said) > len("\\boxed{}") + 8 and (said in asked or asked in said) or said == asked or (
        any(part and part in asked for part in (said.rstrip(".!"),)) and len(said) > 20
    )


def _unless_copied(gold: Gold, text: str, question: str, answer: Answer) -> Answer | None:
    """An expression that stands in the question is no answer, unless the gold answer is written like it."""
    if not answer.right or not isinstance(answer.value, Number):
        return answer
    said = "".join(text.split()).strip("$.")
    if len(said) < _ECHO or said.replace(".", "").replace(",", "").isdigit() or not question:
        return answer
    copied = said in "".join(question.split()) and said not in "".join(gold.text.split())
    return replace(answer, right=False, apart=("copied",)) if copied and _computes(said) else answer


def _computes(said: str) -> bool:
    return "sqrt" in said or any(sign in said[1:] for sign in "+-*/^(")


def _read(gold: Gold, text: str, question: str) -> Answer:
    """One final form. Raises ValueError where it is none."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError("it is longer than a final form")
    plain = undress(text)
    if isinstance(gold.value, Words) and gold.value.form != "base":
        return _words_answer(gold, gold.value, _NAMED.sub("", words_of(plain)), question)
    if "".join(plain.split()) == _squeezed(gold.text):  # written like the gold answer
        return Answer(replace(gold.value, name="", around=NOTHING), True)
    reader = Reader(
        names=gold.names,
        units=gold.units,
        powers=gold.powers,
        functions=gold.functions,
        vulgar=gold.fractions,
        commas=isinstance(gold.value, Several) and not _is_grouped(plain, gold),
        question=question,
    )
    value = reader.text(plain)
    return _in_light(gold, value, question)


@lru_cache(maxsize=4096)
def _squeezed(text: str) -> str:
    return "".join(undress(text).split())


def _is_grouped(plain: str, gold: Gold) -> bool:
    """Whether some item of the gold answer is written with commas in its number."""
    return bool(re.search(r"\d,\d{3}(?!\d)", gold.text)) and ", " in plain


def _words_answer(gold: Gold, wanted: Words, said: str, question: str) -> Answer:
    if not said:
        raise ValueError("there is nothing")
    parts: tuple[str, ...] | None
    if wanted.form == "choice":
        letter = choice(said)
        if not letter:
            letter, rest = choice_with_text(said)
            if not letter and re.match(r"[(\[]?[A-J][)\]]?\s", said):
                letter, rest = said.strip("([")[0], said.strip("([")[1:].lstrip(")] ")
            if not letter or not (says_option(question, letter, rest) or _is_gold_text(gold, rest)):
                raise ValueError("it is no choice")
        parts = (letter,)
    elif wanted.form in ("time", "date"):
        parts = time_of(said) if wanted.form == "time" else date_of(said)
        if parts is None:
            parts = (plain_words(said),)
    else:
        parts = (plain_words(said),)
    value = Words(wanted.form, parts)
    return Answer(value, same(value, wanted))


def _is_gold_text(gold: Gold, rest: str) -> bool:
    _, text = choice_with_text(words_of(undress(gold.text)))
    return bool(text) and "".join(text.split()) == "".join(rest.split())


def _in_light(gold: Gold, value: Value, question: str) -> Answer:
    """The answer with what the gold answer has and it leaves out, and the other way round."""
    wanted, value = _one_kind(gold.value, value, question)
    apart = [*_apart(wanted, value, question, top=True)]
    right = not apart and _equal(wanted, value, question) and _formed(gold, wanted, value, question)
    return Answer(replace(value, name="", around=NOTHING), right, tuple(apart))


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
    if isinstance(wanted, Words) and isinstance(value, Number) and _in_base(question, wanted.parts[-1]):
        digits = value.exact.number
        if digits is not None and str(digits) == wanted.parts[0]:
            return wanted, wanted
    if isinstance(value, Words) and isinstance(wanted, Number) and value.form == "base":
        if _in_base(question, value.parts[-1]) and str(wanted.exact.number) == value.parts[0]:
            return wanted, replace(wanted, around=NOTHING, name="")
    return wanted, value


def _in_base(question: str, base: str) -> bool:
    names = {"2": "binary|two", "3": "three", "4": "four", "5": "five", "6": "six", "7": "seven", "8": "eight|octal"}
    return bool(re.search(rf"\bbase[ $-]*(?:{base}\b|{names.get(base, base)})", question, re.IGNORECASE))


def _as_span(value: Value) -> Value:
    if isinstance(value, Several) and value.form in ("(", "[") and len(value.items) == 2:
        low, high = value.items
        if isinstance(low, Number) and isinstance(high, Number):
            return Interval("()" if value.form == "(" else "[]", low.exact, high.exact, name=value.name)
    return value


def _apart(wanted: Value, value: Value, question: str, top: bool = False) -> list[object]:
    """What stands beside the value and is not the gold answer's: a name, a unit, a percent sign, a noun."""
    apart: list[object] = []
    if wanted.name and value.name not in ("", wanted.name) and not isinstance(value, Relation):
        equal_lines = isinstance(wanted, Number) and isinstance(value, Number) and _one_line(wanted, value)
        if not equal_lines and not (len(wanted.name) > 1 and len(value.name) > 1):
            apart.append(("name", value.name))
    mine, others = wanted.around, value.around
    if mine.percent != others.percent and not (_asks_percent(question) and not mine.unit and not others.unit):
        apart.append(("percent", others.percent))
    if mine.unit:
        if others.unit not in ((), mine.unit) and not _both_degrees(mine.unit, others.unit):
            apart.append(("unit", others.unit))
        if others.percent:
            apart.append(("percent", True))
    elif mine.nouns and others.unit:
        apart.append(("unit", others.unit))
    if others.nouns and not _may_stand(mine, others, question):
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
    return bool(others.unit) or others.percent or any(
        is_noun(noun, question, units.COUNTED) and noun not in ("of", "the", "in", "on", "a", "an", "for", "from", "at", "per")
        for noun in others.nouns
    )


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
        if not value.name and wanted.name in _PLANE and wanted.equation is not None:
            if names_in(wanted.node) & _PLANE:
                return False
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


def _formed(gold: Gold, wanted: Value, value: Value, question: str) -> bool:
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


__all__ = ["Answer", "Gold", "Matrix", "answer_of", "read_gold"]
