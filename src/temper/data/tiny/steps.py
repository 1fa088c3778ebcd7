"""What functions of the tiny world are made of: one step in words, as a line of Python, and as people get it wrong.

A step takes a value (an integer, a list of integers or a text, always called `x`) to another. The wrong lines are those
that people write: a bound off by one, `^` for a power, `x.sort()` for a value, a largest of nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

Kind = Literal["int", "list", "text"]
LETTERS = "aeinst"


@dataclass(frozen=True)
class Step:
    """`said` in words (`{k}` is not in it where the number is to be found from the examples), `right` as an expression
    of `x`, `wrong` as expressions that do not do it; `last` where what comes out is of another kind."""

    said: tuple[str, ...]
    right: str
    wrong: tuple[str, ...]
    last: bool = False


Maker = Callable[[Random], Step]


def _number(said: tuple[str, ...], right: str, *wrong: str, low: int = 2, high: int = 9, last: bool = False) -> Maker:
    """A step with a number `{k}` in it; wrong lines may be off by one in it (`{j}`)."""

    def make(random: Random) -> Step:
        k = random.randint(low, high)
        j = k + random.choice((-1, 1))
        put = lambda text: text.replace("{k}", str(k)).replace("{j}", str(j))  # noqa: E731
        return Step(tuple(map(put, said)), put(right), tuple(map(put, wrong)), last)

    return make


def _letter(said: tuple[str, ...], right: str, *wrong: str, last: bool = False) -> Maker:
    """A step with a letter `{c}` in it."""

    def make(random: Random) -> Step:
        c = random.choice(LETTERS)
        put = lambda text: text.replace("{c}", c)  # noqa: E731
        return Step(tuple(map(put, said)), put(right), tuple(map(put, wrong)), last)

    return make


def _plain(said: tuple[str, ...], right: str, *wrong: str, last: bool = False) -> Maker:
    return lambda random: Step(said, right, wrong, last)


def _each(said: tuple[str, ...], what: str, *wrong: str) -> Maker:
    """A step that does the same to each number `n` of a list."""
    lines = [f"[{inner} for n in x]" for inner in (what, *wrong)]
    return _number(said, lines[0], *lines[1:])


def _keep(said: tuple[str, ...], holds: str, *wrong: str) -> Maker:
    lines = [f"[n for n in x if {inner}]" for inner in (holds, *wrong)]
    return _number(said, lines[0], *lines[1:])


STEPS: dict[Kind, tuple[Maker, ...]] = {
    "int": (
        _number(("add {k}", "plus {k}"), "x + {k}", "x + {j}", "x - {k}"),
        _number(("subtract {k}", "minus {k}"), "x - {k}", "x - {j}", "{k} - x"),
        _number(("multiply by {k}", "times {k}"), "x * {k}", "x * {j}", "x + {k}"),
        _number(("take the remainder by {k}", "modulo {k}"), "x % {k}", "x // {k}", "x % {j}"),
        _number(("cap it at {k}", "at most {k}"), "min(x, {k})", "max(x, {k})", "min(x, {j})"),
        _plain(("square it", "to the power of two"), "x * x", "x ^ 2", "x * 2"),
        _plain(("negate it", "change the sign"), "-x", "~x", "abs(x)"),
        _number(("is it more than {k}",), "x > {k}", "x >= {k}", "x < {k}", last=True),
    ),
    "list": (
        _keep(("keep the even numbers", "only even ones"), "n % 2 == 0", "n % 2 == 1", "n / 2 == 0"),
        _keep(("keep numbers above {k}", "only those above {k}"), "n > {k}", "n >= {k}", "n > {j}"),
        _keep(("keep multiples of {k}", "only multiples of {k}"), "n % {k} == 0", "n // {k} == 0", "n % {k} == 1"),
        _each(("add {k} to each", "each plus {k}"), "n + {k}", "n + {j}", "n - {k}"),
        _each(("multiply each by {k}", "each times {k}"), "n * {k}", "n * {j}", "n + {k}"),
        _each(("square each", "each to the power of two"), "n * n", "n ^ 2", "n * 2"),
        _plain(("reverse the order", "back to front"), "x[::-1]", "x[-1]", "x.reverse()"),
        _plain(("sort them falling", "in falling order"), "sorted(x)[::-1]", "sorted(x)", "x.sort()[::-1]"),
        _plain(("add them up", "the sum"), "sum(x)", "len(x)", "x.sum()", last=True),
        _plain(("count them", "how many"), "len(x)", "sum(x)", "len(x) - 1", last=True),
        _plain(("the largest or 0",), "max(x, default=0)", "max(x)", "x[-1]", last=True),
    ),
    "text": (
        _plain(("in capitals", "make it upper case"), "x.upper()", "x.capitalize()", "x.lower()"),
        _plain(("make it lower case", "in small letters"), "x.lower()", "x.upper()", "lower(x)"),
        _plain(("reverse it", "back to front"), "x[::-1]", "x[-1]", "x.reverse()"),
        _plain(("write it twice", "double it"), "x + x", "x * x", "x"),
        _number(("take the first {k} letters", "the first {k}"), "x[:{k}]", "x[{k}:]", "x[:{j}]", low=2, high=5),
        _number(("drop the first {k} letters",), "x[{k}:]", "x[:{k}]", "x[{j}:]", low=2, high=4),
        _letter(("remove every {c}", "without {c}"), 'x.replace("{c}", "")', 'x.remove("{c}")', 'x.strip("{c}")'),
        _plain(("how long is it", "the length"), "len(x)", "x.len()", "len(x) - 1", last=True),
        _letter(("count the letter {c}", "how many {c}"), 'x.count("{c}")', '"{c}" in x', "len(x)", last=True),
    ),
}  # fmt: skip
# Steps whose number the examples alone tell: those on 0 and 1 show it.
UNSAID: dict[Kind, tuple[Maker, ...]] = {
    "int": (
        _number(("add a number",), "x + {k}", "x + {j}", "x - {k}"),
        _number(("multiply by a number",), "x * {k}", "x * {j}", "x + {k}"),
    ),
    "list": (
        _each(("add a number to each",), "n + {k}", "n + {j}", "n - {k}"),
        _each(("multiply each by a number",), "n * {k}", "n * {j}", "n + {k}"),
    ),
    "text": (),
}
