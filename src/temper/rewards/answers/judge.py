r"""Is an answer the gold answer? Gold answers are read once; what a model writes is read in their light.

    gold = read_gold(r"\frac{\sqrt{3}}{3}")
    answer_of(gold, r"so $x = \boxed{\frac{1}{\sqrt3}}$.").right    # True

Nothing of a model's text is evaluated beyond one bounded normal form; the time is bounded whatever the text.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache

from temper.rewards.answers.boxes import boxes_of, has_box
from temper.rewards.answers.forms import has_fraction, has_function, has_number_power, names_in
from temper.rewards.answers.layout import MAX_CHARACTERS, undress, words_of
from temper.rewards.answers.light import in_light
from temper.rewards.answers.parser import Node
from temper.rewards.answers.read import Reader
from temper.rewards.answers.retold import retellings
from temper.rewards.answers.ring import bounded
from temper.rewards.answers.units import NOTHING, on_one_line
from temper.rewards.answers.values import Number, Relation, Several, Value, Words, same
from temper.rewards.answers.words import (
    choice,
    choice_with_text,
    date_of,
    gold_words,
    plain_words,
    says_option,
    time_of,
)

_ONLY_WORDS = re.compile(r"[^\W\d_][^\W\d_'\-. ]*(?:[ '\-.]+[^\W\d_]+)*\.?")
_LETTERS = re.compile(r"[A-Za-z](?:\s*-\s*[A-Za-z])+")  # p - q is a difference
_PHANTOM = re.compile(r"\\phantom\s*(?:\{[^{}]*\}|.)")
_NAMED = re.compile(r"\\(?:overline|angle|triangle|widehat)(?![A-Za-z])")  # the segment CD
_LOOSE_SPACE = re.compile(r"[ \t\r\n]+(?=\W|$)|(?<=\W)[ \t\r\n]+")
ANSWER_WORK = 1_500  # products of terms that one verdict may take: some ten milliseconds
GOLD_WORK = 100_000
_NO_FORM = "it is no final form: no value, no choice, no few words ({})"
_FRACTION = re.compile(r"-?(?:\d+/\d+|\\[dt]?frac\{\d+\}\{\d+\})")
_DECIMAL = re.compile(r"-?[\d,]*\.?\d+")
_ECHO = 6  # characters from which on an expression that stands in the question is a copy of it


@dataclass(frozen=True)
class Gold:
    """A gold answer: its text, its value, and what that says about how an answer is to be read."""

    text: str
    value: Value
    names: frozenset[str] = frozenset()
    units: frozenset[str] = frozenset()
    powers: bool = False
    functions: bool = False
    fractions: bool = False
    written: tuple[Node, ...] = field(default=(), repr=False)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model answered, in the light of the gold answer. Two answers are equal where a majority should count them
    as one: the same value, the gold answer's unit and variable given or left out."""

    value: Value
    right: bool
    apart: tuple[object, ...] = ()  # a unit, a variable, a percent sign that the gold answer does not have

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Answer):
            return NotImplemented
        return (self.right, self.apart) == (other.right, other.apart) and (self.right or same(self.value, other.value))

    def __hash__(self) -> int:
        return hash((type(self.value).__name__, self.right, self.apart))


@lru_cache(maxsize=4096)
def read_gold(text: str) -> Gold:
    r"""A gold answer in its final form. Raises ValueError with the reason where it cannot be verified.

    >>> read_gold(r"\$1,234.50").value.around.unit
    (('USD', 1),)
    >>> read_gold("so many things could be said here about it")
    Traceback (most recent call last):
        ...
    ValueError: it is no final form: no value, no choice, no few words (a sentence, or numbers in words)
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"it is longer than {MAX_CHARACTERS} characters")
    plain = on_one_line(undress(_PHANTOM.sub("", _unboxed(text.strip())))).removeprefix("\\approx")
    said = words_of(plain)
    value = _gold_words(text, said)
    if value is not None:
        return Gold(text, value)
    try:
        return _read_gold(text, plain)
    except (ValueError, ZeroDivisionError, RecursionError) as error:
        words = gold_words(_NAMED.sub("", said))
        if words:
            return Gold(text, Words("words", (words,)))
        for other in retellings(plain):
            with contextlib.suppress(ValueError, ZeroDivisionError, RecursionError):
                return _gold_words_of(text, other) or _read_gold(text, other)
        raise ValueError(_NO_FORM.format(error)) from None


def _read_gold(text: str, plain: str) -> Gold:
    reader = Reader(gold=True, units_by_letter="$" not in text)
    with bounded(GOLD_WORK):
        return _gold_of(text, reader.text(plain), reader)


def _gold_words_of(text: str, other: str) -> Gold | None:
    words = gold_words(words_of(other))
    return Gold(text, Words("words", (words,))) if words and len(words) > 1 else None


def same_gold(one: str, other: str) -> bool:
    """Whether two ways of writing a gold answer say the same, each taken as the gold answer of the other.

    >>> same_gold("1/2", r"\\frac{1}{2}"), same_gold("5 cm", "5"), same_gold("5 cm", "5 m")
    (True, True, False)
    """
    if one == other:
        return True
    try:
        mine, others = read_gold(one), read_gold(other)
        with bounded(ANSWER_WORK):
            return in_light(mine.value, others.value, "")[2] or in_light(others.value, mine.value, "")[2]
    except (ValueError, ZeroDivisionError, RecursionError):
        return False


def _unboxed(text: str) -> str:
    boxed = boxes_of(text) if has_box(text) else []
    return boxed[0].content if len(boxed) == 1 and text.startswith("\\") and text.endswith("}") else text


def _gold_words(text: str, said: str) -> Value | None:
    """The gold answer as words, where it holds nothing else."""
    letter = choice(said) if len(said) > 1 or said.isupper() else ""
    if letter:
        return Words("choice", (letter,))
    letter, _ = choice_with_text(said)
    if letter:
        return Words("choice", (letter,))
    for form, parts in (("time", time_of(said)), ("date", date_of(said))):
        if parts:
            return Words(form, parts)
    if (
        _ONLY_WORDS.fullmatch(said)
        and not _LETTERS.fullmatch(said)
        and (len(said) > 4 or "$" not in text)
        and len(said) > 1
        and said not in ("pi",)
    ):
        words = gold_words(said)
        if not words:
            raise ValueError(_NO_FORM.format("a sentence, or numbers in words"))
        return Words("words", (words,))
    return None


def _gold_of(text: str, value: Value, reader: Reader) -> Gold:
    written = tuple(reader.written)
    return Gold(
        text,
        value,
        names=frozenset().union(*(names_in(node) for node in written), _names(value)),
        units=frozenset(name for name, _ in value.around.unit),
        powers=any(has_number_power(node) for node in written),
        functions=any(has_function(node) for node in written),
        fractions=any(has_fraction(node) for node in written),
        written=written,
    )


def _names(value: Value) -> frozenset[str]:
    items = value.items if isinstance(value, Several) else ()
    return frozenset(name for name in (value.name, *(item.name for item in items)) if len(name) == 1)


def answer_of(gold: Gold, text: str, question: str = "") -> Answer | None:
    r"""What a model answered, None where that is not one final form.

    >>> gold = read_gold("x = 5")
    >>> [answer_of(gold, text).right for text in ("5", r"so \boxed{x=5}", "5.0", "y = 5")]
    [True, True, True, False]
    >>> answer_of(gold, "4 or 5").right, answer_of(gold, "2+3")
    (False, None)
    """
    try:
        with bounded(ANSWER_WORK):
            return _answer(gold, text, question)
    except (ValueError, ZeroDivisionError, RecursionError):
        return None


def final_form(gold: Gold, text: str, question: str = "") -> str | None:
    r"""The text of the one final form that a model answered with, None where it is none; right or wrong.

    >>> gold = read_gold("5")
    >>> final_form(gold, r"so $x = \boxed{7}$."), final_form(gold, "2+3")
    ('7', None)
    """
    if answer_of(gold, text, question) is None:
        return None
    if not has_box(text):
        return words_of(undress(text))
    box = boxes_of(text, question)[0]
    return box.money + box.content + box.unit


def _answer(gold: Gold, text: str, question: str) -> Answer | None:
    if has_box(text):
        return _boxed_answer(gold, text, question)
    if len(text) > MAX_CHARACTERS:
        return None
    return _unless_copied(gold, text, question, _read(gold, text.strip(), question))


def _boxed_answer(gold: Gold, text: str, question: str) -> Answer | None:
    boxes = boxes_of(text, question)
    if not boxes or _echoes(text, question, boxes[0].content):
        return None
    found = [_read(gold, box.money + box.content + box.unit, question) for box in dict.fromkeys(boxes)]
    if any(answer != found[0] for answer in found[1:]):
        return None
    return _unless_copied(gold, boxes[0].content, question, found[0])


def _echoes(text: str, question: str, content: str) -> bool:
    """Whether the box is one of the question's own, said again with what stands around it."""
    if "boxed" not in question or f"boxed{{{content}}}" not in question.replace(" ", ""):
        return False
    if len(text) > MAX_CHARACTERS:
        return True
    return len("".join(undress(text).split())) > len("".join(content.split())) + len("\\boxed{}.")


def _unless_copied(gold: Gold, text: str, question: str, answer: Answer) -> Answer:
    """What stands in the question is no answer where the gold answer is written in another way: an expression, an
    equation, a fraction for a decimal, a number where a fraction or a power of ten is asked for."""
    if not answer.right or not isinstance(answer.value, Number | Relation) or not question:
        return answer
    said = "".join(text.split()).strip("$.")
    if said not in "".join(question.split()) or said in "".join(gold.text.split()):
        return answer
    copied = _is_copy(said, gold, question) if isinstance(answer.value, Number) else True
    return replace(answer, right=False, apart=("copied",)) if copied else answer


def _is_copy(said: str, gold: Gold, question: str) -> bool:
    if _FRACTION.fullmatch(said):
        return not gold.fractions
    if _DECIMAL.fullmatch(said):
        asked = (gold.fractions and "fraction" in question) or (gold.powers and "scientific" in question)
        return asked
    return len(said) >= _ECHO and ("sqrt" in said or any(sign in said[1:] for sign in "+-*/^("))


def _read(gold: Gold, text: str, question: str) -> Answer:
    """One final form. Raises ValueError where it is none."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError("it is longer than a final form")
    plain = on_one_line(undress(text))
    if _together(plain) == _squeezed(gold.text):  # written like the gold answer
        return Answer(replace(gold.value, name="", around=NOTHING), True)
    if isinstance(gold.value, Words) and gold.value.form not in ("base", "infinity"):
        return _words_answer(gold, gold.value, _NAMED.sub("", words_of(plain)), question)
    reader = Reader(
        names=gold.names,
        units=gold.units,
        powers=gold.powers,
        functions=gold.functions,
        vulgar=gold.fractions,
        commas=isinstance(gold.value, Several) and not _is_grouped(plain, gold),
        question=question,
    )
    value = reader.text(plain)
    value, apart, right = in_light(gold.value, value, question)
    return Answer(value, right, apart)


@lru_cache(maxsize=4096)
def _squeezed(text: str) -> str:
    return _together(on_one_line(undress(text)))


def _together(text: str) -> str:
    """White space out, but for what keeps two words or numbers apart."""
    return _LOOSE_SPACE.sub("", text)


def _is_grouped(plain: str, gold: Gold) -> bool:
    """Whether some item of the gold answer is written with commas in its number."""
    return bool(re.search(r"\d,\d{3}(?!\d)", gold.text)) and ", " in plain


def _words_answer(gold: Gold, wanted: Words, said: str, question: str) -> Answer:
    if not said:
        raise ValueError("there is nothing")
    parts: tuple[str, ...] | None
    if wanted.form == "choice":
        letter = choice(said)
        if not letter:
            letter, rest = choice_with_text(said)
            if not letter and re.match(r"[(\[]?[A-J][)\]]?\s", said):
                letter, rest = said.strip("([")[0], said.strip("([")[1:].lstrip(")] ")
            if not letter or not (says_option(question, letter, rest) or _is_gold_text(gold, rest)):
                raise ValueError("it is no choice")
        parts = (letter,)
    elif wanted.form in ("time", "date"):
        parts = time_of(said) if wanted.form == "time" else date_of(said)
        if parts is None:
            parts = (plain_words(said),)
    else:
        parts = (plain_words(said),)
    value = Words(wanted.form, parts)
    return Answer(value, same(value, wanted))


def _is_gold_text(gold: Gold, rest: str) -> bool:
    _, text = choice_with_text(words_of(undress(gold.text)))
    return bool(text) and "".join(text.split()) == "".join(rest.split())
