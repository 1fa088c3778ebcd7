"""What an answer can be, each kind a value of its own; `same` says when two of them are one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from temper.rewards.answers.parser import Node
from temper.rewards.answers.ring import Quotient
from temper.rewards.answers.units import NOTHING, Around


@dataclass(frozen=True, eq=False)
class Value:
    """Any kind; `name` is what stood before an equals sign, `around` the unit and the like."""

    name: str = field(default="", kw_only=True)
    around: Around = field(default=NOTHING, kw_only=True)


@dataclass(frozen=True, eq=False)
class Number(Value):
    """A number, a polynomial, a quotient: `exact` is its value, `node` how it is written. `equation` is
    name − exact where the name is a variable and the value has others: a line."""

    exact: Quotient
    node: Node
    equation: Quotient | None = None


@dataclass(frozen=True, eq=False)
class Relation(Value):
    """`exact` = 0, or < 0, <= 0, != 0: equations and inequalities in several variables, up to a factor."""

    sign: str
    exact: Quotient


@dataclass(frozen=True, eq=False)
class Several(Value):
    """Tuples and ordered lists (`form` is their bracket, or "vector"), "set" and "list" in any order, ratios ":"."""

    form: str
    items: tuple[Value, ...]

    @property
    def is_unordered(self) -> bool:
        return self.form in ("set", "list")


@dataclass(frozen=True, eq=False)
class Interval(Value):
    """From `low` to `high`, None for infinity; `brackets` such as "[)"."""

    brackets: str
    low: Quotient | None
    high: Quotient | None


@dataclass(frozen=True, eq=False)
class Union(Value):
    """Several intervals and single points, in any order; `variable` is the one of an inequality."""

    parts: tuple[Value, ...]


@dataclass(frozen=True, eq=False)
class Matrix(Value):
    """Rows of values; a column vector has one in each."""

    rows: tuple[tuple[Quotient, ...], ...]


@dataclass(frozen=True, eq=False)
class Words(Value):
    """Words, a "choice", a "time", a "date", or digits in a "base": `parts` are compared as they are."""

    form: str
    parts: tuple[str, ...]


def same(one: Value, other: Value) -> bool:
    """Whether two values are equal, names and units aside; an equivalence."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Number) and isinstance(other, Number):
        return one.exact == other.exact
    if isinstance(one, Several) and isinstance(other, Several):
        if one.is_unordered and other.is_unordered:
            return matched(one.items, other.items)
        return one.form == other.form and _each(one.items, other.items)
    if isinstance(one, Interval) and isinstance(other, Interval):
        return one.brackets == other.brackets and _bound(one.low, other.low) and _bound(one.high, other.high)
    if isinstance(one, Union) and isinstance(other, Union):
        return matched(one.parts, other.parts)
    if isinstance(one, Matrix) and isinstance(other, Matrix):
        return [len(row) for row in one.rows] == [len(row) for row in other.rows] and all(
            left == right
            for mine, others in zip(one.rows, other.rows, strict=True)
            for left, right in zip(mine, others, strict=True)
        )
    if isinstance(one, Relation) and isinstance(other, Relation):
        return one.sign == other.sign and proportional(one.exact, other.exact, one.sign)
    return isinstance(one, Words) and isinstance(other, Words) and (one.form, one.parts) == (other.form, other.parts)


def _bound(one: Quotient | None, other: Quotient | None) -> bool:
    return one is other if one is None or other is None else one == other


def _each(items: Sequence[Value], others: Sequence[Value]) -> bool:
    return len(items) == len(others) and all(_agree(*pair) for pair in zip(items, others, strict=True))


def _agree(one: Value, other: Value) -> bool:
    """Items of one collection: names and units count where both have them."""
    names = {one.name, other.name} - {""}
    units = {one.around, other.around} - {NOTHING}
    return len(names) < 2 and len(units) < 2 and same(one, other)


def matched(items: Sequence[Value], others: Sequence[Value]) -> bool:
    """Whether both hold the same values, in any order, each as often."""
    if len(items) != len(others):
        return False
    left = list(others)
    for item in items:
        at = next((i for i, other in enumerate(left) if _agree(item, other)), None)
        if at is None:
            return False
        del left[at]
    return True


def proportional(one: Quotient, other: Quotient, sign: str) -> bool:
    """Whether two expressions that are compared with 0 say the same: equal up to a number, above 0 in an inequality."""
    if not one.above or not other.above:
        return not one.above and not other.above
    left, right = (one * Quotient(other.below)).above, (other * Quotient(one.below)).above
    if left.keys() != right.keys():
        return False
    ratios = {left[term] / right[term] for term in left}
    return len(ratios) == 1 and (sign in ("=", "!=") or next(iter(ratios)) > 0)
