r"""The exact maths checker: the final form of an answer becomes an exact value, and two values are compared exactly.

A final form is a number, a percentage, a fraction in lowest terms, `variable = number`, a tuple `(1, 2)`, a list
`[1, 2]` or a set `\{1, 2\}`. Around it may stand `$…$`, one `\boxed{}`, Markdown emphasis, a unit, a currency, a
closing full stop or "the answer is". Everything else is no answer: nothing is ever computed from a model's text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from temper.rewards.box import Box, find_box, stands_alone
from temper.rewards.dress import BREAK, MAX_CHARACTERS, undress
from temper.rewards.numbers import leading_number, number
from temper.rewards.units import after_number, before_number

Kind = Literal["number", "percent", "tuple", "list", "set", "interval"]

_BRACKETS: dict[str, Kind] = {"()": "tuple", "[]": "list", "{}": "set", "[)": "interval", "(]": "interval"}
_SEQUENCE = re.compile(r"([(\[]|\\?\{)(.*?)([)\]]|\\?\})", re.DOTALL)
_GREEK = r"\\(?:alpha|beta|gamma|delta|Delta|epsilon|eta|theta|lambda|mu|nu|rho|sigma|tau|varphi|phi|chi|psi|omega|ell)"
_VARIABLE = re.compile(rf"((?:[A-Za-z]|{_GREEK})(?:_(?:[A-Za-z0-9]|\{{[A-Za-z0-9]{{1,8}}\}}))?'?)\s*=(?!=)\s*")
_SIGN_OF_MONEY = re.compile(r"[+\-\u2212]\s*(?=[^\s0-9.])")


@dataclass(frozen=True)
class Value:
    """An exact value. Equality is that of kind and numbers; `unit` and `variable` are what stood beside them, if known.

    >>> parse_answer("0.5") == parse_answer("1/2"), parse_answer("50%") == parse_answer("1/2")
    (True, False)
    """

    kind: Kind
    numbers: tuple[Fraction, ...]
    unit: str = field(default="", compare=False, repr=False)
    variable: str = field(default="", compare=False, repr=False)


def parse_gold(text: str) -> Value:
    r"""The value of a gold answer, by the same rules as a model's answer. Raises ValueError with the reason for none.

    >>> parse_gold(r"\$1,234.50").numbers
    (Fraction(2469, 2),)
    >>> parse_gold("2 + 3")
    Traceback (most recent call last):
        ...
    ValueError: it is not one final form such as 5, 3/4, 50%, (1, 2): `+` behind the number is not a unit
    """
    try:
        return _parse(text, "")
    except ValueError as error:
        raise ValueError(f"it is not one final form such as 5, 3/4, 50%, (1, 2): {error}") from None


def parse_answer(text: str, question: str = "") -> Value | None:
    r"""The value of a model's answer, None where it is not one final form; linear time, at most milliseconds.

    Words around a `\boxed{}` are let through, but not those of the `question` that held the box already.

    >>> parse_answer(r"so we get \boxed{x = 5}.")
    Value(kind='number', numbers=(Fraction(5, 1),))
    >>> parse_answer("2 + 3") is None and parse_answer("4 or 5") is None
    True
    """
    try:
        return _parse(text, question)
    except ValueError:
        return None


def same_value(gold: Value, answer: Value) -> bool:
    """Whether the answer has the gold's value. Units and variables count only where both are known.

    >>> same_value(parse_gold("5 cm"), parse_gold("5")), same_value(parse_gold("5 cm"), parse_gold("5 m"))
    (True, False)
    """
    units = {gold.unit, answer.unit} - {""}
    agree = len(units) < 2 or (units & {"deg"} and units <= {"deg", "degC", "degF", "degK"})
    variables = {gold.variable, answer.variable} - {""}
    return gold == answer and bool(agree) and len(variables) < 2


def _parse(text: str, question: str) -> Value:
    text = text.strip()
    box = find_box(text)
    if box is None:
        return _final_form(text)
    if len(text) <= 2 * MAX_CHARACTERS:
        try:
            return _final_form(BREAK.join((box.before, box.content, box.after)))
        except ValueError as error:
            if not box.before.strip() and not box.after.strip():
                raise error
    if not stands_alone(box):
        raise ValueError("what stands around the box changes its value or offers another")
    if "boxed" in question and _echoes(text, question, box):
        raise ValueError("the box is the question's own")
    return _final_form(box.content)


def _echoes(text: str, question: str, box: Box) -> bool:
    """Whether the question says what the answer says around its box, white space aside."""
    said, asked = "".join(text.split()), "".join(question.split())
    return said in asked or asked in said or "".join(f"{{{box.content}}}".split()) in asked


def _final_form(text: str) -> Value:
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"it is longer than {MAX_CHARACTERS} characters")
    text = undress(text)
    if not text:
        raise ValueError("there is nothing")
    sequence = _SEQUENCE.fullmatch(text)
    return _sequence(sequence) if sequence else _quantity(text)


def _sequence(found: re.Match[str]) -> Value:
    opened, inner, closed = found.groups()
    kind = _BRACKETS.get(opened.lstrip("\\") + closed.lstrip("\\"))
    if kind is None or len(opened) != len(closed):
        raise ValueError(f"`{opened}` is closed by `{closed}`")
    numbers = tuple(number(part) for part in inner.split(","))
    if kind == "set":
        if len(set(numbers)) != len(numbers):
            raise ValueError("an element of the set stands twice")
        numbers = tuple(sorted(numbers))
    elif len(numbers) < 2 and kind != "list":
        raise ValueError("one number in brackets is no tuple")
    return Value(kind, numbers)


def _quantity(text: str) -> Value:
    """`[variable =] [currency] number [percent, currency or unit]`."""
    named = _VARIABLE.match(text)
    rest = text[named.end() :] if named else text
    sign = _SIGN_OF_MONEY.match(rest)  # -$5
    currency, unsigned = before_number(rest[sign.end() :] if sign else rest)
    if currency and sign:
        rest = sign.group().strip() + unsigned
    else:
        rest = unsigned if currency else rest
    value, behind = leading_number(rest)
    around = after_number(behind, currency)
    name = named[1] if named else ""
    return Value("percent" if around.percent else "number", (value,), around.unit, name)
