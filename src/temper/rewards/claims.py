"""Arithmetic that stands in a text: `38+33=71`, `3x=10+5=15`, read into exact values. Nothing is evaluated as code.

Numbers are ASCII integers and decimals, `x`, `y` or `z` the one unknown; `+ - * /` and their printed forms `− × · ÷`
(`/` and `*` first, from left to right, as always). Parentheses, powers and thousands separators are not read: what
stands between them is read by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARACTERS = 2_000  # of a text; a longer one holds no arithmetic, so that time and numbers stay small
MAX_TOKENS = 64  # of one claim
_TOKEN = re.compile(
    r"(?P<number>(?<![\w.])[0-9]{1,12}(?:\.[0-9]{1,6})?(?![0-9_]|\.[0-9]))"
    r"|(?P<unknown>(?:(?<![^\W_])|(?<=[0-9]))[xyz](?![^\W_]))|(?P<sign>[+\-−*×·/÷])|(?P<equals>=)"
)
_WRITTEN = {"−": "-", "×": "*", "·": "*", "÷": "/"}


@dataclass(frozen=True)
class Side:
    """One side of a claim: `slope`·x + `constant`. `terms` are its signed summands, where all of them are numbers;
    `numbers` all literals, without their signs."""

    slope: Fraction
    constant: Fraction
    terms: tuple[Fraction, ...]
    numbers: tuple[Fraction, ...]

    @property
    def is_number(self) -> bool:
        """Whether it is one number and nothing to be computed."""
        return self.slope == 0 and len(self.numbers) == 1


@dataclass(frozen=True)
class Claim:
    """What stands between equals signs, or a single expression; `sides` is empty where it is malformed."""

    sides: tuple[Side, ...]

    @property
    def holds(self) -> bool:
        """Whether the sides without the unknown are equal."""
        return len({side.constant for side in self.sides if not side.slope}) <= 1


def find_claims(text: str) -> list[Claim]:
    """The arithmetic of a text, in order; words and other signs stand between.

    >>> first, second = find_claims("First 3x=10+5=15. Then 4.")
    >>> [(str(side.slope), str(side.constant)) for side in first.sides], first.holds
    ([('3', '0'), ('0', '15'), ('0', '15')], True)
    >>> second.sides[0].is_number, find_claims("7/0=0")[0].sides
    (True, ())
    """
    return [] if len(text) > MAX_CHARACTERS else [_claim(run) for run in _runs(text)]


def _runs(text: str) -> Iterator[list[tuple[str, str]]]:
    """Tokens (kind, text) that follow each other with nothing but spaces between; at least a number or unknown each."""
    run: list[tuple[str, str]] = []
    end = 0
    for found in _TOKEN.finditer(text):
        if text[end : found.start()].strip(" \t\u00a0"):
            if _says(run):
                yield run
            run = []
        kind = found.lastgroup or ""
        run.append((kind, _WRITTEN.get(found.group(), found.group())))
        end = found.end()
    if _says(run):
        yield run


def _says(run: list[tuple[str, str]]) -> bool:
    return any(kind in ("number", "unknown") for kind, _ in run)


def _claim(run: list[tuple[str, str]]) -> Claim:
    if len(run) > MAX_TOKENS:
        return Claim(())
    sides: list[list[tuple[str, str]]] = [[]]
    for token in run:
        if token[0] == "equals":
            sides.append([])
        else:
            sides[-1].append(token)
    read = [_side(side) for side in sides]
    return Claim(tuple(side for side in read if side is not None) if None not in read else ())


def _side(tokens: list[tuple[str, str]]) -> Side | None:
    """Summands with their signs, each a product of numbers and at most one unknown; None where it is malformed."""
    slope = constant = Fraction(0)
    terms: list[Fraction] = []
    numbers: list[Fraction] = []
    at = 0
    while at < len(tokens):
        sign = Fraction(1)
        if tokens[at] in (("sign", "+"), ("sign", "-")):
            sign = Fraction(-1 if tokens[at][1] == "-" else 1)
            at += 1
        elif at > 0:  # two values side by side
            return None
        term = _term(tokens, at)
        if term is None:
            return None
        value, unknown, literals, at = term
        terms.append(sign * value)
        numbers += literals
        slope += sign * value if unknown else 0
        constant += 0 if unknown else sign * value
    return Side(slope, constant, () if slope else tuple(terms), tuple(numbers)) if terms else None


def _term(tokens: list[tuple[str, str]], at: int) -> tuple[Fraction, bool, list[Fraction], int] | None:
    """(value, whether times the unknown, the literals, the token after it) of a product that starts at token `at`."""
    value, unknown, literals, by = Fraction(1), False, [], "*"
    while True:
        kind, text = tokens[at] if at < len(tokens) else ("", "")
        if kind == "number":
            literals.append(Fraction(text))
            if by == "/" and literals[-1] == 0:
                return None
            value = value / literals[-1] if by == "/" else value * literals[-1]
        elif kind == "unknown" and not unknown and by == "*":
            unknown = True
        else:
            return None
        at += 1
        following = tokens[at] if at < len(tokens) else ("", "")
        if following in (("sign", "*"), ("sign", "/")):
            by, at = following[1], at + 1
        elif following[0] == "unknown" and kind == "number":
            by = "*"  # 3x
        else:
            return value, unknown, literals, at
