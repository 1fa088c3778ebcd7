r"""What stands in data files as a gold answer and says more than the answer: `x \approx 1.31`, `V_1 : V_2 = 11 : 21`,
`No solution : \emptyset`. A gold answer is trusted, so what is left out here is what the file says beside it.

Degrees with minutes and seconds are one number on both sides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from temper.rewards.answers.layout import END_TEXT, TEXT

_EMPTY = re.compile(r"(no\s+(?:real\s+)?solutions?)\s*[:,.(]?\s*\\(?:oslash|emptyset|varnothing)\s*\)?", re.IGNORECASE)
_ABOUT = re.compile(r"([A-Za-z](?:_\w|_\{\w+\})?)\s*\\approx(?![A-Za-z])")
_APPROX = re.compile(r"\\approx(?![A-Za-z])")
_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|ln|log|sqrt|arc\w+)(?![A-Za-z])|\^")
_DEGREES = re.compile(
    r"(-?)\s*(\d{1,6})\s*\^\s*\{?\s*\\circ\s*\}?\s*(\d{1,2}(?:\.\d{1,9})?)\s*'(?!')"
    r"(?:\s*(\d{1,2}(?:\.\d{1,9})?)\s*'')?"
)
_DIGIT_OUTSIDE = re.compile(r"(?<![_\d{])\d")


def retellings(plain: str) -> Iterator[str]:
    r"""Other ways to say an undressed gold answer that cannot be read as it stands, the likeliest first.

    >>> list(retellings(r"x \approx 1.31")), list(retellings(r"\cos(2) \approx -0.42"))
    (['x=  1.31'], ['-0.42'])
    >>> list(retellings(r"V_{1}:V_{2}=11:21"))
    ['11:21']
    """
    if found := _EMPTY.fullmatch(plain.replace("\x1f", " ").strip()):
        yield found[1]
    if TEXT in plain:  # \mathrm{gb} is a product here
        yield plain.replace(TEXT, "").replace(END_TEXT, "")
    if _APPROX.search(plain):
        named = _ABOUT.sub(r"\1= ", plain)
        if not _APPROX.search(named):
            yield named
        elif len(parts := _APPROX.split(plain)) == 2 and "," not in plain:
            yield (parts[1] if _FUNCTION.search(parts[0]) else parts[0]).strip()
    left, equals, right = plain.partition("=")
    is_one = equals and "=" not in right and "," not in plain and left[-1:] not in tuple("<>!")
    if is_one and not _DIGIT_OUTSIDE.search(left):
        yield right.strip()


def whole_degrees(text: str) -> str:
    r"""Degrees with minutes and seconds as a fraction of degrees; other texts as they are.

    >>> whole_degrees(r"63^{\circ} 45'"), whole_degrees("5'")
    ('\\frac{255}{4}^\\circ', "5'")
    """
    found = _DEGREES.fullmatch(text.strip()) if "'" in text else None
    if found is None or float(found[3]) >= 60 or float(found[4] or 0) >= 60:
        return text
    value = int(found[2]) + Fraction(found[3]) / 60 + Fraction(found[4] or 0) / 3600
    if value.denominator == 1:
        return rf"{found[1]}{value.numerator}^\circ"
    return rf"{found[1]}\frac{{{value.numerator}}}{{{value.denominator}}}^\circ"
