r"""The one `\boxed{…}` of an answer, and whether it may speak for the whole answer.

What stands in the box is the answer; words around it are let through. Nothing there may change the value
(`-\boxed{5}`, `\boxed{5}\%`), offer another (`4 or \boxed{5}`), or take it back (`not \boxed{5}`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from temper.rewards.dress import MAX_CHARACTERS, plain_latex
from temper.rewards.units import CHANGING_WORDS, HEDGING, NUMBER_WORDS

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_MAX_WORDS = 10_000  # characters around a box: an answer is short, and the time is bounded
_NEARBY = 200  # characters beside a box that decide whether it stands by itself
_TRAILING_DRESS = re.compile(r"(?:[\s$*`~]|\\[(\[]|\\(?:quad|qquad|,|;|:|displaystyle))+$")
_LEADING_DRESS = re.compile(r"^(?:[\s$*`~]|\\[)\]]|\\(?:quad|qquad|,|;|:))+")
_LAST_WORD = re.compile(r"\\?[^\W\d_]+(?:['’][^\W\d_]+)*$")
_WORDS = re.compile(r"[^\W\d_]+")
_OTHER_ANSWER = re.compile(r"\d|\?")
_DENIAL = re.compile(r"\b(?:not|no|never|nicht|kein\w*|wrong|falsch)\b|n['’]t\b", re.IGNORECASE)
_NEGATED = re.compile(rf"(?:{_DENIAL.pattern})[^.!?;:]{{0,40}}$", re.IGNORECASE)
_COPULAS = frozenset({"is", "are", "be", "equals", "ist", "sind", "gleich"})
_CONCLUDING = frozenset({"\\implies", "\\therefore", "\\Rightarrow", "\\Longrightarrow", "\\rightarrow", "\\to"})


@dataclass(frozen=True)
class Box:
    """`before`, the box with its `content`, `after`: the whole answer."""

    before: str
    content: str
    after: str


def find_box(text: str) -> Box | None:
    r"""The box of `text`, None where there is none. Raises ValueError for several, and for one that is not closed.

    >>> find_box(r"x = \boxed{\frac{1}{2}}.")
    Box(before='x = ', content='\\frac{1}{2}', after='.')
    """
    found = _BOX.search(text) if "box" in text else None
    if found is None:
        return None
    if _BOX.search(text, found.end()):
        raise ValueError("there are several boxes")
    opened = re.compile(r"\s{0,20}\{").match(text, found.end())
    if opened is None:
        raise ValueError("a box has no braces")
    depth = 1
    for brace in _BRACES.finditer(text, opened.end(), opened.end() + MAX_CHARACTERS):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return Box(text[: found.start()], text[opened.end() : brace.start()], text[brace.end() :])
    raise ValueError("a box is not closed, or holds more than a final form")


def stands_alone(box: Box) -> bool:
    r"""Whether only words that leave the value as it is stand around the box.

    >>> stands_alone(Box("so 2 + 3 = ", "5", ".")), stands_alone(Box("4 or ", "5", ""))
    (True, False)
    """
    if len(box.before) + len(box.after) > _MAX_WORDS:
        return False
    if HEDGING.search(box.before) or HEDGING.search(box.after) or _OTHER_ANSWER.search(box.after):
        return False
    before = _TRAILING_DRESS.sub("", plain_latex(box.before[-_NEARBY:]))
    after = _LEADING_DRESS.sub("", plain_latex(box.after[:_NEARBY]))
    return _may_precede(before, box.before) and _may_follow(after)


def _may_precede(before: str, whole: str) -> bool:
    word = _LAST_WORD.search(before)
    if word:
        return _joins(word.group(), before[: word.start()]) and not _NEGATED.search(before)
    last, second = before[-1:], before[-2:-1]
    if last == "=":
        return second not in tuple("<>!~:=≠≈")
    if last and last in ".,:;":
        return not second.isnumeric() or (last == "." and whole[-1:].isspace())
    return not last or last in "!⇒→∴"


def _joins(word: str, before: str) -> bool:
    """Whether a box may follow the word: a LaTeX arrow, a copula, or a word that has no bearing on numbers."""
    if word.startswith("\\"):
        return word in _CONCLUDING
    if word.casefold() == "to":  # "simplifies to", but not "4 to"
        return before.rstrip()[-1:].isalpha()
    return len(word) > 1 and (word.casefold() in _COPULAS or not CHANGING_WORDS.intersection(_parts(word)))


def _may_follow(after: str) -> bool:
    words = [part for word in _WORDS.findall(after) for part in _parts(word)]
    if _DENIAL.search(after) or NUMBER_WORDS.intersection(words):
        return False
    if after[:1].isalpha():
        return words[0] in _COPULAS or words[0] not in CHANGING_WORDS
    return not after or after[0] in ".,;(:"


def _parts(word: str) -> list[str]:
    return re.split("['’]", word.casefold())
