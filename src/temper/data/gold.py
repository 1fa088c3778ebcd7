r"""Gold answers: the final form inside a worked solution, checked to be one when the file is read.

GSM8K writes it after `####`, MATH in `\boxed{…}`; anything else must be a final form as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from temper.data.findings import clip
from temper.rewards.answers import read_gold, same_gold
from temper.rewards.answers.values import Words
from temper.rewards.answers.words import numerals_in

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_BARE = re.compile(r"\s*([^\s\\{}$]+)")  # MATH has a few `\boxed 5`
_OPENING = re.compile(r"\s*\{")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_WORKING = re.compile(r"<<[^<>]*>>")  # GSM8K's calculator annotations
_TAGS = re.compile(r"<\s*/?\s*(?:think|answer)\s*/?\s*>", re.IGNORECASE)


def gold_of(text: str, answer_type: str = "math") -> str:
    r"""The gold answer that a data file gives, in its final form. Raises ValueError with the reason why it is none.

    >>> gold_of("He pays 48/2 = <<48/2=24>>24 dollars.\n#### $1,024"), gold_of(r"so \boxed{\frac{1}{2}}.")
    ('$1,024', '\\frac{1}{2}')
    >>> gold_of("Paris ", "text")
    'Paris'
    """
    gold = text.strip() if answer_type == "text" else _final_form(text)
    tag = _TAGS.search(gold)
    if tag:
        raise ValueError(f"it holds the tag `{tag.group()}`, which no reply can answer with")
    if answer_type == "math":
        read_gold(gold)
    return gold


def number_in_words(gold: str) -> str:
    """The words of a "math" gold answer where they hold a number in words, which only the same words match; else "".

    >>> number_in_words("one half maybe"), number_in_words("no solution"), number_in_words("1/2")
    ('one half maybe', '', '')
    """
    value = read_gold(gold).value
    said = value.parts[0] if isinstance(value, Words) and value.form == "words" else ""
    return said if numerals_in(said) else ""


def agree(one: str, other: str) -> bool:
    r"""Whether two columns give one answer.

    >>> agree("72", "24+48 = 72\n#### 72"), agree("72", "73")
    (True, False)
    """
    try:
        return same_gold(gold_of(one), gold_of(other))
    except ValueError:
        return one.strip() == other.strip()


def disagree(answer: str, solution: str) -> str:
    r"""The final form of a worked solution, where it is surely another than the answer; "" otherwise.

    >>> disagree("5", r"so \boxed{6}."), disagree("5", r"so \boxed{5}."), disagree("5", "see above")
    ('6', '', '')
    """
    if "####" not in solution and not _BOX.search(solution):
        return ""
    try:
        one, other = gold_of(answer), gold_of(solution)
    except ValueError:
        return ""
    return "" if same_gold(one, other) else other


def _final_form(text: str) -> str:
    marks, boxes = text.count("####"), list(boxed(text))
    if marks > 1:
        raise ValueError(f"it has {marks} `####`, and the answer could stand after each")
    candidates = [_after_mark(text)] if marks else []
    candidates += boxes
    if not candidates:
        return text.strip()
    if not all(same_gold(candidates[0], one) for one in dict.fromkeys(candidates)):
        listed = ", ".join(f"`{clip(one, 30)}`" for one in dict.fromkeys(candidates))
        raise ValueError(f"it gives several answers: {listed}")
    return candidates[0]


def _after_mark(text: str) -> str:
    tail = _WORKING.sub("", text.partition("####")[2]).strip()
    if not tail:
        raise ValueError("nothing stands after `####`")
    if "\n" in tail:
        raise ValueError(f"the answer after `####` goes on over several lines: `{clip(tail)}`")
    inner = list(boxed(tail))
    return inner[0] if len(inner) == 1 else tail


def boxed(text: str) -> Iterator[str]:
    r"""What stands in each `\boxed{…}`, a box in a box opened. Raises ValueError for an empty or unclosed one.

    >>> list(boxed(r"\boxed{\frac{1}{2}} and \boxed 5$"))
    ['\\frac{1}{2}', '5']
    """
    at = 0
    while start := _BOX.search(text, at):
        content, at = _content(text, start.end())
        inner = _BOX.match(content)
        if inner:
            content, _ = _content(content, inner.end())
        if not content:
            raise ValueError(r"a `\boxed` is empty")
        yield content


def _content(text: str, at: int) -> tuple[str, int]:
    """What a box that opens at `at` holds, and where it ends."""
    opening = _OPENING.match(text, at)
    if not opening:
        bare = _BARE.match(text, at)
        if not bare:
            raise ValueError(r"a `\boxed` is followed by nothing")
        return bare.group(1).rstrip(".,;:"), bare.end()
    depth = 1
    for brace in _BRACES.finditer(text, opening.end()):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if not depth:
            return text[opening.end() : brace.start()].strip(), brace.end()
    raise ValueError(r"a `\boxed{` is never closed")
