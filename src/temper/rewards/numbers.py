r"""Numbers as people and LaTeX write them, read into exact fractions. Nothing is computed: `2+3` is no number.

Read: integers, decimals (`0.1\overline{6}` too), thousands separators in threes (`1,234`, `1 234`, `1'234`, `1{,}234`),
`1.5e-7`, `1.5 \times 10^{-7}` with one digit before the point, fractions and mixed numbers in lowest terms (`3/4`,
`\frac{3}{4}`, `1\frac{3}{4}`). Digits are ASCII; the sign is `-`, `+` or the true minus `−`.
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import gcd

MAX_EXPONENT = 1_000  # of a power of ten: beyond it a few characters would name a number of gigabytes
THIN_SPACE = "\u2009"

_SIGN = r"[+\-\u2212]"
_SEPARATORS = ",'\u2019 \u00a0\u202f" + THIN_SPACE
_ARGUMENT = r"\s*(?:\{\s*(%s?[0-9]+)\s*\}|([0-9]))"
_FRACTION = rf"(?:([0-9]+)\s*/\s*([0-9]+)|\\[dtc]?frac{_ARGUMENT % _SIGN}{_ARGUMENT % _SIGN})(?![0-9])"
_NUMBER = re.compile(
    rf"""(?P<scientific>([1-9](?:\.[0-9]+)?)\s*(?:\\times|\\cdot|[×·*x])\s*10\s*\^\s*
            (?:\{{\s*({_SIGN}?[0-9]+)\s*\}}|({_SIGN}?[0-9]+)))
      | (?P<mixed>[0-9]+(?:[ \u00a0{THIN_SPACE}][0-9]+\s*/\s*[0-9]+|\s*\\[dtc]?frac))  # its fraction is read by itself
      | (?P<fraction>{_FRACTION})
      | (?P<repeating>(?P<whole>[0-9]*)\.(?P<fixed>[0-9]*)\\overline\s*\{{(?P<period>[0-9]+)\}})
      | (?P<grouped>[1-9][0-9]{{0,2}}(?:(?P<by>[{_SEPARATORS}])[0-9]{{3}})(?:(?P=by)[0-9]{{3}})*(?:\.[0-9]+)?)(?![0-9])
      | (?P<decimal>([0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE]({_SIGN}?[0-9]+))?)""",
    re.VERBOSE,
)
_SIGNED = re.compile(rf"({_SIGN})\s*")
_LEADING_INTEGER = re.compile(r"[0-9]+\s*")
_FRACTION_ALONE = re.compile(_FRACTION)


def leading_number(text: str) -> tuple[Fraction, str]:
    r"""(the number that `text` begins with, the rest). Raises ValueError where there is none or it is no final form.

    The caller bounds the length of `text`; exponents are bounded here.

    >>> leading_number("1,234.50 dollars"), leading_number(r"-\frac{3}{4}")
    ((Fraction(2469, 2), ' dollars'), (Fraction(-3, 4), ''))
    >>> leading_number("2/4")
    Traceback (most recent call last):
        ...
    ValueError: the fraction 2/4 is not in lowest terms
    """
    sign = _SIGNED.match(text)
    start = sign.end() if sign else 0
    found = _NUMBER.match(text, start)
    if found is None:
        raise ValueError("it does not begin with a number")
    if found["mixed"]:
        value, end = _mixed(text, start)
    else:
        value, end = _value(found), found.end()
    return (-value if sign and sign[1] != "+" else value), text[end:]


def number(text: str) -> Fraction:
    """The number that `text` is, and nothing but. Raises ValueError otherwise.

    >>> number(" 1e-2 ")
    Fraction(1, 100)
    """
    value, rest = leading_number(text.strip())
    if rest:
        raise ValueError("it goes on after the number")
    return value


def _value(found: re.Match[str]) -> Fraction:
    if found["scientific"]:
        groups = found.groups()
        return Fraction(groups[1]) * _power_of_ten(groups[2] or groups[3])
    if found["fraction"]:
        return _fraction(found["fraction"])
    if found["repeating"]:
        return _repeating(found["whole"], found["fixed"], found["period"])
    if found["grouped"]:
        return Fraction(found["grouped"].replace(found["by"], ""))
    digits, _, exponent = found["decimal"].replace("E", "e").partition("e")
    return Fraction(digits) * (_power_of_ten(exponent) if exponent else 1)


def _repeating(whole: str, fixed: str, period: str) -> Fraction:
    """The exact value of a decimal that repeats its period for ever.

    >>> _repeating("0", "1", "6")
    Fraction(1, 6)
    """
    before, all_digits = int(whole + fixed or "0"), int(whole + fixed + period)
    return Fraction(all_digits - before, 10 ** len(fixed) * (10 ** len(period) - 1))


def _power_of_ten(exponent: str) -> Fraction:
    power = _integer(exponent)
    if abs(power) > MAX_EXPONENT:
        raise ValueError(f"the exponent is beyond ±{MAX_EXPONENT}")
    return Fraction(10) ** power


def _integer(digits: str) -> int:
    return int(digits.replace("\u2212", "-"))


def _fraction(text: str) -> Fraction:
    """A fraction whose form is right; its value must be in lowest terms, with a denominator above 1."""
    found = _FRACTION_ALONE.fullmatch(text)
    assert found is not None
    plain_above, plain_below, *latex = found.groups()
    above, below = (_integer(plain_above or latex[0] or latex[1]), _integer(plain_below or latex[2] or latex[3]))
    if below <= 1:
        raise ValueError(f"the fraction {above}/{below} has a denominator that is not above 1")
    if gcd(above, below) != 1:
        raise ValueError(f"the fraction {above}/{below} is not in lowest terms")
    return Fraction(above, below)


def _mixed(text: str, start: int) -> tuple[Fraction, int]:
    r"""`1 3/4` or `1\frac{3}{4}`: a whole number above 0, then a fraction between 0 and 1."""
    whole = _LEADING_INTEGER.match(text, start)
    part = _FRACTION_ALONE.match(text, whole.end()) if whole else None
    if whole is None or part is None:
        raise ValueError("a number stands beside something that is not one final form")
    value, above = _fraction(part.group()), int(whole.group())
    if above == 0 or not 0 < value < 1:
        raise ValueError("a mixed number is a whole number above 0 and a fraction between 0 and 1")
    return above + value, part.end()
