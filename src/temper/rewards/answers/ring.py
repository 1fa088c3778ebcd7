r"""Exact arithmetic for answers: sums of monomials with rational coefficients, and quotients of two such sums.

A monomial is a product of powers of *generators*: the primes under a root (2 to the power ½), π, e, i, variables, and
whatever stays as it is written (`\sin x`, the root of a sum). Powers of primes under roots are linearly independent
over the rationals, so equal sums have equal terms; quotients are compared by cross-multiplying. Everything is bounded:
`TooLarge` is raised where a sum, a number or a power would grow beyond it.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from math import gcd

MAX_TERMS = 300  # of one sum
MAX_PRODUCT = 6_000  # multiplications for one product of sums
MAX_BITS = 12_000  # of a numerator or denominator
MAX_POWER = 40  # of a sum of several terms
FACTORING = 100  # products that the factors of one number are worth
_TRIAL = 2_000  # primes up to here are divided out; what remains is a generator of its own

Generator = tuple[str, Hashable, Hashable]  # kind, what it is, the monomial in its exponent (() for a plain number)
Monomial = tuple[tuple[Generator, Fraction], ...]  # sorted by generator, no exponent 0
Terms = Mapping[Monomial, Fraction]

IMAGINARY: Generator = ("i", "i", ())
PI: Generator = ("pi", "pi", ())
EULER: Generator = ("e", "e", ())
ONE = Fraction(1)
_REDUCED = ("prime", "sum")  # generators with an integer power that is worth multiplying out


class TooLarge(ValueError):
    """What is written is larger than any answer has reason to be."""


class _Work(threading.local):
    """How many more products of terms this thread may work out."""

    left = 1_000_000


_work = _Work()


@contextmanager
def bounded(products: int) -> Iterator[None]:
    """At most so many products of terms inside the block, or TooLarge."""
    before, _work.left = _work.left, products
    try:
        yield
    finally:
        _work.left = before


def _spend(products: int) -> None:
    _work.left -= products
    if _work.left < 0:
        raise TooLarge("there is too much to work out")


class Quotient:
    """`above` / `below`, both sums; `below` is never zero and is 1 wherever it had a single term."""

    __slots__ = ("above", "below")

    def __init__(self, above: Terms, below: Terms | None = None):
        self.above = above
        self.below = below or UNIT

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Quotient):
            return NotImplemented
        if self.below is UNIT and other.below is UNIT:
            return self.above == other.above
        return multiplied(self.above, other.below) == multiplied(other.above, self.below)

    __hash__ = None  # type: ignore[assignment]  # equal quotients can have other terms

    def __repr__(self) -> str:
        return f"Quotient({dict(self.above)}, {dict(self.below)})"

    def __add__(self, other: Quotient) -> Quotient:
        if self.below == other.below:
            return quotient(added(self.above, other.above), self.below)
        above = added(multiplied(self.above, other.below), multiplied(other.above, self.below))
        return quotient(above, multiplied(self.below, other.below))

    def __neg__(self) -> Quotient:
        return Quotient({term: -number for term, number in self.above.items()}, self.below)

    def __mul__(self, other: Quotient) -> Quotient:
        return quotient(multiplied(self.above, other.above), multiplied(self.below, other.below))

    def __truediv__(self, other: Quotient) -> Quotient:
        if not other.above:
            raise ValueError("it divides by zero")
        return quotient(multiplied(self.above, other.below), multiplied(self.below, other.above))

    @property
    def number(self) -> Fraction | None:
        """The rational number it is, None where it is none."""
        if self.below is not UNIT or len(self.above) > 1:
            return None
        return Fraction(0) if not self.above else self.above.get(())

    @property
    def key(self) -> Hashable:
        """The terms as they are: the same for the same way of computing, not always for equal values."""
        below = None if self.below is UNIT else frozenset(self.below.items())
        return frozenset(self.above.items()), below


UNIT: dict[Monomial, Fraction] = {(): ONE}


def rational(number: Fraction | int) -> Quotient:
    """A plain number."""
    number = number if type(number) is Fraction else Fraction(number)
    if max(number.numerator.bit_length(), number.denominator.bit_length()) > MAX_BITS:
        raise TooLarge("a number in it is too large")
    return Quotient({(): number} if number else {})


def generator(kind: str, what: Hashable, exponent: Fraction = ONE) -> Quotient:
    """A variable, a constant, or what stays as it is written."""
    return Quotient({(((kind, what, ()), exponent),): ONE})


def quotient(above: Terms, below: Terms) -> Quotient:
    """above / below, a divisor of a single term multiplied into the terms above."""
    if below is UNIT or below == UNIT:
        return Quotient(above)
    if not above:
        return Quotient({})
    if len(below) == 1:
        ((term, number),) = below.items()
        rest = tuple((base, 1 - at) for base, at in term if base[0] == "sum")
        if rest:  # the root of a sum in the divisor: multiplied up to the sum itself
            more = _reduced(rest, ONE)
            return quotient(multiplied(above, more), multiplied(below, more))
        inverse = tuple((base, -power) for base, power in term)
        return Quotient(multiplied(above, _reduced(inverse, 1 / number)))
    return Quotient(above, below)


def added(one: Terms, other: Terms) -> dict[Monomial, Fraction]:
    total = dict(one)
    for term, number in other.items():
        number = total.get(term, 0) + number
        if number:
            total[term] = number
        else:
            del total[term]
    if len(total) > MAX_TERMS:
        raise TooLarge("it has too many terms")
    return total


def multiplied(one: Terms, other: Terms) -> Terms:
    if one is UNIT:
        return other
    if other is UNIT:
        return one
    if len(one) * len(other) > MAX_PRODUCT:
        raise TooLarge("it has too many terms")
    _spend(len(one) * len(other))
    total: dict[Monomial, Fraction] = {}
    for left, first in one.items():
        for right, second in other.items():
            number = first * second
            if number.numerator.bit_length() + number.denominator.bit_length() > MAX_BITS:
                raise TooLarge("a number in it is too large")
            product: Terms = {left or right: number} if not (left and right) else _product(left, right, number)
            for term, coefficient in product.items():
                coefficient += total.get(term, 0)
                if coefficient:
                    total[term] = coefficient
                else:
                    total.pop(term, None)
    if len(total) > MAX_TERMS:
        raise TooLarge("it has too many terms")
    return total


def _product(left: Monomial, right: Monomial, number: Fraction) -> Terms:
    powers = dict(left)
    for base, power in right:
        powers[base] = powers.get(base, 0) + power
    return _reduced(tuple(powers.items()), number)


def _reduced(powers: Monomial, number: Fraction) -> Terms:
    """number · powers with i² = −1, and primes and roots of sums to powers from 0 to 1."""
    kept: list[tuple[Generator, Fraction]] = []
    whole: Terms = UNIT
    for base, power in powers:
        kind = base[0]
        if kind == "i":
            turns = power % 4
            if turns.denominator == 1:
                number = -number if turns >= 2 else number
                power = turns % 2
        elif kind in _REDUCED and base[2] == () and not 0 <= power < 1:
            steps = power.numerator // power.denominator
            power -= steps
            if kind == "prime":
                number *= _int_power(base[1], steps)
            else:
                whole = multiplied(whole, _sum_power(base[1], steps))
        if power:
            kept.append((base, power))
    kept.sort(key=_order)
    own = {tuple(kept): number}
    return own if whole is UNIT else multiplied(own, whole)


def _order(item: tuple[Generator, Fraction]) -> str:
    return repr(item[0]) if item[0][0] in ("sum", "fn") or item[0][2] else f"{item[0][0]}{item[0][1]}"


def _int_power(base: Hashable, steps: int) -> Fraction:
    assert isinstance(base, int)
    if abs(steps) * base.bit_length() > MAX_BITS:
        raise TooLarge("a number in it is too large")
    return Fraction(base) ** steps


def _sum_power(terms: Hashable, steps: int) -> Terms:
    assert isinstance(terms, frozenset)
    result: Terms = UNIT
    for _ in range(min(steps, MAX_POWER)):
        result = multiplied(result, dict(terms))
    return result


def power(base: Quotient, exponent: Fraction) -> Quotient:
    """base to a rational power. Raises ValueError for 0 to a power that is not above 0."""
    if not base.above:
        if exponent <= 0:
            raise ValueError("zero has no such power")
        return base
    if len(base.above) == 1 and base.below is UNIT:
        ((term, number),) = base.above.items()
        return _monomial_power(term, number, exponent)
    if exponent.denominator == 1:
        return _whole_power(base, exponent.numerator)
    if exponent < 0:
        return rational(1) / power(base, -exponent)
    if base.below is not UNIT:
        degree = exponent.denominator
        over = power(Quotient(multiplied(base.above, _whole_power(Quotient(base.below), degree - 1).above)), exponent)
        return over / _whole_power(Quotient(base.below), exponent.numerator)
    return _root_of_sum(base.above, exponent)


def _whole_power(base: Quotient, steps: int) -> Quotient:
    if abs(steps) > MAX_POWER:  # it stays as it is written
        return generator("raised", (base.key, steps))
    result = rational(1)
    for _ in range(abs(steps)):
        result = result * base
    return result if steps >= 0 else rational(1) / result


def _monomial_power(term: Monomial, number: Fraction, exponent: Fraction) -> Quotient:
    if exponent.denominator == 1:
        steps = exponent.numerator
        size = number.numerator.bit_length() + number.denominator.bit_length()
        if abs(steps) * (size - 1) > MAX_BITS:
            raise TooLarge("a number in it is too large")
        return Quotient(_reduced(tuple((base, at * steps) for base, at in term), number**steps))
    sign: Quotient = rational(1)
    if number < 0:
        if exponent.denominator % 2:
            sign = rational(-1 if exponent.numerator % 2 else 1)
        elif exponent.denominator == 2:
            sign = power(Quotient({((IMAGINARY, ONE),): ONE}), Fraction(exponent.numerator))
        else:
            raise ValueError("it is a root of a negative number")
    if any(base[0] == "i" for base, _ in term):
        return sign * _root_of_sum({term: abs(number)}, exponent)
    powers = {base: at * exponent for base, at in term}
    for prime, times in (*factors(abs(number.numerator)), *((p, -n) for p, n in factors(number.denominator))):
        base: Generator = ("prime", prime, ())
        powers[base] = powers.get(base, Fraction(0)) + times * exponent
    return sign * Quotient(_reduced(tuple(powers.items()), ONE))


def _root_of_sum(terms: Terms, exponent: Fraction) -> Quotient:
    """The root of a sum stays, its common rational factor taken out; a square root in a square root where it opens."""
    opened = _opened(terms) if exponent.denominator == 2 else None
    if opened is not None:
        return _whole_power(opened, exponent.numerator)
    above = below = 0
    for number in terms.values():
        above = gcd(above, number.numerator)
        below = number.denominator if not below else below * number.denominator // gcd(below, number.denominator)
    common = Fraction(above, below)
    inner = frozenset((term, number / common) for term, number in terms.items())
    root = Quotient(_reduced(((("sum", inner, ()), exponent),), ONE))
    return root * _monomial_power((), common, exponent)


def _opened(terms: Terms) -> Quotient | None:
    r"""√(a + b√c) as √x ± √y where a² − b²c is a square: `\sqrt{3+2\sqrt2}` is `1+\sqrt2`."""
    if len(terms) != 2 or () not in terms:
        return None
    a = terms[()]
    (root,) = (term for term in terms if term)
    if any(base[0] != "prime" or at != Fraction(1, 2) for base, at in root) or a <= 0:
        return None
    c = 1
    for base, _ in root:
        assert isinstance(base[1], int)
        c *= base[1]
    b = terms[root]
    d = power(rational(a * a - b * b * c), Fraction(1, 2)).number if a * a >= b * b * c else None
    if d is None:
        return None
    one, other = (power(rational((a + sign * d) / 2), Fraction(1, 2)) for sign in (1, -1))
    return one + other if b > 0 else one + -other


def factors(number: int) -> list[tuple[int, int]]:
    """The prime factors with how often each divides; what small primes leave is one factor, perfect powers opened.

    >>> factors(360), factors(1)
    ([(2, 3), (3, 2), (5, 1)], [])
    """
    if number.bit_length() > MAX_BITS // 8:
        raise TooLarge("there is a root of a large number")
    if number > _TRIAL:
        _spend(FACTORING)
    found: list[tuple[int, int]] = []
    prime = 2
    while prime <= _TRIAL and prime * prime <= number:
        times = 0
        while number % prime == 0:
            number //= prime
            times += 1
        if times:
            found.append((prime, times))
        prime += 1 if prime == 2 else 2
    if number > 1:
        found.append(_perfect_power(number) if number > _TRIAL * _TRIAL else (number, 1))
    return found


def _perfect_power(number: int) -> tuple[int, int]:
    """(base, exponent) for the highest exponent; all factors are above `_TRIAL`, so there are few exponents to try."""
    for exponent in range(number.bit_length() // 11 + 1, 1, -1):
        base = _integer_root(number, exponent)
        if base**exponent == number:
            return base, exponent
    return number, 1


def _integer_root(number: int, exponent: int) -> int:
    low, high = 1, 1 << (number.bit_length() // exponent + 1)
    while low < high:
        middle = (low + high + 1) // 2
        if middle**exponent <= number:
            low = middle
        else:
            high = middle - 1
    return low
