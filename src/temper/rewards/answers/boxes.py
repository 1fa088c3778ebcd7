r"""The boxes of an answer: what they hold, and whether a mark attached to one changes it.

What stands in the box is the answer; prose around it is not read. Attached is what belongs to the same formula: signs,
digits, letters, operators, powers, roots and fractions around it (`-\boxed{5}`, `\boxed{5}^2`), a number in words
beside it. A unit or a percent sign behind the box is read with it.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from temper.rewards.answers.layout import MAX_CHARACTERS
from temper.rewards.answers.units import canonical
from temper.rewards.answers.words import is_numeral

MAX_BOXES = 40
_NEAR = 300  # characters beside a box that decide whether it stands by itself
_COMMANDS = ("\\boxed", "\\fbox")
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_OPENING = re.compile(r"\s{0,20}\{")
_BARE = re.compile(r"\s+(-?\d+|[A-Za-z])(?![\w.^/])")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_BLANK = re.compile(r"(?:\s|\\phantom\{[^{}]*\}|\\(?:quad|qquad|text\{\s*\}|,|;|!)|~|_|\\_)*")
_ROUNDED = re.compile(r"\b(?:approximat\w*|round\w*|nearest|estimate\w*|decimal places?|significant)\b", re.IGNORECASE)
_TYPE_SETTING = (
    "text textbf textit textrm mathbf mathrm boldsymbol bm large Large LARGE huge Huge displaystyle underline color "
    "textcolor colorbox centerline mbox hbox ensuremath"
)
_WRAPPERS = frozenset(_TYPE_SETTING.split())
_DEGREE = re.compile(r"\^\s*\{?\s*\\circ(?![A-Za-z])\s*\}?")
_TYPE = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:bf|rm)|boldsymbol|bm|(?:text)?color\s*\{\w+\})\s*\{$")
_OTHER_BEFORE = re.compile(r"\d\s*\$?(?:\s*,)?\s*(?:or|and|to|oder|und|bis|y|ou|,)\s*$", re.IGNORECASE)
_OTHER_BEHIND = re.compile(r"\s*[$)]?\s*,?\s*(?:(?:or|and|to|oder|und|bis|y|ou)\s|,\s*)\s*\$?-?\d", re.IGNORECASE)
_ARROWS = "implies Rightarrow Longrightarrow rightarrow longrightarrow to therefore iff Leftrightarrow "
_CONCLUDING = frozenset((_ARROWS + "quad qquad displaystyle large Large LARGE huge Huge bf hspace").split())
_ENDS = (
    "end quad qquad blacksquare square qed Box checkmark tag approx implies Rightarrow hfill newline Longrightarrow to "
    "therefore because"
)
_CLOSING = frozenset(_ENDS.split())
_BEFORE_SKIP = re.compile(r"(?:[ \t\n]|\\[,;:! ]|\\q?quad|\\displaystyle|\\left|\\(?:L|l)arge|\{|\(|[*_`]|~)$")
_GOES_ON = re.compile(
    r"\s*(?:\[[^\]]{0,9}\])?\s*&?\s*(?:[-+*/^_!\d]|\\(?:times|cdot|div|pm|mp|frac|sqrt|pi)(?![A-Za-z]))"
)
_QUOTED = re.compile(r"(?:^|\n)[ \t]{0,3}(?:>|\|[^\n]*\|)$")  # a quotation, a cell of a table in Markdown
_MODULUS = re.compile(r"\\pmod\s*\{?\s*\d+\s*\}?\s*(?:$|[$.\\)\]\n,;])")
_SETTING = re.compile(r"\\(?:text|mathrm|textrm|textbf|mbox|rm)\s*\{([^{}]*)\}|\\q?quad(?![A-Za-z])|\\[,;:! ]|~")
_GOES_ON_BEHIND = re.compile(r"[.,](?:\\[,;:! ]|~|\{\})*(?:[0-9]|\\(?:overline|dot|bar|ddot|[dt]?frac)(?![A-Za-z]))")
_ASCII_LETTER = re.compile(r"[A-Za-z]")
_WORD_BEFORE = re.compile(r"([^\W\d_]+)(['’][^\W\d_]+)?$")
_PHRASE = re.compile(
    r"(?:\\(?:text|mathrm|textrm|mbox|rm)\s*\{[^{}]{0,60}\}"
    r"|[^\W\d_]|[/^{}°%²³]|\\circ|\\cdot|\d(?<=\^\d)|\d(?<=\{\d)|-\d| )+"
)
_UNIT_PHRASE = re.compile(
    r"(?:square|cubic|sq\.?|cu\.?)?\s*[A-Za-z]+(?:\s*\^\s*\{?-?\d\}?|[²³])?"
    r"(?:\s*(?:/|per)\s*[A-Za-z]+(?:\^\{?\d\}?|[²³])?)?"
)
_OPEN_QUOTES = "\"'”’」』)。，、；：！…✅✓⇒→≈|?"
_BEFORE_SIGNS = "#&\"'⇒→∴：，。、；“”‘’…✅—⟹⟶"
_TEXTS = re.compile(r"\\(?:text|mathrm|textrm|textbf|mbox|rm)\s*\{([^{}]*)\}")


@dataclass(frozen=True)
class Box:
    r"""`content`, and `unit`: what stands directly behind the box and belongs to its value; `money` in front of it."""

    content: str
    unit: str = ""
    money: str = ""


def boxes_of(text: str, question: str = "") -> list[Box]:
    r"""The boxes of an answer, blanks of the question's own left out. Raises ValueError for one that is empty or not
    closed, and where a mark changes one.

    >>> boxes_of(r"so $x = \boxed{\frac{1}{2}}$.")
    [Box(content='\\frac{1}{2}', unit='', money='')]
    >>> boxes_of(r"-\boxed{5}")
    Traceback (most recent call last):
        ...
    ValueError: a mark is attached to the box
    """
    found: list[Box] = []
    at = 0
    while (span := _next_box(text, at)) is not None:
        start, inside = span
        content, at = _content(text, inside)
        if _BLANK.fullmatch(content):
            if "boxed" in question and content in question:
                continue  # the blank of "4 + \boxed{\phantom{2}} = 7"
            raise ValueError("a box is empty")
        if len(found) >= MAX_BOXES:
            raise ValueError("there are too many boxes")
        found.append(_standing(text, start, at, content, question))
    return found


def has_box(text: str) -> bool:
    """Whether there is a box at all, whole or not."""
    return _next_box(text, 0) is not None


def _next_box(text: str, at: int) -> tuple[int, int] | None:
    """Where the next box command begins and ends; found by plain search, so that long texts take no time."""
    nearest: tuple[int, int] | None = None
    for command in _COMMANDS:
        start = text.find(command, at)
        while start >= 0:
            end = start + len(command)
            if not (text[end : end + 1].isascii() and text[end : end + 1].isalpha()):
                break
            start = text.find(command, end)
        if start >= 0 and (nearest is None or start < nearest[0]):
            nearest = (start, start + len(command))
    return nearest


def _content(text: str, at: int) -> tuple[str, int]:
    opened = _OPENING.match(text, at)
    if opened is None:
        bare = _BARE.match(text, at)
        if bare is None:
            raise ValueError("a box has no braces")
        return bare[1], bare.end()
    depth = 1
    for brace in _BRACES.finditer(text, opened.end(), opened.end() + MAX_CHARACTERS):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            inner = text[opened.end() : brace.start()].strip()
            nested = _BOX.match(inner)
            if nested:
                content, end = _content(inner, nested.end())
                if inner[end:].strip():
                    raise ValueError("something stands beside a box in a box")
                return content, brace.end()
            if _BOX.search(inner):
                raise ValueError("a box stands inside a formula in a box")
            return inner, brace.end()
    raise ValueError("a box is not closed, or holds more than a final form")


def _standing(text: str, start: int, end: int, content: str, question: str) -> Box:
    before, after = text[max(0, start - _NEAR) : start], text[end : end + _NEAR]
    in_math = _in_math(text, start)
    depth = _wrapped(text, start)
    if _OTHER_BEFORE.search(_spoken(before[-60:])[-24:]) or _OTHER_BEHIND.match(_spoken(after[:60])[:24]):
        raise ValueError("another value is joined to the box")
    money = _check_before(before, in_math, question)
    return Box(content, _unit_behind(after, in_math, before, depth), money)


def _spoken(near: str) -> str:
    r"""A text without what only sets it: `\quad\text{ or }` is "or"."""
    return _SETTING.sub(lambda found: found[1] or " ", near)


def _in_math(text: str, at: int) -> bool:
    doubled = text.count("$$", 0, at)
    single = text.count("$", 0, at) - 2 * doubled - text.count("\\$", 0, at)
    if doubled % 2 or single % 2:
        return True
    for opening, closing in (("\\(", "\\)"), ("\\[", "\\]"), ("\\begin{", "\\end{")):
        opened = text.rfind(opening, max(0, at - 5_000), at)
        if opened >= 0 and text.find(closing, opened, at) < 0:
            return True
    return False


def _wrapped(text: str, at: int) -> int:
    """How many braces are open around the box. Raises ValueError where one does more than to set its type: bold, large,
    coloured."""
    start = max(text.rfind("\n\n", 0, at), at - 2_000, 0)
    stack: list[int] = []
    for brace in _BRACES.finditer(text, start, at):
        if brace.group() == "{":
            stack.append(brace.start())
        elif brace.group() == "}" and stack:
            stack.pop()
    for opened in stack:
        before = text[max(start, opened - 60) : opened].rstrip()
        command = re.search(r"\\([A-Za-z]+)(?:\s*\{[a-zA-Z#0-9]*\})?$", before)
        if command:
            if command[1] not in _WRAPPERS:
                raise ValueError("a box stands inside a formula")
        elif before[-1:] in ("}", "^", "_", "]"):
            raise ValueError("a box stands inside a formula")
    return len(stack)


def _check_before(before: str, in_math: bool, question: str) -> str:
    """The money sign in front of a box, if any. Raises ValueError where a mark is attached there."""
    rest, spaced, opened = before, False, False
    while rest:
        last = rest[-1]
        if last == "\n" and (not in_math or opened):
            return ""
        if rest.endswith("\\$"):
            return "\\$"
        if last == "$" or rest.endswith(("\\(", "\\[")):
            if opened or (not in_math and not spaced and last == "$"):
                break
            rest, opened = rest[: -1 if last == "$" and not rest.endswith("$$") else -2], True
            spaced = False
            continue
        if rest.endswith(("\\)", "\\]")):
            break
        if last in ">|" and (opened or not in_math) and _QUOTED.search(rest):
            return ""
        skipped = _TYPE.search(rest) or _BEFORE_SKIP.search(rest)
        if skipped is None:
            break
        if last == "~" and not rest[:-1].endswith(("\\", " ")) and not _ASCII_LETTER.match(rest[-2:-1] or " "):
            break
        spaced = spaced or last in " \t\n"
        rest = rest[: skipped.start()]
        if last == "(" and rest and (rest[-1].isalnum() or rest[-1] in "})"):
            raise ValueError("a mark is attached to the box")
    if rest and not _may_precede(rest, spaced, in_math and not opened, question):
        raise ValueError("a mark is attached to the box")
    return ""


def _may_precede(rest: str, spaced: bool, in_math: bool, question: str) -> bool:
    last = rest[-1]
    command = re.search(r"\\([A-Za-z]+)(\{[^{}]*\})?$", rest)
    if command:
        name = command[1]
        if name in ("equiv", "in"):
            return not command[2]
        if name in ("approx", "simeq", "doteq"):
            return _ROUNDED.search(question) is not None
        if command[2] and name in ("text", "textbf", "mathrm", "textrm", "mbox", "begin", "hspace", "textit"):
            inner = command[2][1:-1].strip()
            word = _WORD_BEFORE.search(inner)
            return name == "begin" or (inner[-1:] not in tuple("-+~<>±/*^") and not (word and is_numeral(word[1])))
        return name in _CONCLUDING
    if last == "=":
        return rest[-2:-1] not in tuple("<>!~:≠≈") or rest.endswith(("\\:=", " :="))
    if last in ".,:;":
        return spaced or not rest[-2:-1].isnumeric()
    if last == "≈":
        return _ROUNDED.search(question) is not None
    word = _WORD_BEFORE.search(rest)
    if word:
        return _word_may_precede(word[1], spaced, in_math)
    if last in ")]}$":
        return spaced and not in_math
    if last == ">":
        return rest.endswith(("=>", "->"))
    return (last in "!?" and spaced) or last in _BEFORE_SIGNS


def _word_may_precede(word: str, spaced: bool, in_math: bool) -> bool:
    if not word.isascii():
        return not is_numeral(word[-1]) and not word[-1].isnumeric() and word[-1] not in "负負减減加乘除约"
    if is_numeral(word) or not spaced or in_math:
        return False
    return len(word) > 1 or word in "aAI"


def _unit_behind(after: str, in_math: bool, before: str, depth: int) -> str:
    """The unit or percent sign that is to be read with the box. Raises ValueError where a mark is attached there."""
    at, spaced, closed = 0, False, False
    emphasis = len(before) - len(before.rstrip("*_` $\n")) > 0
    while at < len(after):
        character = after[at]
        if character == "\n" and (not in_math or closed):
            return ""
        if character in " \t\n":
            spaced, at = True, at + 1
        elif character == "$" or after.startswith(("\\)", "\\]"), at):
            closed, at = True, at + (1 if character == "$" else 2)
        elif character == "}":
            depth, at = depth - 1, at + 1
            if depth < 0:
                raise ValueError("a bracket behind the box closes nothing")
        elif character in ")]" or after.startswith("\\right", at):
            at += 6 if character == "\\" else 1
        elif character in "*_`" and emphasis and after[at : at + 1] in before[-8:]:
            at += 1
        elif re.match(r"\\[,;:! ]|\\q?quad(?![A-Za-z])", after[at:]):
            at += re.match(r"\\[,;:! ]|\\q?quad", after[at:]).end()  # type: ignore[union-attr]
            spaced = True
        else:
            break
    rest = after[at:]
    return _read_behind(rest, spaced, in_math and not closed) if rest else ""


def _read_behind(rest: str, spaced: bool, in_math: bool) -> str:
    first, second = rest[0], rest[1:2]
    if rest.startswith(".."):
        raise ValueError("a mark is attached to the box")
    if _GOES_ON_BEHIND.match(rest) and not (first == "," and spaced):
        raise ValueError("a mark is attached to the box")
    if first in ".,:;→⇒":
        if second.isnumeric() and not (first in ",;" and spaced):
            raise ValueError("a mark is attached to the box")
        return ""
    if first == "\\":
        return _command_behind(rest, spaced, in_math)
    if first.isalpha():
        return _words_behind(rest, spaced, in_math)
    if first == "°":
        return _degree_behind(rest[1:])
    if first in "%€£¥":
        return first
    degree = _DEGREE.match(rest)
    if degree:
        return _degree_behind(rest[degree.end() :])
    if first == "(" and spaced and not in_math:
        return ""
    if first in "-–—":
        if first == "—" or (spaced and re.match(r"[-–—]+\s*[^\W\d_]{2}", rest)):
            return ""
        raise ValueError("a mark is attached to the box")
    if first in _OPEN_QUOTES and not (first == "'" and not spaced) and not (first == "|" and in_math):
        return ""
    if unicodedata.category(first) in ("So", "Pf", "Pe"):
        return ""
    raise ValueError("a mark is attached to the box")


def _command_behind(rest: str, spaced: bool, in_math: bool) -> str:
    if rest.startswith("\\%"):
        return "\\%"
    if rest.startswith("\\$"):
        return "\\$"
    if rest.startswith("\\\\"):  # a line ends here, but what begins the next one may go on with the formula
        if in_math and _GOES_ON.match(rest, 2):
            raise ValueError("a mark is attached to the box")
        return "" if not rest[2:].lstrip().startswith("^") else _read_behind(rest[2:].lstrip(), spaced, in_math)
    text = _TEXTS.match(rest)
    if text:
        inner = text[1].strip()
        behind = rest[text.end() :].lstrip()
        power = re.match(r"\^\s*\{?\d\}?", behind)
        if not inner[:1].isalpha() and inner[:1] != "%":
            return _read_behind(inner, True, False) if inner else ""
        return _words_behind(inner + (power.group() if power else ""), True, False)
    if _MODULUS.match(rest):
        return ""
    command = re.match(r"\\([A-Za-z]+)", rest)
    if command and command[1] in _CLOSING:
        return ""
    if command and command[1] in ("circ", "degree"):
        return _degree_behind(rest[command.end() :])
    raise ValueError("a mark is attached to the box")


def _degree_behind(rest: str) -> str:
    """A degree sign with its C or F, where no mark follows it."""
    scale = rest[:1] if rest[:1] in ("C", "F") else ""
    behind = rest[len(scale) :].lstrip("$})")
    if behind[:1] and (behind[0].isalnum() or behind[0] in "^_!*/+-"):
        raise ValueError("a mark is attached to the box")
    return "^\\circ" + scale


def _words_behind(rest: str, spaced: bool, in_math: bool) -> str:
    """A unit behind the box, "" for prose; a number in words, or letters that belong to the formula, stay with it."""
    word = re.match(r"[^\W\d_]+", rest)
    assert word is not None
    first = word.group()
    if not first.isascii():
        if is_numeral(first):
            raise ValueError("a number in words is attached to the box")
        return next((first[:n] for n in (3, 2, 1) if canonical(first[:n])), "")
    if is_numeral(first) or first.lower() in ("percent", "pct", "percentage") or first.lower() == "per":
        return " " + " ".join(rest[:40].split()[: 2 if first.lower() == "per" else 1])
    if in_math or not spaced:
        phrase = _PHRASE.match(rest)
        return " " * spaced + (phrase.group().strip() if phrase else first)
    known = first.lower() in ("square", "cubic", "sq", "cu", "mph") or (canonical(first) and first != "in")
    if known and (len(first) > 2 or not rest[word.end() :].lstrip()[:1].isalpha()):
        return " " + _unit_phrase(rest)
    if len(first) == 1 and first not in ("a", "A", "I"):
        return " " + first
    return ""


def _unit_phrase(rest: str) -> str:
    """The words from a unit on, as long as they go on being one: `km^2`, `square feet`, `miles per hour`."""
    taken = _UNIT_PHRASE.match(rest)
    return taken.group() if taken else ""
