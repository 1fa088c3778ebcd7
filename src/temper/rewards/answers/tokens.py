"""Tokens of an undressed answer: numbers, names, words, commands, signs, each with whether space stood before it."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from temper.rewards.answers.layout import BREAK, END_TEXT, TEXT, THOUSANDS
from temper.rewards.answers.ring import TooLarge

MAX_TOKENS = 600
MAX_EXPONENT = 1_000  # of a power of ten: beyond it a few characters would name a number of gigabytes
_GREEK = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell hbar"
)
GREEK = frozenset(_GREEK.split())
_FUNCTIONS = (
    "sin cos tan cot sec csc sinh cosh tanh coth sech csch arcsin arccos arctan arccot arcsec arccsc ln log lg exp max "
    "min gcd lcm det"
)
FUNCTIONS = {name: name for name in _FUNCTIONS.split()} | {
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "cosec": "csc",
}
_SHORT = "one two six ten or and not but for nor yes no the all any few low top is are was at of in on by to if so up"
_SHORT_WORDS = frozenset(_SHORT.split())
_SPACING = " \t\r\n" + BREAK
_TOKEN = re.compile(
    rf"""(?P<repeating>\d*\.\d*\\overline\s*\{{\d+\}})
      | (?P<grouped>[1-9]\d{{0,2}}(?P<by>[,'{THOUSANDS} ])\d{{3}}(?:(?P=by)\d{{3}})*(?:\.\d+)?(?![\d]))
      | (?P<number>(?:\d+(?:\.\d+|\.(?=/))?|\.\d+)(?:[eE][+-]?\d+(?![\d.]))?)
      | (?P<vulgar>[¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞])
      | (?P<command>\\[A-Za-z]+)
      | (?P<newline>\\\\)
      | (?P<escaped>\\[{{}}%$|&\#_])
      | (?P<letters>[A-Za-z]+)
      | (?P<word>[^\W\d_]+)
      | (?P<relation><=|>=|!=|[=<>])
      | (?P<sign>[-+*/^_!(){{}}\[\]|,;:.&'%$€£¥₹¢"?])""",
    re.VERBOSE | re.ASCII,
)
_UNCASED_WORD = re.compile(r"[^\W\d_]+")


class Token(NamedTuple):
    """`kind` is number, name, word, function, command, or sign; `value` a number's; `roman` stood in `\\text{…}`."""

    kind: str
    text: str
    value: Fraction | None = None
    spaced: bool = False
    roman: bool = False


END = Token("end", "")


def is_product(letters: str) -> bool:
    """Whether a gold answer's run of letters is a product of variables, `2RC` or `xyz`, and no word."""
    if len(letters) == 4:
        return letters.isupper()
    return len(letters) < 4 and letters.lower() not in _SHORT_WORDS


def tokens_of(text: str, grouped: bool = True) -> list[Token]:
    """The tokens of an undressed text; with `grouped` commas outside brackets can group digits in threes.

    Raises ValueError for a character that no answer holds.

    >>> [(token.kind, token.text) for token in tokens_of("1,234 cm")]
    [('number', '1,234'), ('word', 'cm')]
    >>> [token.text for token in tokens_of("(1,234)")]
    ['(', '1', ',', '234', ')']
    """
    grouped = grouped and not _UNGROUPED.search(text)
    found: list[Token] = []
    at, depth, roman, spaced = 0, 0, False, False
    while at < len(text):
        character = text[at]
        if character in _SPACING or character == THOUSANDS:
            spaced, at = True, at + 1
            continue
        if character in (TEXT, END_TEXT):
            roman, at = character == TEXT, at + 1
            continue
        match = _TOKEN.match(text, at) or _UNCASED_WORD.match(text, at)
        if match is None:
            raise ValueError(f"`{character}` is no part of an answer")
        if match.lastgroup in ("grouped", "by") and not _groups(match, grouped, depth):
            match = _PLAIN_NUMBER.match(text, at)
            assert match is not None
        token = _token(match, spaced, roman)
        if token.kind == "sign":
            depth += {"(": 1, "[": 1, "\\{": 1, ")": -1, "]": -1, "\\}": -1}.get(token.text, 0)
        found.append(token)
        at, spaced = match.end(), False
        if len(found) > MAX_TOKENS:
            raise TooLarge("it is longer than an answer")
    return found


_UNGROUPED = re.compile(r"\d,(?!\s|\d{3}(?!\d))", re.ASCII)  # a comma that groups nothing: no comma does
_PLAIN_NUMBER = re.compile(r"(?P<number>\d+(?:\.\d+)?)", re.ASCII)


def _groups(match: re.Match[str], grouped: bool, depth: int) -> bool:
    by = match["by"]
    if by == ",":
        return grouped and depth == 0
    return by != " " or match.string[match.end() : match.end() + 2].lstrip()[:1] not in ("/", "\\")


def _token(match: re.Match[str], spaced: bool, roman: bool) -> Token:
    kind, text = match.lastgroup, match.group()
    if kind in ("grouped", "by"):
        digits = text.replace(match["by"], "")
        return Token("number", text, Fraction(digits), spaced, roman)
    if kind == "number":
        return Token("number", text, _decimal(text), spaced, roman)
    if kind == "letters":
        return _letters(text, spaced, roman)
    if kind == "repeating":
        return Token("number", text, _repeating(text), spaced, roman)
    if kind == "vulgar":
        return Token("vulgar", text, _VULGAR[text], spaced, roman)
    if kind == "command":
        return _command(text[1:], spaced, roman)
    if kind in ("sign", "escaped", "relation", "newline"):
        return Token("relation" if kind == "relation" else "sign", text, None, spaced, roman)
    return Token("word", text, None, spaced, roman)


def _letters(text: str, spaced: bool, roman: bool) -> Token:
    if len(text) == 1:
        return Token("name", text, None, spaced, roman)
    if text in FUNCTIONS and text not in ("min", "sec"):
        return Token("function", FUNCTIONS[text], None, spaced, roman)
    if text in ("pi", "infty", "inf", "infinity", "sqrt"):
        return Token("command", {"inf": "infty", "infinity": "infty"}.get(text, text), None, spaced, roman)
    return Token("word", text, None, spaced, roman)


_COMMAND_SIGNS = {
    "le": "<=", "leq": "<=", "leqslant": "<=", "ge": ">=", "geq": ">=", "geqslant": ">=", "lt": "<", "gt": ">",
    "ne": "!=", "neq": "!=",
}  # fmt: skip
_PLAIN_SIGNS = {
    "lbrace": "\\{", "rbrace": "\\}", "lbrack": "[", "rbrack": "]", "vert": "|", "lvert": "|", "rvert": "|", "mid": "|",
    "colon": ":", "ast": "*", "percent": "\\%", "dollar": "\\$", "pounds": "£", "euro": "€",
}  # fmt: skip


def _command(name: str, spaced: bool, roman: bool) -> Token:
    if name in _COMMAND_SIGNS:
        return Token("relation", _COMMAND_SIGNS[name], None, spaced, roman)
    if name in _PLAIN_SIGNS:
        return Token("sign", _PLAIN_SIGNS[name], None, spaced, roman)
    if name in GREEK:
        return Token("name", "\\" + name, None, spaced, roman)
    if name in FUNCTIONS:
        return Token("function", FUNCTIONS[name], None, spaced, roman)
    return Token("command", name, None, spaced, roman)


@lru_cache(maxsize=4096)
def _decimal(text: str) -> Fraction:
    digits, _, exponent = text.replace("E", "e").partition("e")
    if exponent and (len(exponent) > 6 or abs(int(exponent)) > MAX_EXPONENT):
        raise TooLarge(f"the exponent is beyond ±{MAX_EXPONENT}")
    number = Fraction(digits)
    return number * Fraction(10) ** int(exponent) if exponent else number


def _repeating(text: str) -> Fraction:
    """The exact value of a decimal that repeats its period for ever.

    >>> _repeating(r"0.1\\overline{6}")
    Fraction(1, 6)
    """
    plain, _, period = text.rstrip("}").partition("\\overline")
    period = period.lstrip(" {")
    whole, _, fixed = plain.partition(".")
    if not period.strip("0") or not period.strip("9"):
        raise ValueError("a decimal that repeats 0 or 9 is no final form")
    before, digits = int(whole + fixed or "0"), int(whole + fixed + period)
    return Fraction(digits - before, 10 ** len(fixed) * (10 ** len(period) - 1))


def _vulgar() -> dict[str, Fraction]:
    parts = "1/4 1/2 3/4 1/7 1/9 1/10 1/3 2/3 1/5 2/5 3/5 4/5 1/6 5/6 1/8 3/8 5/8 7/8"
    return dict(zip("¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞", map(Fraction, parts.split(" ")), strict=True))


_VULGAR = _vulgar()
