r"""The exact value of an expression, and whether it is a final form: written down, with nothing left to compute.

A gold answer is trusted and worked out; what a model writes must be done. Not done are sums and products of plain
numbers, fractions that can be reduced, roots that come out, factorials, `i/i`, `\sqrt3\sqrt3`, `\log_2 64`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import comb, factorial, gcd

from temper.rewards.answers.forms import (
    bare,
    flat,
    has_name,
    has_number_power,
    has_sum,
    is_decimal,
    is_number,
    is_scientific,
)
from temper.rewards.answers.parser import Node
from temper.rewards.answers.ring import (
    EULER,
    IMAGINARY,
    ONE,
    PI,
    Generator,
    Monomial,
    Quotient,
    TooLarge,
    factors,
    generator,
    power,
    rational,
)

MAX_FACTORIAL = 400
MAX_NODES = 800
LONG_NUMBER = 10**12  # above it a power is the natural way to write a whole number
_CONSTANTS = {"pi": PI, "e": EULER, "i": IMAGINARY}


@dataclass
class Normal:
    """Works expressions out. `strict` refuses what is no final form; `sign` is what ± stands for. `powers`, `functions`
    and `vulgar` say that the gold answer has powers of numbers, functions, a fraction: then an answer may as well."""

    strict: bool = True
    sign: int = 1
    powers: bool = False
    functions: bool = False
    vulgar: bool = True
    nodes: int = 0

    def of(self, node: Node) -> Quotient:
        """The value. Raises ValueError where it has none, or with `strict` is no final form."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise TooLarge("it is longer than an answer")
        return getattr(self, f"_{node[0]}")(node)

    def _num(self, node: Node) -> Quotient:
        if node[2] == "vulgar" and not self.vulgar:
            raise ValueError("½ stands where the gold answer is no fraction")
        if node[2] == "unscaled" and self.strict and node[1]:
            raise ValueError("a power of ten has one digit before the point")
        return rational(node[1])

    def _name(self, node: Node) -> Quotient:
        return generator("name", node[1])

    def _const(self, node: Node) -> Quotient:
        if node[1] == "deg":
            return generator("name", "°")
        if node[1] == "infty":
            raise ValueError("infinity is no value here")
        return Quotient({((_CONSTANTS[node[1]], ONE),): ONE})

    def _group(self, node: Node) -> Quotient:
        return self.of(node[1])

    def _neg(self, node: Node) -> Quotient:
        inner = bare(node[1])
        if self.strict and inner[0] in ("neg",):
            raise ValueError("two minus signs are still to be worked out")
        return -self.of(node[1])

    def _add(self, node: Node) -> Quotient:
        total = rational(0)
        seen: set[Monomial] = set()
        for sign, part in node[1]:
            value = self.of(part)
            if self.strict:
                self._check_term(part, value, seen)
            minus = sign == "-" or (sign in "±∓" and (sign == "±") != (self.sign > 0))
            total = total + (-value if minus else value)
        return total

    def _check_term(self, node: Node, value: Quotient, seen: set[Monomial]) -> None:
        """A term of one monomial whose like stands in the sum already is still to be added up."""
        if len(value.above) != 1 or has_sum(node) or (self.powers and has_number_power(node)):
            if not value.above:
                raise ValueError("a term of the sum is 0")
            return
        (term,) = value.above
        if term in seen:
            raise ValueError("terms of the sum are still to be added up")
        seen.add(term)

    def _mul(self, node: Node) -> Quotient:
        parts = flat(node)
        if self.strict:
            self._check_product(parts)
        value = rational(1)
        for part in parts:
            value = value * self.of(part)
        return value

    def _check_product(self, parts: list[Node]) -> None:
        if is_scientific(parts):
            return
        numbers, roots = 0, []
        bases: list[int] = []
        seen: set[str] = set()
        for part in parts:
            inner = bare(part)
            whole = _whole_base(inner)
            if any(gcd(whole, other) > 1 for other in bases):
                raise ValueError("a product of powers of one number is still to be worked out")
            bases += [whole] * (whole > 1)
            if is_number(inner) or (has_number_power(inner) and not self.powers and not has_name(inner)):
                numbers += 1
            elif inner[0] == "root" and not has_name(inner):
                roots.append(inner)
            elif inner[0] == "const":
                if inner[1] in seen:
                    raise ValueError("the product is still to be worked out")
                seen.add(inner[1])
            elif inner[0] == "pow" and bare(inner[1])[0] == "const" and bare(inner[1])[1] in seen:
                raise ValueError("the product is still to be worked out")
        if numbers > 1:
            raise ValueError("a product of numbers is still to be worked out")
        if len({root[1] for root in roots}) < len(roots):
            raise ValueError("a product of roots is still to be worked out")

    def _div(self, node: Node) -> Quotient:
        above, below = self.of(node[1]), self.of(node[2])
        if self.strict:
            self._check_fraction(node, above, below)
        return above / below

    def _check_fraction(self, node: Node, above: Quotient, below: Quotient) -> None:
        over, under = bare(node[1]), bare(node[2])
        if below.number is not None and below.number in (1, -1) and above.number is not None:
            raise ValueError("a fraction over 1 is still to be worked out")
        if any(part[0] == "div" and not has_name(part) for part in (over, under)) and not (
            has_name(over) or has_name(under)
        ):
            raise ValueError("a fraction in a fraction is still to be worked out")
        if above.number is not None and below.number is not None and above.number < 0 and below.number < 0:
            raise ValueError("two minus signs are still to be worked out")
        one, other = _content(above), _content(below)
        written = self.powers and has_number_power(node)
        if not written and one is not None and other is not None and (gcd(one, other) != 1 or not one):
            raise ValueError("the fraction is not in lowest terms")
        if any(is_decimal(part) for part in (over, under)):
            raise ValueError("a fraction of decimals is still to be worked out")
        if has_name(under) and _divides(below, above):
            raise ValueError("the division is still to be worked out")
        if len(above.above) == 1 and len(below.above) == 1 and not (has_name(over) and has_name(under)):
            ((left, _),), ((right, _),) = above.above.items(), below.above.items()
            if {base for base, _ in left} & {base for base, _ in right}:
                raise ValueError("the fraction is still to be reduced")

    def _pow(self, node: Node) -> Quotient:
        exponent_node = bare(node[2])
        exponent = self.of(exponent_node)
        base_node = bare(node[1])
        if base_node == ("const", "e") and exponent.number is None:
            return self._symbolic(EULER, exponent)
        base = self.of(node[1])
        plain = exponent.number
        if plain is None:
            return self._symbolic_power(base, exponent)
        value = power(base, plain)
        if self.strict:
            self._check_power(base_node, base, plain, value)
        return value

    def _check_power(self, node: Node, base: Quotient, exponent: Fraction, value: Quotient) -> None:
        if exponent in (0, 1):
            raise ValueError("a power of 0 or 1 is still to be worked out")
        if node == ("const", "i") or (node[0] == "root" and exponent.denominator == 1 and not has_name(node)):
            raise ValueError("the power is still to be worked out")
        number = value.number
        if base.number is None or number is None:
            return
        ten = base.number == 10 and exponent.denominator == 1
        if not (self.powers or ten or abs(number) > LONG_NUMBER) or exponent.denominator != 1:
            raise ValueError("the power is still to be worked out")

    def _symbolic_power(self, base: Quotient, exponent: Quotient) -> Quotient:
        number = base.number
        if number is not None and number > 0:
            value = rational(1)
            for prime, times in (*factors(number.numerator), *((p, -n) for p, n in factors(number.denominator))):
                value = value * self._symbolic(("prime", prime, ()), exponent * rational(times))
            return value
        if len(base.above) == 1 and base.below.get(()) == 1 and len(base.below) == 1:
            ((term, number),) = base.above.items()
            if number == 1 and len(term) == 1 and term[0][0][2] == ():
                return self._symbolic(term[0][0], exponent * rational(term[0][1]))
        return Quotient({((("base", base.key, exponent.key), ONE),): ONE})

    def _symbolic(self, base: Generator, exponent: Quotient) -> Quotient:
        """base to the power of a sum: one generator a term, so that powers of one base add up."""
        if len(exponent.below) != 1:
            return Quotient({(((base[0], base[1], exponent.key), ONE),): ONE})
        value = rational(1)
        for term, number in exponent.above.items():
            if term == ():
                value = value * power(Quotient({((base, ONE),): ONE}), number)
            else:
                value = value * Quotient({(((base[0], base[1], term), number),): ONE})
        return value

    def _root(self, node: Node) -> Quotient:
        degree = self.of(node[1]).number
        if degree is None or degree.denominator != 1 or not 2 <= degree <= 100:
            raise ValueError("the degree of a root is no whole number")
        inner = self.of(node[2])
        value = power(inner, 1 / degree)
        if self.strict and value.number is not None:
            raise ValueError("the root is still to be worked out")
        return value

    def _fact(self, node: Node) -> Quotient:
        value = self.of(node[1])
        number = value.number
        if self.strict and (number is not None or not self.functions):
            raise ValueError("the factorial is still to be worked out")
        if number is not None and number.denominator == 1 and 0 <= number <= MAX_FACTORIAL:
            return rational(factorial(int(number)))
        return generator("fn", ("factorial", value.key))

    def _fn(self, node: Node) -> Quotient:
        name, arguments = node[1], [self.of(argument) for argument in node[2]]
        if self.strict and not self.functions:
            raise ValueError(f"`{name}` is still to be worked out")
        value = _function(name, arguments)
        if self.strict and value.number is not None:
            raise ValueError(f"`{name}` is still to be worked out")
        return value


def _function(name: str, arguments: list[Quotient]) -> Quotient:
    first, number = arguments[0], arguments[0].number
    if name in ("ln", "log", "lg"):
        base = arguments[1] if len(arguments) > 1 else None
        if base is not None:
            return _logarithm("ln", first) / _logarithm("ln", base)
        return _logarithm("ln" if name == "ln" else "log", first)
    if name == "exp":
        return Normal(strict=False)._symbolic(EULER, first)
    if number is not None:
        if name == "abs":
            return rational(abs(number))
        if name in ("floor", "ceil"):
            return rational(number.__floor__() if name == "floor" else number.__ceil__())
        other = arguments[-1].number
        if name == "binom" and other is not None and number.denominator == other.denominator == 1:
            return rational(comb(int(number), int(other)) if 0 <= other <= number <= MAX_FACTORIAL else _too_large())
    return generator("fn", (name, *(argument.key for argument in arguments)))


def _too_large() -> int:
    raise TooLarge("a number in it is too large")


def _logarithm(name: str, of: Quotient) -> Quotient:
    """Logarithms of rational numbers in those of primes, which are linearly independent."""
    if len(of.above) == 1 and len(of.below) == 1:
        ((term, number),) = of.above.items()
        if name == "log" and not term and (tens := _power_of_ten(number)) is not None:
            return rational(tens)
        if number > 0 and all(base[0] in ("prime", "e") and base[2] == () for base, _ in term):
            total = rational(0)
            for prime, times in (*factors(number.numerator), *((p, -n) for p, n in factors(number.denominator))):
                total = total + rational(times) * generator("fn", (name, prime))
            for base, at in term:
                one = rational(1) if base == EULER and name == "ln" else generator("fn", (name, base[1]))
                total = total + rational(at) * one
            return total
    return generator("fn", (name, of.key))


def _power_of_ten(number: Fraction) -> int | None:
    whole, sign = (number.numerator, 1) if number.denominator == 1 else (number.denominator, -1)
    digits = str(whole) if whole.bit_length() < MAX_FACTORIAL else ""
    is_one = digits.rstrip("0") == "1" and 1 in (number.numerator, number.denominator)
    return sign * (len(digits) - 1) if is_one else None


def _whole_base(node: Node) -> int:
    """The number that a factor is, or is a power of; 1 for any other factor."""
    base = bare(node[1]) if node[0] == "pow" and not has_name(node) else node
    return abs(int(base[1])) if base[0] == "num" and base[1].denominator == 1 and base[1] else 1


def _divides(below: Quotient, above: Quotient) -> bool:
    """Whether a divisor of one term goes into several: `(x^3 - x)/x`."""
    if len(below.above) != 1 or len(above.above) < 2:
        return False
    ((term, _),) = below.above.items()
    wanted = dict(term)
    return bool(wanted) and all(dict(one).get(base, 0) >= at for one in above.above for base, at in wanted.items())


def _content(value: Quotient) -> int | None:
    """The greatest common divisor of the coefficients of a sum with whole coefficients, None for any other."""
    if len(value.below) != 1 or value.below.get(()) != 1:
        return None
    common = 0
    for number in value.above.values():
        if number.denominator != 1:
            return None
        common = gcd(common, number.numerator)
    return common
